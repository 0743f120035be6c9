"""Stage ingest: discover, preprocess each case, quarantine what cannot be used, split, write the cohort."""

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.cohort import Case, digest_of, digest_tree, open_cohort, read_tsv, write_cohort_files, write_tsv
from pipeline.config import IngestSection
from pipeline.errors import ConfigError, DataError
from pipeline.ingest.attributes_file import describe_attributes, group_attributes, read_attributes_file
from pipeline.ingest.case import ANATOMIES, OUTCOMES, IngestOutcome, IngestTask, ingest_case
from pipeline.ingest.dicom import discover_dicom
from pipeline.ingest.discover import SourceCase, discover_nifti
from pipeline.ingest.files import count_unreadable
from pipeline.ingest.leakage import SamePerson, find_same_persons, merge_persons
from pipeline.ingest.manifest import Manifest, load_manifest
from pipeline.ingest.pseudonym import load_key, pseudonym
from pipeline.ingest.quality_flags import check_cases, quality_rows
from pipeline.ingest.quality_page import write_quality_page
from pipeline.ingest.split import check_sides, read_split_file, split_persons
from pipeline.parallel import map_cases
from pipeline.progress import say
from pipeline.runner import StageContext
from pipeline.scratch import SCRATCH
from pipeline.seeds import numpy_stream

README = """# Ingested cohort: PRIVATE

Real scans under pseudonyms, harmonised for training. Not for sharing: what may leave the building is in `release/`.
`quality.html` shows every case with its figures; `quarantine.tsv` lists the cases that were not used, with the reason;
`same_person.tsv` the pairs of subjects that look like one person; `series.tsv` which DICOM series were chosen.
Case numbers count the subjects of the source in the order of their names, in DICOM of PatientID and study's UID.
"""
PHANTOMS = ".phantom"
NONE_MISSING = "n/a"
# With every modality: one to choose, and four for the halves of the audit.
MIN_WHOLE = 5
BESIDE_BIDS = ("done.json", "quarantine.tsv", "same_person.tsv", "series.tsv", "quality.tsv", "quality.html", "figures")


def run(context: StageContext) -> dict[str, Any]:
    """Ingest the source of the config into ``context.out``.

    Raises
    ------
    DataError
        If no case is found, fewer than ``ingest.min_cases`` persons have a usable scan, or a side of the split has
        too few of them.
    ConfigError
        If the split file does not fit the source, or puts one person on two sides.
    """
    config = context.config.ingest
    manifest = load_manifest(config.manifest)
    key = load_key(config)
    source = _source_folder(context, manifest)
    cases = (discover_dicom if manifest.format == "dicom" else discover_nifti)(source, manifest)
    if config.missing_modalities == "quarantine":
        cases = [replace(case, problem=case.problem or case.lacks) for case in cases]
    tasks = [
        IngestTask(case, pseudonym(key, manifest.name, case.subject), manifest, config, context.out) for case in cases
    ]
    persons = {case.subject: pseudonym(key, manifest.name, case.person) for case in cases}
    # Read first: a mistake in the table is better found before hours of preprocessing than behind them.
    given = _read_given_split(config, cases, persons)
    attributes = _read_given_attributes(config, tasks)
    _check_enough(cases, config)
    outcomes = map_cases(ingest_case, tasks, context.config.compute, "ingest")
    used = {task.subject: persons[task.case.subject] for task, o in zip(tasks, outcomes, strict=True) if not o.reason}
    pairs = guard_against_leaks(context.out, used, outcomes, config)
    merged = merge_persons(used, pairs)
    _write_tables(context.out, tasks, outcomes, pairs)
    n_persons = len(set(merged.values()))
    if n_persons < config.min_cases:
        raise DataError(
            f"{_too_few(n_persons, config.min_cases, outcomes)}\n  Case by case: quarantine.tsv and same_person.tsv "
            f"(DICOM: series.tsv) in the folder {context.out.name} of the run"
        )
    rows = name_missing([outcome.row for outcome in outcomes if not outcome.reason])
    incomplete = {merged[_name(row)] for row in rows if row["missing"] != NONE_MISSING}
    sides = _sides(context, given, used, merged, incomplete)
    participants = [{**_participant(row, merged, sides), **attributes[_name(row)]} for row in rows]
    write_cohort_files(context.out, f"{manifest.name}, ingested", manifest.scheme, participants, README)
    _write_quality(context.out, outcomes, manifest, pairs)
    (context.out / ".bidsignore").write_text("\n".join(BESIDE_BIDS) + "\n", encoding="utf-8")
    n_closed = 0 if config.source == "phantom" else count_unreadable(source)
    record = _record(context, manifest, len(tasks) - len(used), len(pairs), n_closed)
    # Last, and the marks first: a kill in between must not leave marks of phantoms that are gone.
    for name in (OUTCOMES, PHANTOMS, ANATOMIES, SCRATCH):
        shutil.rmtree(context.out / name, ignore_errors=True)
    return record


