"""Reference generators: halves are balanced, calibration leaves what belongs to both generator and person."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from audit_builders import config_of, reference_of, scored
from conftest import rng
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.audit import references
from pipeline.audit.references import (
    ReferenceScores,
    ReferenceTask,
    balanced_halves,
    calibrate,
    score_one,
    untouched_scores,
)
from pipeline.audit.targets import Reference, Release
from pipeline.cohort import Case, Cohort


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


def test_calibration_takes_away_what_belongs_to_generator_or_person() -> None:
    references = scored(6, 20, 0.5, 1)
    scores = references.scores["attack"]
    stretched = scores * np.array([[1.0], [5], [2], [0.1], [7], [3]]) + np.array([[9.0], [-4], [0], [1], [2], [8]])
    moved = ReferenceScores({"attack": stretched}, references.is_member)
    np.testing.assert_allclose(calibrate(moved, "attack"), calibrate(references, "attack"), atol=1e-9)
    np.testing.assert_allclose(calibrate(references, "attack").sum(axis=0), 0, atol=1e-9)
    persons_only = ReferenceScores({"attack": np.tile(rng().normal(size=20), (6, 1))}, references.is_member)
    np.testing.assert_allclose(calibrate(persons_only, "attack"), 0, atol=1e-9)


def test_untouched_scores_come_from_references_that_did_not_see_the_person() -> None:
    is_member = np.array([[True, False, True, False], [False, True, False, True]])
    # Whoever is in scores 9; out, persons score 1, 2, 3, 4.
    scores = np.where(is_member, 9.0, np.array([1.0, 2.0, 3.0, 4.0]))
    found = untouched_scores(ReferenceScores({"a": scores}, is_member), "a")
    # Row 0 holds 9, 2, 9, 4: mean 6, deviation sqrt((9 + 16 + 9 + 4) / 4); row 1 holds 1, 9, 3, 9: mean 5.5.
    first, second = np.sqrt(38 / 4), np.sqrt((4.5**2 + 3.5**2 + 2.5**2 + 3.5**2) / 4)
    assert found == pytest.approx([(1 - 5.5) / second, (2 - 6) / first, (3 - 5.5) / second, (4 - 6) / first])


def score_by_name(targets: Sequence[Case], release: Release, reference: Reference) -> NDArray[np.float64]:
    return np.array([float(int(case.subject, 16)) for case in targets])


class KilledError(Exception):
    """Stands for a kill."""


def test_a_reference_killed_amid_its_clearing_up_is_read_and_cleared(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(_: Path) -> None:
        raise KilledError

    persons = cohort.persons("train")[:3]
    members = tuple(case for cases in persons for case in cases)
    attacks = {"by name": score_by_name}
    task = ReferenceTask(1, members, persons, cohort, config_of(), reference_of(cohort), attacks, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(references, "_clear", kill)
        with pytest.raises(KilledError):
            score_one(task)
    # The mark came first: there is no moment in which neither it nor the checkpoint to go on from is there.
    left = {path.name for path in task.folder.iterdir()}
    assert left == {"scores.json", "generator.safetensors", "synthetic", "checkpoints"}
    monkeypatch.setattr(references, "train_generator", lambda *_: pytest.fail("it has been trained"))
    for _ in range(2):
        assert score_one(task) == {"by name": [float(int(case.subject, 16)) for case in members]}
        assert {path.name for path in task.folder.iterdir()} == {"scores.json", "generator.safetensors"}
