"""Reference generators: halves are balanced, one that is finished is only read."""

from pathlib import Path

import numpy as np
import pytest
from audit_builders import config_of, reference_of, setting_of
from conftest import rng
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit import references
from pipeline.audit.dealing import balanced_halves
from pipeline.audit.references import ReferenceTask, attack_one
from pipeline.audit.views import view_targets
from pipeline.cohort import Cohort


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


class KilledError(Exception):
    """Stands for a kill."""


def test_a_reference_killed_amid_its_clearing_up_is_read_and_cleared(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(_: Path) -> None:
        raise KilledError

    persons = cohort.persons("train")[:3]
    members = tuple(case for cases in persons for case in cases)
    targets = view_targets(members, setting_of(cohort))
    reference = reference_of(cohort, targets)
    task = ReferenceTask("01", members, targets, cohort, config_of(), setting_of(cohort), reference, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(references, "clear_recipe", kill)
        with pytest.raises(KilledError):
            attack_one(task)
    # The mark came first: there is no moment in which neither it nor the checkpoint to go on from is there.
    left = {path.name for path in task.folder.iterdir()}
    assert left == {"scores.json", "generator.safetensors", "model.json", "synthetic", "checkpoints"}
    monkeypatch.setattr(references, "repeat_recipe", lambda *_: pytest.fail("it has been trained"))
    first = attack_one(task)
    assert {path.name for path in task.folder.iterdir()} == {"scores.json", "generator.safetensors", "model.json"}
    assert attack_one(task) == first
    assert {len(scores) for scores in first["scores"].values()} == {3}
    assert {name: len(errors) for name, errors in first["others"].items()} == {"errors": 4}
