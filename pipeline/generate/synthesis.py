"""From a generator to a synthetic cohort: plan, candidates, choice. The audit's references go the same way."""

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.attributes import CaseAttributes
from pipeline.cohort import Case, Cohort, move_case, open_cohort, write_case, write_cohort_files, write_tsv
from pipeline.config import ComputeSection, GenerateSection
from pipeline.errors import ConfigError, DataError
from pipeline.figures import case_picture, save_picture
from pipeline.generate.cases import MadeCase, make_cases, subject_name
from pipeline.generate.curation import Candidate, choose, curation_rows, find_near_duplicates, score_candidates
from pipeline.generate.judge import train_judge
from pipeline.generate.plan import AskedCase, Cell, make_plan, resolve_contrasts
from pipeline.seeds import derive_seed, numpy_stream
from pipeline.train.generator import Generator

N_PICTURES = 6
CURATION_TABLE = "curation.tsv"
README = """# Synthetic cohort

Made by a generator; no scan here is a patient's. Not yet for sharing: the audit decides, and `release/` is what leaves.
`plan.tsv` tells which tumours were asked for and which were obtained, `curation.tsv` which candidates were refused.
"""


@dataclass(frozen=True)
class Synthesis:
    """What was made.

    Parameters
    ----------
    config : GenerateSection
        With edges of contrast, where it asks for contrasts.
    asked : list of AskedCase
        The plan.
    kept : list of (AskedCase, CaseAttributes)
        Of each case of the cohort, in order: what it was made for, and its label map's tumour.
    n_refused : int
        Candidates that are not in the cohort.
    n_near_duplicates : int
        Among them, those too like a real person.
    """

    config: GenerateSection
    asked: list[AskedCase]
    kept: list[tuple[AskedCase, CaseAttributes]]
    n_refused: int
    n_near_duplicates: int


def generate_cohort(
    generator: Generator,
    cohort: Cohort,
    persons: Sequence[Case],
    config: GenerateSection,
    compute: ComputeSection,
    seed: int,
    out: Path,
) -> Synthesis:
    """Make a synthetic cohort; the audit makes those of its references the same way.

    Parameters
    ----------
    generator : Generator
    cohort : Cohort
        Gives grid, scheme and modalities, and the val patients that curation looks at.
    persons : sequence of Case
        Members: the only patients whose label maps may be recombined, and that a judge is trained on.
    config : GenerateSection
    compute : ComputeSection
    seed : int
        Root of the streams.
    out : Path
        Cohort folder to write, without cases: what a kill left must be gone, as the runner and the audit see to.

    Raises
    ------
    ConfigError
        If fewer than two persons are to be recombined, or a GPU is asked for that is not there.
    CaseError
        If no attempt gave a label map for a case of the plan.
    DataError
        If every candidate is a near-duplicate of a real person.
    """
    n_persons = len({case.person for case in persons})
    if config.label_sources.get("recombine", 0) > 0 and n_persons < 2:
        raise ConfigError(f"generate.label_sources: recombine needs two persons, got {n_persons}; use atlas only")
    source = [CaseAttributes.from_columns(case.attributes) for case in persons]
    config = resolve_contrasts(config, source)
    asked = make_plan(config, cohort.scheme, source, numpy_stream(seed, "plan"))
    pool = out / "candidates"
    made_cases = make_cases(generator, cohort, persons, list_candidates(asked, config), config, compute, seed)
    cases, made, rows = _write_pool(made_cases, cohort, pool)
    candidates = describe_candidates(cases, made, cohort, persons, config, compute, seed, out)
    choices = choose(candidates, Counter(_competition(case, config) for case in asked))
    kept = [index for index, choice in enumerate(choices) if choice.is_kept]
    if not kept:
        raise DataError(
            f"all {len(made)} candidates are near-duplicates of real persons; expected new ones; train on more persons "
            "or for fewer steps; generate.curation.drop_near_duplicates: false keeps them, for a look"
        )
    for number, index in enumerate(kept, start=1):
        moved = move_case(cases[index], out, subject_name(number))
        rows[index]["participant_id"] = f"sub-{moved.subject}"
        if number <= N_PICTURES:
            _write_picture(moved, cohort, out)
    shutil.rmtree(pool)
    write_cohort_files(out, "Synthetic cohort", cohort.scheme, [rows[index] for index in kept], README)
    write_tsv(out / CURATION_TABLE, curation_rows(candidates, choices))
    n_near = sum(candidate.is_near_duplicate for candidate in candidates)
    return Synthesis(config, asked, [made[index] for index in kept], len(made) - len(kept), n_near)


