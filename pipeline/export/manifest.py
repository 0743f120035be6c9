"""The manifest: every file of a release with checksum and size, and under which verdict it was released."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.audit.policy import weaker_than_shipped
from pipeline.cohort import digest_file, write_json
from pipeline.export.gate import GateDecision
from pipeline.layout import DONE_FILE, FINGERPRINT_FILE

MANIFEST_FILE = "manifest.json"
CHECKSUM_FILE = "manifest.json.sha256"
# The runner's own two files, at the top only: one while the stage runs, one when it is done.
RUNNER_FILES = frozenset({FINGERPRINT_FILE, DONE_FILE})


def write_manifest(
    release: Path, title: str, audit: Mapping[str, Any], bound_to: Mapping[str, str], decision: GateDecision
) -> None:
    """Write ``manifest.json`` and ``manifest.json.sha256``; every other file must be there.

    Parameters
    ----------
    release : Path
        The release folder.
    title : str
    audit : mapping
        Public part of the audit.
    bound_to : mapping of str to str
        sha256 of the generator, the synthetic cohort and the policy that the release was made from.
    decision : GateDecision
    """
    files = [
        {"path": name, "sha256": digest_file(release / name), "size": (release / name).stat().st_size}
        for name in sorted(list_files(release))
    ]
    write_json(
        release / MANIFEST_FILE,
        {
            "title": title,
            "synthetic": True,
            "synthcohort": __version__,
            "generator": bound_to["generator"],
            "synthetic_cohort": bound_to["synthetic"],
            "verdict": decision.verdict,
            "verdict_in_words": decision.in_words,
            "policy": audit.get("policy"),
            "policy_sha256": bound_to["policy"],
            "weaker_than_shipped": weaker_than_shipped(decision.policy),
            "override": {"reason": decision.reason} if decision.overridden else None,
            "signature": None,
            "files": files,
        },
    )
    checksum = digest_file(release / MANIFEST_FILE)
    (release / CHECKSUM_FILE).write_text(f"{checksum}  {MANIFEST_FILE}\n", encoding="utf-8")


def list_files(release: Path) -> Iterator[str]:
    """Yield the relative POSIX path of each file that a manifest must name; a link counts as a file."""
    own = RUNNER_FILES | {MANIFEST_FILE, CHECKSUM_FILE}
    for path in release.rglob("*"):
        name = path.relative_to(release).as_posix()
        if name not in own and (path.is_symlink() or not path.is_dir()):
            yield name
