import numpy as np
import pytest

from pipeline.evaluate.comparison import Planned, compare_planned, is_significant
from pipeline.evaluate.intervals import Statistics
from pipeline.evaluate.power import Study, describe_power, smallest_detectable_gain
from pipeline.evaluate.scores import Score, ScoreTable
from pipeline.evaluate.simulation import Spread, simulate_differences

SPREAD = Spread(patient=0.05, seed=0.015, residual=0.05)
STUDY = Study(n_patients=24, n_seeds=4, n_comparisons=4, alpha=0.05)


def share_found(gain, study, n=120):
    """Share of simulated studies in which the whole comparison finds a gain, among others that find nothing."""
    tables = simulate_differences(study.n_patients, study.n_seeds, SPREAD, n, np.random.default_rng(7))
    statistics = Statistics(n_bootstrap=100, alpha=study.alpha, seed=3)
    found = []
    for table in tables + gain:
        scores = []
        for number in range(study.n_comparisons):
            # The others do not differ at all, so that Holm has them to count and nothing to find.
            values = table if number == 0 else np.zeros_like(table)
            for (patient, seed), value in np.ndenumerate(values):
                key = (seed, f"p{patient:02d}", f"region {number}", "hd95")
                scores += [Score("arm", *key, float(value)), Score("base", *key, 0.0)]
        plan = [Planned("arm", "base", 1.0, f"region {number}", "hd95") for number in range(study.n_comparisons)]
        found.append(is_significant(compare_planned(ScoreTable(scores), plan, statistics)[0], study.alpha))
    return np.mean(found)


def test_the_smallest_gain_is_found_in_four_of_five_studies():
    gain = smallest_detectable_gain(STUDY, SPREAD)
    # Of 120 with a probability of .8, between 83 and 108 with more than 99%.
    assert 0.69 <= share_found(gain, STUDY) <= 0.9
    assert share_found(gain / 3, STUDY) < 0.4


@pytest.mark.parametrize("better", [{"n_patients": 48}, {"n_seeds": 8}, {"n_comparisons": 2}, {"alpha": 0.2}])
def test_a_larger_study_finds_less(better):
    assert smallest_detectable_gain(Study(**{**vars(STUDY), **better}), SPREAD) < smallest_detectable_gain(
        STUDY, SPREAD
    )


def test_the_smallest_gain_is_in_the_unit_of_the_spread():
    tenfold = Spread(*(10 * value for value in vars(SPREAD).values()))
    assert smallest_detectable_gain(STUDY, tenfold) == pytest.approx(10 * smallest_detectable_gain(STUDY, SPREAD))


def test_what_cannot_be_found_is_said():
    # Six patients: the smallest p is 2 / 64 = .031, times 4 comparisons .125.
    few = Study(6, 4, 4, 0.05)
    assert smallest_detectable_gain(few, SPREAD) is None
    assert "find no difference, however large" in describe_power(few, SPREAD)
    assert smallest_detectable_gain(Study(24, 1, 4, 0.05), SPREAD) is None


def test_the_sentence_states_what_was_assumed():
    sentence = describe_power(STUDY, SPREAD, "mm")
    assert "24 test patients, 4 seeds and 4 planned comparisons" in sentence
    assert f"{smallest_detectable_gain(STUDY, SPREAD):.3f} mm or more with a probability of 80%" in sentence
    assert "0.05 between patients, 0.015 between trainings" in sentence
    assert "(assumed standard deviations" in sentence
    assert "(measured standard deviations" in describe_power(STUDY, SPREAD, is_measured=True)
