"""The audit: attacks find what is planted and nothing else, references are balanced, the verdict follows its table."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import TINY, toy_brain, write_toy_cohort
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.audit import controls, copies, reconstruction, stage
from pipeline.audit.controls import (
    Control,
    MemorisingGenerator,
    permuted_membership,
    planted_copies,
    planted_memory,
    untouched_patients,
)
from pipeline.audit.copies import CopyFinding, find_copies
from pipeline.audit.embedding import distances, embed_case, embed_scan, mirror_scan
from pipeline.audit.figures import roc_points
from pipeline.audit.nearest_neighbour import nearest_neighbour, score_by_distance
from pipeline.audit.paired import PairedFigure, paired_figure, patient_risk
from pipeline.audit.references import ReferenceScores, balanced_halves, calibrate, untouched_scores
from pipeline.audit.statistics import Estimate, auc
from pipeline.audit.targets import Reference, Release
from pipeline.audit.verdict import AttackFigure, _find_copy_gaps, decide
from pipeline.cohort import (
    Case,
    CaseData,
    Cohort,
    digest_file,
    digest_of,
    digest_tree,
    open_cohort,
    read_tsv,
    write_case,
    write_cohort_files,
    write_tsv,
)
from pipeline.config import AuditSection, RunConfig, parse_config
from pipeline.errors import DataError
from pipeline.generate.sampling import render_volume
from pipeline.generate.stage import generate_cohort
from pipeline.labels import LabelScheme
from pipeline.runner import StageContext
from pipeline.seeds import torch_stream
from pipeline.train.data import read_scan
from pipeline.train.loop import TrainingPlan, train_generator
from pipeline.train.weights import WEIGHTS_FILE, load_generator
from pipeline.volumes import Grid

SHAPE = (24, 24, 16)
GRID = Grid(SHAPE, 8.0)
N_MEMBERS, N_OTHERS = 12, 12


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def write_synthetic(root: Path, scans: Sequence[tuple[Mapping[str, NDArray], NDArray, NDArray]]) -> Cohort:
    """Write (images, tissue map, tumour map) as a synthetic cohort."""
    rows = []
    for number, (images, tissue, tumor) in enumerate(scans):
        subject = f"syn{number:05d}"
        scaled = {name: np.clip(image, 0, 1000).astype(np.int16) for name, image in images.items()}
        write_case(root, CaseData(subject, scaled, tissue, tumor, GRID.affine, {}))
        rows.append({"participant_id": f"sub-{subject}", "source": "toy"})
    write_cohort_files(root, "synthetic", LabelScheme(), rows, "Toy scans. " * 20)
    return open_cohort(root)


def fresh(seed: int) -> tuple[dict[str, NDArray], NDArray, NDArray]:
    images, tissue, tumor = toy_brain(SHAPE, rng(seed))
    return {name: image * 8 for name, image in images.items()}, tissue, tumor


def copy_of(case: Case, seed: int, mirrored: bool = False) -> tuple[dict[str, NDArray], NDArray, NDArray]:
    """Return a noisy copy of a case, mirrored or not."""
    step = -1 if mirrored else 1
    names = case.modalities
    images = {name: case.image(name)[::step] + rng(seed).normal(0, 20, SHAPE) for name in names}
    return images, np.asarray(case.tissue_map())[::step], np.asarray(case.tumor_map())[::step]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    splits = {"train": N_MEMBERS, "val": 4, "test": N_OTHERS}
    return open_cohort(write_toy_cohort(tmp_path_factory.mktemp("audit") / "cohort", splits))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Return synthetic scans that are nobody's."""
    return write_synthetic(tmp_path_factory.mktemp("honest") / "synthetic", [fresh(seed) for seed in range(50, 58)])