def _read_given_split(
    config: IngestSection, cases: Sequence[SourceCase], persons: Mapping[str, str]
) -> dict[str, str] | None:
    """Return the side of each person, from the split file; subjects may be listed, or persons."""
    if config.split_file is None:
        return None
    subjects = {case.subject: persons[case.subject] for case in cases if not case.problem}
    by_person = {case.person: persons[case.subject] for case in cases if not case.problem}
    given = read_split_file(config.split_file, {**by_person, **subjects})
    check_sides([given[person] for person in set(subjects.values())])
    return given


def _read_given_attributes(config: IngestSection, tasks: Sequence[IngestTask]) -> dict[str, dict[str, str]]:
    """Return what the user's table tells of each subject, by pseudonym; nothing without one."""
    if config.attributes_file is None:
        return {task.subject: {} for task in tasks}
    persons = {task.case.subject: task.case.person for task in tasks}
    table = read_attributes_file(config.attributes_file)
    given = group_attributes(table, persons)
    say(f"      {describe_attributes(table, persons, given)}")
    return {task.subject: given[task.case.subject] for task in tasks}


def _check_enough(cases: Sequence[SourceCase], config: IngestSection) -> None:
    """Raise DataError if there are too few persons before any scan has been read."""
    found = [IngestOutcome({}, case.problem) for case in cases]
    persons = {case.person for case in cases if not case.problem}
    if len(persons) < config.min_cases:
        raise DataError(_too_few(len(persons), config.min_cases, found))
    usable = [case for case in cases if not case.problem]
    known = {name for case in usable for name in case.files}
    lacking = {case.person for case in usable if not known <= {*case.files, "brain_mask"}}
    _check_whole(len(persons - lacking))
    if config.split_file is None:
        # Whoever stands on which side, their numbers are known.
        check_sides(list(split_persons(sorted(persons), config.split, np.random.default_rng(0)).values()))


def guard_against_leaks(
    out: Path, used: Mapping[str, str], outcomes: Sequence[IngestOutcome], config: IngestSection
) -> list[SamePerson]:
    """Return the pairs of subjects under different persons that look like one; see :mod:`pipeline.ingest.leakage`."""
    if not config.leakage_guard:
        return []
    pairs = []
    for reference in sorted({o.reference for o in outcomes if not o.reason}):
        # Only one modality's anatomies can be compared.
        subjects = [_subject(outcome) for outcome in outcomes if outcome.reference == reference]
        anatomies = {subject: np.load(out / ANATOMIES / f"{subject}.npy") for subject in subjects}
        pairs += find_same_persons(anatomies, used, config.same_person_correlation)
    if pairs:
        say(f"      {len(pairs)} pairs of subjects look like one person: see same_person.tsv; they share a side")
    return pairs


