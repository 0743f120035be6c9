"""Portraits: scan, label map and tumour, each in a frame of its own, so that shift, turn and scale do not count.

The frame of a brain has its centroid for origin, its principal axes for axes and its spread for unit; so has that of a
tumour. In a frame a small cube is sampled. Principal axes have no sign, and no order where two are of one length: who
compares portraits tries the 48 symmetries of the cube (:data:`SYMMETRIES`), mirror images among them.
"""

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.audit.setting import Setting
from pipeline.cohort import Case
from pipeline.embedding import average_blocks, read_case, standardise_scan
from pipeline.labels import LabelScheme, UInt8Array

# Finer than that a portrait does not look; so scans of 1 mm cost no more than those of 4.
COARSE_MM = 4.0
# Voxels a side, and half of the side in units of the spread of brain or tumour.
BRAIN_SIDE, BRAIN_REACH = 12, 2.1
TUMOR_SIDE = 9
# The tumour alone, and with its neighbourhood: a tumour may have been put into another brain, or blurred in its own.
TUMOR_REACHES = {"tumor": 2.2, "surroundings": 3.5}
# A brain that the grid cuts off looks smaller than it is.
SIZES_IF_CUT = (1.0, 1.15, 1.3)
# Where two principal axes of a tumour are of about one length, they may lie anywhere in their plane.
EXTRA_TURNS = tuple(Rotation.from_euler(axis, 45, degrees=True).as_matrix() for axis in "xyz")

Cubes = NDArray[np.float32]
Matrix = NDArray[np.float64]
# Centroid, principal axes (columns), spread in voxels.
Frame = tuple[Matrix, Matrix, float]
# By part: scan and labels (sizes, channels, side, side, side), the first of the brain's own size; tumor and
# surroundings (frames, channels, side, side, side): by the brain's axes, by its own, by its own turned by 45 degrees.
Portrait = dict[str, Cubes]
Symmetry = tuple[tuple[int, ...], tuple[int, ...]]
SYMMETRIES: tuple[Symmetry, ...] = tuple(product(permutations(range(3)), product((1, -1), repeat=3)))


def turn_cube(cubes: Cubes, symmetry: Symmetry) -> Cubes:
    """Turn or mirror cubes (..., side, side, side) by one of :data:`SYMMETRIES`."""
    order, (x, y, z) = symmetry
    first = cubes.ndim - 3
    turned: Cubes = np.transpose(cubes, (*range(first), *(first + axis for axis in order)))[..., ::x, ::y, ::z]
    return turned


def draw_case(case: Case, setting: Setting) -> Portrait:
    """Draw the portrait of a case on disk."""
    images, condition, _ = coarsen(*read_scan_and_labels(case, setting), setting.spacing_mm)
    return draw_portrait(images, condition, setting.scheme)


def read_scan_and_labels(case: Case, setting: Setting) -> tuple[NDArray[np.float32], UInt8Array]:
    """Read a scan (modalities, x, y, z), float32 in [0, 1000], and its condition (x, y, z)."""
    images, _ = read_case(case, setting.modalities)
    return images, case.condition(setting.scheme)


def coarsen(
    images: NDArray[np.float32], condition: UInt8Array, spacing_mm: float
) -> tuple[NDArray[np.float32], UInt8Array, float]:
    """Bring a scan (modalities, x, y, z) and its condition (x, y, z) to about 4 mm; return them and their spacing."""
    block = max(1, round(COARSE_MM / spacing_mm))
    if block == 1:
        return images, condition, spacing_mm
    every = (slice(block // 2, None, block),) * 3
    padded = np.pad(condition, [(0, -n % block) for n in condition.shape])
    return np.stack([average_blocks(image, block) for image in images]), padded[every], spacing_mm * block


def draw_portrait(images: NDArray[np.float32], condition: UInt8Array, scheme: LabelScheme) -> Portrait:
    """Draw a portrait.

    Parameters
    ----------
    images : ndarray, (modalities, x, y, z), float32
    condition : ndarray, (x, y, z), uint8
        Label map of tissue and tumour joined; 0 outside the brain.
    scheme : LabelScheme

    Returns
    -------
    dict of str to ndarray
        See :data:`Portrait`; of a scan without a tumour, tumor and surroundings are 0.
    """
    standard = standardise_scan(images, condition > 0)
    classes = np.stack([(condition == value).astype(np.float32) for value in range(1, scheme.n_condition_classes)])
    centre, axes, spread = own_frame(condition > 0)
    sizes = SIZES_IF_CUT if _is_cut(condition > 0) else (1.0,)
    frames = [(centre, axes, spread * size) for size in sizes]
    portrait = {
        name: _sample(volumes, frames, BRAIN_SIDE, BRAIN_REACH)
        for name, volumes in (("scan", standard), ("labels", classes))
    }
    _, tumor_map = scheme.split(condition)
    n_frames = 2 + len(EXTRA_TURNS)
    if not tumor_map.any():
        empty = np.zeros((n_frames, len(images), *(TUMOR_SIDE,) * 3), np.float32)
        return portrait | dict.fromkeys(TUMOR_REACHES, empty)
    centre, own, spread = own_frame(tumor_map > 0)
    frames = [(centre, turn, spread) for turn in (axes, own, *(own @ turn for turn in EXTRA_TURNS))]
    seen = {"tumor": standardise_scan(images, tumor_map > 0), "surroundings": standard}
    return portrait | {name: _sample(seen[name], frames, TUMOR_SIDE, reach) for name, reach in TUMOR_REACHES.items()}


def own_frame(mask: NDArray[np.bool_]) -> Frame:
    """Return centroid, principal axes (columns, each the nearest to an axis of the grid) and spread of a mask, voxels.

    Parameters
    ----------
    mask : ndarray, (x, y, z), bool
        Not empty.
    """
    points = np.argwhere(mask).astype(np.float64)
    centre = points.mean(axis=0)
    covariance = (points - centre).T @ (points - centre) / len(points)
    variances, axes = np.linalg.eigh(covariance)
    order = max(permutations(range(3)), key=lambda p: sum(abs(axes[i, p[i]]) for i in range(3)))
    axes = axes[:, list(order)]
    signs = np.where(np.diag(axes) < 0, -1.0, 1.0)
    return centre, axes * signs, max(1.0, float(np.sqrt(variances.mean())))


def _is_cut(brain: NDArray[np.bool_]) -> bool:
    return any(bool(side.any()) for axis in range(3) for side in np.moveaxis(brain, axis, 0)[[0, -1]])


def _sample(volumes: NDArray[np.float32], frames: Sequence[Frame], side: int, reach: float) -> Cubes:
    """Sample a cube in each frame: (frames, channels, side, side, side); smoothed first by half of the first's step."""
    smooth = [ndimage.gaussian_filter(volume, reach * frames[0][2] / (side - 1), truncate=2.5) for volume in volumes]
    ticks = np.linspace(-reach, reach, side)
    points = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij")).reshape(3, -1)
    cubes = np.stack(
        [
            np.stack([ndimage.map_coordinates(v, spread * axes @ points + centre[:, None], order=1) for v in smooth])
            for centre, axes, spread in frames
        ]
    )
    return cubes.reshape(len(frames), len(volumes), side, side, side).astype(np.float32)
