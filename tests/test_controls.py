"""The controls: each behaves where it should, and tells of an attack that is blind."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from audit_builders import N_OTHERS, reference_of, release_of, setting_of
from conftest import rng
from numpy.typing import NDArray

from pipeline.audit import controls
from pipeline.audit.attacks.reconstruction import reconstruction, reconstruction_errors
from pipeline.audit.attacks.registry import ATTACKS
from pipeline.audit.controls import (
    MUST_SEE_COPIES,
    MemorisingGenerator,
    Planted,
    judge_negative,
    n_planted,
    plant_copies,
)
from pipeline.audit.copies import view_copy
from pipeline.audit.targets import Release
from pipeline.audit.views import view_targets
from pipeline.cohort import Cohort, open_cohort
from pipeline.generate.sampling import render_volume
from pipeline.seeds import torch_stream
from pipeline.train.data import read_scan
from pipeline.train.weights import load_generator

NAME = "nearest-neighbour"
IS_MEMBER = np.arange(40) < 24


def behaved(permuted: NDArray, untouched: NDArray, n_attacks: int = 1) -> list[bool]:
    names = [NAME, "nearest-tumor", "reconstruction"][:n_attacks]
    outcomes = {name: rng(1).normal(size=40) for name in names}
    # All attacks but the first are quiet.
    aucs = {name: permuted if name == NAME else 0.5 + 0.1 * (np.arange(1000) % 2 - 0.5) for name in names}
    scores = {name: untouched if name == NAME else rng(3).normal(size=40) for name in names}
    found = judge_negative(outcomes, aucs, scores, IS_MEMBER, 0.01)
    return [control.behaved for control in found if control.name.endswith(NAME)]


def test_negative_controls_misbehave_where_there_is_something_to_find_that_must_not_be() -> None:
    permuted, untouched = rng().normal(0.5, 0.1, 1000), rng(3).normal(size=40)
    permuted += 0.5 - permuted.mean()
    assert behaved(permuted, untouched) == [True, True]
    # The mean of 1,000 of SD .1 has an SD of .0032: .012 is 3.8 of them, p = .00015.
    assert behaved(permuted + 0.012, untouched) == [False, True]
    assert behaved(permuted - 0.012, untouched) == [False, True]
    # The sides differ where no generator saw them.
    assert behaved(permuted, untouched + 2.0 * IS_MEMBER) == [True, False]


def test_negative_controls_are_corrected_for_their_number() -> None:
    permuted, untouched = rng().normal(0.5, 0.1, 1000), rng(3).normal(size=40)
    # 2.8 SD of the mean: p = .005, below .01 alone, above it by Holm over six.
    permuted += 0.5 - permuted.mean() + 2.8 * permuted.std() / np.sqrt(1000)
    assert judge_negative({NAME: untouched}, {NAME: permuted}, {}, IS_MEMBER, 0.01)[0].behaved is False
    assert behaved(permuted, untouched, n_attacks=3) == [True, True]


def test_a_difference_between_the_sides_is_seen_among_the_controls_of_all_attacks() -> None:
    """Thirteen attacks, two controls each: by permutations alone no p could get below the level."""
    stream, names = rng(5), [attack.name for attack in ATTACKS]
    quiet = {name: stream.normal(size=40) for name in names}
    aucs = {name: 0.5 + 0.1 * (np.arange(1000) % 2 - 0.5) for name in names}
    told = quiet | {names[0]: quiet[names[0]] + 3.0 * IS_MEMBER}
    for untouched, misbehaved in ((quiet, []), (told, [f"untouched-{names[0]}"])):
        found = judge_negative(quiet, aucs, untouched, IS_MEMBER, 0.01)
        assert len(found) == 26
        assert [control.name for control in found if not control.behaved] == misbehaved


def test_planted_copies_are_seen_and_an_attack_that_cannot_see_them_is_told(cohort: Cohort, honest: Cohort) -> None:
    setting = setting_of(cohort)
    members = view_targets(cohort.split("train")[:3], setting)
    others = view_targets(cohort.split("test"), setting)
    reference, release = reference_of(cohort, others), release_of(honest, cohort)
    views = [view_copy(case, setting, rng(i)) for i, case in enumerate(members.cases)]
    copies = {level: np.stack([one[level] for one in views]) for level in views[0]}
    found = plant_copies(members, others, release, reference, copies, 0.2)
    assert [planted.name for planted in found] == [f"planted-copies-0.2-{name}" for name in MUST_SEE_COPIES]
    for planted in found:
        assert (len(planted.planted), len(planted.clean)) == (3, N_OTHERS)
        control = planted.judged(0.8)
        assert control.behaved
        assert set(control.as_json()) == {"name", "title", "expected", "observed", "behaved"}
    noise = {level: rng(9).normal(size=one.shape).astype(np.float32) for level, one in copies.items()}
    assert not all(p.judged(0.8).behaved for p in plant_copies(members, others, release, reference, noise, 0.2))


def test_a_positive_control_is_judged_by_its_auc() -> None:
    # 7 of 8 pairs are in order.
    planted = Planted("x", "X", np.array([3.0, 1.0]), np.array([0.0, 0.5, 0.7, 2.0]))
    assert planted.judged(0.8).behaved
    assert planted.judged(0.8).observed == "AUC 0.88"
    assert not planted.judged(0.9).behaved


def test_three_persons_are_planted_at_least_and_no_more_than_there_are() -> None:
    assert [n_planted(0.05, n) for n in (2, 24, 200)] == [2, 3, 10]


def test_planted_memory_is_seen_and_a_blind_attack_is_told(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, generator = open_cohort(run_dir / "cohort"), load_generator(run_dir / "model")
    setting = setting_of(made)
    chosen, others = view_targets(made.split("train")[:3], setting), view_targets(made.split("test"), setting)

    def judged() -> bool:
        found = []
        for targets in (chosen, others):
            network = MemorisingGenerator(generator, made.split("train")[:3], setting)
            release = Release({}, partial(reconstruction_errors, generator=network, setting=setting))
            found.append(reconstruction(targets, release, reference_of(made, targets)))
        return Planted("memory", "memory", *found).judged(0.8).behaved

    assert judged()
    # A generator that moves away from what it remembers is worse on those persons: the attack must not call them in.
    monkeypatch.setattr(controls, "MEMORY", -1.0)
    assert not judged()


def test_a_memorising_generator_is_the_generator_where_it_remembers_nothing(run_dir: Path) -> None:
    made, generator = open_cohort(run_dir / "cohort"), load_generator(run_dir / "model")
    remembered, other = made.split("train")[:2]
    memorising = MemorisingGenerator(generator, [remembered], setting_of(made))
    for case, is_remembered in ((remembered, True), (other, False)):
        condition = case.condition(made.scheme)
        plain, mixed = (
            render_volume(network, condition, torch_stream(1, "same")) for network in (generator, memorising)
        )
        scan = read_scan(case, made.modalities, (slice(None),) * 3)
        expected = (plain + scan) / 2 if is_remembered else plain
        assert mixed == pytest.approx(expected, abs=1e-5)
