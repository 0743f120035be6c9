"""Stage ingest: discover, preprocess each case, quarantine what cannot be used, split, write the cohort."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pipeline.attributes import describe_tumor
from pipeline.cohort import (
    Case,
    digest_of,
    digest_tree,
    open_cohort,
    write_case,
    write_cohort_files,
    write_tsv,
)
from pipeline.config import IngestSection
from pipeline.errors import CaseError, DataError
from pipeline.figures import case_picture, save_picture
from pipeline.ingest.dicom import discover_dicom
from pipeline.ingest.discover import SourceCase, discover_nifti
from pipeline.ingest.manifest import Manifest, load_manifest
from pipeline.ingest.preprocess import preprocess_case
from pipeline.ingest.pseudonym import load_key, pseudonym
from pipeline.ingest.split import check_sides, read_split_file, split_persons
from pipeline.parallel import map_cases
from pipeline.progress import say
from pipeline.runner import StageContext
from pipeline.seeds import numpy_stream

README = """# Ingested cohort: PRIVATE

Real scans under pseudonyms, harmonised for training. Not for sharing: what may leave the building is in `release/`.
`quarantine.tsv` lists the cases that were not used, with the reason. `figures/` holds a picture of each case.
"""


@dataclass(frozen=True)
class IngestTask:
    """One case to ingest, with all that its worker needs."""

    case: SourceCase
    subject: str
    manifest: Manifest
    config: IngestSection
    out: Path


@dataclass(frozen=True)
class IngestOutcome:
    """What became of a case: its row of participants.tsv, or the reason why it has none."""

    row: dict[str, str] | None
    reason: str = ""


def run(context: StageContext) -> dict[str, Any]:
    """Ingest the source of the config into ``context.out``.

    Raises
    ------
    DataError
        If no case is found, fewer than ``ingest.min_cases`` persons have a usable scan, or a side of the split has
        too few of them.
    ConfigError
        If the split file does not fit the source.
    """
    config = context.config.ingest
    manifest = load_manifest(config.manifest)
    key = load_key(config)
    source, is_temporary = _source_folder(context, manifest)
    cases = (discover_dicom if manifest.format == "dicom" else discover_nifti)(source, manifest)
    tasks = [
        IngestTask(case, pseudonym(key, manifest.name, case.subject), manifest, config, context.out) for case in cases
    ]
    person_of = {case.subject: pseudonym(key, manifest.name, case.person) for case in cases}
    # Read first: a mistake in the table is better found before hours of preprocessing than behind them.
    given = _read_given_split(config, cases, person_of)
    outcomes = map_cases(ingest_case, tasks, context.config.compute, "ingest")
    if is_temporary:
        shutil.rmtree(source)
    rows = [outcome.row for outcome in outcomes if outcome.row is not None]
    _write_quarantine(context.out, tasks, outcomes)
    used = {task.subject: person_of[task.case.subject] for task, o in zip(tasks, outcomes, strict=True) if o.row}
    n_persons = len(set(used.values()))
    if n_persons < config.min_cases:
        raise DataError(_too_few(n_persons, config.min_cases, outcomes))
    sides = given or split_persons(list(used.values()), config.split, numpy_stream(context.seed, "split"))
    check_sides([sides[person] for person in set(used.values())])
    participants = [_participant(row, used, sides) for row in rows]
    write_cohort_files(context.out, f"{manifest.name}, ingested", manifest.scheme, participants, README)
    (context.out / ".bidsignore").write_text("done.json\nquarantine.tsv\nfigures\n", encoding="utf-8")
    return _record(context, manifest, len(cases) - len(rows))


def _read_given_split(
    config: IngestSection, cases: Sequence[SourceCase], person_of: Mapping[str, str]
) -> dict[str, str] | None:
    if config.split_file is None:
        return None
    return read_split_file(config.split_file, {c.subject: person_of[c.subject] for c in cases if not c.problem})


def ingest_case(task: IngestTask) -> IngestOutcome:
    """Preprocess and write one case with its picture; a case that cannot be used is an outcome, not an error."""
    try:
        data = preprocess_case(task.case, task.subject, task.manifest, task.config)
    except CaseError as error:
        return IngestOutcome(None, str(error))
    write_case(task.out, data)
    scheme = task.manifest.scheme
    picture = case_picture(data.images, data.tumor_map, scheme.combine(data.tissue_map, data.tumor_map))
    save_picture(picture, task.out / "figures" / f"sub-{task.subject}.png")
    attributes = describe_tumor(data.tumor_map, data.affine, scheme).columns()
    return IngestOutcome({"participant_id": f"sub-{task.subject}", "source": task.manifest.name, **attributes})


def _source_folder(context: StageContext, manifest: Manifest) -> tuple[Path, bool]:
    """Return the folder to read, and whether it is a temporary one; phantoms are written first, then read as any."""
    config = context.config.ingest
    if config.source != "phantom":
        return Path(config.source).resolve(), False
    folder = context.out / ".phantom"
    write = partial(
        _write_phantom,
        seed=context.config.run.seed,
        spacing_mm=config.phantom_spacing_mm,
        folder=folder,
        file_format=manifest.format,
    )
    map_cases(write, range(1, config.phantom_cases + 1), context.config.compute, "phantoms")
    return folder, True


def _write_phantom(
    index: int, seed: int, spacing_mm: float, folder: Path, file_format: Literal["nifti", "dicom"]
) -> None:
    from pipeline.phantom.cohort import make_subject, write_subject

    write_subject(make_subject(index, seed, spacing_mm), index, folder, file_format)


def _write_quarantine(out: Path, tasks: Sequence[IngestTask], outcomes: Sequence[IngestOutcome]) -> None:
    rows = [
        {"case_number": str(task.case.number), "pseudonym": task.subject, "reason": outcome.reason}
        for task, outcome in zip(tasks, outcomes, strict=True)
        if outcome.row is None
    ]
    write_tsv(out / "quarantine.tsv", rows, ("case_number", "pseudonym", "reason"))
    for row in rows:
        say(f"      case {row['case_number']} quarantined: {row['reason']}")


def _too_few(n_usable: int, n_needed: int, outcomes: Sequence[IngestOutcome]) -> str:
    reasons = sorted({outcome.reason for outcome in outcomes if outcome.reason})
    listed = "".join(f"\n  - {reason}" for reason in reasons[:10])
    return (
        f"{n_usable} persons with a usable scan, of {len(outcomes)} cases; expected at least {n_needed} "
        "(ingest.min_cases); "
        f"repair the cases or add some{listed and '. Reasons:'}{listed}"
    )


def _participant(row: Mapping[str, str], person_of: Mapping[str, str], sides: Mapping[str, str]) -> dict[str, str]:
    person = person_of[row["participant_id"].removeprefix("sub-")]
    head = {"participant_id": row["participant_id"], "source": row["source"], "split": sides[person], "person": person}
    return {**head, **{key: value for key, value in row.items() if key not in head}}


def _record(context: StageContext, manifest: Manifest, n_quarantined: int) -> dict[str, Any]:
    cohort = open_cohort(context.out)
    images = digest_of({k: v for k, v in digest_tree(context.out).items() if k.startswith("sub-")})
    shape = "x".join(map(str, cohort.shape))
    profile = {"n_cases": len(cohort.cases), "shape": shape, "spacing_mm": cohort.spacing_mm}
    context.tracker.dataset(manifest.name, images, profile)
    for number, case in enumerate(_largest(cohort.cases, 6)):
        context.tracker.image("cases", f"figures/sub-{case.subject}.png", number)
    summary = {"cases": len(cohort.cases), "quarantined": n_quarantined}
    summary |= {side: len(cohort.split(side)) for side in ("train", "val", "test")}
    context.tracker.metrics({f"cases_{key}": float(value) for key, value in summary.items()})
    return summary


def _largest(cases: Sequence[Case], n: int) -> list[Case]:
    return sorted(cases, key=lambda case: -float(case.attributes["volume_ml"]))[:n]