@pytest.fixture(scope="module")
def leaking(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Return synthetic scans with a copy of each member among them, every second one mirrored."""
    planted = [copy_of(case, i, bool(i % 2)) for i, case in enumerate(cohort.split("train"))]
    root = tmp_path_factory.mktemp("leaking") / "synthetic"
    return write_synthetic(root, [*planted, *(fresh(seed) for seed in range(50, 54))])


def release_of(synthetic: Cohort) -> Release:
    return Release(synthetic, SimpleNamespace())


def reference_of(cohort: Cohort, n_style_draws: int = 1) -> Reference:
    return Reference(cohort.split("val"), cohort.scheme, cohort.modalities, n_style_draws, 5)


def test_embedding_does_not_see_brightness_and_contrast_but_sees_the_person(cohort: Cohort) -> None:
    first, second = cohort.cases[:2]
    images, brain = read_images(first, cohort)
    embedded = embed_scan(images, brain, 8.0)
    assert np.linalg.norm(embedded) == pytest.approx(1.0)
    np.testing.assert_allclose(embed_scan(images * 0.5 + 70, brain, 8.0), embedded, atol=1e-5)
    np.testing.assert_allclose(embed_case(first, cohort.modalities, 8.0), embedded, atol=1e-6)
    assert embedded @ embed_case(second, cohort.modalities, 8.0) < 0.95
    twice_mirrored = mirror_scan(*mirror_scan(images, brain))
    np.testing.assert_array_equal(embed_scan(*twice_mirrored, 8.0), embedded)


def read_images(case: Case, cohort: Cohort) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    images = np.stack([np.asarray(case.image(name), np.float32) for name in cohort.modalities])
    return images, case.condition(cohort.scheme) > 0


def test_distances_are_as_by_hand() -> None:
    x, y = np.array([[1.0, 0.0]], np.float32), np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], np.float32)
    np.testing.assert_allclose(distances(x, y), [[0.0, np.sqrt(2), 2.0]])
    # Nearest other person at sqrt 2, nearest synthetic at 0: the score is their difference.
    np.testing.assert_allclose(score_by_distance(x, y[:1], y[1:]), [np.sqrt(2)])


def attack_auc(outcomes: Sequence[stage.Outcome], name: str) -> float:
    outcome = next(o for o in outcomes if o.name == name)
    return auc(outcome.member, outcome.nonmember)


def test_nearest_neighbour_finds_planted_copies_and_nothing_where_none_are(
    cohort: Cohort, honest: Cohort, leaking: Cohort
) -> None:
    members, others = cohort.split("train"), cohort.split("test")
    found = {}
    for name, synthetic in (("honest", honest), ("leaking", leaking)):
        scores = nearest_neighbour((*members, *others), release_of(synthetic), reference_of(cohort))
        found[name] = auc(scores[:N_MEMBERS], scores[N_MEMBERS:])
    assert found["leaking"] == 1.0
    # The null SD at 12 against 12 is sqrt(25 / 1728) = .12: within two and a half of them.
    assert 0.2 < found["honest"] < 0.8


def memory_of(cases: Sequence[Case], cohort: Cohort) -> dict[bytes, NDArray[np.float32]]:
    """Return the scans of cases in [-1, 1] by their label maps."""
    return {case.condition(cohort.scheme).tobytes(): read_images(case, cohort)[0] / 500 - 1 for case in cases}


def class_means(cohort: Cohort) -> NDArray[np.float32]:
    """Return the mean intensity of each class over val patients: (modalities, classes)."""
    means = []
    for case in cohort.split("val"):
        images, condition = read_images(case, cohort)[0], case.condition(cohort.scheme)
        means.append([[image[condition == c].mean() for c in range(7)] for image in images])
    return np.mean(means, axis=0)


@pytest.fixture
def remembering(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> dict[bytes, NDArray[np.float32]]:
    """Replace the rendering by what a generator with a memory does; return the memory, to be filled."""
    memory: dict[bytes, NDArray[np.float32]] = {}
    means = class_means(cohort)

    def render(generator: object, condition: NDArray[np.uint8], stream: object) -> NDArray[np.float32]:
        typical = means[:, condition] / 500 - 1
        remembered = memory.get(condition.tobytes())
        return typical if remembered is None else 0.7 * typical + 0.3 * remembered

    monkeypatch.setattr(reconstruction, "render_volume", render)
    return memory


def test_reconstruction_sees_a_generator_that_remembers_and_none_that_does_not(
    cohort: Cohort, honest: Cohort, remembering: dict[bytes, NDArray[np.float32]]
) -> None:
    members, others = cohort.split("train"), cohort.split("test")
    targets, reference = (*members, *others), reference_of(cohort)
    scores = reconstruction.reconstruction(targets, release_of(honest), reference)
    assert 0.2 < auc(scores[:N_MEMBERS], scores[N_MEMBERS:]) < 0.8
    remembering.update(memory_of(members, cohort))
    scores = reconstruction.reconstruction(targets, release_of(honest), reference)
    assert auc(scores[:N_MEMBERS], scores[N_MEMBERS:]) == 1.0


def test_reconstruction_error_is_the_best_of_the_styles_in_units_of_the_range(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cohort.split("train")[0]
    truth = read_images(case, cohort)[0] / 500 - 1
    off = iter([0.4, 0.1, 0.3])
    monkeypatch.setattr(reconstruction, "render_volume", lambda *_: truth + next(off))
    errors = reconstruction.reconstruction_errors([case], SimpleNamespace(), reference_of(cohort, 3))
    # The best is .1 off on a scale of length 2, .05 of the range.
    assert errors == pytest.approx([0.05], abs=1e-6)


def test_a_generic_model_predicts_better_than_the_mean_and_sees_val_patients_only(cohort: Cohort) -> None:
    reference = reference_of(cohort)
    errors = reconstruction.predictability_errors(cohort.split("test"), reference)
    for case, error in zip(cohort.split("test"), errors, strict=True):
        images, brain = read_images(case, cohort)
        inside = images[:, brain] / 1000
        assert 0 < error < 0.7 * np.abs(inside - inside.mean(axis=1, keepdims=True)).mean()
    weights = reconstruction.fit_generic_model(reference)
    assert weights.shape == (4, 3 * cohort.scheme.n_condition_classes)


def test_scores_do_not_depend_on_the_order_of_targets(
    cohort: Cohort, honest: Cohort, remembering: dict[bytes, NDArray[np.float32]]
) -> None:
    targets = (*cohort.split("train"), *cohort.split("test"))
    for attack in stage.ATTACKS.values():
        forward = attack(targets, release_of(honest), reference_of(cohort))
        backward = attack(targets[::-1], release_of(honest), reference_of(cohort))
        np.testing.assert_allclose(backward[::-1], forward, atol=1e-9)
        alone = attack(targets[3:4], release_of(honest), reference_of(cohort))
        np.testing.assert_allclose(alone, forward[3:4], atol=1e-6)


def test_attacks_never_learn_who_is_a_member(cohort: Cohort, honest: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sequence[Case]] = []

    def spy(targets: Sequence[Case], release: Release, reference: Reference) -> NDArray[np.float64]:
        seen.append(targets)
        return np.array([float(int(case.subject, 16)) for case in targets])

    monkeypatch.setattr(stage, "ATTACKS", {"spy": spy})
    members, others = cohort.split("train")[::-1], cohort.split("test")
    outcome = stage.attack_target(members, others, release_of(honest), reference_of(cohort))[0]
    assert {(case.split, case.source, len(case.attributes)) for case in seen[0]} == {("n/a", "n/a", 0)}
    assert [case.subject for case in seen[0]] == sorted(case.subject for case in (*members, *others))
    # Scores find their way back to the persons in the callers' order.
    assert outcome.member.tolist() == [float(int(case.subject, 16)) for case in members]
    assert outcome.nonmember.tolist() == [float(int(case.subject, 16)) for case in others]


def test_a_person_on_both_sides_is_refused(cohort: Cohort, honest: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "ATTACKS", {"any": lambda targets, *_: np.zeros(len(targets))})
    members, others = cohort.split("train"), cohort.split("test")
    with pytest.raises(DataError, match="a person on both sides"):
        stage.attack_target(members, (*others, members[0]), release_of(honest), reference_of(cohort))


def test_the_unit_is_the_person_not_the_scan(cohort: Cohort) -> None:
    first, second, third = cohort.cases[:3]
    again = replace(second, attributes={**second.attributes, "person": first.attributes["person"]})
    cohort = Cohort(Path(), LabelScheme(), (), (first, again, third))
    assert cohort.patients(first.split, third.split) == (first, third)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 15), st.integers(0, 15), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_halves_are_balanced_and_pairs_complementary(n_train: int, n_test: int, n_pairs: int, seed: int) -> None:
    sides = np.array(["train"] * n_train + ["test"] * n_test)
    inside = balanced_halves(sides.tolist(), 2 * n_pairs, rng(seed))
    assert inside.shape == (2 * n_pairs, len(sides))
    assert (inside.sum(axis=0) == n_pairs).all()
    np.testing.assert_array_equal(inside[::2], ~inside[1::2])
    for row in inside:
        assert abs(2 * int(row.sum()) - len(sides)) <= 1
        for side in ("train", "test"):
            assert abs(2 * int(row[sides == side].sum()) - int((sides == side).sum())) <= 1


def test_halves_differ_between_pairs() -> None:
    inside = balanced_halves(["train"] * 12 + ["test"] * 8, 8, rng())
    assert len({row.tobytes() for row in inside}) == 8


def scored(n_references: int, n_persons: int, leak: float, seed: int) -> ReferenceScores:
    """Return scores with offsets of generators and persons many times the noise, and a leak in units of the noise."""
    stream = rng(seed)
    inside = balanced_halves(["train"] * n_persons, n_references, stream)
    scores = stream.normal(size=inside.shape) + leak * inside
    scores += stream.normal(0, 3, n_persons) + stream.normal(0, 50, (n_references, 1))
    return ReferenceScores({"attack": scores * stream.uniform(0.5, 2, (n_references, 1))}, inside)


def test_paired_figure_and_risk_are_as_by_hand() -> None:
    inside = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], bool)
    # Each row has mean 1 and SD sqrt((4 + 0 + 1 + 1) / 4) = sqrt 1.5.
    references = ReferenceScores({"attack": np.array([[3.0, 1, 0, 0], [0.0, 0, 1, 3]])}, inside)
    # Standardised (2, 0, -1, -1) and (-1, -1, 0, 2); persons' means .5, -.5, -.5, .5 off; over sqrt 1.5.
    expected = np.array([[1.5, 0.5, -0.5, -1.5], [-1.5, -0.5, 0.5, 1.5]]) / np.sqrt(1.5)
    np.testing.assert_allclose(calibrate(references, "attack"), expected)
    # In: 1.5, .5, .5, 1.5; out: the same with a minus.
    assert paired_figure(references, "attack", 200, 0.05, rng()).estimate.value == 1.0
    np.testing.assert_allclose(patient_risk(references, "attack"), np.array([3, 1, 1, 3]) / np.sqrt(1.5))


def test_calibration_takes_away_what_belongs_to_generator_or_person() -> None:
    references = scored(6, 20, 0.5, 1)
    scores = references.scores["attack"]
    stretched = scores * np.array([[1.0], [5], [2], [0.1], [7], [3]]) + np.array([[9.0], [-4], [0], [1], [2], [8]])
    moved = ReferenceScores({"attack": stretched}, references.is_member)
    np.testing.assert_allclose(calibrate(moved, "attack"), calibrate(references, "attack"), atol=1e-9)
    np.testing.assert_allclose(calibrate(references, "attack").sum(axis=0), 0, atol=1e-9)
    persons_only = ReferenceScores({"attack": np.tile(rng().normal(size=20), (6, 1))}, references.is_member)
    np.testing.assert_allclose(calibrate(persons_only, "attack"), 0, atol=1e-9)


@pytest.mark.parametrize("n_references", [2, 8])
def test_paired_interval_covers_one_half_where_nothing_leaks(n_references: int) -> None:
    n_repeats, covered = 60, 0
    for seed in range(n_repeats):
        figure = paired_figure(scored(n_references, 24, 0.0, seed), "attack", 200, 0.05, rng(seed))
        low, high = figure.estimate.ci
        assert low <= figure.estimate.value <= high
        covered += low <= 0.5 <= high
    # 95% of 60 is 57, SD 1.7.
    assert covered >= 52


@pytest.mark.parametrize("n_references", [2, 8])
def test_paired_figure_sees_a_leak_below_the_differences_between_persons(n_references: int) -> None:
    references = scored(n_references, 24, 2.0, 1)
    figure = paired_figure(references, "attack", 200, 0.05, rng())
    assert (figure.n_patients, figure.n_references) == (24, n_references)
    assert figure.resamples_references == (n_references >= 8)
    assert figure.estimate.ci[0] > 0.6
    # Without calibration the same scores show little: the persons' SD is 3, the generators' 50.
    raw = references.scores["attack"]
    assert auc(raw[references.is_member], raw[~references.is_member]) < 0.65
    turned = ReferenceScores({"attack": -raw}, references.is_member)
    assert paired_figure(turned, "attack", 200, 0.05, rng()).estimate.ci[1] < 0.4


def test_permuted_control_misbehaves_only_where_permutations_are_off_one_half() -> None:
    # 1,000 permutations of SD .1: the mean is within 4 * .1 / sqrt(1000) = .0126 of .5.
    permuted = rng().normal(0.5, 0.1, 1000)
    permuted += 0.5 - permuted.mean()
    assert permuted_membership("x", "X", 0.9, permuted).behaved
    assert permuted_membership("x", "X", 0.9, permuted + 0.012).behaved
    assert not permuted_membership("x", "X", 0.9, permuted + 0.013).behaved
    assert not permuted_membership("x", "X", 0.5, permuted - 0.013).behaved


def test_planted_copies_are_seen_and_an_attack_that_cannot_see_them_is_told(
    cohort: Cohort, honest: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = cohort.split("train"), cohort.split("test")
    control = planted_copies(*sides, release_of(honest), reference_of(cohort), 0.2)
    assert control.behaved
    assert control.curve is not None
    assert (len(control.curve[0]), len(control.curve[1])) == (3, N_OTHERS)
    assert set(control.as_json()) == {"name", "title", "expected", "observed", "behaved"}

    def noise(
        images: NDArray, brain: NDArray, spacing_mm: float, stream: np.random.Generator
    ) -> tuple[NDArray, NDArray]:
        return stream.normal(size=images.shape).astype(np.float32), brain

    monkeypatch.setattr(controls, "construct_copy", noise)
    assert not planted_copies(*sides, release_of(honest), reference_of(cohort), 0.2).behaved


def test_planted_memory_is_seen_and_a_blind_attack_is_told(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = open_cohort(run_dir / "cohort")
    release = Release(open_cohort(run_dir / "synthetic"), load_generator(run_dir / "model"))
    members, reference = made.split("train"), reference_of(made)
    clean = reconstruction.reconstruction(made.split("test"), release, reference)
    assert planted_memory(members, clean, release, reference, 0.2).behaved
    # A generator that moves away from what it remembers is worse on those persons: the attack must not call them in.
    monkeypatch.setattr(controls, "MEMORY", -1.0)
    assert not planted_memory(members, clean, release, reference, 0.2).behaved


def test_a_memorising_generator_is_the_generator_where_it_remembers_nothing(run_dir: Path) -> None:
    made, generator = open_cohort(run_dir / "cohort"), load_generator(run_dir / "model")
    remembered, other = made.split("train")[:2]
    memorising = MemorisingGenerator(generator, [remembered], reference_of(made))
    for case, is_remembered in ((remembered, True), (other, False)):
        condition = case.condition(made.scheme)
        plain, mixed = (
            render_volume(network, condition, torch_stream(1, "same")) for network in (generator, memorising)
        )
        scan = read_scan(case, made.modalities, (slice(None),) * 3)
        expected = (plain + scan) / 2 if is_remembered else plain
        assert mixed == pytest.approx(expected, abs=1e-5)


def test_near_duplicates_of_members_are_found_and_honest_scans_are_none(
    cohort: Cohort, honest: Cohort, leaking: Cohort
) -> None:
    sides = cohort.split("train"), cohort.split("test")
    clean = find_copies(*sides, release_of(honest), reference_of(cohort))
    assert clean.n_near_duplicates == 0
    assert clean.excess_p == 1.0
    planted = find_copies(*sides, release_of(leaking), reference_of(cohort))
    assert planted.n_near_duplicates == N_MEMBERS
    # All of 12 against none of 12: one way of C(24, 12) = 2,704,156.
    assert planted.excess_p == pytest.approx(1 / 2_704_156)
    for finding in (clean, planted):
        assert finding.recall >= 0.75
        assert finding.false_alarms == 0.0


@pytest.mark.parametrize("spacing_mm", [1.0, 4.0])
def test_a_constructed_copy_is_moved_by_millimetres_and_changed_in_gain(spacing_mm: float) -> None:
    brain = np.zeros((30, 30, 30), bool)
    brain[8:22, 8:22, 8:22] = True
    images = np.where(brain, 500, 0).astype(np.float32)[None]
    moves, gains = [], []
    for seed in range(20):
        changed, mask = copies.construct_copy(images, brain, spacing_mm, rng(seed))
        weights = np.clip(changed[0], 100, None) - 100
        centre = (np.indices(brain.shape) * weights).sum(axis=(1, 2, 3)) / weights.sum()
        # The grid and the box are symmetric, so that mirroring moves nothing else.
        moves.append(np.abs(centre - 14.5) * spacing_mm)
        gains.append(changed[0][mask].mean() / 500)
    assert 0.5 < np.max(moves) < 2.1
    assert 0.8 < min(gains) < 0.95
    assert 1.05 < max(gains) < 1.2


def test_excess_of_near_duplicates_is_as_by_hand() -> None:
    member, nonmember = np.array([1, 1, 0, 0], bool), np.zeros(4, bool)
    # Both hits among the members: C(4, 2) / C(8, 2) = 6 / 28.
    assert copies._excess(member, nonmember, rng()) == pytest.approx(6 / 28)
    assert copies._excess(nonmember, member, rng()) == 1.0
    # Twice as many members with the same share of hits is no excess.
    assert copies._excess(np.array([1, 0] * 10, bool), np.array([1, 0] * 5, bool), rng()) > 0.3


def test_roc_corners_are_as_by_hand() -> None:
    points = roc_points(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
    # Above 3: one member; 2: one other; 1: the second member; 0: the second other.
    np.testing.assert_allclose(points, [[0, 0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1, 1]])


POLICY = AuditSection()
CLEAN_COPIES = CopyFinding(0, 1.0, 1.0, 0.0, 0.9)
WELL = Control("c", "control", "x", "x", behaved=True)
ILL = Control("c", "control", "AUC of at least .8", "AUC .5", behaved=False)


def attack_figure(value: float, error: float = 0.03, n: int = 24) -> AttackFigure:
    ci = (value - 1.96 * error, value + 1.96 * error)
    return AttackFigure("a", "attack", "dataset", Estimate(value, ci, error), n, n)


def paired(value: float, error: float = 0.02, n: int = 48, k: int = 8) -> PairedFigure:
    return PairedFigure("a", Estimate(value, (value - 1.96 * error, value + 1.96 * error), error), n, k, True)


@pytest.mark.parametrize(
    ("attack", "figure", "control", "found", "verdict", "reason"),
    [
        (attack_figure(0.52), paired(0.51), WELL, CLEAN_COPIES, "pass", "between 0.40 and 0.60"),
        (attack_figure(0.52), paired(0.51), ILL, CLEAN_COPIES, "invalid", "got AUC .5"),
        # A control that misbehaves outweighs a leak: the figure is not to be believed.
        (attack_figure(0.95), paired(0.95), ILL, CLEAN_COPIES, "invalid", "expected AUC of at least .8"),
        # .75 is five standard errors above .60.
        (attack_figure(0.75), paired(0.51), WELL, CLEAN_COPIES, "fail", "attack 'attack' on the release"),
        (attack_figure(0.25), paired(0.51), WELL, CLEAN_COPIES, "fail", "attack 'attack' on the release"),
        (attack_figure(0.52), paired(0.75), WELL, CLEAN_COPIES, "fail", "paired figure of 'a'"),
        (attack_figure(0.52), paired(0.25), WELL, CLEAN_COPIES, "fail", "paired figure of 'a'"),
        # 1.33 standard errors above: p = .09 and, by Holm over two figures, .18.
        (attack_figure(0.64), paired(0.51), WELL, CLEAN_COPIES, "pass", "between"),
        # 1.83 standard errors: p = .034 alone, .067 by Holm.
        (attack_figure(0.655), paired(0.51), WELL, CLEAN_COPIES, "pass", "between"),
        # Too few persons for the figure to gate anything.
        (attack_figure(0.95, n=11), paired(0.51), WELL, CLEAN_COPIES, "pass", "between"),
        (attack_figure(0.52), paired(0.51), WELL, replace(CLEAN_COPIES, excess_p=0.01), "fail", "near-duplicates"),
        # .58 + 1.96 * .02 = .619.
        (attack_figure(0.52), paired(0.58), WELL, CLEAN_COPIES, "unresolved", "0.54 to 0.62 reaches beyond"),
        (attack_figure(0.52), paired(0.42), WELL, CLEAN_COPIES, "unresolved", "0.38 to 0.46 reaches beyond"),
        (attack_figure(0.52), paired(0.51, n=19), WELL, CLEAN_COPIES, "unresolved", "19 persons"),
        (attack_figure(0.52), paired(0.51, k=6), WELL, CLEAN_COPIES, "unresolved", "6 reference generators"),
        (attack_figure(0.52), None, WELL, CLEAN_COPIES, "unresolved", "no paired figure"),
    ],
)
def test_verdict_follows_its_table(
    attack: AttackFigure,
    figure: PairedFigure | None,
    control: Control,
    found: CopyFinding,
    verdict: str,
    reason: str,
) -> None:
    decided = decide([attack], [] if figure is None else [figure], [WELL, control], found, POLICY)
    assert decided.verdict == verdict
    assert any(reason in text for text in decided.reasons)


def test_an_unresolved_verdict_names_every_gap() -> None:
    decided = decide([], [paired(0.55, 0.1, n=10, k=2), paired(0.5)], [WELL], CLEAN_COPIES, POLICY)
    assert len(decided.reasons) == 3


def test_an_attacker_may_turn_the_sign() -> None:
    assert attack_figure(0.1).auc_either_sign == pytest.approx(0.9)
    assert attack_figure(0.6).auc_either_sign == pytest.approx(0.6)


class RecordingTracker:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.tables: dict[str, list[dict[str, object]]] = {}
        self.pictures: list[str] = []
        self.tagged: dict[str, str] = {}

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        self.values.update(values)

    def table(self, name: str, rows: list[dict[str, object]]) -> None:
        self.tables[name] = rows

    def image(self, key: str, path: str, step: int = 0) -> None:
        self.pictures.append(path)

    def tags(self, values: dict[str, str]) -> None:
        self.tagged.update(values)


def config_of(n_references: int = 2) -> RunConfig:
    content = {**TINY, "audit": {**TINY["audit"], "n_references": n_references}}
    return parse_config(content, "tests")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder whose stages before the audit are finished."""
    root, config = tmp_path_factory.mktemp("run"), config_of()
    write_toy_cohort(root / "cohort", {"train": 6, "val": 3, "test": 5})
    made = open_cohort(root / "cohort")
    plan = TrainingPlan(made.split("train"), made.scheme, made.modalities, config.train, config.compute, 1)
    train_generator(plan, root / "model")
    generator = load_generator(root / "model")
    generate_cohort(generator, made, made.split("train"), config.generate, config.compute, 1, root / "synthetic")
    return root


def audit(run_dir: Path, out: Path) -> tuple[dict[str, object], RecordingTracker]:
    tracker = RecordingTracker()
    out.mkdir(exist_ok=True)
    return stage.run(StageContext(config_of(), run_dir, out, 3, tracker)), tracker


@pytest.fixture(scope="module")
def audited(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RecordingTracker]:
    out = tmp_path_factory.mktemp("audited") / "audit"
    _, tracker = audit(run_dir, out)
    return out, tracker


def refuse_constant(name: str) -> None:
    raise AssertionError(name)


def test_audit_json_has_every_key_of_the_contract_and_no_nan(
    run_dir: Path, audited: tuple[Path, RecordingTracker]
) -> None:
    content = json.loads((audited[0] / "audit.json").read_text(), parse_constant=refuse_constant)
    assert content["verdict"] in ("pass", "fail", "unresolved", "invalid")
    assert content["unit"] == "patient"
    assert content["reasons"]
    assert content["policy"]["auc_limit"] == 0.6
    assert {attack["name"]: attack["threat_model"] for attack in content["attacks"]} == {
        "nearest-neighbour": "dataset",
        "reconstruction": "model",
    }
    for attack in content["attacks"]:
        assert (attack["n_members"], attack["n_nonmembers"]) == (6, 5)
        assert attack["auc_ci"][0] <= attack["auc"] <= attack["auc_ci"][1]
        assert attack["auc_either_sign"] == max(attack["auc"], 1 - attack["auc"])
        assert attack["reliable"] is False
        assert set(attack["tpr_at_fpr"]) == {"0.1", "0.01", "0.001"}
        for found in attack["tpr_at_fpr"].values():
            assert found["ci"][0] <= found["value"] <= found["ci"][1]
            assert found["resolved"] is False
        assert 0 <= attack["epsilon_lower"] <= attack["epsilon_resolvable"]
    for figure in content["paired"]:
        assert (figure["n_patients"], figure["n_references"]) == (11, 2)
        assert figure["auc_ci"][0] <= figure["auc"] <= figure["auc_ci"][1]
        assert figure["threat_model"] in ("dataset", "model")
    assert len(content["controls"]["negative"]) == 4
    assert len(content["controls"]["positive"]) == 2
    for control in (*content["controls"]["negative"], *content["controls"]["positive"]):
        assert {"name", "expected", "observed", "behaved"} <= set(control)
    assert {"n_near_duplicates", "excess_p", "recall", "false_alarms"} <= set(content["copies"])
    assert content["power"]["sentence"]
    assert content["patients_needed"]["fpr_0.01"] == 299
    assert content["bound_to"] == {
        "generator": digest_file(run_dir / "model" / WEIGHTS_FILE),
        "synthetic": digest_of(digest_tree(run_dir / "synthetic")),
    }


def test_eleven_patients_and_two_references_never_pass(audited: tuple[Path, RecordingTracker]) -> None:
    content = json.loads((audited[0] / "audit.json").read_text())
    assert content["verdict"] != "pass"
    if content["verdict"] == "unresolved":
        assert any("2 reference generators" in reason for reason in content["reasons"])


def test_audit_writes_scores_and_risks_of_every_patient(run_dir: Path, audited: tuple[Path, RecordingTracker]) -> None:
    out = audited[0]
    sides = {case.subject: case.split for case in open_cohort(run_dir / "cohort").split("train", "test")}
    with (out / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 11
    assert all(row["member"] == str(int(sides[row["patient"]] == "train")) for row in rows)
    with (out / "patients.csv").open(encoding="utf-8") as file:
        patients = list(csv.DictReader(file))
    assert {row["patient"]: row["split"] for row in patients} == sides
    exposure = [max(float(row["nearest-neighbour"]), float(row["reconstruction"])) for row in patients]
    assert exposure == sorted(exposure, reverse=True)
    assert (out / "figures" / "roc.png").read_bytes().startswith(b"\x89PNG")
    # References' scans and checkpoints are not kept: they are made of real patients.
    kept = {path.name for path in (out / "references" / "01").iterdir()}
    assert kept == {"scores.json", WEIGHTS_FILE}


def test_audit_records_its_figures_without_a_patient(audited: tuple[Path, RecordingTracker]) -> None:
    tracker = audited[1]
    assert set(tracker.values) == {
        f"{kind}/{name}" for kind in ("auc", "paired_auc") for name in ("nearest-neighbour", "reconstruction")
    }
    assert tracker.pictures == ["figures/roc.png"]
    assert set(tracker.tagged) == {"verdict"}
    assert [row["name"] for row in tracker.tables["attacks"]] == ["nearest-neighbour", "reconstruction"]


def test_audit_cut_off_and_resumed_ends_with_the_same_bytes(
    run_dir: Path, audited: tuple[Path, RecordingTracker], tmp_path: Path
) -> None:
    # The first reference is finished, the second was killed while its scores were written.
    shutil.copytree(audited[0] / "references", tmp_path / "audit" / "references")
    second = tmp_path / "audit" / "references" / "02"
    whole = (second / "scores.json").read_text()
    (second / "scores.json").unlink()
    (second / "writing.tmp").write_text(whole[: len(whole) // 2])
    audit(run_dir, tmp_path / "audit")
    assert digest_tree(tmp_path / "audit") == digest_tree(audited[0])


def test_audit_from_the_start_gives_the_same_bytes(
    run_dir: Path, audited: tuple[Path, RecordingTracker], tmp_path: Path
) -> None:
    summary, _ = audit(run_dir, tmp_path / "audit")
    assert digest_tree(tmp_path / "audit") == digest_tree(audited[0])
    assert set(summary) == {
        "verdict",
        "auc_nearest-neighbour",
        "auc_reconstruction",
        "paired_nearest-neighbour",
        "paired_reconstruction",
    }


def test_an_empty_side_of_the_split_is_refused(run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir / "cohort", tmp_path / "cohort")
    table = tmp_path / "cohort" / "participants.tsv"
    write_tsv(table, [{**row, "split": "train"} for row in read_tsv(table)])
    with pytest.raises(DataError, match="a side of the split is empty"):
        audit(tmp_path, tmp_path / "audit")


def test_a_difference_between_the_sides_that_no_generator_saw_makes_the_negative_control_misbehave() -> None:
    policy = AuditSection()
    is_train = np.arange(40) < 24
    alike = rng(3).normal(size=40)
    assert untouched_patients("a", "attack", alike, is_train, policy, 1).behaved
    assert not untouched_patients("a", "attack", alike + 2.0 * is_train, is_train, policy, 1).behaved


def test_untouched_scores_come_from_references_that_did_not_see_the_person() -> None:
    is_member = np.array([[True, False, True, False], [False, True, False, True]])
    # Whoever is in scores 9; out, persons score 1, 2, 3, 4.
    scores = np.where(is_member, 9.0, np.array([1.0, 2.0, 3.0, 4.0]))
    found = untouched_scores(ReferenceScores({"a": scores}, is_member), "a")
    # Row 0 holds 9, 2, 9, 4: mean 6, deviation sqrt((9 + 16 + 9 + 4) / 4); row 1 holds 1, 9, 3, 9: mean 5.5.
    first, second = np.sqrt(38 / 4), np.sqrt((4.5**2 + 3.5**2 + 2.5**2 + 3.5**2) / 4)
    assert found == pytest.approx([(1 - 5.5) / second, (2 - 6) / first, (3 - 5.5) / second, (4 - 6) / first])


def test_a_useless_search_for_copies_and_near_duplicates_stand_in_the_way_of_a_pass() -> None:
    blind = CopyFinding(0, 1.0, 0.5, 0.0, 0.9)
    assert "search for copies" in " ".join(_find_copy_gaps(blind))
    duplicates = CopyFinding(3, 1.0, 1.0, 0.0, 0.9)
    assert "3 synthetic cases" in " ".join(_find_copy_gaps(duplicates))
    assert not _find_copy_gaps(CopyFinding(0, 1.0, 1.0, 0.0, 0.9))
