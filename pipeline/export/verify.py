"""Verification of a release: everything there, unchanged, marked as synthetic, and released under a verdict.

It finds accidents: damage, stale or missing parts. Who changes files on purpose can write a new manifest too.
"""

import hashlib
import json
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from pydantic import ValidationError

from pipeline.audit.policy import Policy, describe_policy, weaker_than_shipped
from pipeline.cohort import digest_file
from pipeline.export.bids import DESCRIPTION
from pipeline.export.gate import VERDICTS, is_reason, one_line
from pipeline.export.generator import GENERATOR_FOLDER, is_planned
from pipeline.export.manifest import CHECKSUM_FILE, MANIFEST_FILE, list_files
from pipeline.layout import DONE_FILE, FINGERPRINT_FILE, FOLDERS, RECORD_KEYS, WEIGHTS_FILE
from pipeline.progress import progress

HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
RECORD_PATTERNS = {
    "fingerprint": HEX_DIGEST,
    "digest": HEX_DIGEST,
    "code": re.compile(r"[\d.]{5,16}(\.?(dev|a|b|rc)\d+)?\+[0-9a-f]{12}"),
    "finished": re.compile(r"[\dT:+-]{1,32}"),
    "seconds": re.compile(r"[\d.]{1,16}"),
}
SUMMARY_KEYS = frozenset({"files", "megabytes", "verdict", "overridden"})
AUDIT_FILE = "audit.json"
# What a release cannot do without, beside its manifest; and where its scans are.
PAGES = ("README.md", "LICENSE.txt", AUDIT_FILE, "croissant.json")
SCANS_FOLDER = "bids"
NIFTI_HEADER_BYTES = 348
GZIP_TRAILER_BYTES = 8
FIRST_READ_BYTES = 4096


@dataclass(frozen=True)
class VerifyResult:
    """What verification found.

    Parameters
    ----------
    problems : list of str
        Each a reason not to use the release; empty if it is intact.
    warnings : list of str
        What a receiver must know, and no damage.
    n_files : int
        Files that the manifest names.
    verdict : str
        The audit's, with the policy it was reached under, in words; empty if the manifest does not tell.
    """

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    n_files: int = 0
    verdict: str = ""


@dataclass(frozen=True)
class FileEntry:
    """One file as the manifest has it."""

    path: str
    sha256: str
    size: int


def verify_release(release: Path) -> VerifyResult:
    """Check a release folder against its manifest.

    Parameters
    ----------
    release : Path
        The folder with ``manifest.json``; only read, file by file, a piece at a time.

    Returns
    -------
    VerifyResult
        Damage of any kind is a problem in it, never an exception.
    """
    result = VerifyResult()
    manifest = _read_json(release / MANIFEST_FILE, result.problems)
    if manifest is None:
        return result
    _check_manifest_checksum(release, result.problems)
    entries = list(_read_entries(manifest, result.problems))
    _check_contents(manifest, entries, result.problems)
    policy = _read_policy(manifest, result.problems)
    _check_verdict(manifest, policy, result)
    audit = _check_audit(release, manifest, result.problems)
    _check_generator(entries, manifest, audit, result.problems)
    _check_record(release, entries, result.problems)
    named = {entry.path for entry in entries}
    extra = sorted(set(list_files(release)) - named)
    result.problems.extend(f"{name!r}: not in the manifest; remove it, or ask for a whole release" for name in extra)
    with progress("verify", len(entries)) as task:
        for entry in entries:
            result.problems.extend(f"{entry.path}: {problem}" for problem in _check_file(release, entry))
            task.advance()
    verdict = "" if policy is None else f"{manifest.get('verdict')} under {describe_policy(policy)}"
    return VerifyResult(result.problems, result.warnings, len(entries), verdict)


def _read_json(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{path.name}: not found; expected it in a release folder")
        return None
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path.name}: damaged ({type(error).__name__}); expected JSON")
        return None
    if not isinstance(content, dict):
        problems.append(f"{path.name}: expected a JSON object, got {type(content).__name__}")
        return None
    return content


def _check_manifest_checksum(release: Path, problems: list[str]) -> None:
    try:
        words = (release / CHECKSUM_FILE).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        problems.append(f"{CHECKSUM_FILE}: not found or damaged; expected the checksum of the manifest")
        return
    if words != [digest_file(release / MANIFEST_FILE), MANIFEST_FILE]:
        problems.append(f"{MANIFEST_FILE}: does not match {CHECKSUM_FILE}; it was changed after the release was made")


def _read_entries(manifest: dict[str, Any], problems: list[str]) -> Iterator[FileEntry]:
    """Yield the entries that can be checked; the others are problems."""
    files = manifest.get("files")
    if not isinstance(files, list) or not files:
        problems.append(f"{MANIFEST_FILE}: no list of files")
        return
    seen: set[str] = set()
    for number, item in enumerate(files, start=1):
        entry = _parse_entry(item)
        if entry is None:
            problems.append(f"{MANIFEST_FILE}: entry {number} is malformed; expected path, sha256 and size")
        elif not _stays_inside(entry.path):
            problems.append(f"{MANIFEST_FILE}: entry {number} leads out of the release; nothing was read there")
        elif entry.path in seen:
            problems.append(f"{MANIFEST_FILE}: entry {number} names a file a second time")
        else:
            seen.add(entry.path)
            yield entry


