import numpy as np
import pytest

from pipeline.evaluate.intervals import (
    MeanVariances,
    Statistics,
    bootstrap_interval,
    mean_interval,
    summarise,
    t_interval,
)
from pipeline.evaluate.simulation import (
    Spread,
    estimate_spread,
    measure_coverage,
    simulate_differences,
    simulate_jumps,
    widen_seed_spread,
)

STATISTICS = Statistics(n_bootstrap=500, alpha=0.05, seed=1)


@pytest.fixture
def noise():
    return np.random.default_rng(3)


def test_summary_takes_the_spread_over_patients_not_over_seeds():
    summary = summarise(np.array([[0.4, 0.6], [0.9, 0.7]]), STATISTICS)
    # Patient means .5 and .8: mean .65, SD .15 * sqrt(2)
    assert summary.mean == pytest.approx(0.65)
    assert summary.sd == pytest.approx(0.15 * 2**0.5)


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


def test_the_t_interval_of_one_training_is_that_of_its_patients():
    # Mean .2, SD .1, three patients: standard error .1 / sqrt(3), t with 2 degrees of freedom 4.3027.
    low, high = t_interval(np.array([[0.1], [0.2], [0.3]]), 0.05)
    assert (low, high) == pytest.approx((0.2 - 4.3027 * 0.1 / 3**0.5, 0.2 + 4.3027 * 0.1 / 3**0.5), rel=1e-4)


def test_the_t_interval_counts_patients_and_trainings_as_two_samples():
    table = np.array([[0.0, 0.1], [0.2, 0.3], [0.4, 0.5]])
    # Patients .05, .25, .45: variance of their mean .04 / 3. Trainings .2 and .3: .005 / 2. The quantiles with 2 and 1
    # degrees of freedom, 4.3027 and 12.7062, are weighted by these parts; the variance is their sum.
    patients, trainings = 0.04 / 3, 0.005 / 2
    quantile = (patients * 4.3027 + trainings * 12.7062) / (patients + trainings)
    half = quantile * (patients + trainings) ** 0.5
    assert t_interval(table, 0.05) == pytest.approx((0.25 - half, 0.25 + half), rel=1e-4)


def test_the_t_interval_is_no_narrower_than_that_of_either_sample_alone():
    # Trainings .1 and .3: .1 times t with one degree of freedom; weighted with patients' it would be 1.22.
    low, high = t_interval(np.array([[0.0, 0.2], [0.1, 0.3], [0.2, 0.4]]), 0.05)
    assert (low, high) == pytest.approx((0.2 - 1.27062, 0.2 + 1.27062), rel=1e-4)


@pytest.mark.parametrize("n_seeds", [2, 3])
def test_the_t_interval_of_identical_arms_holds_0_with_few_trainings_too(n_seeds, noise):
    tables = simulate_differences(100, n_seeds, Spread(0.0, 0.02, 0.06), 20000, noise)
    outside = np.abs(tables.mean(axis=(1, 2))) > MeanVariances.of(tables).half_widths(0.05)
    # Standard error .0015; weighted quantiles alone leave 0 out in 6% with two trainings.
    assert outside.mean() < 0.055


def test_one_patient_has_no_interval():
    assert t_interval(np.array([[0.1, 0.2]]), 0.05) is None
    assert mean_interval(np.array([[0.1, 0.2]]), STATISTICS) is None


def test_the_interval_holds_those_of_bootstrap_and_t(noise):
    table = noise.exponential(size=(12, 3))
    low, high = mean_interval(table, STATISTICS)
    for inner in (bootstrap_interval(table, STATISTICS), t_interval(table, 0.05)):
        assert low <= inner[0]
        assert inner[1] <= high


def test_an_interval_ends_where_the_metric_does():
    table = np.array([[0.99, 0.8], [1.0, 0.9]])
    assert summarise(table, STATISTICS, (0.0, 1.0)).ci[1] == 1.0
    assert summarise(table, STATISTICS).ci[1] > 1.0


@pytest.mark.parametrize("spread", [Spread(0.0, 0.05, 0.06), Spread(0.05, 0.02, 0.05)])
def test_identical_arms_give_an_interval_that_holds_0(spread, noise):
    quick = Statistics(n_bootstrap=100, alpha=0.05, seed=2)
    tables = simulate_differences(24, 3, spread, 150, noise)
    # Of 150 with a probability of .93 each, 132 or more hold it with more than 99%.
    assert measure_coverage(tables, quick) >= 0.88


def test_the_bootstrap_alone_is_too_sure_where_trainings_differ(noise):
    tables = simulate_differences(24, 3, Spread(0.0, 0.05, 0.06), 150, noise)
    held = [low <= 0 <= high for low, high in (bootstrap_interval(table, STATISTICS) for table in tables)]
    assert np.mean(held) < 0.88


def test_the_spread_of_a_large_study_is_found_again(noise):
    spread = estimate_spread(simulate_differences(400, 300, Spread(0.05, 0.02, 0.06), 1, noise)[0])
    assert (spread.patient, spread.seed, spread.residual) == pytest.approx((0.05, 0.02, 0.06), rel=0.12)


def test_the_spread_of_a_table_by_hand():
    # Patient means 1 and 3, seed means 1.5 and 2.5, no rest: variances 2 and .5.
    spread = estimate_spread(np.array([[0.5, 1.5], [2.5, 3.5]]))
    assert (spread.patient, spread.seed, spread.residual) == pytest.approx((2**0.5, 0.5**0.5, 0.0))


def test_the_bound_of_the_spread_of_trainings_is_that_of_so_few():
    # Seed means 1.5 and 2.5, no rest: variance .5; one degree of freedom, chi-square .05 at .00393.
    spread = widen_seed_spread(np.array([[0.5, 1.5], [2.5, 3.5]]), 0.05)
    assert spread.seed == pytest.approx((0.5 / 0.0039321) ** 0.5, rel=1e-3)
    assert (spread.patient, spread.residual) == pytest.approx((2**0.5, 0.0))


def test_the_bound_of_the_spread_holds_the_truth_as_often_as_it_says(noise):
    tables = simulate_differences(20, 3, Spread(0.05, 0.03, 0.06), 300, noise)
    # Of 300 with a probability of .95, 275 or more with more than 99%.
    assert np.mean([widen_seed_spread(table, 0.05).seed >= 0.03 for table in tables]) >= 0.91


def test_no_interval_of_few_patients_holds_a_mean_that_rare_jumps_make(noise):
    # 300 mm in 2% of patients: in two of three studies of 20 there is none.
    tables = simulate_jumps(20, 3, Spread(2.0, 0.5, 2.0), (0.02, 300.0), 100, noise)
    assert measure_coverage(tables, Statistics(100, 0.05, 2), truth=6.0) < 0.6
    # Of ten trainings of one arm one fails, in all patients: most studies of three have none.
    failing = simulate_jumps(20, 3, Spread(0.0, 0.02, 0.06), (0.1, 0.8), 100, noise, of_trainings=True)
    assert measure_coverage(failing, Statistics(100, 0.05, 2), truth=0.08) < 0.6
