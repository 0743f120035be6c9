"""The warp that makes one anatomy into another person's.

People differ in size, in the broad shape of the brain and in its details, on both sides much alike: the midline stays
a plane unless something pushes it. So two scales of warp are symmetric, and a weak third one is not.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.labels import TISSUE_CLASSES, UInt8Array
from pipeline.warps import compose, random_warp, warp_labels

# Root mean square displacement, smoothness, both mm, and whether both sides move alike.
WARPS_MM = ((5.5, 34.0, True), (1.6, 13.0, True), (1.2, 24.0, False))
SIZE_SD = 0.04
# On the demo's grid the first warp cut 5 of 12 brains.
MAX_WARPS = 8


def warp_person(tissue_map: UInt8Array, spacing_mm: float, stream: np.random.Generator) -> UInt8Array:
    """Make one person's tissue map a new person's; a warp that carries brain off the grid is drawn anew.

    So where brains all but fill the grid new ones are a little smaller than the law alone has them. The last resort,
    after eight warps, is the one that cuts least.

    Parameters
    ----------
    tissue_map : ndarray, (x, y, z), uint8 in [0, 3]
        Its middle in x is the midline.
    spacing_mm : float
    stream : numpy.random.Generator

    Returns
    -------
    ndarray, (x, y, z), uint8 in [0, 3]
    """
    spacing = (spacing_mm,) * 3
    best, n_least = tissue_map, -1
    for _ in range(MAX_WARPS):
        warp = random_person_warp(tissue_map.shape, spacing_mm, stream)
        warped = warp_labels(tissue_map, warp, spacing, len(TISSUE_CLASSES) + 1)
        n_cut = count_on_faces(warped)
        if n_least < 0 or n_cut < n_least:
            best, n_least = warped, n_cut
        if n_least <= count_on_faces(tissue_map):
            break
    return best


def count_on_faces(tissue_map: UInt8Array) -> int:
    """Return how many voxels of brain lie on the six faces of the grid, where it may have been cut."""
    faces = (np.take(tissue_map, end, axis) for axis in range(3) for end in (0, -1))
    return sum(int(np.count_nonzero(face)) for face in faces)


def random_person_warp(
    shape: tuple[int, int, int], spacing_mm: float, stream: np.random.Generator
) -> NDArray[np.float32]:
    """Draw the warp from one person's anatomy to a new one's: a size along each axis, and three scales of shape.

    Parameters
    ----------
    shape : tuple of int
        Of the working grid; its middle in x is the midline.
    spacing_mm : float
    stream : numpy.random.Generator

    Returns
    -------
    ndarray, (3, x, y, z), float32
        Displacement in mm, without folds.
    """
    spacing = (spacing_mm,) * 3
    warp = np.zeros((3, *shape), np.float32)
    for amplitude_mm, smoothness_mm, is_symmetric in WARPS_MM:
        warp = compose(warp, random_warp(shape, spacing, amplitude_mm, smoothness_mm, stream, is_symmetric), spacing)
    sizes = np.exp(stream.normal(0.0, SIZE_SD, 3))
    centre = (np.array(shape) - 1) / 2
    positions = np.indices(shape, dtype=np.float32) - centre[:, None, None, None].astype(np.float32)
    stretch = positions * (1 / sizes - 1)[:, None, None, None] * spacing_mm
    whole: NDArray[np.float32] = (warp + stretch).astype(np.float32)
    return whole
