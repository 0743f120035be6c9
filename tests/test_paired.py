"""The paired figure: by hand, and by simulation with a leak and without one."""

import numpy as np
import pytest
from audit_builders import scored
from conftest import rng
from numpy.typing import NDArray

from pipeline.audit.paired import (
    auc_influence,
    calibrate,
    clustered_variance,
    paired_figure,
    patient_risk,
    untouched_scores,
)
from pipeline.statistics import auc


def test_paired_figure_and_risk_are_as_by_hand() -> None:
    inside = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], bool)
    # Each row has mean 1 and SD sqrt((4 + 0 + 1 + 1) / 4) = sqrt 1.5.
    scores = np.array([[3.0, 1, 0, 0], [0.0, 0, 1, 3]])
    # Standardised (2, 0, -1, -1) and (-1, -1, 0, 2); persons' means .5, -.5, -.5, .5 off; over sqrt 1.5.
    expected = np.array([[1.5, 0.5, -0.5, -1.5], [-1.5, -0.5, 0.5, 1.5]]) / np.sqrt(1.5)
    np.testing.assert_allclose(calibrate(scores), expected)
    # In: 1.5, .5, .5, 1.5; out: the same with a minus.
    assert paired_figure("attack", scores, inside, 0.05).estimate.value == 1.0
    risk = patient_risk(scores, inside, 0.05)
    np.testing.assert_allclose(risk.value, np.array([3, 1, 1, 3]) / np.sqrt(1.5))
    # One score in and one out tell nothing of their spread.
    assert np.isinf(risk.ci).all()


def test_calibration_takes_away_what_belongs_to_generator_or_person() -> None:
    scores, _ = scored(6, 20, 0.5, 1)
    stretched = scores * np.array([[1.0], [5], [2], [0.1], [7], [3]]) + np.array([[9.0], [-4], [0], [1], [2], [8]])
    np.testing.assert_allclose(calibrate(stretched), calibrate(scores), atol=1e-9)
    np.testing.assert_allclose(calibrate(scores).sum(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(calibrate(np.tile(rng().normal(size=20), (6, 1))), 0, atol=1e-9)


def test_untouched_scores_come_from_references_that_did_not_see_the_person() -> None:
    is_member = np.array([[True, False, True, False], [False, True, False, True]])
    # Whoever is in scores 9; out, persons score 1, 2, 3, 4.
    scores = np.where(is_member, 9.0, np.array([1.0, 2.0, 3.0, 4.0]))
    found = untouched_scores(scores, is_member)
    # Row 0 holds 9, 2, 9, 4: mean 6, deviation sqrt((9 + 16 + 9 + 4) / 4); row 1 holds 1, 9, 3, 9: mean 5.5.
    first, second = np.sqrt(38 / 4), np.sqrt((4.5**2 + 3.5**2 + 2.5**2 + 3.5**2) / 4)
    assert found == pytest.approx([(1 - 5.5) / second, (2 - 6) / first, (3 - 5.5) / second, (4 - 6) / first])


@pytest.mark.parametrize("n_references", [2, 8])
def test_paired_interval_covers_one_half_where_nothing_leaks(n_references: int) -> None:
    n_repeats, covered = 60, 0
    for seed in range(n_repeats):
        figure = paired_figure("attack", *scored(n_references, 24, 0.0, seed), 0.05)
        low, high = figure.estimate.ci
        assert low <= figure.estimate.value <= high
        covered += low <= 0.5 <= high
    # 95% of 60 is 57, SD 1.7.
    assert covered >= 52


@pytest.mark.parametrize("n_references", [2, 8])
def test_paired_figure_sees_a_leak_below_the_differences_between_persons(n_references: int) -> None:
    scores, inside = scored(n_references, 24, 2.0, 1)
    figure = paired_figure("attack", scores, inside, 0.05)
    assert (figure.n_patients, figure.n_references) == (24, n_references)
    assert figure.covers_generators == (n_references >= 8)
    assert figure.estimate.ci[0] > 0.6
    # Without calibration the same scores show little: the persons' SD is 3, the generators' 50.
    assert auc(scores[inside], scores[~inside]) < 0.65
    assert paired_figure("attack", -scores, inside, 0.05).estimate.ci[1] < 0.4


def test_influences_are_what_a_score_s_weight_moves() -> None:
    scores, inside = scored(8, 6, 0.7, 3)
    calibrated = calibrate(scores)
    value, influence = auc_influence(calibrated, inside)
    assert value == pytest.approx(auc(calibrated[inside], calibrated[~inside]))
    assert influence.sum() == pytest.approx(0, abs=1e-12)

    def weighted(weights: NDArray) -> float:
        pairs = np.sign(calibrated[inside][:, None] - calibrated[~inside][None]) / 2 + 0.5
        both = np.outer(weights[inside], weights[~inside])
        return float((pairs * both).sum() / both.sum())

    for place in ((0, 0), (3, 2), (7, 5)):
        weights = np.ones(scores.shape)
        weights[place] += 1e-6
        assert (weighted(weights) - value) / 1e-6 == pytest.approx(influence[place], abs=1e-6)


def test_variance_is_that_between_persons_and_what_pairs_have_beyond_it() -> None:
    # Two persons, four pairs, the second row of each pair 0. Sums by person: 4 and -4; by pair: 0, 0, 0, 0.
    alternating = np.zeros((8, 2))
    alternating[::2] = [[1, -1]] * 4
    # 16 + 16, times 2 / 1; pairs vary less than their parts: nothing is added.
    assert clustered_variance(alternating, True) == (pytest.approx(64), 1.0)
    # By person 2 + 2 + 1 + 1 = 6 and 2 + 2 + 1 - 3 = 2; by pair 4, 4, 2 and -2; the parts are four 4, three 1 and a 9.
    unlike = np.zeros((8, 2))
    unlike[::2] = [[2, 2], [2, 2], [1, 1], [1, -3]]
    persons, pairs, parts = (6**2 + 2**2) * 2, (4**2 + 4**2 + 2**2 + 2**2) * 4 / 3, 4 * 4 + 3 * 1 + 9
    variance = persons + pairs - parts
    n_free = variance**2 / (persons**2 / 1 + pairs**2 / 3)
    assert clustered_variance(unlike, True) == (pytest.approx(variance), pytest.approx(n_free))
    assert clustered_variance(unlike, False) == (pytest.approx(persons), 1.0)


def test_a_person_told_apart_every_time_leaves_doubt() -> None:
    inside = np.tile([[True] * 6 + [False] * 6, [False] * 6 + [True] * 6], (4, 1))
    estimate = paired_figure("attack", inside.astype(float), inside, 0.05).estimate
    assert estimate.value == 1.0
    assert 0.7 < estimate.ci[0] < 0.97
    assert estimate.standard_error > 0


def test_intervals_of_a_person_s_risk_cover_the_truth() -> None:
    covered = []
    for seed in range(20):
        stream = rng(seed)
        _, inside = scored(8, 40, 0.0, seed)
        truth = stream.uniform(0, 3, 40)
        scores = stream.normal(size=inside.shape) + truth * inside
        risk = patient_risk(scores, inside, 0.05)
        # Scores are standardised: the truth is in units of their deviation.
        scaled = truth / scores.std(axis=1).mean()
        covered.append(np.mean((risk.ci[:, 0] <= scaled) & (scaled <= risk.ci[:, 1])))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)
