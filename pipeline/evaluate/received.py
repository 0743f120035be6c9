"""A release received from another institution: verified, then its cohort unpacked to train on.

The scenario of two institutions, neither of which sees the other's scans: the one releases a synthetic cohort, the
other trains on that and tests on patients of its own.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cohort import MAP_NAMES, Case, Cohort, digest_file, open_cohort
from pipeline.config import ComputeSection
from pipeline.errors import CaseError, DataError
from pipeline.export.manifest import MANIFEST_FILE
from pipeline.export.verify import verify_release
from pipeline.labels import MODALITIES
from pipeline.parallel import map_cases
from pipeline.progress import say
from pipeline.volumes import load_volume, save_volume

RECEIVED_FOLDER = "received"
N_SHOWN = 3


@dataclass(frozen=True)
class ReceivedRelease:
    """What is recorded of a release.

    Parameters
    ----------
    digest : str
        Its manifest's sha256, which names every file with its own.
    verdict : str
        The audit's, with the policy it was reached under, in words.
    warnings : tuple of str
        What its verification warned of: an override with its reason, a policy weaker than the shipped one.
    """

    digest: str
    verdict: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as ``gain.json`` has it."""
        return {"manifest_sha256": self.digest, "verdict": self.verdict, "warnings": list(self.warnings)}

    @property
    def cautions(self) -> list[str]:
        """What is against trusting a gain from it."""
        return [
            f"Synthetic scans are those of a received release; its audit's verdict: {self.verdict}.",
            "It is not known whether persons behind the release are among these test patients; a gain would then be "
            "too large.",
            *(f"Of the release: {warning}." for warning in self.warnings),
        ]


@dataclass(frozen=True)
class UnpackTask:
    """One case of a release, and the folder of the unpacked one."""

    case: Case
    out: Path


def open_received(release: Path, out: Path, compute: ComputeSection) -> tuple[Cohort, ReceivedRelease]:
    """Verify a release and open its cohort, unpacked below a folder: trainings memory-map what they read.

    Parameters
    ----------
    release : Path
        With ``manifest.json`` and ``bids/``; only read.
    out : Path
        Of the stage; :func:`remove_received` takes the copy away again.
    compute : ComputeSection

    Returns
    -------
    tuple
        The cohort, and what is recorded of the release.

    Raises
    ------
    DataError
        If the release is not whole, or one of its files cannot be read.
    """
    result = verify_release(release)
    if result.problems:
        shown = "; ".join(result.problems[:N_SHOWN])
        raise DataError(
            f"evaluate.received_release: expected an intact release, got {len(result.problems)} problems: {shown}; "
            "see `synthcohort verify` and ask for a whole one"
        )
    for warning in result.warnings:
        say(f"      received release: {warning}")
    folder = out / RECEIVED_FOLDER
    if not folder.is_dir():
        _unpack(release / "bids", folder, compute)
    record = ReceivedRelease(digest_file(release / MANIFEST_FILE), result.verdict, tuple(result.warnings))
    return open_cohort(folder), record


def remove_received(out: Path) -> None:
    """Remove the unpacked cohort: the release itself is what is kept."""
    shutil.rmtree(out / RECEIVED_FOLDER, ignore_errors=True)


def _unpack(bids: Path, folder: Path, compute: ComputeSection) -> None:
    """Unpack a cohort; the folder has its name when it is whole."""
    partial = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in ("participants.tsv", *(f"{file_name}.tsv" for file_name in MAP_NAMES.values())):
        if (bids / name).is_file():
            shutil.copyfile(bids / name, partial / name)
    tasks = [UnpackTask(case, partial / f"sub-{case.subject}" / "anat") for case in open_cohort(bids).cases]
    map_cases(unpack_case, tasks, compute, "unpack")
    partial.replace(folder)


def unpack_case(task: UnpackTask) -> None:
    """Write one case's volumes uncompressed."""
    for name in (*MODALITIES, *MAP_NAMES):
        path = task.case.path(name)
        packed = path.with_name(f"{path.name}.gz")
        if not packed.is_file():
            continue
        try:
            save_volume(load_volume(packed), task.out / path.name)
        except CaseError as error:
            raise DataError(f"a volume of the received release: {error}") from error
