"""The search for copies: near-duplicates of members are found, honest scans are none."""

import numpy as np
import pytest
from audit_builders import N_MEMBERS, reference_of, release_of
from conftest import rng

from pipeline.audit.copies import _excess, find_copies
from pipeline.cohort import Cohort
from pipeline.near_duplicates import construct_copy


def test_near_duplicates_of_members_are_found_and_honest_scans_are_none(
    cohort: Cohort, honest: Cohort, leaking: Cohort
) -> None:
    sides = cohort.persons("train"), cohort.persons("test")
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


def test_a_copy_of_any_scan_of_a_person_is_found(cohort: Cohort, leaking: Cohort) -> None:
    scans = cohort.split("train")
    # Persons with two scans each: whichever was copied, the person is found, and both copies are.
    pairs = list(zip(scans[::2], scans[1::2], strict=True))
    others = cohort.persons("test")[: len(pairs)]
    found = find_copies(pairs, others, release_of(leaking), reference_of(cohort))
    assert found.n_near_duplicates == N_MEMBERS
    first = find_copies([cases[:1] for cases in pairs], others, release_of(leaking), reference_of(cohort))
    assert first.n_near_duplicates == N_MEMBERS // 2


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
        # The grid and the box are symmetric, so that mirroring moves nothing else.
        moves.append(np.abs(centre - 14.5) * spacing_mm)
        gains.append(changed[0][mask].mean() / 500)
    assert 0.5 < np.max(moves) < 2.1
    assert 0.8 < min(gains) < 0.95
    assert 1.05 < max(gains) < 1.2


def test_excess_of_near_duplicates_is_as_by_hand() -> None:
    member, nonmember = np.array([1, 1, 0, 0], bool), np.zeros(4, bool)
    # Both hits among the members: C(4, 2) / C(8, 2) = 6 / 28.
    assert _excess(member, nonmember, rng()) == pytest.approx(6 / 28)
    assert _excess(nonmember, member, rng()) == 1.0
    # Twice as many members with the same share of hits is no excess.
    assert _excess(np.array([1, 0] * 10, bool), np.array([1, 0] * 5, bool), rng()) > 0.3
