"""Curation: fronts, what is kept and why not, near-duplicates of any real person, and the cohort that is left."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import rng, write_toy_cohort

from pipeline.cohort import Case, Cohort, digest_tree, open_cohort, read_tsv
from pipeline.config import ComputeSection, RunConfig
from pipeline.errors import DataError
from pipeline.generate import cases as cases_module
from pipeline.generate import synthesis
from pipeline.generate.curation import (
    Candidate,
    choose,
    find_near_duplicates,
    mean_ranks,
    pareto_fronts,
    score_candidates,
)
from pipeline.generate.synthesis import generate_cohort
from pipeline.near_duplicates import construct_copy
from pipeline.train.generator import Generator

CPU = ComputeSection(accelerator="cpu", workers=1)
LEFT, RIGHT = ("small", "left"), ("small", "right")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(write_toy_cohort(tmp_path_factory.mktemp("curation") / "cohort", {"train": 4, "val": 3}))


def test_fronts_are_those_of_a_worked_example() -> None:
    points = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0], [1.0, 1.0], [2.0, 1.0], [2.0, 2.0]])
    # Equal points beat each other nowhere; (2, 1) is beaten by (3, 1) and (2, 2), (1, 1) by (2, 1) too.
    assert pareto_fronts(points).tolist() == [1, 1, 1, 3, 2, 1]


def test_no_point_is_beaten_within_its_front() -> None:
    points = rng(1).normal(size=(60, 3))
    fronts = pareto_fronts(points)
    for i, j in zip(*np.triu_indices(60, 1), strict=True):
        beats = (points[i] >= points[j]).all(), (points[j] >= points[i]).all()
        if any(beats):
            better, worse = (i, j) if beats[0] else (j, i)
            assert fronts[better] < fronts[worse]
    for index in np.flatnonzero(fronts > 1):
        assert any((points[other] >= points[index]).all() for other in np.flatnonzero(fronts == fronts[index] - 1))


def test_standing_is_the_mean_rank_so_that_an_extreme_in_one_criterion_comes_last() -> None:
    points = np.array([[9.0, 0.0, 0.0], [2.0, 2.0, 2.0], [1.0, 1.0, 3.0], [0.0, 3.0, 1.0]])
    # By criterion the ranks are 4 1 1, 3 3 3, 2 2 4, 1 4 2.
    np.testing.assert_allclose(mean_ranks(points), [2.0, 3.0, 8 / 3, 7 / 3])
    candidates = [candidate(LEFT, a=one[0], b=one[1], c=one[2]) for one in points]
    assert set(pareto_fronts(points)) == {1}
    assert [choice.is_kept for choice in choose(candidates, {LEFT: 2})] == [False, True, True, False]
    assert mean_ranks(np.zeros((3, 0))).tolist() == [0.0, 0.0, 0.0]


def candidate(cell: tuple[str, ...], as_asked: bool = True, near: bool = False, **scores: float) -> Candidate:
    return Candidate(cell, as_asked, near, scores)


def test_the_best_of_each_stratum_are_kept_and_refusals_say_why() -> None:
    candidates = [
        candidate(LEFT, fidelity=0.5, realism=-1.0),
        candidate(LEFT, fidelity=0.9, realism=-0.5),
        candidate(RIGHT, fidelity=0.1, realism=-9.0),
        candidate(RIGHT, near=True, fidelity=1.0, realism=0.0),
        candidate(LEFT, as_asked=False, fidelity=0.99, realism=-0.1),
    ]
    choices = choose(candidates, {LEFT: 1, RIGHT: 1})
    assert [choice.is_kept for choice in choices] == [False, True, True, False, False]
    assert choices[0].reason.startswith("front 3: others")
    assert choices[3].reason == "near-duplicate of a real person"
    assert choices[3].front == 0
    assert choices[4].reason == "label map not as asked for"


def test_fewer_are_kept_where_near_duplicates_leave_fewer() -> None:
    candidates = [candidate(LEFT, near=True, fidelity=1.0), candidate(LEFT, fidelity=0.2)]
    assert sum(choice.is_kept for choice in choose(candidates, {LEFT: 2})) == 1
    alone = choose([candidate(LEFT), candidate(LEFT)], {LEFT: 2})
    assert all(choice.is_kept for choice in alone)


def altered(case: Case, modalities: tuple[str, ...], change: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Case:
    """Return a case whose files, if anyone reads them, are those of a copy."""
    images, brain = change(np.stack([np.asarray(case.image(name), np.float32) for name in modalities]), case.brain())
    by_name = dict(zip(modalities, images, strict=True))

    class Altered(Case):
        def image(self, modality: str) -> np.ndarray:
            return by_name[modality]

        def brain(self) -> np.ndarray:
            return brain

    return Altered(case.subject, case.folder, case.source, case.split, case.attributes)


def test_copies_of_persons_of_train_and_val_are_found_alike_and_strangers_are_not(cohort: Cohort, tmp_path) -> None:
    def copied(images: np.ndarray, brain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return construct_copy(images, brain, cohort.spacing_mm, rng(5))

    train, val = cohort.split("train"), cohort.split("val")
    write_toy_cohort(tmp_path / "others", {"train": 10})
    strangers = open_cohort(tmp_path / "others").cases[7:]
    copies = [altered(case, cohort.modalities, copied) for case in (train[0], val[0])]
    found = find_near_duplicates([*copies, *strangers], train, val, cohort, 1)
    assert found == [True, True, False, False, False]


class Seer:
    """Stands in for a judge: sees the label map as it is, or nothing, and takes a slice's brightness for a feature."""

    def __init__(self, cohort: Cohort, blind: set[str]) -> None:
        self.modalities, self.blind = cohort.modalities, blind

    def segment(self, case: Case) -> np.ndarray:
        return np.asarray(case.tumor_map()) * (case.subject not in self.blind)

    def score(self, case: Case, seen: np.ndarray) -> dict[str, float]:
        return {"WT": float(seen.any()), "TC": 1.0}

    def features(self, scans: np.ndarray) -> np.ndarray:
        return np.stack([scans.mean(axis=(1, 2, 3)), scans.std(axis=(1, 2, 3))], axis=1).astype(np.float64)


