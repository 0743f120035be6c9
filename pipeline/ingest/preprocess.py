"""From source files of one case to arrays on the working grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.cohort import INTENSITY_MAX, CaseData, Int16Array
from pipeline.config import IngestSection
from pipeline.errors import CaseError
from pipeline.ingest.dicom import convert_series, read_segmentation
from pipeline.ingest.discover import SourceCase
from pipeline.ingest.manifest import Manifest
from pipeline.ingest.tissue import classify_tissue
from pipeline.labels import MODALITIES
from pipeline.volumes import Grid, Volume, load_volume, place_on_grid, resample, resample_labels, to_ras

# More of the brain than this outside the grid is a wrong grid, not a rounding.
MAX_BRAIN_OUTSIDE = 0.005
WHOLE_NUMBER_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LoadedCase:
    """One case in memory, in RAS, on its own grid."""

    images: dict[str, Volume]
    tumor: Volume
    brain: Volume


def preprocess_case(case: SourceCase, subject: str, manifest: Manifest, config: IngestSection) -> CaseData:
    """Load, check, reorient, resample, scale and label one case.

    Parameters
    ----------
    case : SourceCase
    subject : str
        Its pseudonym.
    manifest : Manifest
    config : IngestSection

    Returns
    -------
    CaseData
        On the working grid, centred on the brain.

    Raises
    ------
    CaseError
        With the reason, if the case cannot be used.
    """
    if case.problem:
        raise CaseError(case.problem)
    loaded = load_case(case, manifest, config.min_slices)
    grid = brain_grid(loaded.brain, config)
    brain = resample(Volume(loaded.brain.array.astype(np.float32), loaded.brain.affine), grid).array > 0.5
    tumor_map = resample_labels(loaded.tumor, grid, len(manifest.scheme.tumor) + 1).array
    if not tumor_map.any():
        raise CaseError("tumour smaller than a voxel of the working grid; expected at least one; lower the spacing")
    brain |= tumor_map > 0
    resampled = {name: resample(volume, grid).array for name, volume in loaded.images.items()}
    images = {
        name: scale_intensity(array, brain, name, config.intensity_percentiles) for name, array in resampled.items()
    }
    reference = next(name for name in MODALITIES if name in images)
    tissue_map = classify_tissue(resampled[reference], reference, brain, tumor_map > 0, config.tissue_smoothness)
    centred = Grid(grid.shape, grid.spacing_mm)
    sidecars = build_sidecars(manifest, config, reference)
    return CaseData(subject, images, tissue_map, tumor_map, centred.affine, sidecars)


def load_case(case: SourceCase, manifest: Manifest, min_slices: int) -> LoadedCase:
    """Read the files of a case and check them.

    Raises
    ------
    CaseError
        If a file is unreadable, holds NaN, has too few slices or no contrast, or label map and images do not share a
        grid.
    """
    images: dict[str, Volume] = {}
    for name in manifest.modalities:
        if manifest.format == "dicom":
            volume = convert_series(case.files[name])
        else:
            volume = load_volume(case.files[name][0], manifest.images[name].volume)
        images[name] = check_image(to_ras(volume), name, min_slices)
    reference = next(iter(images.values()))
    for name, volume in images.items():
        if not volume.same_grid(reference):
            raise CaseError(f"{name} on another grid than the first modality; expected one grid; co-register the scans")
    tumor = place_on_grid(read_tumor(case, manifest), reference)
    if not tumor.array.any():
        raise CaseError("empty label map; expected some tumour; check the annotation")
    brain = find_brain(case, manifest, images)
    for name, volume in images.items():
        # Here, not after resampling: that one makes shades at the border of a mask.
        if np.ptp(volume.array[brain.array]) == 0:
            raise CaseError(f"{name} has one value in the whole brain; expected an image; convert the scan anew")
    return LoadedCase(images, tumor, brain)


def check_image(volume: Volume, name: str, min_slices: int) -> Volume:
    """Return the volume as float32 if it can be a brain scan; raise CaseError with the reason if not."""
    if min(volume.array.shape) < min_slices:
        raise CaseError(f"{name} has {min(volume.array.shape)} slices; expected at least {min_slices}; leave it out")
    array = volume.array.astype(np.float32)
    n_bad = int((~np.isfinite(array)).sum())
    if n_bad:
        raise CaseError(f"{name} has {n_bad} voxels that are not finite; expected numbers; convert the scan anew")
    if array.min() == array.max():
        raise CaseError(f"{name} has one value everywhere; expected an image; convert the scan anew")
    return Volume(array, volume.affine)


def read_tumor(case: SourceCase, manifest: Manifest) -> Volume:
    """Read the label map of a case: uint8 in the manifest's scheme, RAS.

    Raises
    ------
    CaseError
        If values are not whole numbers, or some are not named in the manifest.
    """
    if manifest.format == "dicom":
        return read_segmentation(case.files["tumor"][0], manifest)
    rule = manifest.tumor
    volume = to_ras(load_volume(case.files["tumor"][0], rule.volume if rule else None))
    values = np.asarray(volume.array, np.float64)
    if not np.isfinite(values).all() or np.abs(values - np.rint(values)).max() > WHOLE_NUMBER_TOLERANCE:
        raise CaseError("label map with values that are not whole numbers; expected classes; export it anew")
    whole = np.rint(values).astype(np.int64)
    known = {0, *(value for members in manifest.labels.values() for value in members)}
    unknown = sorted(set(np.unique(whole).tolist()) - known)
    if unknown:
        raise CaseError(f"label values {unknown[:8]}; expected {sorted(known)}; name them under `labels:`")
    return Volume(manifest.scheme.from_source(whole, manifest.labels), volume.affine)


def find_brain(case: SourceCase, manifest: Manifest, images: Mapping[str, Volume]) -> Volume:
    """Return the brain mask: the given one, else where a skull-stripped scan is not 0.

    Raises
    ------
    CaseError
        If the scans are not skull-stripped and no mask is given, or the mask is empty.
    """
    reference = next(iter(images.values()))
    if "brain_mask" in case.files:
        rule = manifest.brain_mask
        given = to_ras(load_volume(case.files["brain_mask"][0], rule.volume if rule else None))
        mask = place_on_grid(Volume(given.array > 0, given.affine), reference).array
    elif manifest.prepared.skull_stripped:
        mask = np.any([volume.array != 0 for volume in images.values()], axis=0)
    else:
        raise CaseError("scan with skull and no brain mask; expected one of both; strip it or name `brain_mask:`")
    parts, n_parts = ndimage.label(mask)
    if n_parts == 0:
        raise CaseError("empty brain mask; expected a brain; check the scan")
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return Volume(ndimage.binary_fill_holes(largest), reference.affine)


def brain_grid(brain: Volume, config: IngestSection) -> Grid:
    """Return the working grid, centred on the brain's bounding box.

    Raises
    ------
    CaseError
        If the brain does not fit.
    """
    box = ndimage.find_objects(brain.array.astype(np.uint8))[0]
    first = brain.affine @ [*(s.start for s in box), 1.0]
    last = brain.affine @ [*(s.stop - 1 for s in box), 1.0]
    x, y, z = (first[:3] + last[:3]) / 2
    grid = Grid(config.size_voxels, config.spacing_mm, (float(x), float(y), float(z)))
    half_mm = np.array(grid.shape) * grid.spacing_mm / 2
    world = brain.affine[:3, :3] @ np.argwhere(brain.array).T + brain.affine[:3, 3:]
    outside = (np.abs(world - np.array(grid.centre_mm)[:, None]) > half_mm[:, None]).any(axis=0).mean()
    if outside > MAX_BRAIN_OUTSIDE:
        raise CaseError(
            f"{100 * outside:.1f}% of the brain outside the working grid of {grid.shape} voxels at {grid.spacing_mm} "
            "mm; expected all of it inside; raise ingest.size_voxels or ingest.spacing_mm"
        )
    return grid


def scale_intensity(
    array: NDArray[np.float32], brain: NDArray[np.bool_], name: str, percentiles: tuple[float, float]
) -> Int16Array:
    """Scale an image so that the given percentiles within the brain become 0 and 1000; 0 outside the brain.

    Returns
    -------
    ndarray, same shape, int16 in [0, 1000]

    Raises
    ------
    CaseError
        If both percentiles are the same value.
    """
    low, high = np.percentile(array[brain], percentiles)
    if high <= low:
        raise CaseError(f"{name} has no contrast within the brain; expected an image; check the scan")
    scaled = np.clip((array - low) / (high - low), 0, 1) * INTENSITY_MAX
    return np.where(brain, np.rint(scaled), 0).astype(np.int16)


def build_sidecars(manifest: Manifest, config: IngestSection, tissue_reference: str) -> dict[str, dict[str, Any]]:
    """Return the JSON sidecars: what was done, no header field of the source."""
    low, high = config.intensity_percentiles
    image = {
        "Description": "Harmonised for training: oriented, resampled, scaled",
        "SkullStripped": True,
        "IntensityScaling": {
            "Method": "linear within the brain mask, clipped",
            "Percentiles": [low, high],
            "Range": [0, INTENSITY_MAX],
        },
        "Resampling": {
            "Orientation": "RAS",
            "SpacingMillimetres": config.spacing_mm,
            "Interpolation": "Gaussian against aliasing, then linear",
        },
    }
    sidecars: dict[str, dict[str, Any]] = {name: dict(image) for name in manifest.modalities}
    sidecars["tumor"] = {"Manual": True, "Resampling": "largest share of a voxel"}
    sidecars["tissue"] = {
        "Manual": False,
        "Method": "hidden Markov random field (Zhang et al. 2001), tumour excluded",
        "Reference": tissue_reference,
        "Beta": config.tissue_smoothness,
    }
    return sidecars
