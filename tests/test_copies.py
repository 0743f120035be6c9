"""The search for copies: near-duplicates of members are found, honest scans are none; what it rests on is counted."""

from dataclasses import replace

import numpy as np
import pytest
from audit_builders import N_MEMBERS, setting_of
from conftest import rng

from pipeline.audit.constructions import KINDS
from pipeline.audit.copies import LEVELS, CopyFinding, CopySearch, excess, fix_line, judge_copies, least_persons
from pipeline.audit.copy_search import search_copies
from pipeline.audit.targets import Persons
from pipeline.cohort import Cohort
from pipeline.near_duplicates import construct_copy
from pipeline.statistics import clopper_pearson


def search_in(synthetic: Cohort, cohort: Cohort, persons: Persons, n_members: int) -> CopySearch:
    is_member = np.arange(len(persons)) < n_members
    return search_copies(persons, is_member, cohort.split("val"), synthetic.cases, setting_of(cohort), 1)


@pytest.fixture(scope="module")
def searches(cohort: Cohort, honest: Cohort, leaking: Cohort) -> tuple[CopySearch, CopySearch]:
    persons = (*cohort.persons("train"), *cohort.persons("test"))
    clean, planted = (search_in(synthetic, cohort, persons, N_MEMBERS) for synthetic in (honest, leaking))
    return clean, planted


@pytest.mark.parametrize("level", LEVELS)
def test_copies_of_members_are_found_and_honest_scans_are_none(
    level: str, searches: tuple[CopySearch, CopySearch]
) -> None:
    clean, planted = (judge_copies(search, level) for search in searches)
    assert clean.n_near_duplicates == clean.n_copies == 0
    assert clean.excess_p == 1.0
    assert planted.n_near_duplicates == planted.n_copies == N_MEMBERS
    # All of 12 against none of 12: one way of C(24, 12) = 2,704,156.
    assert planted.excess_p == pytest.approx(1 / 2_704_156)
    for finding in (clean, planted):
        assert finding.n_persons == 24
        assert finding.recall >= 0.75
        assert finding.n_alarmed <= 1
        assert finding.threshold <= finding.copy_line
        assert set(finding.by_transformation) == set(KINDS)
        assert sum(n for _, n in finding.by_transformation.values()) == 24
        assert sum(hits for hits, _ in finding.by_transformation.values()) == finding.n_found
    assert {person for person, _, _ in planted.nearest} <= set(range(N_MEMBERS))


def test_a_copy_of_any_scan_of_a_person_is_found(cohort: Cohort, leaking: Cohort) -> None:
    scans = cohort.split("train")
    # Persons with two scans each: whichever was copied, the person is found, and both copies are.
    pairs = list(zip(scans[:4:2], scans[1:4:2], strict=True))
    others = cohort.persons("test")[:2]
    released = replace(leaking, cases=leaking.cases[:4])
    found = judge_copies(search_in(released, cohort, [*pairs, *others], 2), "scan")
    assert found.n_near_duplicates == 4
    first = [cases[:1] for cases in pairs]
    found = judge_copies(search_in(released, cohort, [*first, *others], 2), "scan")
    assert found.n_near_duplicates == 2


def search_of(
    released: list[list[float]], members: list[bool], real: float = 0.5, testing: float = 0.9, copies: float = 0.9
) -> CopySearch:
    """Return a search whose likenesses are given: persons asked about and, last, one val patient, by released case."""
    n = len(members)
    table = np.array(released, np.float32)
    return CopySearch(
        np.array(members),
        np.arange(n + 1),
        np.arange(n + 1),
        {"scan": table},
        {"scan": np.full((n + 1, n + 1), real, np.float32)},
        {"scan": np.full(9, copies)},
        {"scan": np.full(n, testing)},
        tuple(KINDS[i % len(KINDS)] for i in range(n)),
    )


def test_one_exact_copy_in_a_hundred_persons_is_a_copy_though_no_excess() -> None:
    released = np.full((101, 50), 0.4)
    released[7, 3] = 1.0
    found = judge_copies(search_of(released.tolist(), [True] * 60 + [False] * 40), "scan")
    assert (found.n_near_duplicates, found.n_copies) == (1, 1)
    assert found.excess_p == pytest.approx(0.6)
    assert found.threshold == pytest.approx((0.9 + 0.5) / 2)
    assert found.nearest[0] == (7, 3, 1.0)


