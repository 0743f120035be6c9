"""Volume: an array with its affine; orientation, files.

World coordinates are millimetres in RAS+ (nibabel's convention); array axes run (x, y, z). What brings a volume onto
another grid is in :mod:`pipeline.resampling`.
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
LATTICE_TOLERANCE_MM = 1e-2
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
