"""Distances between the surfaces of two masks.

References
----------
Maier-Hein et al. 2024, "Metrics reloaded", doi:10.1038/s41592-023-02151-z.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.volumes import bounding_box

Mask = NDArray[np.bool_]

HD_PERCENTILE = 95.0
MIN_TOLERANCE_MM = 1.0


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


def default_tolerance_mm(spacing_mm: Sequence[float]) -> float:
    """Return the tolerance of surface Dice: 1 mm, or a voxel's longest edge where that is more.

    A surface is not known to less than a voxel: a smaller tolerance would score the grid.
    """
    return max(MIN_TOLERANCE_MM, *spacing_mm)


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