def _parse_entry(item: object) -> FileEntry | None:
    if not isinstance(item, dict):
        return None
    path, sha256, size = item.get("path"), item.get("sha256"), item.get("size")
    if isinstance(path, str) and isinstance(sha256, str) and isinstance(size, int):
        return FileEntry(path, sha256, size)
    return None


def _stays_inside(path: str) -> bool:
    """Tell whether a path is relative, in its shortest form, and without a step up; on Windows too."""
    parts = PurePosixPath(path).parts
    is_plain = bool(parts) and str(PurePosixPath(path)) == path and not path.startswith("/")
    return is_plain and path.isprintable() and ".." not in parts and "\\" not in path and ":" not in path


def _check_contents(manifest: dict[str, Any], entries: Sequence[FileEntry], problems: list[str]) -> None:
    """Check that a manifest names what a release consists of: what it leaves out, nothing else would miss."""
    if manifest.get("synthetic") is not True:
        problems.append(f"{MANIFEST_FILE}: does not say that the release is synthetic; ask for a whole release")
    named = {entry.path for entry in entries}
    problems.extend(f"{MANIFEST_FILE}: names no {page}; ask for a whole release" for page in PAGES if page not in named)
    if not any(path.startswith(f"{SCANS_FOLDER}/") and path.endswith(tuple(NIFTI_READERS)) for path in named):
        problems.append(f"{MANIFEST_FILE}: names no scan in {SCANS_FOLDER}/; ask for a whole release")


def _read_policy(manifest: dict[str, Any], problems: list[str]) -> Policy | None:
    try:
        return Policy.model_validate(manifest.get("policy"))
    except ValidationError:
        problems.append(f"{MANIFEST_FILE}: no policy, or a malformed one; expected the one that the audit names")
        return None


def _check_verdict(manifest: dict[str, Any], policy: Policy | None, result: VerifyResult) -> None:
    verdict, override = manifest.get("verdict"), manifest.get("override")
    # Told from the policy's own numbers: a receiver need not take the manifest's word for it.
    if policy is not None and weaker_than_shipped(policy):
        result.warnings.append(f"{verdict} under {describe_policy(policy)}")
    if verdict not in VERDICTS:
        result.problems.append(f"{MANIFEST_FILE}: unknown verdict; expected one of {', '.join(VERDICTS)}")
    elif verdict == "pass":
        if override is not None:
            result.problems.append(f"{MANIFEST_FILE}: an override beside the verdict pass; expected none")
    elif isinstance(override, dict) and is_reason(override.get("reason")):
        reason = one_line(override["reason"])
        result.warnings.append(f"the audit's verdict is {verdict}; released by override, for the reason: {reason!r}")
    else:
        result.problems.append(f"{MANIFEST_FILE}: the verdict is {verdict}, without an override and its reason")


