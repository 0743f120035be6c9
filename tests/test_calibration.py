import numpy as np
import pytest

from pipeline.segmentation.calibration import brier_score, calibration_error

PROBABILITY = np.array([0.1, 0.1, 0.1, 0.3, 0.8, 0.9, 1.0, 0.6])
TRUTH = np.array([0, 0, 1, 0, 1, 1, 0, 1], bool)
INSIDE = np.array([1, 1, 1, 1, 1, 1, 1, 0], bool)


def test_calibration_error_weighs_each_bin_by_its_voxels():
    # Two bins. Below .5: mean probability (.1 + .1 + .1 + .3) / 4 = .15, one of four is tumour: |.15 - .25| = .1.
    # From .5 on: (.8 + .9 + 1) / 3 = .9, two of three are: |.9 - .6667| = .2333. Together (4 * .1 + 3 * .2333) / 7
    assert calibration_error(PROBABILITY, TRUTH, INSIDE, n_bins=2) == pytest.approx((4 * 0.1 + 0.7) / 7)


def test_errors_in_one_bin_cancel_but_not_between_bins():
    probability, truth = np.array([0.2, 0.4]), np.array([True, False])
    inside = np.ones(2, bool)
    # One bin below .5: mean .3 against a share of .5. A bin each: (|.2 - 1| + |.4 - 0|) / 2
    assert calibration_error(probability, truth, inside, n_bins=2) == pytest.approx(0.2)
    assert calibration_error(probability, truth, inside, n_bins=5) == pytest.approx(0.6)


def test_sure_and_right_is_calibrated():
    truth = np.array([True, False])
    assert calibration_error(truth.astype(float), truth, np.ones(2, bool)) == 0.0
    assert brier_score(truth.astype(float), truth, np.ones(2, bool)) == 0.0


def test_brier_score_is_the_mean_squared_error_of_the_voxels_inside():
    # .01 + .01 + .81 + .09 + .04 + .01 + 1, over seven
    assert brier_score(PROBABILITY, TRUTH, INSIDE) == pytest.approx(1.97 / 7)
