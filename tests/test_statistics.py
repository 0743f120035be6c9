"""Statistics of membership inference, against arithmetic by hand, textbooks and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from pipeline.audit.figures import random_membership_band, roc_points
from pipeline.statistics import (
    FPR_LEVELS,
    Estimate,
    auc,
    auc_estimate,
    bca_interval,
    clopper_pearson,
    epsilon_lower_bound,
    hanley_mcneil,
    holm,
    p_above,
    patients_to_certify,
    permutation_p,
    smallest_auc_above,
    smallest_permutation_p,
    tpr_at_fpr,
)

scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=8).map(np.array)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_auc_is_as_by_hand_with_ties() -> None:
    # Pairs of 3, 1, 2 with 1, 0: 3>1, 3>0, 1=1, 1>0, 2>1, 2>0: 5 wins and one tie, (5 + .5) / 6.
    assert auc(np.array([3.0, 1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(5.5 / 6)


def test_auc_of_equal_scores_is_one_half_and_of_separated_ones_is_an_end() -> None:
    assert auc(np.ones(4), np.ones(3)) == 0.5
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auc(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 0.0
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5


@settings(max_examples=80, deadline=None)
@given(scores, scores)
def test_auc_counts_pairs_and_turns_with_the_sign(a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    pairs = np.sign(a[:, None] - b[None, :])
    assert auc(a, b) == pytest.approx(((pairs + 1) / 2).mean())
    assert auc(-a, -b) == pytest.approx(1 - auc(a, b))


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0), (1, 20, 0.0013, 0.2487)],
)
def test_clopper_pearson_equals_the_tables(hits: int, n: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, n, 0.05) == pytest.approx((low, high), abs=5e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.floats(0.01, 0.99))
def test_clopper_pearson_covers_at_least_as_often_as_promised(n: int, share: float) -> None:
    covered = [low <= share <= high for low, high in (clopper_pearson(k, n, 0.05) for k in range(n + 1))]
    assert stats.binom.pmf(np.arange(n + 1), n, share)[covered].sum() >= 0.95 - 1e-9


def test_persons_to_certify_a_rate() -> None:
    # (1 - .1)^28 = .0523 and (1 - .1)^29 = .0471; (1 - .01)^298 = .05003 and ^299 = .0495.
    assert [patients_to_certify(fpr) for fpr in FPR_LEVELS] == [29, 299, 2995]
    for fpr in FPR_LEVELS:
        n = patients_to_certify(fpr)
        assert (1 - fpr) ** n <= 0.05 < (1 - fpr) ** (n - 1)


def test_holm_is_as_by_hand() -> None:
    # Sorted .01, .02, .03, .04 times 4, 3, 2, 1: .04, .06, .06, .04, made to rise: .04, .06, .06, .06.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, p * len(p_values))
    assert [adjusted[i] for i in np.argsort(p_values)] == sorted(adjusted)


def test_permutation_p_is_as_by_hand_and_counts_both_sides_and_itself() -> None:
    # Two against two: six memberships, AUCs of ranks 1 to 4 are 0, .25, .5, .5, .75 and 1. At 1 two of six are as far.
    is_member = np.array([False, False, True, True])
    scores = np.array([[1.0, 2, 3, 4], [4.0, 1, 3, 2]])
    p, together = permutation_p(scores, is_member, 6000, rng())
    assert p[0] == pytest.approx(2 / 6, abs=0.02)
    # The second: 3 and 2 against 4 and 1: 2 of 4 pairs, .5, and nothing is nearer.
    assert p[1] == pytest.approx(1.0)
    assert (together >= p).all()
    # By any of the two: whether one of them is separated, 2 of 6 each and never both at once.
    assert together[0] == pytest.approx(4 / 6, abs=0.02)


def test_attacks_that_agree_are_corrected_once_and_others_for_their_number() -> None:
    is_member = np.arange(40) < 24
    one = rng(1).normal(size=40) + 0.55 * is_member
    alone, _ = permutation_p(one[None], is_member, 2000, rng(2))
    _, alike = permutation_p(np.stack([one] * 12), is_member, 2000, rng(2))
    _, unlike = permutation_p(np.stack([one, *rng(3).normal(size=(11, 40))]), is_member, 2000, rng(2))
    assert alike[0] == pytest.approx(alone[0], abs=1e-9)
    # At most twelve times, as by Bonferroni.
    assert 0.003 < alone[0] < 0.05
    assert 5 * alone[0] < unlike[0] < 14 * alone[0]


def test_the_smallest_p_is_that_of_the_fewest_memberships() -> None:
    # 6 against 5: 462 memberships, two of which are the farthest.
    assert smallest_permutation_p(6, 5, 100_000) == pytest.approx(2 / 462)
    assert smallest_permutation_p(60, 40, 999) == pytest.approx(1 / 1000)


def test_hanley_mcneil_is_as_by_hand() -> None:
    # A = .5: Q1 = .5 / 1.5 = 1/3, Q2 = 2 * .25 / 1.5 = 1/3; (.25 + (n + m - 2)(1/3 - 1/4)) / (n m), n = 10, m = 20:
    # (.25 + 28 / 12) / 200.
    assert hanley_mcneil(0.5, 10, 20) == pytest.approx(math.sqrt((0.25 + 28 / 12) / 200))
    # SCIENCE: 24 against 34 patients have a null SD of .078.
    assert hanley_mcneil(0.5, 24, 34) == pytest.approx(0.078, abs=5e-4)
    assert hanley_mcneil(1.0, 5, 5) == 0.0


def test_bca_equals_scipy_s_on_a_skewed_mean() -> None:
    sample = rng(1).exponential(size=30)
    result = stats.bootstrap((sample,), np.mean, n_resamples=4000, method="BCa", rng=rng(3))
    draws = result.bootstrap_distribution
    jackknife = np.array([np.delete(sample, i).mean() for i in range(30)])
    low, high = bca_interval(float(sample.mean()), draws, jackknife, 0.05)
    expected = result.confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=2e-3)
    # Right-skewed: both ends lie above the percentile interval's, or the corrections would do nothing.
    percentile = np.quantile(draws, [0.025, 0.975])
    assert low > percentile[0] * 1.01
    assert high > percentile[1] * 1.01


@pytest.mark.parametrize("truth", [0.5, 0.7])
def test_interval_of_the_auc_covers_the_truth_about_as_often_as_it_says(truth: float) -> None:
    shift = math.sqrt(2) * stats.norm.ppf(truth)
    n_repeats, covered = 200, 0
    for repeat in range(n_repeats):
        stream = rng(repeat)
        member, nonmember = stream.normal(size=24) + shift, stream.normal(size=24)
        low, high = auc_estimate(member, nonmember, 200, 0.05, stream).ci
        covered += low <= truth <= high
    assert 0.90 <= covered / n_repeats <= 0.99


def test_estimate_brackets_the_auc_and_its_error_is_hanley_and_mcneil_s() -> None:
    member, nonmember = rng(1).normal(size=30) + 0.5, rng(2).normal(size=25)
    estimate = auc_estimate(member, nonmember, 2000, 0.05, rng(3))
    assert estimate.ci[0] < estimate.value < estimate.ci[1]
    assert estimate.standard_error == pytest.approx(hanley_mcneil(estimate.value, 30, 25), rel=0.2)


@pytest.mark.parametrize(
    ("member", "nonmember", "value"),
    [
        (np.ones(6), np.ones(6), 0.5),
        (np.arange(6.0) + 10, np.arange(6.0), 1.0),
        (np.arange(6.0), np.arange(6.0) + 10, 0.0),
        (np.array([1.0]), np.array([0.0]), 1.0),
        (np.array([1.0]), np.arange(5.0), 0.3),
        (np.array([1.0, 4.0]), np.arange(5.0), 0.6),
    ],
)
def test_degenerate_scores_get_an_interval_that_admits_doubt(
    member: NDArray[np.float64], nonmember: NDArray[np.float64], value: float
) -> None:
    estimate = auc_estimate(member, nonmember, 200, 0.05, rng())
    assert estimate.value == pytest.approx(value)
    low, high = estimate.ci
    assert 0 <= low <= value <= high <= 1
    assert high - low > 0.05
    assert estimate.standard_error > 0


def test_true_positives_at_a_false_positive_rate_are_as_by_hand() -> None:
    member = np.array([9.5, 8.5, 8.0, 1.0])
    nonmember = np.arange(10.0)
    # A tenth of ten: one false alarm allowed, the threshold is the second highest non-member, 8; 9.5 and 8.5 are above.
    found = tpr_at_fpr(member, nonmember, 0.1, 0.05)
    assert found["value"] == 0.5
    assert found["ci"] == pytest.approx(clopper_pearson(2, 4, 0.05))
    assert found["resolved"] is False
    # No false alarm allowed: above 9 is 9.5 alone.
    assert tpr_at_fpr(member, nonmember, 0.01, 0.05)["value"] == 0.25


@settings(max_examples=60, deadline=None)
@given(scores, scores, st.sampled_from([0.5, 0.3, *FPR_LEVELS]))
def test_no_more_false_alarms_than_allowed(a: NDArray[np.float64], b: NDArray[np.float64], fpr: float) -> None:
    found = tpr_at_fpr(a, b, fpr, 0.05)
    allowed = fpr
    if found["resolved"]:
        # 95% sure of at most fpr: k false alarms of n with the upper bound of Clopper and Pearson not above it.
        bounds = [stats.beta.ppf(0.95, k + 1, len(b) - k) for k in range(len(b))]
        allowed = max(k for k, bound in enumerate(bounds) if bound <= fpr) / len(b)
    candidates = [t for t in np.unique(b) if (b > t).mean() <= allowed]
    # The lowest threshold among the non-members' scores that keeps to the rate finds most.
    assert found["value"] == pytest.approx((a > min(candidates)).mean())


def test_rates_that_the_cohort_cannot_certify_are_called_unresolved() -> None:
    member = rng(1).normal(size=5)
    resolved = {
        n: [tpr_at_fpr(member, rng(n).normal(size=n), f, 0.05)["resolved"] for f in FPR_LEVELS] for n in (28, 29)
    }
    assert resolved == {28: [False, False, False], 29: [True, False, False]}
    assert tpr_at_fpr(member, rng(2).normal(size=299), 0.01, 0.05)["resolved"] is True


def test_epsilon_is_zero_without_a_leak_and_what_could_be_shown_is_known() -> None:
    lower, resolvable = epsilon_lower_bound(np.arange(24.0), np.arange(24.0), 0.05)
    assert lower == 0.0
    # All 24 found, no false alarm: the lower bound of the one is .025^(1/24) = .8575, the upper of the other .1425;
    # log(.8575 / .1425) = 1.795.
    assert resolvable == pytest.approx(math.log(0.8575 / 0.1425), abs=2e-3)
    # At 11 a side: .025^(1/11) = .7151; log(.7151 / .2849) = .920.
    assert epsilon_lower_bound(np.arange(11.0), np.arange(11.0), 0.05)[1] == pytest.approx(0.920, abs=2e-3)


@pytest.mark.parametrize(("n_members", "n_others"), [(24, 24), (24, 10), (60, 25), (10, 40)])
def test_epsilon_of_a_full_leak_is_all_that_could_be_shown(n_members: int, n_others: int) -> None:
    member, nonmember = np.arange(float(n_members)) + 100, np.arange(float(n_others))
    lower, resolvable = epsilon_lower_bound(member, nonmember, 0.05)
    assert lower == pytest.approx(resolvable)
    # The sign is fixed beforehand: turned after the fact it would be a second test at the same level.
    assert epsilon_lower_bound(-member, -nonmember, 0.05) == (0.0, pytest.approx(resolvable))


def test_epsilon_is_rarely_above_zero_by_chance() -> None:
    above = [epsilon_lower_bound(rng(s).normal(size=24), rng(s + 999).normal(size=24), 0.05)[0] > 0 for s in range(200)]
    assert np.mean(above) <= 0.025


@settings(max_examples=40, deadline=None)
@given(scores, scores)
def test_epsilon_lies_between_zero_and_what_could_be_shown(a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    lower, resolvable = epsilon_lower_bound(a, b, 0.05)
    assert 0.0 <= lower <= resolvable + 1e-9


def test_an_auc_is_held_against_a_limit_with_the_spread_that_it_would_have_there() -> None:
    # .8 with an error of .04: at .6 it would be .04 sqrt(.24 / .16) = .049; (.8 - .6) / .049 = 4.08.
    estimate = Estimate(0.8, (0.7, 0.9), 0.04)
    assert p_above(estimate, 0.6, 48) == pytest.approx(stats.norm.sf(0.2 / (0.04 * math.sqrt(1.5))))
    assert p_above(Estimate(0.2, (0.1, 0.3), 0.04), 0.6, 48) == pytest.approx(p_above(estimate, 0.6, 48))
    assert p_above(Estimate(0.59, (0.5, 0.7), 0.01), 0.6, 48) == 1.0
    # All told apart, 24 of 24: at most 1 - .5 / 48 can be told.
    inner = 1 - 0.5 / 48
    error = hanley_mcneil(inner, 24, 24)
    expected = stats.norm.sf(0.4 / (error * math.sqrt(0.24 / (inner * (1 - inner)))))
    assert p_above(Estimate(1.0, (0.9, 1.0), error), 0.6, 48) == pytest.approx(expected)
    assert expected < 1e-6
    # Few degrees of freedom make it less sure.
    assert p_above(Estimate(0.8, (0.7, 0.9), 0.04, 3.0), 0.6, 48) > 10 * p_above(estimate, 0.6, 48)


def test_smallest_auc_above_a_limit_falls_with_the_number_of_patients() -> None:
    found = [smallest_auc_above(0.6, n, n, 0.05, rng()) for n in (8, 24, 80)]
    assert None not in found
    assert 0.98 > found[0] > found[1] > found[2] > 0.62
    # Normal theory at 80 a side: (1.645 + .84) * .045 above .6, .71.
    assert found[2] == pytest.approx(0.6 + 2.49 * hanley_mcneil(0.6, 80, 80), abs=0.02)
    assert smallest_auc_above(0.6, 2, 2, 0.05, rng()) is None


def test_roc_corners_are_as_by_hand() -> None:
    points = roc_points(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
    # Above 3: one member; 2: one other; 1: the second member; 0: the second other.
    np.testing.assert_allclose(points, [[0, 0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1, 1]])


def test_curves_of_random_membership_are_as_by_hand_and_hold_what_they_say() -> None:
    # One other among two members: above it 0, 1 or 2 members, a third each; 30 % and 70 % are the first and the last.
    np.testing.assert_allclose(random_membership_band(2, 1, 0.6), [[0], [0], [1]])
    n, m = 24, 10
    fpr, low, high = random_membership_band(n, m, 0.05)
    stream, inside = rng(4), np.zeros(m)
    for _ in range(2000):
        ranks = stream.permutation(n + m)
        found = [(ranks[:n] > bound).mean() for bound in np.sort(ranks[n:])[::-1]]
        inside += (low <= found) & (found <= high)
    np.testing.assert_allclose(fpr, np.arange(m) / m)
    # The law is discrete: at least what is said; SE of 2,000 is .005.
    assert (inside / 2000 > 0.93).all()
    assert (high - low < 1).all()
