"""Put a tumour into a brain: turn and scale it, find a place, push the tissue aside."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.attributes import HEMISPHERES
from pipeline.errors import CaseError
from pipeline.labels import UInt8Array
from pipeline.lobes import LOBES, brain_box, find_lobes
from pipeline.warps import mass_effect, warp_labels

MIN_INSIDE_SHARE = 0.9
N_PLACES = 24
MOBILITY_DEPTH_MM = 12.0
GREY, WHITE = 2, 3
SECOND_FOCUS_SHARE = (0.2, 0.4)


@dataclass(frozen=True)
class LabelMaps:
    """A new person's label maps.

    Parameters
    ----------
    tissue_map : ndarray, (x, y, z), uint8 in [0, 3]
        0 under the tumour.
    tumor_map : ndarray, (x, y, z), uint8
    """

    tissue_map: UInt8Array
    tumor_map: UInt8Array


def rescale_tumor(tumor_map: UInt8Array, scale: float, rotation: NDArray[np.float64]) -> UInt8Array:
    """Turn, stretch and scale a tumour about its centre of mass, in the middle of a grid of the same shape.

    Parameters
    ----------
    tumor_map : ndarray, (x, y, z), uint8
        Not empty.
    scale : float
        Of lengths.
    rotation : ndarray, (3, 3), float64
        Or a stretch as well, that keeps volumes.

    Returns
    -------
    ndarray, same shape, uint8
        What would reach beyond the grid is cut.
    """
    n_classes = int(tumor_map.max()) + 1
    centre = np.argwhere(tumor_map > 0).mean(axis=0)
    middle = (np.array(tumor_map.shape) - 1) / 2
    matrix = np.linalg.inv(rotation) / scale
    offset = centre - matrix @ middle
    shares = [
        ndimage.affine_transform((tumor_map == value).astype(np.float32), matrix, offset, order=1)
        for value in range(1, n_classes)
    ]
    stacked = np.stack([1.0 - np.sum(shares, axis=0), *shares])
    turned: UInt8Array = np.argmax(stacked, axis=0).astype(np.uint8)
    return turned


def place_tumor(
    tissue_map: UInt8Array, tumor_map: UInt8Array, hemisphere: str, lobe: str | None, stream: np.random.Generator
) -> UInt8Array:
    """Move a tumour to where tissue admits it.

    Parameters
    ----------
    tissue_map : ndarray, (x, y, z), uint8
        Of a brain without tumour; the grid's middle in x is the midline.
    tumor_map : ndarray, same shape, uint8
        Tumour anywhere on the grid.
    hemisphere : str
        Where its centre goes.
    lobe : str, optional
        As well; a brain without white and grey matter there takes it elsewhere.
    stream : numpy.random.Generator

    Returns
    -------
    ndarray, same shape, uint8
        Tumour map within the brain: the best of some random places; what reaches beyond the brain is cut.

    Raises
    ------
    CaseError
        If no place holds at least 90% of it, or the hemisphere has neither grey nor white matter.
    """
    cells = np.argwhere(tumor_map > 0)
    centre = np.rint(cells.mean(axis=0)).astype(int)
    admitted = list_places((tissue_map == WHITE) | (tissue_map == GREY), tissue_map > 0, hemisphere, lobe)
    best_inside, best_move = 0.0, np.zeros(3, int)
    for index in stream.integers(len(admitted), size=N_PLACES if len(admitted) else 0):
        move = admitted[index] - centre
        moved = cells + move
        on_grid = ((moved >= 0) & (moved < tissue_map.shape)).all(axis=1)
        inside = np.zeros(len(cells), bool)
        inside[on_grid] = tissue_map[tuple(moved[on_grid].T)] > 0
        if inside.mean() > best_inside:
            best_inside, best_move = float(inside.mean()), move
        if best_inside > 0.98:
            break
    if best_inside < MIN_INSIDE_SHARE:
        raise CaseError("no place in the brain holds the tumour; expected room for 90% of it; ask for smaller tumours")
    moved = cells + best_move
    keep = ((moved >= 0) & (moved < tissue_map.shape)).all(axis=1)
    placed = np.zeros_like(tumor_map)
    placed[tuple(moved[keep].T)] = tumor_map[tuple(cells[keep].T)]
    return np.where(tissue_map > 0, placed, 0).astype(np.uint8)


def focus_shares(n_foci: int, stream: np.random.Generator) -> list[float]:
    """Return the share of the whole volume that each focus has, largest first: one, or a second that is smaller."""
    second = float(stream.uniform(*SECOND_FOCUS_SHARE)) if n_foci > 1 else 0.0
    return [1.0 - second, second][:n_foci]


def list_places(
    admitted: NDArray[np.bool_], brain: NDArray[np.bool_], hemisphere: str, lobe: str | None, margin_voxels: float = 0.0
) -> NDArray[np.int64]:
    """Return the voxels where a tumour's centre may go.

    Parameters
    ----------
    admitted, brain : ndarray, (x, y, z), bool
        The grid's middle in x is the midline.
    hemisphere : str
    lobe : str, optional
        Where none of the admitted voxels lies in it, all of the hemisphere count.
    margin_voxels : float
        Distance to the midline.

    Returns
    -------
    ndarray, (n, 3), int
    """
    places: NDArray[np.int64] = np.argwhere(admitted)
    from_middle = places[:, 0] - (admitted.shape[0] - 1) / 2
    is_right = hemisphere != HEMISPHERES[0]
    places = places[from_middle >= margin_voxels if is_right else -from_middle > margin_voxels]
    if lobe is None or not len(places):
        return places
    there = find_lobes(places.astype(np.float64), brain_box(brain, np.eye(4))) == LOBES.index(lobe)
    return places[there] if there.any() else places


def push_tissue(tissue_map: UInt8Array, tumor_map: UInt8Array, spacing_mm: float, strength: float) -> UInt8Array:
    """Push tissue away from the tumour's core; the brain's outline stays.

    Parameters
    ----------
    tissue_map, tumor_map : ndarray, (x, y, z), uint8
    spacing_mm : float
    strength : float
        Push as a share of the tumour's radius, in [0, 0.5].

    Returns
    -------
    ndarray, (x, y, z), uint8
        Tissue map before the tumour is put on it.
    """
    spacing = (spacing_mm, spacing_mm, spacing_mm)
    cells = np.argwhere(tumor_map > 0)
    x, y, z = (float(c) * spacing_mm for c in cells.mean(axis=0))
    radius_mm = (len(cells) * spacing_mm**3 * 3 / (4 * np.pi)) ** (1 / 3)
    brain = tissue_map > 0
    depth_mm = ndimage.distance_transform_edt(brain, sampling=spacing_mm)
    mobility = np.clip(depth_mm / MOBILITY_DEPTH_MM, 0, 1).astype(np.float32)
    push = mass_effect(tissue_map.shape, spacing, (x, y, z), radius_mm, strength * radius_mm, mobility)
    pushed = warp_labels(tissue_map, push, spacing, int(tissue_map.max()) + 1)
    return fill_holes(np.where(brain, pushed, 0).astype(np.uint8), brain)


def fill_holes(tissue_map: UInt8Array, region: NDArray[np.bool_]) -> UInt8Array:
    """Give each voxel of a region that has no tissue the class of the nearest voxel that has."""
    empty = region & (tissue_map == 0)
    if not empty.any() or not (tissue_map > 0).any():
        return tissue_map
    nearest = ndimage.distance_transform_edt(tissue_map == 0, return_distances=False, return_indices=True)
    filled = tissue_map.copy()
    filled[empty] = tissue_map[tuple(axis[empty] for axis in nearest)]
    return filled


def join(tissue_map: UInt8Array, tumor_map: UInt8Array) -> LabelMaps:
    """Put the tumour on the tissue; no tumour outside the brain, and no crumb that a warp broke off it."""
    parts, n_parts = ndimage.label(tissue_map > 0)
    brain = parts == 1 + np.bincount(parts.ravel())[1:].argmax() if n_parts > 1 else tissue_map > 0
    inside = np.where(brain, tumor_map, 0).astype(np.uint8)
    return LabelMaps(np.where(brain & (inside == 0), tissue_map, 0).astype(np.uint8), inside)
