"""Read and check the files of one case: scans, label map and brain mask, each in the world it was given in."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CaseError
from pipeline.ingest.dicom_convert import convert_series
from pipeline.ingest.dicom_labels import read_dicom_labels
from pipeline.ingest.discover import SourceCase
from pipeline.ingest.manifest import Manifest
from pipeline.resampling import place_on_grid
from pipeline.volumes import MAX_INTENSITY, Volume, load_volume, to_ras

WHOLE_NUMBER_TOLERANCE, MAX_LABEL = 1e-3, 2**31
# A background that is no 0 fills most of the image's faces; equal within this share of the intensity range.
BACKGROUND_SHARE = 0.5
BACKGROUND_TOLERANCE = 1e-5


@dataclass(frozen=True)
class LoadedCase:
    """One case in memory.

    Parameters
    ----------
    images : dict of str to Volume
        RAS, float32, each on its own grid; 0 is background where the source has a constant background.
    tumor : Volume
        uint8 in the manifest's scheme, on the grid of the scan it was drawn on.
    drawn_on : str
        That scan's modality.
    given_brain : Volume or None
        bool; the mask that the source gives, on the grid of ``brain_on``.
    brain_on : str
        Modality on whose grid the mask lies; empty where none was given.
    """

    images: dict[str, Volume]
    tumor: Volume
    drawn_on: str
    given_brain: Volume | None
    brain_on: str


def load_case(case: SourceCase, manifest: Manifest, min_slices: int) -> LoadedCase:
    """Read the files of a case and check them.

    Raises
    ------
    CaseError
        If a file is unreadable, holds NaN, has too few slices or no contrast, scans that are said to share a grid do
        not, or label map or mask lie on no scan's grid.
    """
    names = [name for name in manifest.modalities if name in case.files]
    images = {name: check_image(_read_image(case, manifest, name), name, min_slices) for name in names}
    reference = next(iter(images.values()))
    if manifest.prepared.resampled:
        for name, volume in images.items():
            if not volume.same_grid(reference):
                raise CaseError(
                    f"{name} on another grid than the first modality; expected one grid, as `prepared: resampled` "
                    "says; resample the scans, correct the manifest, or "
                    "export the series anew if images are missing"
                )
    wanted = case.tumor_on or manifest.tumor_on
    if wanted and wanted not in images and not manifest.prepared.coregistered:
        raise CaseError(f"label map drawn on {wanted}, which is missing; expected that scan; add it")
    drawn_on = wanted if wanted in images else ""
    tumor, drawn_on = place_on_scan(read_tumor(case, manifest, images), images, drawn_on)
    if not tumor.array.any():
        raise CaseError("empty label map; expected some tumour; check the annotation")
    if "brain_mask" not in case.files:
        return LoadedCase(images, tumor, drawn_on, None, "")
    rule = manifest.brain_mask
    given = to_ras(load_volume(case.files["brain_mask"][0], rule.volume if rule else None))
    brain, brain_on = place_on_scan(Volume(given.array > 0, given.affine), images, "", "brain mask")
    return LoadedCase(images, tumor, drawn_on, brain, brain_on)


def _read_image(case: SourceCase, manifest: Manifest, name: str) -> Volume:
    if manifest.format == "dicom":
        try:
            return to_ras(convert_series(case.files[name]))
        except CaseError as error:
            raise CaseError(f"{name}: {error}") from error
    return to_ras(load_volume(case.files[name][0], manifest.images[name].volume))


def check_image(volume: Volume, name: str, min_slices: int) -> Volume:
    """Return the volume as float32, its background 0, if it can be a brain scan.

    Raises
    ------
    CaseError
        With the reason, if not.
    """
    if min(volume.array.shape) < min_slices:
        raise CaseError(f"{name} has {min(volume.array.shape)} slices; expected at least {min_slices}; leave it out")
    with np.errstate(over="ignore"):
        array = volume.array.astype(np.float32)
    low, high = float(array.min()), float(array.max())
    # Not a number where one voxel is none.
    if not (low > -MAX_INTENSITY and high < MAX_INTENSITY):
        n_bad = int((~(np.abs(array) < MAX_INTENSITY)).sum())
        raise CaseError(f"{name} has {n_bad} voxels that are not finite, or absurd; expected numbers; convert it anew")
    if low == high:
        raise CaseError(f"{name} has one value everywhere; expected an image; convert the scan anew")
    return Volume(lift_background(array), volume.affine)


def lift_background(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make the background of a scan 0 and the rest positive.

    Z-scored scans have a constant background below 0, or negative values in the brain beside a background of 0.

    Parameters
    ----------
    array : ndarray, (x, y, z), float32

    Returns
    -------
    ndarray, (x, y, z), float32
        The same array where nothing is negative, and no constant other than 0 fills the faces of the image.
    """
    faces = np.concatenate([array[index].ravel() for index in _FACES])
    value, lowest = float(np.median(faces)), float(array.min())
    if value == 0.0 and lowest >= 0.0:
        return array
    tolerance = BACKGROUND_TOLERANCE * float(array.max() - lowest)
    if float((np.abs(faces - value) <= tolerance).mean()) < BACKGROUND_SHARE:
        return array
    outside = np.abs(array - value) <= tolerance
    inside = array[~outside]
    step = float(inside.max() - inside.min()) / 1000.0 or 1.0
    lifted: NDArray[np.float32] = np.where(outside, 0.0, array - inside.min() + step).astype(np.float32)
    return lifted