def test_scores_tell_what_is_seen_what_is_real_and_what_stands_apart(cohort: Cohort) -> None:
    def brighter(images: np.ndarray, brain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return images * 3 * brain, brain

    train, val = cohort.split("train"), cohort.split("val")
    cases = [train[0], replace(train[0]), train[1], altered(train[2], cohort.modalities, brighter)]
    scores = score_candidates(Seer(cohort, {train[1].subject}), cases, val)
    assert [one["fidelity"] for one in scores] == [1.0, 1.0, 0.5, 1.0]
    assert scores[3]["realism"] == 0.0
    assert min(one["realism"] for one in scores[:3]) > 0.2
    assert scores[0]["diversity"] == scores[1]["diversity"] == 0.0
    assert scores[3]["diversity"] > scores[2]["diversity"] > 0


def test_cohort_holds_the_chosen_under_new_numbers_and_nothing_of_the_others(
    cohort: Cohort, generator: Generator, tmp_path: Path, tiny_config: Callable[..., RunConfig]
) -> None:
    config = tiny_config(generate={"n_cases": 4, "curation": {"candidates": 3}}).generate
    made = generate_cohort(generator, cohort, cohort.split("train"), config, CPU, 1, tmp_path / "out")
    table = read_tsv(tmp_path / "out" / "curation.tsv")
    assert len(table) == 12
    kept = [row for row in table if row["outcome"] == "kept"]
    assert len(kept) == len(made.kept) == 4
    assert made.n_refused == 8
    assert all(row["reason"] for row in table if row["outcome"] == "refused")
    written = open_cohort(tmp_path / "out")
    assert [case.subject for case in written.cases] == ["syn00001", "syn00002", "syn00003", "syn00004"]
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {"figures", *(f"sub-{case.subject}" for case in written.cases)}
    for case, (asked, _), row in zip(written.cases, made.kept, kept, strict=True):
        wanted = [asked.label_source, *(asked.wanted[name] for name in config.strata)]
        assert "/".join(wanted) == row["asked"]
        assert case.attributes["asked_volume"] == asked.wanted["volume"]
        assert {path.name.split("_")[0] for path in case.folder.iterdir()} == {f"sub-{case.subject}"}


def test_without_a_choice_every_candidate_is_kept_and_no_judge_is_trained(
    cohort: Cohort,
    generator: Generator,
    tmp_path: Path,
    tiny_config: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(synthesis, "train_judge", lambda *_: pytest.fail("a judge was trained"))
    curation = {"candidates": 1, "drop_near_duplicates": False}
    config = tiny_config(generate={"n_cases": 4, "curation": curation}).generate
    made = generate_cohort(generator, cohort, cohort.split("train"), config, CPU, 1, tmp_path / "out")
    assert [asked for asked, _ in made.kept] == made.asked


def test_a_cut_off_choice_starts_anew_and_ends_the_same(
    cohort: Cohort,
    generator: Generator,
    tmp_path: Path,
    tiny_config: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config(generate={"n_cases": 2}).generate
    generate_cohort(generator, cohort, cohort.split("train"), config, CPU, 1, tmp_path / "whole")
    with monkeypatch.context() as patched:

        def cut(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(synthesis, "score_candidates", cut)
        with pytest.raises(KeyboardInterrupt):
            generate_cohort(generator, cohort, cohort.split("train"), config, CPU, 1, tmp_path / "cut")
    assert (tmp_path / "cut" / "candidates").is_dir()
    generate_cohort(generator, cohort, cohort.split("train"), config, CPU, 1, tmp_path / "cut")
    assert digest_tree(tmp_path / "cut") == digest_tree(tmp_path / "whole")


def test_a_generator_that_copies_leaves_nothing_and_says_so(
    cohort: Cohort,
    generator: Generator,
    tmp_path: Path,
    tiny_config: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    member = cohort.split("train")[0]
    images = np.stack([np.asarray(member.image(name)) for name in cohort.modalities])
    labels = cases_module.LabelMaps(np.asarray(member.tissue_map()), np.asarray(member.tumor_map()))
    monkeypatch.setattr(cases_module, "make_labels", lambda task: labels)
    monkeypatch.setattr(cases_module, "iterate_cases", lambda make, tasks, compute: map(make, tasks))
    monkeypatch.setattr(cases_module, "render_with_style", lambda *_: images / 500.0 - 1.0)
    config = tiny_config(generate={"n_cases": 2, "curation": {"candidates": 1}}).generate
    with pytest.raises(DataError, match="all 2 candidates are near-duplicates of real persons"):
        generate_cohort(generator, cohort, cohort.split("train"), config, CPU, 1, tmp_path / "out")


def test_criteria_are_those_of_the_config(
    cohort: Cohort, generator: Generator, tmp_path: Path, tiny_config: Callable[..., RunConfig]
) -> None:
    config = tiny_config(generate={"n_cases": 2, "curation": {"candidates": 2, "criteria": ["realism"]}}).generate
    generate_cohort(generator, cohort, cohort.split("train"), config, CPU, 1, tmp_path / "out")
    table = read_tsv(tmp_path / "out" / "curation.tsv")
    assert set(table[0]) == {"candidate", "asked", "realism", "front", "outcome", "reason"}
    by_cell: dict[str, list[dict[str, str]]] = {}
    for row in table:
        by_cell.setdefault(row["asked"], []).append(row)
    # One criterion: fronts are ranks, and whoever is kept of those as asked for is the most real.
    n_compared = 0
    for in_cell in by_cell.values():
        rows = [row for row in in_cell if row["reason"] != "label map not as asked for"]
        kept = [float(row["realism"]) for row in rows if row["outcome"] == "kept"]
        refused = [float(row["realism"]) for row in rows if row["reason"].startswith("front")]
        if kept and refused:
            n_compared += 1
            assert min(kept) >= max(refused)
    assert n_compared > 0


def test_the_choice_shifts_no_share_of_label_sources(
    cohort: Cohort, generator: Generator, tmp_path: Path, tiny_config: Callable[..., RunConfig]
) -> None:
    config = tiny_config(generate={"n_cases": 6, "curation": {"candidates": 3}}).generate
    made = generate_cohort(generator, cohort, cohort.split("train"), config, CPU, 2, tmp_path / "out")
    assert sorted(case.source for case in open_cohort(tmp_path / "out").cases) == ["atlas"] * 3 + ["recombine"] * 3
    assert sorted(asked.label_source for asked, _ in made.kept) == sorted(asked.label_source for asked in made.asked)


def test_any_scan_of_a_person_of_val_counts_and_one_person_under_two_names_blinds_nobody(
    cohort: Cohort, tmp_path: Path
) -> None:
    def copied(images: np.ndarray, brain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return construct_copy(images, brain, cohort.spacing_mm, rng(6))

    train, val = cohort.split("train"), cohort.split("val")
    two_scans = tuple(replace(case, attributes={**case.attributes, "person": "one"}) for case in val)
    copies = [altered(case, cohort.modalities, copied) for case in (*two_scans, train[1])]
    assert find_near_duplicates(copies, train, two_scans, cohort, 1) == [True] * (len(two_scans) + 1)
    twin = replace(train[0], attributes={**train[0].attributes, "person": "other name"})
    assert find_near_duplicates(copies, (*train, twin), val, cohort, 1) == [True] * len(copies)
