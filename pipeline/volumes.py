"""Volume: an array with its affine; orientation, resampling, files.

World coordinates are millimetres in RAS+ (nibabel's convention); array axes run (x, y, z). Interpolation is
SimpleITK's, which works in LPS+: the conversions at the bottom are the only place that knows it.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pipeline.errors import CaseError

FloatArray = NDArray[np.float64]
COSINE_DIGITS = 12
LATTICE_TOLERANCE_MM = 1e-2
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# A brain at half a millimetre has 512 voxels along an axis. A header that claims more is taken for damaged.
MAX_VOXELS, MAX_VOXEL_BYTES, MAX_HEADER_BYTES = 512**3, 2**30, 2**24
# A scanner's bore is a metre across; some archives count from a corner of the hall.
MAX_PLACE_MM = 1e6
# Beyond, differences of two 32-bit values overflow.
MAX_INTENSITY = 1e30
# Deflate packs no more than that into a byte (zlib.net, "Maximum Compression Factor").
MAX_GZIP_RATIO = 1032
# Cases run in parallel; within a case one thread, so that sums do not depend on how many there are.
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


@dataclass(frozen=True)
class Volume:
    """A three-dimensional image in world space.

    Parameters
    ----------
    array : ndarray, (x, y, z)
        Voxel values.
    affine : ndarray, (4, 4), float64
        From voxel index to world millimetres, RAS+.
    """

    array: NDArray[Any]
    affine: FloatArray

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel in millimetres."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    def same_grid(self, other: "Volume", tolerance_mm: float = LATTICE_TOLERANCE_MM) -> bool:
        """Tell whether both volumes have the same shape, and corners that agree within the tolerance."""
        if self.array.shape != other.array.shape:
            return False
        corners = np.array(np.meshgrid(*[[0, n - 1] for n in self.array.shape])).reshape(3, -1)
        homogeneous = np.vstack([corners, np.ones(corners.shape[1])])
        return bool(np.abs((self.affine - other.affine) @ homogeneous).max() <= tolerance_mm)


@dataclass(frozen=True)
class Grid:
    """A regular target grid in RAS orientation.

    Parameters
    ----------
    shape : tuple of int
        Voxels along x, y, z.
    spacing_mm : float
        Isotropic spacing.
    centre_mm : tuple of float
        World point at the grid's centre.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def affine(self) -> FloatArray:
        """Affine of the grid, RAS+."""
        affine = np.diag([self.spacing_mm, self.spacing_mm, self.spacing_mm, 1.0])
        affine[:3, 3] = np.array(self.centre_mm) - (np.array(self.shape) - 1) / 2 * self.spacing_mm
        return affine


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box around the voxels of a mask, which holds at least one; a slice for each axis."""
    box = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def load_volume(path: Path, index: int | None = None) -> Volume:
    """Read a NIfTI file.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``, three axes (a fourth of length 1 is dropped).
    index : int, optional
        Which volume of a four-dimensional file.

    Returns
    -------
    Volume
        With the header's scaling applied; floating point if there was one, else the stored type.

    Raises
    ------
    CaseError
        If the file is unreadable or truncated, claims more voxels than a scan has, is not three-dimensional, holds
        colours or complex numbers, or has no usable affine.
    """
    try:
        _check_claims(path, index)
        image = nib.Nifti1Image.from_filename(path, mmap=False)  # of a share that goes away, a map kills the process
        array = np.asanyarray(image.dataobj if index is None else image.dataobj[..., index])
    except CaseError:
        raise
    except Exception as error:  # nibabel, zlib and numpy raise a dozen different types on a damaged file
        raise CaseError(
            f"unreadable NIfTI file ({type(error).__name__}); expected a whole .nii or .nii.gz; copy it anew"
        ) from error
    if not (int(image.header["sform_code"]) or int(image.header["qform_code"])):
        raise CaseError(
            "header that states no orientation (sform and qform code 0); expected one, for left and right would be a "
            "guess; set it with the tool that made the file"
        )
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise CaseError(f"image with {array.ndim} axes; expected 3; name the volume to use in the data manifest")
    if array.dtype.kind not in "iuf":
        raise CaseError("voxels that are colours or complex; expected plain numbers; export the scan's magnitude")
    affine = np.asarray(image.affine, np.float64)
    check_affine(affine)
    return Volume(array, affine)


def check_affine(affine: FloatArray) -> None:
    """Raise CaseError if an affine, (4, 4), has no volume, or puts voxels where no scanner does."""
    if not (np.abs(affine) < MAX_PLACE_MM).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise CaseError("affine without volume or far away; expected an invertible one; repair the header")


def _check_claims(path: Path, index: int | None) -> None:
    """Refuse a header that claims more than the file can hold or a scan needs, before memory is asked for it."""
    with nib.openers.ImageOpener(str(path)) as file:
        header = nib.Nifti1Header(file.read(nib.Nifti1Header.sizeof_hdr), check=False)
        offset = header.get_data_offset()
        if offset <= MAX_HEADER_BYTES and file.read(4)[:1] not in (b"", b"\0"):
            _check_extensions(file, offset - nib.Nifti1Header.sizeof_hdr - 4, header.endianness)
    shape = [int(n) for n in header.get_data_shape()]
    n_voxels = math.prod(shape if index is None else shape[:-1])
    n_bytes = header.get_data_dtype().itemsize
    if min(shape, default=0) < 1:
        raise CaseError("image with an axis of no length; expected voxels; copy the file or convert the scan anew")
    if n_voxels > MAX_VOXELS or n_voxels * n_bytes > MAX_VOXEL_BYTES or offset > MAX_HEADER_BYTES:
        raise CaseError(
            f"header that claims {n_voxels} voxels of {n_bytes} bytes from byte {offset} on; expected at most "
            f"{MAX_VOXELS} voxels, {MAX_VOXEL_BYTES >> 30} GiB, from byte {MAX_HEADER_BYTES} on at the latest; copy "
            "the file anew or resample the scan"
        )
    packing = {".nii": 1, ".gz": MAX_GZIP_RATIO}.get(path.suffix.lower())
    if packing is not None and offset + math.prod(shape) * n_bytes > path.stat().st_size * packing:
        raise CaseError(
            "unreadable NIfTI file (shorter than its header says); expected a whole .nii or .nii.gz; copy it anew"
        )


def _check_extensions(file: nib.openers.ImageOpener, n_left: int, endianness: str) -> None:
    """Refuse a header extension that claims more than there is before the voxels; nibabel would ask for that much."""
    while n_left >= 16:
        start = file.read(8)
        size = int.from_bytes(start[:4], "little" if endianness == "<" else "big", signed=True)
        if not len(start) == 8 <= size <= n_left:
            raise CaseError(f"NIfTI extension that claims {size} bytes of {n_left}; copy the file anew or leave it out")
        file.read(size - len(start))
        n_left -= size


def map_volume(path: Path) -> NDArray[Any]:
    """Memory-map the voxels of an uncompressed NIfTI file that :func:`save_volume` wrote.

    Returns
    -------
    ndarray, (x, y, z)
        Read-only, nothing is read until it is used.
    """
    return np.asanyarray(nib.Nifti1Image.from_filename(path, mmap="r").dataobj)


def save_volume(volume: Volume, path: Path, description: str = "") -> None:
    """Write a NIfTI file with a fresh header: geometry and description, nothing else.

    Parameters
    ----------
    volume : Volume
        Integer arrays keep their type; the header carries no scaling.
    path : Path
        ``.nii`` or ``.nii.gz``; parents are made. The same volume gives the same bytes.
    description : str
        At most 79 characters, for the header's ``descrip``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume.array, volume.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = description.encode("ascii")
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    nib.save(image, path)


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


def to_ras(volume: Volume) -> Volume:
    """Permute and flip axes to the orientation nearest to RAS+; values and world positions stay.

    Returns
    -------
    Volume
        A view on the same data where possible.
    """
    # Not by way of a NIfTI image: that one refuses 64-bit integers, which label maps often are.
    turn = nib.io_orientation(volume.affine)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(turn, volume.array.shape)
    return Volume(nib.apply_orientation(volume.array, turn), affine)


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
