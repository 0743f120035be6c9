"""How far synthetic scans lie from real ones: figures that need no network from elsewhere, each with a baseline.

A figure alone says nothing: beside each stands the same figure between real persons who were not trained on and those
who were. What is compared are samples of axial slices, as many from each side.

References
----------
Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium",
arXiv:1706.08500 (Frechet distance). Binkowski et al. 2018, "Demystifying MMD GANs", arXiv:1801.01401 (kernel distance,
unbiased). Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity",
doi:10.1109/TIP.2003.819861. Durall et al. 2020, "Watch your up-convolution", arXiv:2003.01826 (power spectra).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.stats import wasserstein_distance
from skimage.metrics import structural_similarity

from pipeline.cohort import INTENSITY_MAX
from pipeline.labels import TISSUE_CLASSES, UInt8Array

Features = NDArray[np.float64]
Slices = NDArray[np.float32]
SSIM_WINDOW = 7
MAX_COMPONENTS, ROWS_PER_COMPONENT = 16, 4


def frechet_distance(first: Features, second: Features) -> float:
    """Return the Frechet distance of two sets of features, taken as normal distributions.

    Parameters
    ----------
    first, second : ndarray, (n, features), float64
        At least two rows each; with fewer rows than features it is biased upwards, more so the fewer.

    Returns
    -------
    float
        >= 0 but for rounding.
    """
    difference = first.mean(axis=0) - second.mean(axis=0)
    covariances = [np.atleast_2d(np.cov(features, rowvar=False)) for features in (first, second)]
    # The root of a product of two covariances has real, positive eigenvalues; rounding may leave a trace of others.
    eigenvalues = linalg.eigvals(covariances[0] @ covariances[1]).real
    root = np.sqrt(np.maximum(eigenvalues, 0.0)).sum()
    return float(difference @ difference + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root)


def kernel_distance(first: Features, second: Features) -> float:
    """Return the squared maximum mean discrepancy of two sets of features, cubic kernel, unbiased: may be below 0.

    Parameters
    ----------
    first, second : ndarray, (n, features), float64
        At least two rows each.
    """
    own = [_off_diagonal_mean(_kernel(features, features)) for features in (first, second)]
    return own[0] + own[1] - 2 * float(_kernel(first, second).mean())


def _kernel(first: Features, second: Features) -> Features:
    kernel: Features = (first @ second.T / first.shape[1] + 1.0) ** 3
    return kernel


def _off_diagonal_mean(matrix: Features) -> float:
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1)))


def standardise(reference: Features, *others: Features) -> list[Features]:
    """Bring features to mean 0 and deviation 1 of a reference's, so that no unit decides."""
    mean, deviation = reference.mean(axis=0), np.maximum(reference.std(axis=0), 1e-6)
    return [(features - mean) / deviation for features in (reference, *others)]


def to_components(reference: Features, *others: Features) -> list[Features]:
    """Reduce features to the reference's main axes: few enough that its size tells their covariance.

    Parameters
    ----------
    reference, others : ndarray, (n, features), float64
        See :func:`standardise`.

    Returns
    -------
    list of ndarray, (n, components)
        In the order given; at most 16 components, and :data:`ROWS_PER_COMPONENT` rows of the smallest set for each.
    """
    smallest = min(len(features) for features in (reference, *others))
    n = max(1, min(MAX_COMPONENTS, reference.shape[1], smallest // ROWS_PER_COMPONENT))
    mean = reference.mean(axis=0)
    axes = np.linalg.svd(reference - mean, full_matrices=False)[2][:n]
    return [(features - mean) @ axes.T for features in (reference, *others)]


def structural_likeness(first: Slices, second: Slices) -> float:
    """Return the mean structural similarity of two slices over modalities, within the brain of either.

    Parameters
    ----------
    first, second : ndarray, (modalities, x, y), float32 in [0, 1000]
        0 outside the brain.

    Returns
    -------
    float
        In [-1, 1]; 1 for equal slices.
    """
    brain = (first > 0).any(axis=0) | (second > 0).any(axis=0)
    if not brain.any():
        return 1.0
    values = []
    for one, other in zip(first, second, strict=True):
        _, likeness = structural_similarity(
            one, other, win_size=SSIM_WINDOW, data_range=float(INTENSITY_MAX), full=True
        )
        values.append(float(likeness[brain].mean()))
    return float(np.mean(values))


def histogram_distances(
    first: Sequence[tuple[Slices, UInt8Array]], second: Sequence[tuple[Slices, UInt8Array]], modalities: Sequence[str]
) -> dict[str, float]:
    """Return how far the brightness of each tissue differs, by modality: earth mover's distance of all its voxels.

    Parameters
    ----------
    first, second : sequence of (slice, tissue map)
        (modalities, x, y), float32 in [0, 1000], and (x, y), uint8.
    modalities : sequence of str

    Returns
    -------
    dict of str to float
        By ``<modality>/<tissue>``, as a share of the brightness range, in [0, 1]; tissues that a side has not are left
        out.
    """
    distances = {}
    for value, tissue in enumerate(TISSUE_CLASSES, start=1):
        where = [[tissue_map == value for _, tissue_map in side] for side in (first, second)]
        for channel, modality in enumerate(modalities):
            voxels = [
                np.concatenate([scan[channel][mask] for (scan, _), mask in zip(side, masks, strict=True)])
                for side, masks in zip((first, second), where, strict=True)
            ]
            if all(len(side) for side in voxels):
                distances[f"{modality}/{tissue}"] = float(wasserstein_distance(*voxels)) / INTENSITY_MAX
    return distances


def power_spectrum(scan: Slices) -> NDArray[np.float64]:
    """Return the logarithm of a slice's power by spatial frequency, averaged over directions and modalities.

    Parameters
    ----------
    scan : ndarray, (modalities, x, y), float32

    Returns
    -------
    ndarray, (n,), float64
        From the lowest frequency above 0 to that of a checkerboard of voxels; relative to the whole power.
    """
    centred = scan - scan.mean(axis=(1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(centred)) ** 2
    power /= np.maximum(power.sum(axis=(1, 2), keepdims=True), 1e-12)
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in scan.shape[1:]), indexing="ij"))
    # Rings as wide as the coarser axis resolves.
    ring = np.rint(frequency * min(scan.shape[1:])).astype(int)
    n_inside = np.bincount(ring.ravel())[1:]
    by_ring = np.stack([np.bincount(ring.ravel(), one.ravel())[1:] for one in power])
    spectrum: NDArray[np.float64] = np.log(np.maximum(by_ring / np.maximum(n_inside, 1), 1e-12)).mean(axis=0)
    return spectrum


def spectrum_distance(first: Sequence[Slices], second: Sequence[Slices]) -> float:
    """Return the root mean square difference of two samples' mean power spectra, in natural logarithms of power."""
    means = [np.mean([power_spectrum(scan) for scan in side], axis=0) for side in (first, second)]
    return float(np.sqrt(np.mean((means[0] - means[1]) ** 2)))
