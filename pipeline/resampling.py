"""Bring volumes onto other grids: unchanged where the voxels are the grid's own, else by interpolation.

Interpolation is SimpleITK's, which works in LPS+: the conversions at the bottom are the only place that knows it.
"""

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pipeline.errors import CaseError
from pipeline.volumes import LATTICE_TOLERANCE_MM, FloatArray, Grid, Volume

COSINE_DIGITS = 12
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def place_on_grid(
    volume: Volume, reference: Volume, tolerance_mm: float = LATTICE_TOLERANCE_MM, called: str = "label map"
) -> Volume:
    """Put a volume that covers part of a reference's voxels onto the whole of the reference's grid.

    Parameters
    ----------
    volume, reference : Volume
        In RAS orientation, on the same lattice of voxels.
    tolerance_mm : float
        Largest distance between voxels that are called the same.
    called : str
        What the volume is, for the error.

    Returns
    -------
    Volume
        On the reference's grid, 0 where the volume does not reach.

    Raises
    ------
    CaseError
        If the lattices differ, or the volume reaches beyond the reference.
    """
    first = find_shift(volume, reference.affine, tolerance_mm)
    if first is None or (first < 0).any():
        raise CaseError(f"{called} on another grid; expected the image's grid; resample it to the image")
    if (first + volume.array.shape > reference.array.shape).any():
        raise CaseError(f"{called} reaches beyond the image; expected the image's grid; resample it to the image")
    return Volume(_move(volume.array, first, reference.array.shape), reference.affine)


def find_shift(
    volume: Volume, affine: FloatArray, tolerance_mm: float = LATTICE_TOLERANCE_MM
) -> NDArray[np.int64] | None:
    """Find where a volume lies on the lattice of voxels that an affine spans.

    Parameters
    ----------
    volume : Volume
    affine : ndarray, (4, 4)
    tolerance_mm : float
        Largest distance between voxels that are called the same.

    Returns
    -------
    ndarray, (3,), int, or None
        Index on the lattice of the volume's first voxel; None if the volume's voxels lie between the lattice's.
    """
    first = np.rint(np.linalg.solve(affine, volume.affine[:, 3])[:3]).astype(np.int64)
    expected = affine.copy()
    expected[:, 3] = affine @ [*first, 1.0]
    return first if Volume(volume.array, expected).same_grid(volume, tolerance_mm) else None


def _move(
    array: NDArray[Any], first: NDArray[np.int64], shape: tuple[int, ...], background: float = 0.0
) -> NDArray[Any]:
    """Put an array's first voxel at an index of an array of another shape; what does not fit is cut off."""
    low, high = np.maximum(first, 0), np.minimum(first + array.shape, shape)
    moved = np.full(shape, background, array.dtype, order="F")
    if (low < high).all():
        there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        here = tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))
        moved[there] = array[here]
    return moved


def resample(volume: Volume, grid: Grid, background: float = 0.0, to_volume: FloatArray | None = None) -> Volume:
    """Resample an image to a grid: smoothing against aliasing where the grid is coarser, then linear interpolation.

    Where the grid's voxels are the volume's own, values go through unchanged.

    Parameters
    ----------
    volume : Volume
        Any orientation, any numeric type.
    grid : Grid
    background : float
        Value outside the source's field of view.
    to_volume : ndarray, (4, 4), optional
        From the grid's world to the volume's, RAS+, where these differ (see :mod:`pipeline.ingest.registration`).

    Returns
    -------
    Volume
        float32 on the grid.
    """
    array = volume.array.astype(np.float32, copy=False)
    first = find_on_grid(volume, grid, to_volume)
    if first is not None:
        return Volume(_move(array, first, grid.shape, background), grid.affine)
    image = to_sitk(Volume(array, volume.affine))
    return from_sitk(_resample_sitk(image, _smoothing_mm(volume, grid), grid, background, to_volume))


def resample_mask(mask: Volume, grid: Grid, to_volume: FloatArray | None = None) -> NDArray[np.bool_]:
    """Resample a mask as :func:`resample` does an image: bool, True where more than half of a voxel is in it."""
    first = find_on_grid(mask, grid, to_volume)
    if first is not None:
        return _move(mask.array > 0.5, first, grid.shape)
    return resample(mask, grid, to_volume=to_volume).array > 0.5


def find_on_grid(volume: Volume, grid: Grid, to_volume: FloatArray | None = None) -> NDArray[np.int64] | None:
    """Find where on a grid a volume lies whose voxels are the grid's, edges included; see :func:`find_shift`."""
    affine = volume.affine if to_volume is None else invert(to_volume) @ volume.affine
    # A single slice's thickness does not show in where its voxels lie.
    if np.abs(affine[:3, :3] - grid.affine[:3, :3]).max() > LATTICE_TOLERANCE_MM:
        return None
    return find_shift(Volume(volume.array, affine), grid.affine)


def covers(volume: Volume, grid: Grid, to_volume: FloatArray | None = None) -> NDArray[np.bool_]:
    """Tell at which voxels of a grid a volume's field of view reaches: (x, y, z), bool."""
    way = np.linalg.inv(volume.affine) @ (np.eye(4) if to_volume is None else to_volume) @ grid.affine
    return reaches(way, grid.shape, volume.array.shape)


