from pathlib import Path

import numpy as np
import pytest

from pipeline.config import load_config
from pipeline.evaluate.comparison import Planned, compare_planned, is_significant
from pipeline.evaluate.findings import list_planned
from pipeline.evaluate.intervals import Statistics
from pipeline.evaluate.power import ASSUMED_SPREAD, Study, describe_power, detection_rate, smallest_detectable_gain
from pipeline.evaluate.scores import Score, ScoreTable
from pipeline.evaluate.simulation import Spread, simulate_differences
from pipeline.labels import LabelScheme

SPREAD = Spread(patient=0.05, seed=0.015, residual=0.05)
STUDY = Study(n_patients=24, n_seeds=4, n_secondary=3, alpha=0.05)


def share_found(gain, study, family, n=120):
    """Share of simulated studies in which the whole comparison finds a gain, among others that find nothing."""
    tables = simulate_differences(study.n_patients, study.n_seeds, SPREAD, n, np.random.default_rng(7))
    statistics = Statistics(n_bootstrap=100, alpha=study.alpha, seed=3)
    n_compared = 1 if family == "primary" else study.n_secondary
    found = []
    for table in tables + gain:
        scores = []
        for number in range(n_compared):
            # The others do not differ at all, so that Holm has them to count and nothing to find.
            values = table if number == 0 else np.zeros_like(table)
            for (patient, seed), value in np.ndenumerate(values):
                key = (seed, f"p{patient:02d}", f"region {number}", "dice")
                scores += [Score("arm", *key, float(value)), Score("base", *key, 0.0)]
        plan = [Planned("arm", "base", 1.0, f"region {number}", "dice", family) for number in range(n_compared)]
        found.append(is_significant(compare_planned(ScoreTable(scores), plan, statistics)[0], study.alpha))
    return np.mean(found)


@pytest.mark.parametrize("family", ["primary", "secondary"])
def test_the_smallest_gain_is_found_in_four_of_five_studies(family):
    gain = smallest_detectable_gain(STUDY, SPREAD, family)
    # Of 120 with a probability of .8, between 83 and 108 with more than 99%.
    assert 0.69 <= share_found(gain, STUDY, family) <= 0.9
    assert share_found(gain / 3, STUDY, family) < 0.4


@pytest.mark.parametrize("better", [{"n_patients": 48}, {"n_seeds": 8}, {"n_secondary": 2}, {"alpha": 0.2}])
def test_a_larger_study_finds_less(better):
    larger = Study(**{**vars(STUDY), **better})
    assert smallest_detectable_gain(larger, SPREAD, "secondary") < smallest_detectable_gain(STUDY, SPREAD, "secondary")


def test_a_secondary_comparison_finds_only_more_than_the_primary_one():
    # Cochran and Cox at .05 against t with 3 degrees of freedom at .05 / 3.
    primary, secondary = (smallest_detectable_gain(STUDY, SPREAD, family) for family in ("primary", "secondary"))
    assert secondary > 1.3 * primary


def test_a_loss_is_no_gain_that_was_found():
    tables = simulate_differences(24, 4, SPREAD, 200, np.random.default_rng(7))
    assert detection_rate(tables + 1.0, STUDY, "primary") == 1.0
    assert detection_rate(tables - 1.0, STUDY, "primary") == 0.0
    # Without a difference, half of the level lies on the side of gains.
    assert detection_rate(tables, STUDY, "primary") <= 0.05


def test_the_smallest_gain_is_in_the_unit_of_the_spread():
    fivefold = Spread(*(5 * value for value in vars(SPREAD).values()))
    # Bisected to 1 / 4096.
    assert smallest_detectable_gain(STUDY, fivefold) == pytest.approx(
        5 * smallest_detectable_gain(STUDY, SPREAD), abs=2e-3
    )


def test_what_cannot_be_found_is_said():
    # Six patients: the smallest p is 2 / 64 = .031, times 4 comparisons .125.
    few = Study(6, 4, 4, 0.05)
    assert smallest_detectable_gain(few, SPREAD, "secondary") is None
    said = describe_power(few, SPREAD)
    assert "and no gain, however large, in one of 4 secondary comparisons" in said
    assert smallest_detectable_gain(Study(24, 1, 4, 0.05), SPREAD) is None
    # Two trainings, one degree of freedom: at .05 / 60 the quantile is 764.
    assert smallest_detectable_gain(Study(300, 2, 60, 0.05), SPREAD, "secondary") is None


def test_the_sentence_states_both_families_and_what_was_assumed():
    sentence = describe_power(STUDY, SPREAD)
    primary, secondary = (smallest_detectable_gain(STUDY, SPREAD, family) for family in ("primary", "secondary"))
    assert sentence == (
        "24 test patients and 4 trainings of each arm would find, with a probability of 80%, a true gain of "
        f"{primary:.3f} or more in the primary comparison and a true gain of {secondary:.3f} or more in one of 3 "
        "secondary comparisons (assumed standard deviations of the paired difference: 0.05 between patients, 0.015 "
        "between trainings, 0.05 else)."
    )


def test_a_measured_spread_gives_a_range():
    upper = Spread(0.05, 0.06, 0.05)
    low, high = smallest_detectable_gain(STUDY, SPREAD), smallest_detectable_gain(STUDY, upper)
    sentence = describe_power(STUDY, SPREAD, upper)
    as_measured, at_most = sentence.split(" So few trainings do not rule out 0.06 between trainings; then it would be ")
    assert f"a true gain of {low:.3f} or more in the primary comparison" in as_measured
    assert "(measured standard deviations" in as_measured
    assert at_most.startswith(f"a true gain of {high:.3f} or more in the primary comparison and ")


def test_a_spread_that_does_not_show_is_not_called_nothing():
    assert "none that shows between patients" in describe_power(STUDY, Spread(0.0, 0.02, 0.05))


@pytest.mark.parametrize(("name", "n_patients"), [("gain", 20), ("brats-2d", 313)])
def test_the_table_in_the_docs_is_of_the_shipped_plan_and_right(name, n_patients):
    root = Path(__file__).parents[1]
    planned = list_planned(load_config(root / "configs" / f"{name}.yaml").evaluate, tuple(LabelScheme().regions))
    n_secondary = sum(plan.role == "secondary" for plan in planned)
    cells = [line.strip("| ").split(" | ") for line in (root / "docs" / "gain.md").read_text().splitlines()]
    rows = [row for row in cells if row[0] == str(n_patients) and len(row) == 5]
    assert len(rows) == 3
    for _, trainings, secondary, *found in rows:
        assert int(secondary) == n_secondary
        study = Study(n_patients, int(trainings), n_secondary, 0.05)
        gains = [smallest_detectable_gain(study, ASSUMED_SPREAD, family) for family in ("primary", "secondary")]
        assert found == ["nothing" if gain is None else f"{gain:.3f}".lstrip("0") for gain in gains]
