"""Tissue classes of the healthy part of the brain, by a hidden Markov random field.

References
----------
Zhang, Brady, Smith 2001, "Segmentation of brain MR images through a hidden Markov random field model and the
expectation-maximization algorithm", doi:10.1109/42.906424; as implemented in DIPY.
"""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import CaseError
from pipeline.labels import TISSUE_CLASSES, UInt8Array

# On T1-weighted images CSF is darkest and white matter brightest; on the others the order is reversed.
DARK_TO_BRIGHT = {"t1": (1, 2, 3), "t1ce": (1, 2, 3), "t2": (3, 2, 1), "flair": (1, 3, 2)}
BACKGROUND_NOISE = 1e-4
N4_SHRINK = 2
# Less than this is no brain that classes could be told apart in.
MIN_HEALTHY_VOXELS = 100
MIN_EXTENT_VOXELS = 4


def classify_tissue(
    image: NDArray[np.floating],
    modality: str,
    brain: NDArray[np.bool_],
    tumor: NDArray[np.bool_],
    smoothness: float,
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

    Returns
    -------
    ndarray, (x, y, z), uint8
        1 CSF, 2 grey matter, 3 white matter; 0 outside the brain and under the tumour.

    Raises
    ------
    CaseError
        If there is next to no healthy brain, or a class is empty: the image has no tissue contrast.
    """
    from dipy.segment.tissue import TissueClassifierHMRF

    healthy = brain & ~tumor
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    inside = healthy[box]
    if int(inside.sum()) < MIN_HEALTHY_VOXELS or min(inside.shape) < MIN_EXTENT_VOXELS:
        raise CaseError(
            f"{int(inside.sum())} voxels of healthy brain; expected at least {MIN_HEALTHY_VOXELS}, and "
            f"{MIN_EXTENT_VOXELS} along each axis; check brain mask and label map"
        )
    # DIPY fills exact zeros with unseeded noise: with seeded noise instead the same case gives the same map.
    background = np.random.default_rng(0).uniform(BACKGROUND_NOISE, 2 * BACKGROUND_NOISE, inside.shape)
    values = np.asarray(correct_bias(image[box], inside), np.float64)
    top = np.percentile(values[inside], 99.5)
    scaled = np.where(inside, 0.05 + 0.95 * np.clip(values / max(top, 1e-6), 0, 1), background)
    _, classes, _ = TissueClassifierHMRF(verbose=False).classify(
        scaled, len(TISSUE_CLASSES), smoothness, tolerance=1e-4, max_iter=30
    )
    order = np.array([0, *DARK_TO_BRIGHT[modality]], np.uint8)
    found = order[np.clip(np.asarray(classes, np.int64), 0, len(TISSUE_CLASSES))]
    # A dark healthy voxel may be called background: within the brain that is the darkest tissue.
    found = np.where(inside & (found == 0), order[1], np.where(inside, found, 0)).astype(np.uint8)
    empty = [name for value, name in enumerate(TISSUE_CLASSES, start=1) if not (found == value).any()]
    if empty:
        raise CaseError(f"no {', '.join(empty)} found in {modality}; expected tissue contrast; check the scan")
    tissue = np.zeros(brain.shape, np.uint8)
    tissue[box] = found
    return tissue


def correct_bias(image: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Divide an image by its smooth intensity inhomogeneity, so that one class has one brightness.

    Parameters
    ----------
    image : ndarray, (x, y, z), float
    mask : ndarray, (x, y, z), bool
        Where the inhomogeneity is estimated.

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
    shrink = [N4_SHRINK if n >= 8 * N4_SHRINK else 1 for n in full.GetSize()]
    n4.Execute(sitk.Shrink(full, shrink), sitk.Shrink(region, shrink))
    log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(full))
    corrected: NDArray[np.float32] = (shifted / np.exp(log_field)).astype(np.float32)
    return corrected