def test_what_persons_never_seen_show_as_well_is_no_copy() -> None:
    members = [True] * 6 + [False] * 4
    released = np.full((11, 5), 0.4)
    # .75 is beyond the threshold of .7. A test person at .8 is as near: beyond that only, and there is no room.
    released[0, 0], released[8, 1] = 0.75, 0.8
    found = judge_copies(search_of(released.tolist(), members), "scan")
    assert (found.n_near_duplicates, found.n_copies, found.n_alarmed) == (1, 0, 1)
    assert found.copy_line == pytest.approx(0.85)
    # A val patient moves the threshold as well; a test person must not, for members are compared with them.
    released[8, 1], released[10, 1] = 0.4, 0.8
    found = judge_copies(search_of(released.tolist(), members), "scan")
    assert (found.n_near_duplicates, found.threshold) == (0, pytest.approx(0.85))


def test_likeness_of_a_member_to_the_release_is_no_false_alarm_and_to_another_person_is() -> None:
    members = [True] * 6 + [False] * 4
    released = np.full((11, 5), 0.4)
    released[0, 0] = 0.95
    search = search_of(released.tolist(), members)
    assert judge_copies(search, "scan").n_alarmed == 0
    # Two persons so alike that one may be the other under another name: both are alarms, and the search is not blinded.
    search.real["scan"][2, 5] = search.real["scan"][5, 2] = 0.99
    found = judge_copies(search, "scan")
    assert (found.n_alarmed, found.n_copies) == (2, 1)
    assert found.threshold == pytest.approx(0.7)


def test_a_search_that_tells_nothing_apart_finds_nothing_and_says_so() -> None:
    search = search_of(np.full((11, 5), 0.4).tolist(), [True] * 6 + [False] * 4, real=0.85, testing=0.6, copies=0.86)
    search.fixing["scan"][:3] = 0.3
    found = judge_copies(search, "scan")
    assert found.threshold > 0.85
    assert (found.n_found, found.recall) == (0, 0.0)


def test_bounds_are_by_person_and_exact() -> None:
    found = judge_copies(search_of(np.full((11, 5), 0.4).tolist(), [True] * 6 + [False] * 4), "scan")
    assert (found.n_persons, found.n_found, found.n_alarmed) == (10, 10, 0)
    assert found.recall_ci(0.1)[0] == pytest.approx(0.05 ** (1 / 10))
    assert found.false_alarms_ci(0.1) == clopper_pearson(0, 10, 0.1)
    nobody = replace(found, n_persons=0, n_found=0)
    assert nobody.recall_ci(0.1) == nobody.false_alarms_ci(0.1) == (0.0, 1.0)
    # .85^19 = .046, .85^18 = .054; .9^29 = .047, .9^28 = .052.
    assert least_persons(0.85, 1.0 - 1e-9, 0.05) == 19
    assert least_persons(0.85, 0.1, 0.05) == 29


def test_the_line_is_midway_and_never_what_honest_pairs_reach() -> None:
    copies = np.full(20, 0.9)
    assert fix_line(copies, np.array([0.3, 0.5])) == pytest.approx(0.7)
    assert fix_line(copies, np.array([0.3, 0.95])) == pytest.approx(0.6)
    assert fix_line(copies, np.array([0.95])) == pytest.approx(0.9)
    copies[:4] = 0.2
    assert fix_line(copies, np.array([0.5])) > 0.5


@pytest.mark.parametrize(
    ("member", "nonmember", "p"),
    [
        # Both hits among four members: C(4, 2) / C(8, 2) = 6 / 28.
        ([1, 1, 0, 0], [0, 0, 0, 0], 6 / 28),
        ([0, 0, 0, 0], [1, 1, 0, 0], 1.0),
        # Sides of unequal size, both hits among six of eight: C(6, 2) / C(8, 2) = 15 / 28.
        ([1, 1, 0, 0, 0, 0], [0, 0], 15 / 28),
    ],
)
def test_excess_is_as_by_hand(member: list[int], nonmember: list[int], p: float) -> None:
    assert excess(np.array(member, bool), np.array(nonmember, bool)) == pytest.approx(p)


def test_excess_holds_its_level_on_unequal_sides() -> None:
    stream = rng(3)
    called = [excess(stream.random(75) < 0.2, stream.random(31) < 0.2) < 0.05 for _ in range(400)]
    assert np.mean(called) <= 0.05


def test_findings_are_the_same_twice(cohort: Cohort, honest: Cohort) -> None:
    few = replace(honest, cases=honest.cases[:2])
    persons = (*cohort.persons("train")[:2], *cohort.persons("test")[:2])
    findings: list[list[CopyFinding]] = [
        [judge_copies(search_in(few, cohort, persons, 2), level) for level in LEVELS] for _ in range(2)
    ]
    assert findings[0] == findings[1]


def test_images_and_label_map_of_a_copy_in_place_go_the_same_way(cohort: Cohort) -> None:
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
