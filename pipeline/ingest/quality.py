"""Quality figures of an ingested case: of each scan, and of brain mask and tumour map together."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from pipeline.ingest.scan_quality import Mask, measure_scan
from pipeline.labels import UInt8Array
from pipeline.volumes import bounding_box

# Voxel centres no farther than this from a plane lie on it.
PLANE_TOLERANCE_VOXELS = 0.6
N_PLANES = 20


def share_outside(tumor: NDArray[np.bool_], brain: NDArray[np.bool_]) -> float:
    """Return the share of the tumour outside the brain; 0 where there is none. Both: (x, y, z), bool."""
    return int(np.count_nonzero(tumor & ~brain)) / max(int(np.count_nonzero(tumor)), 1)


def measure_quality(
    scans: Mapping[str, NDArray[np.float32]],
    reached: Mapping[str, Mask],
    brain: Mask,
    tumor_map: UInt8Array,
    spacing_mm: float,
) -> dict[str, float]:
    """Measure the quality of one case on the working grid.

    Parameters
    ----------
    scans : mapping of str to ndarray, (x, y, z), float32
        Modality to its scan before intensity scaling, in any unit.
    reached : mapping of str to ndarray, (x, y, z), bool
        Modality to where its field of view reaches.
    brain : ndarray, (x, y, z), bool
        Brain mask before the tumour was joined to it; at least one voxel.
    tumor_map : ndarray, (x, y, z), uint8
    spacing_mm : float
        Isotropic.

    Returns
    -------
    dict of str to float
        ``brain_ml`` and ``tumor_ml``; ``tumor_outside_brain``, share of the tumour; ``cut_share`` and
        ``flat_share``, shares of the brain's surface; ``asymmetry`` in [0, 1]; then ``<modality>_<figure>`` for each
        figure of :func:`~pipeline.ingest.scan_quality.measure_scan`.
    """
    voxel_ml = spacing_mm**3 / 1000
    tumor = tumor_map > 0
    figures = {
        "brain_ml": float(brain.sum()) * voxel_ml,
        "tumor_ml": float(tumor.sum()) * voxel_ml,
        "tumor_outside_brain": share_outside(tumor, brain),
        "cut_share": cut_share(brain, np.logical_and.reduce(list(reached.values()))),
    }
    box = bounding_box(brain)
    inside = brain[box]
    figures |= {"flat_share": flat_share(inside), "asymmetry": asymmetry(inside)}
    for name, scan in scans.items():
        measured = measure_scan(scan[box], reached[name][box], inside, spacing_mm)
        figures |= {f"{name}_{figure}": value for figure, value in measured.items()}
    return figures


def cut_share(brain: Mask, reached: Mask) -> float:
    """Return the share of the brain's surface, in voxel faces, beyond which a field of view or the grid ends."""
    padded, open_to = np.pad(brain, 1), np.pad(reached, 1)
    n_faces = n_cut = 0
    for axis in range(3):
        for step in (-1, 1):
            # The padding is empty, so that what rolls around is no brain.
            faces = padded & ~np.roll(padded, step, axis)
            n_faces += int(faces.sum())
            n_cut += int((faces & ~np.roll(open_to, step, axis)).sum())
    return n_cut / n_faces


def flat_share(brain: Mask) -> float:
    """Return the share of the brain's surface that lies in one plane, beyond what a ball of its size would have.

    Scans that others resampled and skull-stripped do not tell where the field of view ended; where it cut the brain,
    in whatever direction, the surface is flat. Candidates are the largest faces of the convex hull.

    Parameters
    ----------
    brain : ndarray, (x, y, z), bool
        Voxels of equal edges.

    Returns
    -------
    float
        In [0, 1].
    """
    surface = brain & ~ndimage.binary_erosion(brain)
    points = np.argwhere(surface).astype(np.float64)
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):
        # Too few voxels, or all in one plane.
        return 1.0
    corners = points[hull.simplices]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    # Faces are triangles: those in one plane belong together.
    planes, member_of = np.unique(hull.equations.round(3), axis=0, return_inverse=True)
    largest = np.argsort(-np.bincount(member_of.ravel(), areas))[:N_PLANES]
    share = max(
        float((np.abs(points @ plane[:3] + plane[3]) <= PLANE_TOLERANCE_VOXELS).mean()) for plane in planes[largest]
    )
    # A cap of that height, and half a voxel for the rounding to voxels, of a ball with as many surface voxels.
    radius = np.sqrt(len(points) / (4 * np.pi))
    return max(0.0, share - float((PLANE_TOLERANCE_VOXELS + 0.5) / (2 * radius)))


def asymmetry(brain: Mask) -> float:
    """Return the share of the brain whose mirror image is not brain.

    Parameters
    ----------
    brain : ndarray, (x, y, z), bool
        Cropped to the brain: the mirror stands in the middle of x.
    """
    return 1.0 - float((brain & brain[::-1]).sum() / brain.sum())