def _check_audit(release: Path, manifest: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    audit = _read_json(release / AUDIT_FILE, problems)
    if audit is None:
        return {}
    if audit.get("verdict") != manifest.get("verdict"):
        problems.append(f"{AUDIT_FILE}: another verdict than in {MANIFEST_FILE}")
    if audit.get("policy") != manifest.get("policy"):
        problems.append(f"{AUDIT_FILE}: another policy than in {MANIFEST_FILE}")
    keys = {"generator": "generator", "synthetic": "synthetic_cohort", "policy": "policy_sha256"}
    bound_to = {key: manifest.get(named) for key, named in keys.items()}
    if not all(HEX_DIGEST.fullmatch(str(digest)) for digest in bound_to.values()):
        problems.append(f"{MANIFEST_FILE}: does not say which generator, cohort and policy were audited")
    elif audit.get("bound_to") != bound_to:
        problems.append(f"{AUDIT_FILE}: bound to another generator, cohort or policy than {MANIFEST_FILE}")
    return audit


def _check_generator(
    entries: Sequence[FileEntry], manifest: dict[str, Any], audit: dict[str, Any], problems: list[str]
) -> None:
    """Check that there is a generator where the audit gated one, the one it looked at, and else none."""
    weights = [entry for entry in entries if PurePosixPath(entry.path).suffix == PurePosixPath(WEIGHTS_FILE).suffix]
    expected = f"{GENERATOR_FOLDER}/{WEIGHTS_FILE}"
    if not is_planned(audit):
        problems.extend(f"{entry.path}: a network, and the audit gated a data set only; remove it" for entry in weights)
    elif [entry.path for entry in weights] != [expected]:
        problems.append(f"{expected}: expected it and no other network, since the audit gated the generator too")
    elif weights[0].sha256.lower() != manifest.get("generator"):
        problems.append(f"{expected}: another generator than the one that was audited")


def _check_record(release: Path, entries: Sequence[FileEntry], problems: list[str]) -> None:
    """Check that the runner's own two files hold nothing but what the runner writes: no manifest names them."""
    marker = release / FINGERPRINT_FILE
    if marker.is_file() and not HEX_DIGEST.fullmatch(marker.read_text(encoding="utf-8", errors="replace")):
        problems.append(f"{FINGERPRINT_FILE}: expected a fingerprint and nothing else; ask for a whole release")
    path = release / DONE_FILE
    if path.is_symlink():
        problems.append(f"{DONE_FILE}: is a link; expected a file of the release's own")
        return
    done = _read_json(path, problems) if path.is_file() else None
    if done is None:
        return
    checksums = {entry.path: entry.sha256 for entry in entries}
    checksums |= {
        name: digest_file(release / name) for name in (MANIFEST_FILE, CHECKSUM_FILE) if _is_own(release, name)
    }
    summary, upstream = done.get("summary"), done.get("upstream")
    is_known = done.get("files") == checksums
    is_brief = (
        isinstance(summary, dict)
        and set(summary) <= SUMMARY_KEYS
        and all(isinstance(value, int | float) or value in VERDICTS for value in summary.values())
        and isinstance(upstream, dict)
        and set(upstream) <= set(FOLDERS)
        and all(HEX_DIGEST.fullmatch(str(value)) for value in upstream.values())
    )
    is_plain = all(pattern.fullmatch(str(done.get(key))) for key, pattern in RECORD_PATTERNS.items())
    if set(done) != RECORD_KEYS or not is_known or not is_brief or not is_plain:
        problems.append(f"{DONE_FILE}: not as the export wrote it; ask for a whole release")


def _is_own(release: Path, name: str) -> bool:
    return (release / name).is_file() and not (release / name).is_symlink()


def _check_file(release: Path, entry: FileEntry) -> list[str]:
    path = release / entry.path
    n_parents = len(PurePosixPath(entry.path).parts) - 1
    try:
        if any(part.is_symlink() for part in (path, *path.parents[:n_parents])):
            return ["is reached by a link; expected a file of the release's own"]
        if not path.is_file():
            return ["missing"]
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, 2)
            if size != entry.size:
                return [f"size; expected {entry.size} bytes, got {size}"]
            file.seek(0)
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256.lower():
                return ["checksum differs; the content was changed or damaged"]
            reader = NIFTI_READERS.get("".join(path.suffixes[-2:])) or NIFTI_READERS.get(path.suffix)
            return [] if reader is None else _check_nifti(*reader(file, size))
    except OSError as error:
        return [f"unreadable ({type(error).__name__})"]


def _read_plain(file: BinaryIO, size: int) -> tuple[bytes, int]:
    """Return the header of a .nii file, and the number of bytes of the whole."""
    file.seek(0)
    return file.read(NIFTI_HEADER_BYTES), size


def _read_compressed(file: BinaryIO, size: int) -> tuple[bytes, int]:
    """Return the header of a .nii.gz file, and the number of bytes, modulo 2**32, that its trailer tells."""
    file.seek(0)
    try:
        # The header lies in the first piece; the voxels, whose checksum is known to hold, are not unpacked.
        header = zlib.decompressobj(wbits=31).decompress(file.read(FIRST_READ_BYTES), NIFTI_HEADER_BYTES)
    except zlib.error:
        return b"", 0
    file.seek(max(size - GZIP_TRAILER_BYTES // 2, 0))
    return header, int.from_bytes(file.read(), "little")


NIFTI_READERS: dict[str, Callable[[Any, int], tuple[bytes, int]]] = {".nii": _read_plain, ".nii.gz": _read_compressed}


def _check_nifti(header: bytes, n_bytes: int) -> list[str]:
    """Return what is wrong with a NIfTI-1 header, little-endian as we write it, in a file of that many bytes.

    References
    ----------
    Cox et al. 2004, "A (sort of) new image data format standard: NIfTI-1", https://nifti.nimh.nih.gov.
    """
    if len(header) < NIFTI_HEADER_BYTES or header[344:348] != b"n+1\0":
        return ["unreadable NIfTI; expected a NIfTI-1 header"]
    n_axes, *shape = struct.unpack_from("<8h", header, 40)
    (bits,) = struct.unpack_from("<h", header, 72)
    (offset,) = struct.unpack_from("<f", header, 108)
    is_sound = 1 <= n_axes <= 7 and min(shape[:n_axes]) > 0 and math.isfinite(offset) and bits > 0
    if not is_sound or (int(offset) + math.prod(shape[:n_axes]) * bits // 8) % 2**32 != n_bytes:
        return ["unreadable NIfTI; expected as many voxels as the header says"]
    if header[148:228].rstrip(b"\0") != DESCRIPTION.encode("ascii"):
        return [f"not marked as synthetic; expected {DESCRIPTION!r} in the header"]
    return []
