"""Dice and HD95 of one patient: whole volume, region by region.

References
----------
Menze et al. 2015, doi:10.1109/TMI.2014.2377694 (regions). Maier-Hein et al. 2024, "Metrics reloaded",
doi:10.1038/s41592-023-02151-z (definitions).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import DataError
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.volumes import bounding_box

Mask = NDArray[np.bool_]

METRICS = ("dice", "hd95")
# Dice over the patients who have the region: an empty region scores 0 or 1, which says little of a segmenter.
PRESENT_METRIC = "dice_present"
METRIC_TITLES = {"dice": "Dice", "hd95": "HD95 (mm)", PRESENT_METRIC: "Dice where present"}
IS_BETTER_HIGHER = {"dice": True, "hd95": False, PRESENT_METRIC: True}
HD_PERCENTILE = 95.0
DEFINITIONS = {
    "dice": "2 |A and B| / (|A| + |B|) over the patient's whole volume; both empty: 1; one empty: 0",
    "hd95": (
        "the larger of the 95th percentiles of the distances, mm, from each surface voxel of one mask to the nearest "
        "surface voxel of the other, both ways; both empty: 0; one empty: the image's diagonal"
    ),
    PRESENT_METRIC: "Dice over the patients whose true region is not empty",
}


def score_patient(
    predicted: UInt8Array, truth: UInt8Array, scheme: LabelScheme, spacing_mm: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Score a predicted tumour map.

    Parameters
    ----------
    predicted, truth : ndarray, (x, y, z), uint8
        Tumour maps of the scheme.
    scheme : LabelScheme
    spacing_mm : sequence of float
        Edge lengths of a voxel along x, y, z.

    Returns
    -------
    dict of str to dict of str to float
        Region to metric to value; :data:`PRESENT_METRIC` only where the true region is not empty.

    Raises
    ------
    DataError
        If the maps have different shapes.
    """
    if predicted.shape != truth.shape:
        raise DataError(
            f"prediction of another shape; expected {truth.shape}, got {predicted.shape}; "
            "predict on the grid that the truth is on"
        )
    scores = {}
    for region in scheme.regions:
        first, second = scheme.region_mask(predicted, region), scheme.region_mask(truth, region)
        scores[region] = {"dice": dice(first, second), "hd95": hd95_mm(first, second, spacing_mm)}
        if second.any():
            scores[region][PRESENT_METRIC] = scores[region]["dice"]
    return scores


def dice(first: Mask, second: Mask) -> float:
    """Return 2 |A and B| / (|A| + |B|); 1 where both are empty, 0 where one is.

    Parameters
    ----------
    first, second : ndarray, same shape, bool
    """
    total = int(first.sum()) + int(second.sum())
    return 2.0 * int((first & second).sum()) / total if total else 1.0


def hd95_mm(first: Mask, second: Mask, spacing_mm: Sequence[float]) -> float:
    """Return the 95th percentile Hausdorff distance in millimetres.

    A surface voxel belongs to the mask and has a face neighbour (or the image's edge) that does not. The percentile is
    taken of each direction by itself and the larger one counts; percentiles are interpolated linearly.

    Parameters
    ----------
    first, second : ndarray, same shape, bool
    spacing_mm : sequence of float
        Edge length of a voxel along each axis.

    Returns
    -------
    float
        0 where both masks are empty, the image's diagonal where one is.
    """
    if not first.any() and not second.any():
        return 0.0
    if not first.any() or not second.any():
        return diagonal_mm(first.shape, spacing_mm)
    box = bounding_box(first | second)
    first_surface, second_surface = _surface(first[box]), _surface(second[box])
    directed = [
        float(np.percentile(_distance_mm(target, spacing_mm)[origin], HD_PERCENTILE))
        for origin, target in ((first_surface, second_surface), (second_surface, first_surface))
    ]
    return max(directed)


def diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Return the length of an image's diagonal in millimetres, outer edge to outer edge."""
    return float(np.linalg.norm(np.multiply(shape, spacing_mm)))


def _surface(mask: Mask) -> Mask:
    inner: Mask = ndimage.binary_erosion(mask)
    return mask & ~inner


def _distance_mm(surface: Mask, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Return the distance of each voxel to the nearest voxel of a surface."""
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~surface, sampling=tuple(spacing_mm))
    return distance
