"""Quality figures of one scan within the brain: noise, contrast, ghosting, blur, jumps between slices.

A scan may be in any unit, z-scored or skull-stripped, so nothing here uses the air around the head or the zero of the
brightness: no figure but the brightest and the darkest changes when a scan is multiplied or offset.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

FloatImage = NDArray[np.float32]
Mask = NDArray[np.bool_]

# From the median absolute deviation to the standard deviation of a normal distribution.
MAD_TO_SD = 1.4826
DARKEST_BRIGHTEST = (0.5, 99.8)
MAX_SNR = 1000.0
# Nearer than this to the brain's surface, the kernels below reach over it.
RIM_VOXELS = 3
MIN_INNER_VOXELS = 200
FINE_SIGMA_VOXELS = 1.5
SHADING_SIGMA_MM = 15.0
SHADING_STEP_MM = 4.0
# A ghost lies farther away than structures resemble their neighbours.
MIN_GHOST_MM = 20.0
MIN_OVERLAP = 0.2
GHOST_STEP_MM = 2.0
MIN_SLICE_SHARE = 0.4
FALX_MM = 10.0
# A filling is one value, to this share of the brightness range, in at least this share of the brain.
FILLING_TOLERANCE = 1e-4
MIN_FILLING_SHARE = 0.002


def measure_scan(scan: FloatImage, reached: Mask, brain: Mask, spacing_mm: float) -> dict[str, float]:
    """Measure one modality.

    Parameters
    ----------
    scan : ndarray, (x, y, z), float32
        In any unit.
    reached : ndarray, (x, y, z), bool
        Where the scan's field of view reaches.
    brain : ndarray, (x, y, z), bool
        At least one voxel.
    spacing_mm : float
        Isotropic.

    Returns
    -------
    dict of str to float
        ``coverage``, share of the brain in [0, 1]. Then, of what is covered, unless that is next to nothing or has
        one value: ``low`` and ``high``, percentiles 0.5 and 99.8 in the scan's unit; ``snr``; ``contrast``;
        ``motion``; ``blur``; ``slice_jumps``. See the functions below.
    """
    covered = brain & reached
    covered &= ~find_filling(scan, covered)
    figures = {"coverage": float(covered.sum() / brain.sum())}
    inner = ndimage.binary_erosion(covered, iterations=RIM_VOXELS)
    if inner.sum() < MIN_INNER_VOXELS:
        return figures
    percentiles = (DARKEST_BRIGHTEST[0], 5, 50, 95, DARKEST_BRIGHTEST[1])
    # Python's numbers, for NumPy's would make arrays of twice the precision.
    low, dark, middle, bright, high = (float(value) for value in np.percentile(scan[covered], percentiles))
    if bright <= dark:
        return figures
    # Flat beyond the brain and without extremes: neither skull nor vessels weigh in. Ranges become 0 to 1.
    clipped = np.where(covered, np.clip(scan, low, high), np.float32(middle))
    values: FloatImage = ((clipped - middle) / (bright - dark)).astype(np.float32, copy=False)
    smooth = ndimage.gaussian_filter(values, FINE_SIGMA_VOXELS)
    slope, smooth_slope = _gradient_size(values), _gradient_size(smooth)
    calm = inner & (smooth_slope <= np.median(smooth_slope[inner]))
    return figures | {
        "low": low,
        "high": high,
        "snr": min(1.0 / max(noise_sd(values, calm), 1.0 / MAX_SNR), MAX_SNR),
        "contrast": local_contrast(values, covered, spacing_mm),
        "motion": strongest_ghost(values - smooth, inner, spacing_mm),
        "blur": _root_mean_square(smooth_slope[inner]) / max(_root_mean_square(slope[inner]), 1e-6),
        "slice_jumps": slice_jumps(values, inner, spacing_mm),
    }


def find_filling(scan: FloatImage, region: Mask) -> Mask:
    """Find what others filled with one value where their scan did not reach.

    Parameters
    ----------
    scan : ndarray, (x, y, z), float32
    region : ndarray, (x, y, z), bool

    Returns
    -------
    ndarray, (x, y, z), bool
        A part of the region, empty unless one value fills whole neighbourhoods of 3 x 3 x 3 voxels.
    """
    filling = np.zeros(region.shape, bool)
    if not region.any():
        return filling
    values = scan[region]
    low, high = np.percentile(values, DARKEST_BRIGHTEST)
    tolerance = max(float(high - low) * FILLING_TOLERANCE, 1e-12)
    steps = np.rint(np.clip((values - low) / tolerance, -1, 1 / FILLING_TOLERANCE + 1)).astype(np.int64) + 1
    commonest = np.median(values[steps == np.bincount(steps).argmax()])
    block = np.ones((3, 3, 3), bool)
    core = ndimage.binary_erosion(np.abs(scan - commonest) <= tolerance, block, border_value=1) & region
    if core.sum() < MIN_FILLING_SHARE * region.sum():
        return filling
    # Once for the erosion, once for the rim that resampling blended with what lies beside it.
    return ndimage.binary_dilation(core, block, iterations=2) & region


def noise_sd(values: FloatImage, calm: Mask) -> float:
    """Estimate the standard deviation of the noise: robust mixed second differences in calm tissue.

    Of the three planes the noisiest counts: across thick slices, interpolation has removed the noise.

    References
    ----------
    Immerkaer 1996, "Fast noise variance estimation", doi:10.1006/cviu.1996.0060; with the median absolute deviation
    for the mean, as in Coupe et al. 2010, "Robust Rician noise estimation for MR images",
    doi:10.1016/j.media.2010.03.001.
    """
    along = [_second_difference(values, axis) for axis in (0, 1)]
    planes = ((along[0], 1), (along[0], 2), (along[1], 2))
    # Six is the norm of the mixed kernel, so that white noise of variance 1 gives 1.
    return max(MAD_TO_SD * float(np.median(np.abs(_second_difference(d, axis)[calm]))) / 6 for d, axis in planes)


def local_contrast(values: FloatImage, covered: Mask, spacing_mm: float) -> float:
    """Return the share of the brightness differences that is local: between tissues, not shading across the head.

    Standard deviation after subtraction of the local mean (Gaussian, 15 mm), over the standard deviation before; in
    [0, 1] but for rounding. Coil shading lowers it.
    """
    step = max(1, round(SHADING_STEP_MM / spacing_mm))
    coarse = (slice(None, None, step),) * 3
    weights = covered[coarse].astype(np.float32)
    inside = weights > 0
    if not inside.any():
        return 0.0
    image = values[coarse]
    centred = (image - image[inside].mean()) * weights
    sigma = SHADING_SIGMA_MM / (spacing_mm * step)
    shading = ndimage.gaussian_filter(centred, sigma) / np.maximum(ndimage.gaussian_filter(weights, sigma), 1e-6)
    return float((centred - shading)[inside].std() / max(float(centred[inside].std()), 1e-6))


def strongest_ghost(fine: FloatImage, inner: Mask, spacing_mm: float) -> float:
    """Return how strongly fine structure repeats at a distance along an axis, as ghosts of a moving head do.

    The autocorrelation of the fine structure has a peak at a ghost's distance; the figure is the height of the
    highest one over its neighbours, beyond 20 mm, in [0, 1]. Motion between a few k-space lines gives many such
    peaks. A single jolt leaves blur instead, and a brain alone cannot tell blur by motion from a soft sequence.
    MRIQC's figures of ghosting (Mortamet et al. 2009, Esteban et al. 2017) need the air around the head, which
    skull-stripped scans have lost, and the entropy of brightness (Atkinson et al. 1997) changes with an offset.

    Parameters
    ----------
    fine : ndarray, (x, y, z), float32
        Scan minus smoothed scan.
    inner : ndarray, (x, y, z), bool
        Brain without its rim.
    spacing_mm : float

    References
    ----------
    Atkinson et al. 1997, doi:10.1109/42.650886; Mortamet et al. 2009, doi:10.1002/mrm.21992; Esteban et al. 2017,
    doi:10.1371/journal.pone.0184661.
    """
    limit = 3 * MAD_TO_SD * float(np.median(np.abs(fine[inner])))
    pattern = np.clip(fine, -limit, limit)
    pattern = np.where(inner, pattern - pattern[inner].mean(), 0).astype(np.float32)
    # Neighbouring lines say the same: some of them are enough.
    step = max(1, round(GHOST_STEP_MM / spacing_mm))
    first = int(np.ceil(MIN_GHOST_MM / spacing_mm))
    peaks = [0.0]
    for axis in range(3):
        lines = tuple(slice(None) if a == axis else slice(None, None, step) for a in range(3))
        overlap = _line_autocorrelation(inner[lines].astype(np.float32), axis)
        similarity = _line_autocorrelation(pattern[lines], axis) / np.maximum(overlap, 1.0)
        n_lags = int(np.argmax(np.append(overlap < MIN_OVERLAP * overlap[0], True)))
        if n_lags > first + 1 and similarity[0] > 0:
            peak = np.abs(_second_difference(similarity[:n_lags], 0)[first:-1]) / 2
            peaks.append(float(peak.max() / similarity[0]))
    return max(peaks)


def slice_jumps(values: FloatImage, inner: Mask, spacing_mm: float) -> float:
    """Return how much whole slices differ in brightness from their neighbours.

    For each slice, the median over its voxels of the difference to the mean of both neighbours; the figure is the
    root mean square over slices, of the axis where it is largest. Interleaved slices that saw the head in two
    positions, and single slices that are too dark or too bright, raise it. Slices that show little of the brain, and
    sagittal ones near the falx, differ from their neighbours by anatomy and are left out.
    """
    middle = (values.shape[0] - 1) / 2
    jumps = [0.0]
    for axis in range(3):
        slices, masks = np.moveaxis(values, axis, 0), np.moveaxis(inner, axis, 0)
        triples = masks[:-2] & masks[1:-1] & masks[2:]
        sizes = triples.sum(axis=(1, 2))
        found = [
            np.median((slices[index] - (slices[index - 1] + slices[index + 1]) / 2)[triples[index - 1]])
            for index in 1 + np.flatnonzero(sizes > MIN_SLICE_SHARE * sizes.max())
            if axis > 0 or abs(index - middle) * spacing_mm >= FALX_MM
        ]
        jumps.append(_root_mean_square(np.array(found)))
    return max(jumps)


def _line_autocorrelation(values: FloatImage, axis: int) -> NDArray[np.float32]:
    """Return the sum of products along an axis for each lag in voxels, over all lines."""
    n = values.shape[axis]
    length = fft.next_fast_len(2 * n, real=True)
    power = np.abs(fft.rfft(values, length, axis=axis)) ** 2
    total: NDArray[np.float32] = fft.irfft(power.sum(axis=tuple(a for a in range(3) if a != axis)), length)[:n]
    return total


def _second_difference(values: NDArray[np.floating], axis: int) -> NDArray[np.floating]:
    difference: NDArray[np.floating] = ndimage.convolve1d(values, np.array([1.0, -2.0, 1.0]), axis=axis)
    return difference


def _gradient_size(values: FloatImage) -> FloatImage:
    """Return the length of the gradient, per voxel."""
    size: FloatImage = np.sqrt(sum(np.square(part) for part in np.gradient(values)))
    return size


def _root_mean_square(values: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