def reaches(way: FloatArray, shape: tuple[int, ...], other_shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Tell which voxels of one array lie within another.

    Parameters
    ----------
    way : ndarray, (4, 4)
        From the one's voxel indices to the other's.
    shape, other_shape : tuple of int
        Of the one and of the other; voxels end half a voxel beyond their centres.

    Returns
    -------
    ndarray, ``shape``, bool
    """
    inside = np.ones((1, 1, 1), bool)
    x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
    for axis, n in enumerate(other_shape):
        # Axes that play no part stay out of the sum, so that arrays along the same axes cost next to nothing.
        index = sum((f * at for f, at in zip(way[axis], (x, y, z), strict=False) if abs(f) > 1e-9), way[axis, 3])
        inside = inside & (index >= -0.5) & (index <= n - 0.5)
    return np.array(np.broadcast_to(inside, shape))


def resample_onto(volume: Volume, target: Volume, to_volume: FloatArray | None = None) -> Volume:
    """Interpolate an image at another's voxels, whatever its orientation: float32, 0 outside the field of view."""
    reference = to_sitk(Volume(np.zeros(target.array.shape, np.uint8), target.affine))
    image = to_sitk(Volume(volume.array.astype(np.float32), volume.affine))
    moved = sitk.Resample(image, reference, as_transform(to_volume), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    return Volume(sitk.GetArrayFromImage(moved).T, target.affine)


def resample_labels(volume: Volume, grid: Grid, n_classes: int, to_volume: FloatArray | None = None) -> Volume:
    """Resample a label map: each class's share of a voxel is interpolated, the largest share wins.

    Unlike nearest-neighbour sampling this neither drops thin structures nor shifts borders when the grid is coarser.

    Parameters
    ----------
    volume : Volume
        Integer values in [0, n_classes).
    grid : Grid
    n_classes : int
        Background included.
    to_volume : ndarray, (4, 4), optional
        As for :func:`resample`.

    Returns
    -------
    Volume
        uint8 on the grid; background outside the field of view.
    """
    first = find_on_grid(volume, grid, to_volume)
    if first is not None:
        known = np.where((volume.array >= 0) & (volume.array < n_classes), volume.array, 0).astype(np.uint8)
        return Volume(_move(known, first, grid.shape), grid.affine)
    smoothing_mm = _smoothing_mm(volume, grid)
    best = np.zeros(grid.shape, np.uint8)
    best_share = np.full(grid.shape, -1.0, np.float32)
    for value in range(n_classes):
        one_hot = Volume((volume.array == value).astype(np.float32), volume.affine)
        outside = 1.0 if value == 0 else 0.0
        share = from_sitk(_resample_sitk(to_sitk(one_hot), smoothing_mm, grid, outside, to_volume)).array
        wins = share > best_share
        best[wins], best_share[wins] = value, share[wins]
    return Volume(best, grid.affine)


def _smoothing_mm(volume: Volume, grid: Grid) -> list[float]:
    """Return the standard deviation of the anti-aliasing Gaussian along each array axis, 0 where none is needed."""
    sigmas = []
    for spacing_mm in volume.spacing_mm:
        ratio = grid.spacing_mm / spacing_mm
        # Half-width of the coarser voxel (Cardoso et al. 2015, doi:10.1007/978-3-319-24571-3_81).
        sigmas.append(spacing_mm * np.sqrt(max(ratio**2 - 1.0, 0.0)) / (2.0 * np.sqrt(2.0 * np.log(2.0))))
    return sigmas


def _resample_sitk(
    image: sitk.Image, smoothing_mm: list[float], grid: Grid, background: float, to_volume: FloatArray | None
) -> sitk.Image:
    if max(smoothing_mm) > 0:
        # Zero variance along an axis leaves that axis alone.
        image = sitk.DiscreteGaussian(image, [s**2 for s in smoothing_mm], maximumKernelWidth=64, useImageSpacing=True)
    reference = to_sitk(Volume(np.zeros(grid.shape, np.uint8), grid.affine))
    return sitk.Resample(image, reference, as_transform(to_volume), sitk.sitkLinear, background, sitk.sitkFloat32)


def invert(matrix: FloatArray) -> FloatArray:
    """Return the transform the other way round, (4, 4)."""
    inverse: FloatArray = np.linalg.inv(matrix).astype(np.float64)
    return inverse


def as_transform(matrix: FloatArray | None) -> sitk.Transform:
    """Return a transform between worlds, (4, 4), RAS+, as SimpleITK's; None means none."""
    if matrix is None:
        return sitk.Transform()
    turned = turn_lps(matrix)
    return sitk.AffineTransform(turned[:3, :3].ravel().tolist(), turned[:3, 3].tolist())


def turn_lps(matrix: FloatArray) -> FloatArray:
    """Turn a transform between worlds, (4, 4), from RAS+ to LPS+ or back."""
    turned: FloatArray = RAS_TO_LPS @ matrix @ RAS_TO_LPS
    return turned


def to_sitk(volume: Volume) -> sitk.Image:
    """Return the volume as SimpleITK's image, in LPS+."""
    affine = RAS_TO_LPS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    # Rounded: a cosine of 1e-290 makes ITK's inversion fail, and the resampled image is then 0 everywhere.
    image.SetDirection((affine[:3, :3] / spacing).round(COSINE_DIGITS).ravel().tolist())
    return image


def from_sitk(image: sitk.Image) -> Volume:
    """Return SimpleITK's image as a volume, in RAS+."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return Volume(sitk.GetArrayFromImage(image).T, RAS_TO_LPS @ affine)