def _write_pool(
    made_cases: Iterable[MadeCase], cohort: Cohort, pool: Path
) -> tuple[list[Case], list[tuple[AskedCase, CaseAttributes]], list[dict[str, str]]]:
    """Write candidates as a cohort; return them, what they were made for and are, and their rows in its table."""
    shutil.rmtree(pool, ignore_errors=True)
    made, rows = [], []
    for case in made_cases:
        write_case(pool, case.data)
        made.append((case.asked, case.attributes))
        rows.append(_participant(case))
    write_cohort_files(pool, "Candidates", cohort.scheme, rows, README)
    by_name = {f"sub-{case.subject}": case for case in open_cohort(pool).cases}
    return [by_name[row["participant_id"]] for row in rows], made, rows


def list_candidates(asked: Sequence[AskedCase], config: GenerateSection) -> list[AskedCase]:
    """Return each case of a plan as often as candidates are to be made, numbered anew."""
    n = config.curation.candidates
    return [replace(case, number=(case.number - 1) * n + draw) for case in asked for draw in range(1, n + 1)]


def describe_candidates(
    cases: Sequence[Case],
    made: Sequence[tuple[AskedCase, CaseAttributes]],
    cohort: Cohort,
    persons: Sequence[Case],
    config: GenerateSection,
    compute: ComputeSection,
    seed: int,
    folder: Path,
) -> list[Candidate]:
    """Return what decides about each candidate; what the config does not ask for is not computed.

    Parameters
    ----------
    cases : sequence of Case
        Candidates on disk.
    made : sequence of (AskedCase, CaseAttributes)
        Of each: what it was made for, and its label map's tumour.
    cohort, persons, config, compute, seed
        See :func:`generate_cohort`.
    folder : Path
        For the checkpoints of the judge that chooses; nothing stays there.
    """
    val = cohort.patients("val")
    scores: list[dict[str, float]] = [{}] * len(cases)
    if config.curation.candidates > 1:
        # Another than the judge that the chosen are measured by: that one must not have chosen them.
        curator = train_judge(cohort, persons, config.judge, compute, derive_seed(seed, "curator"), folder / "curator")
        shutil.rmtree(folder / "curator")
        found = score_candidates(curator, cases, val)
        scores = [{name: one[name] for name in config.curation.criteria} for one in found]
    near = [False] * len(cases)
    if config.curation.drop_near_duplicates:
        near = find_near_duplicates(cases, persons, cohort.split("val"), cohort, derive_seed(seed, "near-duplicates"))
    return [
        Candidate(_competition(asked, config), asked.is_met_by(tumor, config), is_near, one)
        for (asked, tumor), is_near, one in zip(made, near, scores, strict=True)
    ]


def _competition(asked: AskedCase, config: GenerateSection) -> Cell:
    """Return what candidates compete within: label source and strata, so that the choice shifts neither."""
    return (asked.label_source, *(asked.wanted[name] for name in config.strata))


def _write_picture(case: Case, cohort: Cohort, out: Path) -> None:
    images = {name: case.image(name) for name in cohort.modalities}
    picture = case_picture(images, np.asarray(case.tumor_map()), case.condition(cohort.scheme))
    save_picture(picture, out / "figures" / f"sub-{case.subject}.png")


def _participant(case: MadeCase) -> dict[str, str]:
    return {
        "participant_id": f"sub-{case.data.subject}",
        "source": case.asked.label_source,
        "split": "n/a",
        **case.attributes.columns(),
        **{f"asked_{name}": stratum for name, stratum in case.asked.wanted.items()},
    }
