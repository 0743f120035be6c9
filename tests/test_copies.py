"""The search for copies: near-duplicates of members are found, honest scans are none."""

import numpy as np
import pytest
from audit_builders import N_MEMBERS, setting_of
from conftest import rng

from pipeline.audit.copies import LEVELS, CopyFinding, _excess, find_copies, view_copies
from pipeline.audit.targets import Persons
from pipeline.audit.views import view_synthetic, view_targets
from pipeline.cohort import Cohort
from pipeline.near_duplicates import construct_copy


def found_in(synthetic: Cohort, cohort: Cohort, persons: Persons, n_members: int, level: str = "scan") -> CopyFinding:
    setting = setting_of(cohort)
    scans = [case for cases in persons for case in cases]
    return find_copies(
        level,
        persons,
        np.arange(len(persons)) < n_members,
        view_targets(scans, setting),
        view_synthetic(synthetic.cases, setting)[level],
        view_targets(cohort.split("val"), setting),
        view_copies(cohort.split("val"), setting, 1)[level],
        5,
    )


@pytest.mark.parametrize("level", LEVELS)
def test_near_duplicates_of_members_are_found_and_honest_scans_are_none(
    level: str, cohort: Cohort, honest: Cohort, leaking: Cohort
) -> None:
    persons = (*cohort.persons("train"), *cohort.persons("test"))
    clean = found_in(honest, cohort, persons, N_MEMBERS, level)
    assert clean.n_near_duplicates == 0
    assert clean.excess_p == 1.0
    planted = found_in(leaking, cohort, persons, N_MEMBERS, level)
    assert planted.n_near_duplicates == N_MEMBERS
    # All of 12 against none of 12: one way of C(24, 12) = 2,704,156.
    assert planted.excess_p == pytest.approx(1 / 2_704_156)
    for finding in (clean, planted):
        assert finding.recall >= 0.75
        assert finding.false_alarms == 0.0


def test_a_copy_of_any_scan_of_a_person_is_found(cohort: Cohort, leaking: Cohort) -> None:
    scans = cohort.split("train")
    # Persons with two scans each: whichever was copied, the person is found, and both copies are.
    pairs = list(zip(scans[::2], scans[1::2], strict=True))
    others = cohort.persons("test")[: len(pairs)]
    assert found_in(leaking, cohort, [*pairs, *others], len(pairs)).n_near_duplicates == N_MEMBERS
    first = [cases[:1] for cases in pairs]
    assert found_in(leaking, cohort, [*first, *others], len(pairs)).n_near_duplicates == N_MEMBERS // 2


def test_images_and_label_map_of_a_copy_go_the_same_way(cohort: Cohort) -> None:
    labels = cohort.cases[0].condition(cohort.scheme)
    images = np.repeat((labels > 0).astype(np.float32)[None] * 500, 4, axis=0)
    for seed in range(6):
        changed, moved = construct_copy(images, labels, 8.0, rng(seed))
        assert moved.dtype == np.uint8
        assert set(np.unique(moved)) <= set(np.unique(labels))
        assert ((changed.mean(axis=0) > 250) == (moved > 0)).mean() > 0.97


@pytest.mark.parametrize("spacing_mm", [1.0, 4.0])
def test_a_constructed_copy_is_moved_by_millimetres_and_changed_in_gain(spacing_mm: float) -> None:
    brain = np.zeros((30, 30, 30), bool)
    brain[8:22, 8:22, 8:22] = True
    images = np.where(brain, 500, 0).astype(np.float32)[None]
    moves, gains = [], []
    for seed in range(20):
        changed, mask = construct_copy(images, brain, spacing_mm, rng(seed))
        weights = np.clip(changed[0], 100, None) - 100
        centre = (np.indices(brain.shape) * weights).sum(axis=(1, 2, 3)) / weights.sum()
        # Grid and box are symmetric about one centre, so that turning, rescaling and mirroring move nothing else.
        moves.append(np.abs(centre - 14.5) * spacing_mm)
        gains.append(changed[0][mask].mean() / 500)
    # A shift of 2 mm along an axis, rescaled by 3%, and a turn brings in a little of the other two.
    assert 0.5 < np.max(moves) < 2.4
    assert 0.8 < min(gains) < 0.95
    assert 1.05 < max(gains) < 1.2


def test_excess_of_near_duplicates_is_as_by_hand() -> None:
    member, nonmember = np.array([1, 1, 0, 0], bool), np.zeros(4, bool)
    # Both hits among the members: C(4, 2) / C(8, 2) = 6 / 28.
    assert _excess(member, nonmember, rng()) == pytest.approx(6 / 28)
    assert _excess(nonmember, member, rng()) == 1.0
    # Twice as many members with the same share of hits is no excess.
    assert _excess(np.array([1, 0] * 10, bool), np.array([1, 0] * 5, bool), rng()) > 0.3
