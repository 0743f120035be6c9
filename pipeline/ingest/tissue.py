"""Tissue classes of the healthy part of the brain, by a hidden Markov random field.

References
----------
Zhang, Brady, Smith 2001, "Segmentation of brain MR images through a hidden Markov random field model and the
expectation-maximization algorithm", doi:10.1109/42.906424; as implemented in DIPY.
"""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pipeline.errors import CaseError
from pipeline.labels import TISSUE_CLASSES, UInt8Array
from pipeline.volumes import bounding_box

# On T1-weighted images CSF is darkest and white matter brightest; on the others the order is reversed.
DARK_TO_BRIGHT = {"t1": (1, 2, 3), "t1ce": (1, 2, 3), "t2": (3, 2, 1), "flair": (1, 3, 2)}
BACKGROUND_NOISE = 1e-4
# Neither a field of inhomogeneity nor the brightness of the classes needs all voxels of a finer grid.
N4_SPACING_MM, N4_MIN_SHRINK = 4.0, 2
CLASSES_SPACING_MM = 2.0
TOLERANCE, MAX_ITERATIONS = 1e-4, 30
UNLIKELY = 1e6
# Less than this is no brain that classes could be told apart in.
MIN_HEALTHY_VOXELS = 100
MIN_EXTENT_VOXELS = 4


def classify_tissue(
    image: NDArray[np.floating],
    modality: str,
    brain: NDArray[np.bool_],
    tumor: NDArray[np.bool_],
    smoothness: float,
    spacing_mm: float,
) -> UInt8Array:
    """Label the healthy brain as CSF, grey matter or white matter.

    Parameters
    ----------
    image : ndarray, (x, y, z), float, >= 0
        One modality.
    modality : str
        Tells the order of the classes by brightness.
    brain, tumor : ndarray, (x, y, z), bool
    smoothness : float
        Beta of the field: higher is smoother.
    spacing_mm : float
        Isotropic. Where it is finer than 1.34 mm, the brightness of the classes is found on some of the voxels: every
        ``round(2 / spacing_mm)``-th along each axis.

    Returns
    -------
    ndarray, (x, y, z), uint8
        1 CSF, 2 grey matter, 3 white matter; 0 outside the brain and under the tumour.

    Raises
    ------
    CaseError
        If there is next to no healthy brain, or a class is empty: the image has no tissue contrast.
    """
    healthy = brain & ~tumor
    box = bounding_box(brain)
    inside = healthy[box]
    if int(inside.sum()) < MIN_HEALTHY_VOXELS or min(inside.shape) < MIN_EXTENT_VOXELS:
        raise CaseError(
            f"{int(inside.sum())} voxels of healthy brain; expected at least {MIN_HEALTHY_VOXELS}, and "
            f"{MIN_EXTENT_VOXELS} along each axis; check brain mask and label map"
        )
    # DIPY fills exact zeros with unseeded noise: with seeded noise instead the same case gives the same map.
    background = np.random.default_rng(0).uniform(BACKGROUND_NOISE, 2 * BACKGROUND_NOISE, inside.shape)
    values = np.asarray(correct_bias(image[box], inside, spacing_mm), np.float64)
    top = np.percentile(values[inside], 99.5)
    scaled = np.where(inside, 0.05 + 0.95 * np.clip(values / max(top, 1e-6), 0, 1), background)
    classes = _classify(scaled, smoothness, max(1, round(CLASSES_SPACING_MM / spacing_mm)))
    order = np.array([0, *DARK_TO_BRIGHT[modality]], np.uint8)
    found = order[np.clip(classes.astype(np.int64), 0, len(TISSUE_CLASSES))]
    # A dark healthy voxel may be called background: within the brain that is the darkest tissue.
    found = np.where(inside & (found == 0), order[1], np.where(inside, found, 0)).astype(np.uint8)
    empty = [name for value, name in enumerate(TISSUE_CLASSES, start=1) if not (found == value).any()]
    if empty:
        raise CaseError(f"no {', '.join(empty)} found in {modality}; expected tissue contrast; check the scan")
    tissue = np.zeros(brain.shape, np.uint8)
    tissue[box] = found
    return tissue


def _classify(scaled: NDArray[np.float64], smoothness: float, step: int) -> NDArray[np.floating]:
    """Return the class of each voxel, 0 to 3 from dark to bright; classes are fitted to every ``step``-th voxel."""
    from dipy.segment.mrf import ConstantObservationModel, IteratedConditionalModes
    from dipy.segment.tissue import TissueClassifierHMRF

    some = np.ascontiguousarray(scaled[::step, ::step, ::step])
    _, classes, shares = TissueClassifierHMRF(verbose=False).classify(
        some, len(TISSUE_CLASSES), smoothness, tolerance=TOLERANCE, max_iter=MAX_ITERATIONS
    )
    if step == 1:
        return np.asarray(classes)
    n_classes = len(TISSUE_CLASSES) + 1
    model, modes = ConstantObservationModel(), IteratedConditionalModes()
    with np.errstate(invalid="ignore"):
        mean, variance = model.seg_stats(some, np.ascontiguousarray(classes), n_classes)
    # The tissues' as the classifier fitted them: by share, for what is cut off at a class' border weighs in too.
    weights = np.asarray(shares) / np.maximum(np.asarray(shares).sum(axis=(0, 1, 2)), 1e-12)
    mean[1:] = (weights * some[..., None]).sum(axis=(0, 1, 2))
    variance[1:] = (weights * (some[..., None] - mean[1:]) ** 2).sum(axis=(0, 1, 2))
    # A class without a voxel has no brightness, and is none to choose.
    unlikeliness = np.nan_to_num(model.negloglikelihood(scaled, mean, variance, n_classes), nan=UNLIKELY)
    found = np.asarray(modes.initialize_maximum_likelihood(unlikeliness))
    for _ in range(MAX_ITERATIONS):
        before = found
        found = np.array(modes.icm_ising(unlikeliness, smoothness, before)[0])
        if (found != before).mean() < TOLERANCE:
            break
    return found


def correct_bias(image: NDArray[np.floating], mask: NDArray[np.bool_], spacing_mm: float) -> NDArray[np.float32]:
    """Divide an image by its smooth intensity inhomogeneity, so that one class has one brightness.

    Parameters
    ----------
    image : ndarray, (x, y, z), float
    mask : ndarray, (x, y, z), bool
        Where the inhomogeneity is estimated.
    spacing_mm : float
        Isotropic.

    Returns
    -------
    ndarray, (x, y, z), float32

    References
    ----------
    Tustison et al. 2010, "N4ITK: improved N3 bias correction", doi:10.1109/TMI.2010.2046908.
    """
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([20, 20, 20])
    # Positive inside the mask: N4 works on logarithms.
    shifted = np.where(mask, np.maximum(image, 0) + np.float32(1e-3) * np.abs(image).max(), 0).astype(np.float32)
    full, region = sitk.GetImageFromArray(shifted), sitk.GetImageFromArray(mask.astype(np.uint8))
    factor = max(N4_MIN_SHRINK, round(N4_SPACING_MM / spacing_mm))
    shrink = [min(factor, max(1, n // 8)) for n in full.GetSize()]
    n4.Execute(sitk.Shrink(full, shrink), sitk.Shrink(region, shrink))
    log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(full))
    corrected: NDArray[np.float32] = (shifted / np.exp(log_field)).astype(np.float32)
    return corrected
