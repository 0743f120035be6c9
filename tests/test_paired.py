"""The paired figure: by hand, and by simulation with a leak and without one."""

import numpy as np
import pytest
from audit_builders import scored
from conftest import rng

from pipeline.audit.paired import paired_figure, patient_risk
from pipeline.audit.references import ReferenceScores, calibrate
from pipeline.statistics import auc


def test_paired_figure_and_risk_are_as_by_hand() -> None:
    inside = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], bool)
    # Each row has mean 1 and SD sqrt((4 + 0 + 1 + 1) / 4) = sqrt 1.5.
    references = ReferenceScores({"attack": np.array([[3.0, 1, 0, 0], [0.0, 0, 1, 3]])}, inside)
    # Standardised (2, 0, -1, -1) and (-1, -1, 0, 2); persons' means .5, -.5, -.5, .5 off; over sqrt 1.5.
    expected = np.array([[1.5, 0.5, -0.5, -1.5], [-1.5, -0.5, 0.5, 1.5]]) / np.sqrt(1.5)
    np.testing.assert_allclose(calibrate(references, "attack"), expected)
    # In: 1.5, .5, .5, 1.5; out: the same with a minus.
    assert paired_figure(references, "attack", 200, 0.05, rng()).estimate.value == 1.0
    np.testing.assert_allclose(patient_risk(references, "attack"), np.array([3, 1, 1, 3]) / np.sqrt(1.5))


@pytest.mark.parametrize("n_references", [2, 8])
def test_paired_interval_covers_one_half_where_nothing_leaks(n_references: int) -> None:
    n_repeats, covered = 60, 0
    for seed in range(n_repeats):
        figure = paired_figure(scored(n_references, 24, 0.0, seed), "attack", 200, 0.05, rng(seed))
        low, high = figure.estimate.ci
        assert low <= figure.estimate.value <= high
        covered += low <= 0.5 <= high
    # 95% of 60 is 57, SD 1.7.
    assert covered >= 52


@pytest.mark.parametrize("n_references", [2, 8])
def test_paired_figure_sees_a_leak_below_the_differences_between_persons(n_references: int) -> None:
    references = scored(n_references, 24, 2.0, 1)
    figure = paired_figure(references, "attack", 200, 0.05, rng())
    assert (figure.n_patients, figure.n_references) == (24, n_references)
    assert figure.resamples_references == (n_references >= 8)
    assert figure.estimate.ci[0] > 0.6
    # Without calibration the same scores show little: the persons' SD is 3, the generators' 50.
    raw = references.scores["attack"]
    assert auc(raw[references.is_member], raw[~references.is_member]) < 0.65
    turned = ReferenceScores({"attack": -raw}, references.is_member)
    assert paired_figure(turned, "attack", 200, 0.05, rng()).estimate.ci[1] < 0.4
