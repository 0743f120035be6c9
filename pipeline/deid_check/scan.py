"""The scan of a path: every file by what its first bytes say it is, every name, links not followed."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.deid_check.archives import GZIP_MAGIC, TAR_MAGIC, ZIP_MAGICS, scan_gzip, scan_tar, scan_zip
from pipeline.deid_check.binary import scan_unknown
from pipeline.deid_check.context import Context
from pipeline.deid_check.databases import SQLITE_MAGIC, scan_database
from pipeline.deid_check.dicom import scan_dicom
from pipeline.deid_check.dicom_elements import is_dicom
from pipeline.deid_check.documents import SNIFFED_BYTES, find_encoding, scan_text
from pipeline.deid_check.findings import CheckResult, Hit, Tally
from pipeline.deid_check.names import judge_name, judge_parts, repeats
from pipeline.deid_check.nifti import is_voxel_file, nifti_version, scan_nifti, scan_voxel_file
from pipeline.deid_check.pictures import JPEG_MAGIC, PNG_MAGIC, scan_jpeg, scan_png
from pipeline.deid_check.streams import Budget, Stream, stream_file
from pipeline.deid_check.tensors import NPY_MAGIC, is_safetensors, scan_npy, scan_safetensors
from pipeline.deid_check.text_rules import kinds_in_text
from pipeline.errors import ConfigError, Unjudgeable
from pipeline.progress import progress

HEAD_BYTES = 1024
PDF_MAGIC = b"%PDF"


@dataclass(frozen=True)
class Entry:
    """A file, folder or link below the path that is scanned.

    Parameters
    ----------
    path : Path
    parts : tuple of str
        Names from the scanned path down.
    numbers : tuple of int
        Place of each name among its siblings, sorted, from 1.
    mode : int
        Of ``lstat``; 0 if it cannot be told.
    """

    path: Path
    parts: tuple[str, ...]
    numbers: tuple[int, ...]
    mode: int


def check_path(path: Path) -> CheckResult:
    """Scan a file, or a folder with all below it, for what identifies a person, a place or a machine.

    Parameters
    ----------
    path : Path
        Only read; links are not followed.

    Returns
    -------
    CheckResult
        Kinds and places, never values. What cannot be judged is counted, never an exception.

    Raises
    ------
    ConfigError
        If there is no such path.
    """
    if not os.path.lexists(path):
        raise ConfigError("deid-check: no such file or folder; expected one to scan; correct the path")
    n_entries = sum(1 for _ in walk(path))
    tally, n_files = Tally(), 0
    with progress("deid-check", n_entries) as task:
        for entry in walk(path):
            n_files += not stat.S_ISDIR(entry.mode)
            tally.add(entry.parts, entry.numbers, scan_entry(entry))
            task.advance()
    for entry in walk(path) if tally.identifiers else ():
        if entry.parts and repeats(entry.parts[-1], tally.identifiers):
            tally.add(entry.parts, entry.numbers, [Hit("", "identifier of a patient, in a name")])
    return tally.result(n_files)


def walk(root: Path) -> Iterator[Entry]:
    """Yield a path and all below it, folders before what is in them, sorted by name."""
    parts, numbers = ((), ()) if root.is_dir() and not root.is_symlink() else ((root.name,), (1,))
    waiting = [Entry(root, parts, numbers, _mode(root))]
    while waiting:
        entry = waiting.pop()
        yield entry
        if stat.S_ISDIR(entry.mode):
            try:
                children = sorted(entry.path.iterdir())
            except OSError:
                continue
            entries = [
                Entry(child, (*entry.parts, child.name), (*entry.numbers, number), _mode(child))
                for number, child in enumerate(children, 1)
            ]
            waiting.extend(reversed(entries))


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def scan_entry(entry: Entry) -> Iterator[Hit]:
    """Yield what a name, and the file under it, carries."""
    for kind in judge_name(entry.parts[-1]) if entry.parts else ():
        yield Hit("", f"{kind}, in a name")
    try:
        if stat.S_ISLNK(entry.mode):
            yield Hit("", "link; not followed", is_doubt=True)
            target = str(entry.path.readlink())
            for kind in {*kinds_in_text(target), *judge_parts(target)}:
                yield Hit("", f"{kind}, in the target of a link")
        elif stat.S_ISREG(entry.mode):
            with entry.path.open("rb", buffering=0) as file:
                context = Context(entry.path.name, Budget(), scan_stream, entry.path)
                yield from scan_stream(stream_file(file), context)
        elif stat.S_ISDIR(entry.mode):
            next(entry.path.iterdir(), None)
        else:
            yield Hit("", "no file, folder or link", is_doubt=True)
    except OSError as error:
        yield Hit("", f"cannot be read ({type(error).__name__})", is_doubt=True)


def scan_stream(stream: Stream, context: Context) -> Iterator[Hit]:
    """Yield what a file of any format carries; damage is a doubt."""
    try:
        yield from _scan_by_content(stream, context)
    except Unjudgeable as reason:
        yield Hit("", str(reason), is_doubt=True)
    except Exception as error:  # parsers raise a dozen different types on a damaged file
        yield Hit("", f"damaged, or not what it begins like ({type(error).__name__})", is_doubt=True)


def _scan_by_content(stream: Stream, context: Context) -> Iterator[Hit]:
    head = stream.peek(HEAD_BYTES)
    if not head:
        return iter(())
    for fits, scan in SCANNERS:
        if fits(head):
            return scan(stream, context)
    if context.path is not None and is_voxel_file(context.path):
        return scan_voxel_file(stream, context.path)
    if not head.startswith(PDF_MAGIC) and find_encoding(stream.peek(SNIFFED_BYTES)):
        return scan_text(stream, context)
    return scan_unknown(stream)


# By the first bytes; what is none of these is voxels beside a header, text, or unknown.
SCANNERS: tuple[tuple[Callable[[bytes], bool], Callable[[Stream, Context], Iterator[Hit]]], ...] = (
    (is_dicom, lambda stream, context: scan_dicom(stream, context.budget)),
    (lambda head: nifti_version(head) >= 0, lambda stream, _: scan_nifti(stream)),
    (lambda head: head.startswith(GZIP_MAGIC), scan_gzip),
    (lambda head: head.startswith(ZIP_MAGICS), scan_zip),
    (lambda head: head[257:262] == TAR_MAGIC, scan_tar),
    (lambda head: head.startswith(SQLITE_MAGIC), scan_database),
    (lambda head: head.startswith(PNG_MAGIC), lambda stream, _: scan_png(stream)),
    (lambda head: head.startswith(JPEG_MAGIC), lambda stream, _: scan_jpeg(stream)),
    (is_safetensors, lambda stream, _: scan_safetensors(stream)),
    (lambda head: head.startswith(NPY_MAGIC), lambda stream, _: scan_npy(stream)),
)
