"""Calibration: whether a voxel that is called tumour with probability p is tumour with that frequency.

References
----------
Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599 (expected calibration error, 15 bins).
Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.segmentation.surface import Mask

N_BINS = 15


def calibration_error(probability: NDArray[np.floating], truth: Mask, inside: Mask, n_bins: int = N_BINS) -> float:
    """Return the expected calibration error of a region's probability.

    Voxels are put into bins of equal width by their probability. In each bin, the mean probability is compared with
    the share of voxels that belong to the region; the absolute differences are averaged, weighted by voxels.

    Parameters
    ----------
    probability : ndarray, any shape, float in [0, 1]
    truth, inside : ndarray, same shape, bool
        The region, and the voxels that are looked at: at least one.
    n_bins : int

    Returns
    -------
    float
        In [0, 1].
    """
    value, is_region = np.asarray(probability[inside], np.float64), truth[inside]
    # 1 itself belongs to the last bin.
    bins = np.minimum((value * n_bins).astype(np.int64), n_bins - 1)
    claimed = np.bincount(bins, weights=value, minlength=n_bins)
    happened = np.bincount(bins, weights=is_region, minlength=n_bins)
    return float(np.abs(claimed - happened).sum() / len(value))


def brier_score(probability: NDArray[np.floating], truth: Mask, inside: Mask) -> float:
    """Return the mean squared difference between a region's probability and 1 in it, 0 outside.

    Parameters
    ----------
    probability : ndarray, any shape, float in [0, 1]
    truth, inside : ndarray, same shape, bool
        The region, and the voxels that are looked at: at least one.
    """
    return float(np.mean((np.asarray(probability[inside], np.float64) - truth[inside]) ** 2))