_FACES = [tuple(end if axis == i else slice(None) for i in range(3)) for axis in range(3) for end in (0, -1)]


def read_tumor(case: SourceCase, manifest: Manifest, images: Mapping[str, Volume]) -> Volume:
    """Read the label map of a case: uint8 in the manifest's scheme, RAS.

    Raises
    ------
    CaseError
        If it is larger than any scan, values are not whole numbers, or some are not named in the manifest.
    """
    if manifest.tumor is None:
        return read_dicom_labels(case.files["tumor"][0], manifest, images, case.tumor_on)
    rule = manifest.tumor
    volume = to_ras(load_volume(case.files["tumor"][0], rule.volume if rule else None))
    if volume.array.size > max(image.array.size for image in images.values()):
        raise CaseError("label map larger than any scan; expected the grid of one; resample it to the scan")
    values = np.asarray(volume.array)
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if not (np.abs(values) < MAX_LABEL).all() or np.abs(values - whole).max() > WHOLE_NUMBER_TOLERANCE:
            raise CaseError("label map with values that are not whole numbers; expected classes; export it anew")
        values = whole.astype(np.int64)
    known = {0, *(value for members in manifest.labels.values() for value in members)}
    # Most of a label map is 0; transposed, voxels are picked along memory.
    unknown = sorted(set(np.unique(values.T[values.T != 0]).tolist()) - known)
    if unknown:
        raise CaseError(f"label values {unknown[:8]}; expected {sorted(known)}; name them under `labels:`")
    return Volume(manifest.scheme.from_source(values, manifest.labels), volume.affine)


def place_on_scan(
    volume: Volume, images: Mapping[str, Volume], drawn_on: str, called: str = "label map"
) -> tuple[Volume, str]:
    """Put a label map or mask onto the whole grid of the scan that it was drawn on.

    Parameters
    ----------
    volume : Volume
        RAS.
    images : mapping of str to Volume
    drawn_on : str
        Modality that the manifest names; empty: the first on whose grid the map lies.
    called : str
        What the volume is, for the error.

    Returns
    -------
    Volume
    str
        The modality.

    Raises
    ------
    CaseError
        If it lies on no scan's grid, or reaches beyond it.
    """
    problem: CaseError | None = None
    for name in [drawn_on] if drawn_on else images:
        try:
            return place_on_grid(volume, images[name], called=called), name
        except CaseError as error:
            problem = problem or error
    raise problem or CaseError(f"{called} of no scan; expected the grid of one; name it under `tumor_on:`")
