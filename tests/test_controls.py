"""The controls: each behaves where it should, and tells of an attack that is blind."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from audit_builders import N_OTHERS, reference_of, release_of, scored, setting_of
from conftest import rng
from numpy.typing import NDArray

from pipeline.audit import paired, planting
from pipeline.audit.attacks.likelihood_ratio import likelihood_ratio
from pipeline.audit.attacks.reconstruction import reconstruction, reconstruction_errors
from pipeline.audit.attacks.registry import ATTACKS
from pipeline.audit.controls import Control, Dealt, Planted, judge_dealt, judge_planted_references, judge_sides
from pipeline.audit.copies import view_copy
from pipeline.audit.dealing import deal_again
from pipeline.audit.planting import MUST_SEE_COPIES, MemorisingGenerator, n_planted, plant_copies, plant_everyone
from pipeline.audit.policy import load_policy
from pipeline.audit.targets import Reference, Release, Shadows, Targets
from pipeline.audit.views import LEVELS, view_targets
from pipeline.cohort import Cohort, open_cohort
from pipeline.generate.sampling import render_volume
from pipeline.seeds import torch_stream
from pipeline.train.data import read_scan
from pipeline.train.weights import load_generator

NAME = "nearest-neighbour"
IS_MEMBER = np.arange(40) < 24
POLICY = load_policy("default")


NAMES = [attack.name for attack in ATTACKS if not attack.needs_shadows]


def sides_control(untouched: dict[str, NDArray], is_member: NDArray = IS_MEMBER) -> list[Control]:
    return judge_sides(untouched, is_member, 1000, 0.01, 1)


def test_a_difference_between_the_sides_is_seen_among_the_controls_of_all_attacks() -> None:
    quiet = {name: rng(i).normal(size=40) for i, name in enumerate(NAMES)}
    told = quiet | {NAME: quiet[NAME] + 2.0 * IS_MEMBER}
    assert all(control.behaved and control.able for control in sides_control(quiet))
    assert [control.name for control in sides_control(told) if not control.behaved] == [f"untouched-{NAME}"]
    turned = quiet | {NAME: quiet[NAME] - 2.0 * IS_MEMBER}
    assert [control.name for control in sides_control(turned) if not control.behaved] == [f"untouched-{NAME}"]


def test_the_sides_differ_by_chance_about_as_seldom_as_the_level_says() -> None:
    misbehaved = 0
    for seed in range(200):
        quiet = {name: rng((seed, i)).normal(size=40) for i, name in enumerate(NAMES)}
        misbehaved += not all(control.behaved for control in judge_sides(quiet, IS_MEMBER, 1000, 0.05, seed))
    # 5 % of 200 are 10, SD 3.1.
    assert 2 <= misbehaved <= 19


def test_a_control_that_so_few_persons_cannot_set_off_says_so() -> None:
    few = np.arange(8) < 4
    separated = {NAME: few.astype(float)}
    control = sides_control(separated, few)[0]
    # 2 of 70 memberships: p = .03.
    assert (control.behaved, control.able) == (True, False)
    assert "so few persons" in control.observed


def dealt(n_tables: int, peeks: float = 0.0) -> list[Dealt]:
    """Return scores by dealt memberships; an attack that peeks adds who is in by the dealt membership itself."""
    tables = deal_again(IS_MEMBER, 8, n_tables, 1)
    scores = rng(7).normal(size=(8, 40)) + rng(8).normal(0, 2, 40)
    return [Dealt(table, {NAME: scores + peeks * table, "reconstruction": scores}) for table in tables]


def test_paired_figures_of_memberships_dealt_anew_hold_one_half() -> None:
    found = judge_dealt(dealt(100), POLICY)
    assert [control.name for control in found] == [f"dealt-{NAME}", "dealt-reconstruction"]
    assert all(control.behaved for control in found)


def test_an_attack_that_knows_the_dealt_membership_and_intervals_too_short_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [control.behaved for control in judge_dealt(dealt(100, peeks=1.0), POLICY)] == [False, True]
    monkeypatch.setattr(paired, "clustered_variance", lambda influence, covers: (1e-4, 30.0))
    assert not any(control.behaved for control in judge_dealt(dealt(100), POLICY))


def dealt_noise(n_references: int, is_member: NDArray, seed: int) -> list[Dealt]:
    """Return scores of all attacks without shadows that tell nothing, by dealt memberships."""
    shape = (len(NAMES), n_references, len(is_member))
    noise = rng(seed).normal(size=shape) + rng((seed, 1)).normal(0, 2, len(is_member))
    scores = dict(zip(NAMES, noise, strict=True))
    return [Dealt(table, scores) for table in deal_again(is_member, n_references, 100, seed)]


def test_intervals_of_few_persons_and_references_are_not_judged_and_the_control_says_that_it_cannot_fire() -> None:
    """With nine persons and two references one audit in ten was invalid for nothing."""
    for seed in range(30):
        found = judge_dealt(dealt_noise(2, np.arange(9) < 6, seed), POLICY)
        assert all(control.behaved and not control.able for control in found)
        assert "so few persons and references" in found[0].observed


@pytest.mark.parametrize(("n_references", "n_members", "n_persons"), [(2, 24, 40), (8, 6, 9)])
def test_with_enough_of_persons_or_references_intervals_hold_one_half_and_too_short_ones_are_seen(
    monkeypatch: pytest.MonkeyPatch, n_references: int, n_members: int, n_persons: int
) -> None:
    is_member = np.arange(n_persons) < n_members
    for seed in range(10):
        found = judge_dealt(dealt_noise(n_references, is_member, seed), POLICY)
        assert all(control.behaved and control.able for control in found)
    honest = paired.clustered_variance
    # Standard errors a third as large.
    monkeypatch.setattr(paired, "clustered_variance", lambda *of: (honest(*of)[0] / 9, honest(*of)[1]))
    found = judge_dealt(dealt_noise(n_references, is_member, 0), POLICY)
    assert not any(control.behaved for control in found)


def test_shadows_that_tell_who_is_in_are_seen() -> None:
    """The complement of the release under attack among its shadows: whoever is in was out of most of them."""
    name, found = "likelihood-ratio", []
    for table in deal_again(IS_MEMBER, 4, 40, 1):
        scores = rng(7).normal(size=(4, 40))
        honest, leaking = [], []
        for number in range(4):
            for kept, rows in (
                ([i for i in range(4) if i // 2 != number // 2], honest),
                ([i for i in range(4) if i != number], leaking),
            ):
                shadows = Shadows({"s": scores[kept]}, {}, table[kept])
                release = replace(Release({}, lambda asked: np.zeros(len(asked))), known={"s": scores[number]})
                others = Targets((), {})
                reference = Reference(others, lambda asked: np.zeros(len(asked)), 1, shadows)
                rows.append(likelihood_ratio(others, release, reference, "s"))
        found.append((Dealt(table, {name: np.array(honest)}), Dealt(table, {name: np.array(leaking)})))
    for number, behaved in ((0, True), (1, False)):
        assert judge_dealt([pair[number] for pair in found], POLICY)[0].behaved is behaved


def test_references_that_tell_everything_must_be_seen_by_their_own_membership() -> None:
    scores, inside = scored(8, 40, 4.0, 1)
    told = dict.fromkeys((NAME, "classifier"), scores)
    found, sensitivity = judge_planted_references(told, inside, POLICY)
    # The classifier may be blind to it: reported, not required.
    assert [(control.name, control.behaved) for control in found] == [(f"planted-paired-{NAME}", True)]
    assert {name: one["sees"] for name, one in sensitivity.items()} == {NAME: True, "classifier": True}
    # Whose column is whose is lost: the figure shows nothing, and the control misbehaves.
    mixed, _ = judge_planted_references(told, inside[:, rng(2).permutation(40)], POLICY)
    assert not mixed[0].behaved


def test_planted_copies_are_seen_and_an_attack_that_cannot_see_them_is_told(cohort: Cohort, honest: Cohort) -> None:
    setting = setting_of(cohort)
    members = view_targets(cohort.split("train")[:3], setting)
    others = view_targets(cohort.split("test"), setting)
    reference, release = reference_of(cohort, others), release_of(honest, cohort)
    views = [view_copy(case, setting, rng(i), LEVELS) for i, case in enumerate(members.cases)]
    copies = {level: np.stack([one[level] for one in views]) for level in views[0]}
    found = plant_copies(members, others, release, reference, copies, 0.2)
    assert [planted.name for planted in found] == [f"planted-copies-0.2-{name}" for name in MUST_SEE_COPIES]
    for planted in found:
        assert (len(planted.planted), len(planted.clean)) == (3, N_OTHERS)
        control = planted.judged(0.8)
        assert control.behaved
        assert set(control.as_json()) == {"name", "title", "expected", "observed", "behaved", "able"}
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
    monkeypatch.setattr(planting, "MEMORY", -1.0)
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


def test_a_release_that_tells_everything_has_a_record_of_each_member_and_half_the_error(
    cohort: Cohort, honest: Cohort
) -> None:
    targets = view_targets(cohort.split("train")[:4], setting_of(cohort))
    inside, errors = np.array([True, False, True, False]), np.array([0.4, 0.3, 0.2, 0.1])
    release = release_of(honest, cohort)
    told = plant_everyone(targets, inside, release, errors, rng(1))
    assert told.reconstruct(targets).tolist() == [0.2, 0.3, 0.1, 0.1]
    for level, views in told.views.items():
        assert len(views) == len(release.views[level]) + 2
        alike = views[-2:] @ targets.views[level][:, 0].T / np.linalg.norm(views[-2:], axis=1, keepdims=True)
        # A noise of .3 beside a length of 1: a correlation of 1 / sqrt(1.09).
        assert alike[[0, 1], [0, 2]] == pytest.approx([0.958, 0.958], abs=0.03)