def name_missing(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Say of each case which modalities it lacks of those that any case has."""
    nobody_has = set.intersection(*(set(row["missing"].split(",")) for row in rows))
    named = []
    for row in rows:
        missing = [name for name in row["missing"].split(",") if name and name not in nobody_has]
        named.append({**row, "missing": ",".join(missing) or NONE_MISSING})
    return named


def _sides(
    context: StageContext,
    given: Mapping[str, str] | None,
    used: Mapping[str, str],
    merged: Mapping[str, str],
    incomplete: Collection[str],
) -> dict[str, str]:
    """Return the side of each person, as merged by the guard; whoever lacks a modality trains.

    Raises
    ------
    ConfigError
        If the split file has it otherwise.
    DataError
        If too few persons are left for the other sides.
    """
    whole = [person for person in merged.values() if person not in incomplete]
    if given is None:
        _check_whole(len(set(whole)))
        shares = context.config.ingest.split
        sides = split_persons(whole, shares, numpy_stream(context.seed, "split")) | dict.fromkeys(incomplete, "train")
    else:
        sides = {}
        for subject, person in merged.items():
            side = given[used[subject]]
            if sides.setdefault(person, side) != side:
                raise ConfigError(
                    "ingest.split_file: two subjects that look like one person (cohort's same_person.tsv) on two "
                    "sides; put them on one, or, if they are two persons, set ingest.leakage_guard to false"
                )
    if any(sides[person] != "train" for person in incomplete):
        raise ConfigError(
            "ingest.split_file: a person who lacks a modality on val or test; expected persons with all of them there; "
            "put him on train, or set ingest.missing_modalities to quarantine"
        )
    check_sides([sides[person] for person in set(whole)])
    return sides


def _check_whole(n_whole: int) -> None:
    if n_whole < MIN_WHOLE:
        raise DataError(
            f"{n_whole} persons have every modality; expected at least {MIN_WHOLE}: the others can only train; leave a "
            "modality that few have out of the manifest"
        )


def _source_folder(context: StageContext, manifest: Manifest) -> Path:
    """Return the folder to read; phantoms are written first, into a temporary one, then read as any."""
    config = context.config.ingest
    if config.source != "phantom":
        return Path(config.source).resolve()
    folder = context.out / PHANTOMS
    mark = context.out / OUTCOMES / "phantoms"
    if not mark.is_file():
        write = partial(
            _write_phantom,
            seed=context.config.run.seed,
            spacing_mm=config.phantom_spacing_mm,
            folder=folder,
            file_format=manifest.format,
        )
        map_cases(write, range(1, config.phantom_cases + 1), context.config.compute, "phantoms")
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return folder


def _write_phantom(
    index: int, seed: int, spacing_mm: float, folder: Path, file_format: Literal["nifti", "dicom"]
) -> None:
    from pipeline.phantom.cohort import make_subject, write_subject

    write_subject(make_subject(index, seed, spacing_mm), index, folder, file_format)


def _write_tables(
    out: Path, tasks: Sequence[IngestTask], outcomes: Sequence[IngestOutcome], pairs: Sequence[SamePerson]
) -> None:
    """Write what was not used, who looks like whom, and which series were chosen."""
    rows = [
        {"case_number": str(task.case.number), "pseudonym": task.subject, "reason": outcome.reason}
        for task, outcome in zip(tasks, outcomes, strict=True)
        if outcome.reason
    ]
    write_tsv(out / "quarantine.tsv", rows, ("case_number", "pseudonym", "reason"))
    for row in rows:
        say(f"      case {row['case_number']} quarantined: {row['reason']}")
    alike = [{"first": p.first, "second": p.second, "correlation": f"{p.correlation:.3f}"} for p in pairs]
    write_tsv(out / "same_person.tsv", alike, ("first", "second", "correlation"))
    series = [
        {"case_number": str(task.case.number), "pseudonym": task.subject, **choice.columns()}
        for task in tasks
        for choice in task.case.choices
    ]
    if series:
        write_tsv(out / "series.tsv", series)


def _write_quality(
    out: Path, outcomes: Sequence[IngestOutcome], manifest: Manifest, pairs: Sequence[SamePerson]
) -> None:
    """Write the figures of each case with what stands out, as a table and as a page."""
    checked = check_cases({_subject(outcome): outcome.quality for outcome in outcomes if not outcome.reason})
    write_tsv(out / "quality.tsv", quality_rows(checked))
    write_quality_page(out, checked, manifest.scheme.tumor, pairs, read_tsv(out / "quarantine.tsv"))


def _subject(outcome: IngestOutcome) -> str:
    return _name(outcome.row)


def _name(row: Mapping[str, str]) -> str:
    return row["participant_id"].removeprefix("sub-")


def _too_few(n_usable: int, n_needed: int, outcomes: Sequence[IngestOutcome]) -> str:
    reasons = sorted({outcome.reason for outcome in outcomes if outcome.reason})
    listed = "".join(f"\n  - {reason}" for reason in reasons[:10])
    return (
        f"{n_usable} persons with a usable scan, of {len(outcomes)} cases; expected at least {n_needed} "
        "(ingest.min_cases); "
        f"repair the cases or add some{listed and '. Reasons:'}{listed}"
    )


def _participant(row: Mapping[str, str], person_of: Mapping[str, str], sides: Mapping[str, str]) -> dict[str, str]:
    person = person_of[_name(row)]
    head = {"participant_id": row["participant_id"], "source": row["source"], "split": sides[person], "person": person}
    return {**head, **{key: value for key, value in row.items() if key not in head}}


def _record(
    context: StageContext, manifest: Manifest, n_quarantined: int, n_pairs: int, n_closed: int
) -> dict[str, Any]:
    cohort = open_cohort(context.out)
    images = digest_of({k: v for k, v in digest_tree(context.out).items() if k.startswith("sub-")})
    shape = "x".join(map(str, cohort.shape))
    profile = {"n_cases": len(cohort.cases), "shape": shape, "spacing_mm": cohort.spacing_mm}
    context.tracker.dataset(manifest.name, images, profile)
    for number, case in enumerate(_largest(cohort.cases, 6)):
        context.tracker.image("cases", f"figures/sub-{case.subject}.png", number)
    summary = {"cases": len(cohort.cases), "quarantined": n_quarantined, "same_person_pairs": n_pairs}
    if n_closed:
        summary["source_files_not_readable"] = n_closed
    n_incomplete = len(cohort.cases) - len(cohort.complete(cohort.cases))
    if n_incomplete:
        summary["lacking_a_modality"] = n_incomplete
    summary |= {side: len(cohort.split(side)) for side in ("train", "val", "test")}
    context.tracker.metrics({f"cases_{key}": float(value) for key, value in summary.items()})
    return summary


def _largest(cases: Sequence[Case], n: int) -> list[Case]:
    return sorted(cases, key=lambda case: -float(case.attributes["volume_ml"]))[:n]
