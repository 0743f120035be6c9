"""Pictures of scans: tiles in radiological convention, label colours and outlines, as RGB arrays.

Arrays are in RAS, so axial tiles show the patient's right on the left and anterior on top.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.image
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.cohort import INTENSITY_MAX

RgbArray = NDArray[np.uint8]

PLANES = ("axial", "coronal", "sagittal")
TILE_PIXELS = 160
GAP_PIXELS = 2
# Background, CSF, grey and white matter in greys; necrotic core, oedema, enhancing (Okabe and Ito 2008: colour-blind
# safe).
CONDITION_COLOURS = np.array(
    [[0, 0, 0], [60, 70, 90], [125, 125, 125], [200, 200, 200], [0, 114, 178], [0, 158, 115], [230, 159, 0]], np.uint8
)
OUTLINE_COLOURS = CONDITION_COLOURS[4:]
# Of the same palette: in the worst of normal and red-green-deficient vision the farthest from these and the greys.
BRAIN_COLOUR = np.array([86, 180, 233], np.uint8)


def plane_slice(array: NDArray[np.generic], plane: str, index: int) -> NDArray[np.generic]:
    """Cut one slice of an (x, y, z) array and turn it for display: (rows, columns)."""
    if plane == "axial":
        return array[::-1, ::-1, index].T
    if plane == "coronal":
        return array[::-1, index, ::-1].T
    return array[index, ::-1, ::-1].T


def tumor_centre(tumor_map: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Return the slice indices along x, y, z with most tumour; the middle where there is none."""
    counts = [(tumor_map > 0).sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    x, y, z = (int(c.argmax()) if c.any() else len(c) // 2 for c in counts)
    return x, y, z


def grey_tile(
    image: NDArray[np.generic], tumor: NDArray[np.generic] | None = None, brain: NDArray[np.generic] | None = None
) -> RgbArray:
    """Make a tile of a slice.

    Parameters
    ----------
    image : ndarray, (rows, columns)
        Intensities in [0, 1000].
    tumor : ndarray, (rows, columns), uint8, optional
        Tumour map whose classes are outlined.
    brain : ndarray, (rows, columns), bool, optional
        Brain mask that is outlined.

    Returns
    -------
    ndarray, (TILE_PIXELS, columns in proportion, 3), uint8
    """
    factor = TILE_PIXELS / max(image.shape)
    scaled = ndimage.zoom(np.asarray(image, np.float32), factor, order=1, grid_mode=True, mode="nearest")
    rgb = np.repeat(np.clip(scaled * (255 / INTENSITY_MAX), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if brain is not None:
        rgb[_outline(_zoom_labels(brain, factor) > 0)] = BRAIN_COLOUR
    if tumor is not None:
        labels = _zoom_labels(tumor, factor)
        for value, colour in enumerate(OUTLINE_COLOURS, start=1):
            rgb[_outline(labels == value)] = colour
    return _pad_tile(rgb)


def condition_tile(condition: NDArray[np.generic]) -> RgbArray:
    """Make a tile of a condition slice in :data:`CONDITION_COLOURS`."""
    factor = TILE_PIXELS / max(condition.shape)
    return _pad_tile(CONDITION_COLOURS[_zoom_labels(condition, factor)])


def mosaic(rows: Sequence[Sequence[RgbArray]]) -> RgbArray:
    """Put tiles of one size into rows and columns with gaps."""
    lines = []
    for row in rows:
        tiles = [np.pad(tile, ((0, GAP_PIXELS), (0, GAP_PIXELS), (0, 0))) for tile in row]
        lines.append(np.concatenate(tiles, axis=1))
    return np.concatenate(lines, axis=0)


def case_picture(
    images: Mapping[str, NDArray[np.int16]], tumor_map: NDArray[np.uint8], condition: NDArray[np.uint8]
) -> RgbArray:
    """Show one case: three planes through the tumour, a column for each modality and one for the label map.

    Parameters
    ----------
    images : mapping of str to ndarray, (x, y, z), int16 in [0, 1000]
    tumor_map, condition : ndarray, (x, y, z), uint8

    Returns
    -------
    ndarray, (rows, columns, 3), uint8
    """
    x, y, z = tumor_centre(tumor_map)
    rows = []
    for plane, index in zip(PLANES, (z, y, x), strict=True):
        tumor = plane_slice(tumor_map, plane, index)
        tiles = [grey_tile(plane_slice(image, plane, index)) for image in images.values()]
        tiles.append(grey_tile(plane_slice(list(images.values())[-1], plane, index), tumor))
        tiles.append(condition_tile(plane_slice(condition, plane, index)))
        rows.append(tiles)
    return mosaic(rows)


def quality_picture(
    images: Mapping[str, NDArray[np.int16]], tumor_map: NDArray[np.uint8], brain: NDArray[np.bool_]
) -> RgbArray:
    """Show whether masks fit the scans: three planes through the tumour, a column for each modality, with outlines.

    Parameters
    ----------
    images : mapping of str to ndarray, (x, y, z), int16 in [0, 1000]
    tumor_map : ndarray, (x, y, z), uint8
        Outlined in :data:`OUTLINE_COLOURS`, in the order of the classes' values.
    brain : ndarray, (x, y, z), bool
        Outlined in :data:`BRAIN_COLOUR`.

    Returns
    -------
    ndarray, (rows, columns, 3), uint8
    """
    x, y, z = tumor_centre(tumor_map)
    rows = []
    for plane, index in zip(PLANES, (z, y, x), strict=True):
        outlines = plane_slice(tumor_map, plane, index), plane_slice(brain, plane, index)
        rows.append([grey_tile(plane_slice(image, plane, index), *outlines) for image in images.values()])
    return mosaic(rows)


def save_picture(rgb: RgbArray, path: Path) -> None:
    """Write a PNG without metadata that varies; parents are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    matplotlib.image.imsave(path, np.ascontiguousarray(rgb), metadata={"Software": "synthcohort"})


def _pad_tile(rgb: RgbArray) -> RgbArray:
    """Centre a tile on a square of :data:`TILE_PIXELS`."""
    rows, columns = (TILE_PIXELS - n for n in rgb.shape[:2])
    return np.pad(rgb, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)))


def _zoom_labels(labels: NDArray[np.generic], factor: float) -> NDArray[np.uint8]:
    zoomed: NDArray[np.uint8] = ndimage.zoom(
        np.asarray(labels, np.uint8), factor, order=0, grid_mode=True, mode="nearest"
    )
    return zoomed


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the rim of a mask, one pixel wide, inside it."""
    return mask & ~ndimage.binary_erosion(mask)
