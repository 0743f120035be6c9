"""Lobes of the brain: points on an atlas, each with its lobe; a place belongs to the lobe of the point nearest to it.

A tumour's lobe is a stratum of plans and tables, not a measurement: points are enough, and they need no registration.
A brain is laid onto the atlas by stretching its box onto the atlas' box along each axis, as in Talairach and
Tournoux's proportional grid.

The points are the centres of four clusters (k-means on positions, both sides folded together) of the regions of each
lobe in the Desikan-Killiany atlas on ICBM 2009, regions being given to lobes as FreeSurfer does, cingulate ones to
frontal and parietal, insula, basal ganglia and thalamus to ``deep``; the two infratentorial points are set by hand.
Of that atlas' labelled voxels 88% lie nearest to a point of their own lobe. The points are this project's, under its
licence.

References
----------
Desikan et al. 2006, doi:10.1016/j.neuroimage.2006.01.021. Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033
(ICBM 2009). Talairach and Tournoux 1988, "Co-planar stereotaxic atlas of the human brain".
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.volumes import FloatArray, bounding_box

# World millimetres of the atlas, RAS+, on the right side.
POINTS_MM: dict[str, tuple[tuple[int, int, int], ...]] = {
    "frontal": ((20, -7, 59), (24, 44, -9), (48, 15, 23), (17, 40, 34)),
    "parietal": ((54, -29, 34), (7, -42, 30), (34, -73, 30), (23, -53, 59)),
    "temporal": ((58, -43, 2), (35, 0, -32), (56, -13, -14), (37, -49, -16)),
    "occipital": ((11, -86, 17), (17, -93, -7), (16, -63, -1), (43, -81, -1)),
    "deep": ((34, 10, -6), (13, -19, 8), (14, 9, 0), (33, -10, 3)),
    "infratentorial": ((25, -66, -42), (0, -32, -42)),
}
LOBES = tuple(POINTS_MM)
# Centres of the outermost voxels of the atlas' brain.
ATLAS_BOX_MM = np.array([[-72.0, -107.0, -72.0], [72.0, 73.0, 82.0]])

_NEAREST = cKDTree([point for points in POINTS_MM.values() for point in points])
_LOBE_OF = np.array([number for number, points in enumerate(POINTS_MM.values()) for _ in points])


def brain_box(brain: NDArray[np.bool_], affine: FloatArray) -> NDArray[np.float64]:
    """Return the outermost voxel centres of a brain along the world's axes: (2, 3), mm, lowest first.

    Parameters
    ----------
    brain : ndarray, (x, y, z), bool
        At least one voxel; array axes run along the world's.
    affine : ndarray, (4, 4)
        RAS+.
    """
    box = bounding_box(brain)
    corners = np.array([[edge.start for edge in box], [edge.stop - 1 for edge in box]])
    return np.sort(corners @ affine[:3, :3].T + affine[:3, 3], axis=0)


def find_lobes(points_mm: NDArray[np.float64], box_mm: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the lobe of each point.

    Parameters
    ----------
    points_mm : ndarray, (n, 3)
        World millimetres.
    box_mm : ndarray, (2, 3)
        Of the brain that they lie in, see :func:`brain_box`.

    Returns
    -------
    ndarray, (n,), int
        Index into :data:`LOBES`.
    """
    extent = np.maximum(box_mm[1] - box_mm[0], 1e-6)
    placed = ATLAS_BOX_MM[0] + (points_mm - box_mm[0]) / extent * (ATLAS_BOX_MM[1] - ATLAS_BOX_MM[0])
    placed[:, 0] = np.abs(placed[:, 0])
    found: NDArray[np.int64] = _LOBE_OF[_NEAREST.query(placed)[1]]
    return found
