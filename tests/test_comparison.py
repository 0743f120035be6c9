import numpy as np
import pytest

from pipeline.evaluate.comparison import (
    Score,
    Statistics,
    bootstrap_interval,
    compare_arms,
    describe,
    holm,
    is_significant,
    summarise,
    table_of,
    wilcoxon_p,
)

STATISTICS = Statistics(n_bootstrap=500, alpha=0.05, seed=1)


def scores_of(arm, values, metric="dice"):
    """Scores of one region from a (patients, seeds) table."""
    return [
        Score(arm, seed, f"p{patient:03d}", "WT", metric, float(value))
        for patient, row in enumerate(np.asarray(values))
        for seed, value in enumerate(row)
    ]


def compare(real, other):
    both = scores_of("real", real) + scores_of("real-syn", other)
    both += scores_of("real", np.ones_like(real), "hd95") + scores_of("real-syn", np.ones_like(real), "hd95")
    return compare_arms(both, "real", STATISTICS)[0]


@pytest.fixture
def noise():
    return np.random.default_rng(3)


def test_delta_is_the_mean_of_paired_differences_by_patient():
    comparison = compare([[0.5, 0.7], [0.2, 0.2]], [[0.6, 0.8], [0.6, 0.4]])
    # Patient means: .6 -> .7 and .2 -> .5: differences .1 and .3, mean .2; by seed: (.1 + .4) / 2 and (.1 + .2) / 2
    assert comparison.delta == pytest.approx(0.2)
    assert comparison.seed_deltas == pytest.approx((0.25, 0.15))
    assert comparison.n_patients == 2


def test_summary_takes_the_spread_over_patients_not_over_seeds():
    summary = summarise(np.array([[0.4, 0.6], [0.9, 0.7]]), STATISTICS)
    # Patient means .5 and .8: mean .65, SD .15 * sqrt(2)
    assert summary.mean == pytest.approx(0.65)
    assert summary.sd == pytest.approx(0.15 * 2**0.5)


def test_holm_multiplies_by_the_tests_left_and_never_decreases():
    # .01 * 3 = .03; .02 * 2 = .04; .03 * 1 = .03, raised to .04
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])


def test_holm_counts_tests_that_could_not_be_computed():
    assert holm([0.01, None]) == [pytest.approx(0.02), None]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_wilcoxon_of_equal_arms_has_no_p():
    assert wilcoxon_p(np.zeros(5)) is None
    # Five positive differences: both all-plus and all-minus of 2^5 sign patterns are as extreme: 2 / 32
    assert wilcoxon_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(2 / 32)


def test_planted_gain_is_found(noise):
    real = noise.uniform(0.4, 0.8, (30, 3))
    comparison = compare(real, real + 0.05 + noise.normal(0, 0.02, (30, 3)))
    assert comparison.ci[0] > 0
    assert is_significant(comparison, 0.05)
    assert "significantly better" in describe(comparison, 0.05)
    assert "Unreliable" not in describe(comparison, 0.05)


def test_planted_harm_is_found(noise):
    real = noise.uniform(0.4, 0.8, (30, 3))
    comparison = compare(real, real - 0.05 + noise.normal(0, 0.02, (30, 3)))
    assert comparison.ci[1] < 0
    assert "significantly worse" in describe(comparison, 0.05)


def test_an_interval_that_crosses_zero_is_called_not_significant(noise):
    real = noise.uniform(0.4, 0.8, (12, 1))
    comparison = compare(real, real + np.resize([0.05, -0.05], (12, 1)))
    sentence = describe(comparison, 0.05)
    assert "not significant: the interval crosses 0" in sentence
    assert "Unreliable: 12 test patients, fewer than 20" in sentence
    assert "One training per arm" in sentence


def test_a_gain_in_one_seed_only_is_not_significant():
    # Every patient gains .1 with one seed and loses .08 with the other: patients alone would call it a gain.
    real = np.full((25, 2), 0.5) + np.linspace(0, 0.01, 25)[:, None]
    other = real + np.array([0.1, -0.08]) + np.linspace(0, 0.002, 25)[:, None]
    comparison = compare(real, other)
    sentence = describe(comparison, 0.05)
    assert comparison.ci[0] < 0 < comparison.ci[1]
    assert "not significant" in sentence
    assert "disagree in sign" in sentence


def test_one_patient_gives_no_interval():
    comparison = compare([[0.5]], [[0.7]])
    assert comparison.ci is None
    assert "no interval, not significant" in describe(comparison, 0.05)


def test_equal_differences_fall_back_to_percentiles():
    assert bootstrap_interval(np.full((6, 1), 0.25), STATISTICS) == (0.25, 0.25)
    assert bootstrap_interval(np.full((6, 2), 0.25), STATISTICS) == (0.25, 0.25)


def test_the_interval_depends_on_the_seed_alone(noise):
    table = noise.normal(size=(10, 2))
    assert bootstrap_interval(table, STATISTICS) == bootstrap_interval(table, STATISTICS)


def test_intervals_cover_the_truth_about_as_often_as_they_say(noise):
    quick = Statistics(n_bootstrap=200, alpha=0.1, seed=2)
    intervals = [bootstrap_interval(noise.normal(size=(25, 1)), quick) for _ in range(100)]
    covered = sum(low <= 0 <= high for low, high in intervals)
    # Binomial(100, .9) lies within 81 to 97 with more than 99%; the bootstrap of 25 falls short by a little.
    assert 78 <= covered <= 98


def test_less_distance_counts_as_better(noise):
    real = noise.uniform(5, 9, (30, 1))
    scores = scores_of("real", real, "hd95") + scores_of("real-syn", real - 2 + noise.normal(0, 0.1, (30, 1)), "hd95")
    scores += scores_of("real", np.ones((30, 1))) + scores_of("real-syn", np.ones((30, 1)))
    distance = next(c for c in compare_arms(scores, "real", STATISTICS) if c.metric == "hd95")
    assert "significantly better" in describe(distance, 0.05)


def test_what_was_not_scored_gives_an_empty_table():
    assert table_of([], "real", "WT", "dice").shape == (0, 0)
