"""From the scans of one case, as given, to arrays on the working grid.

Whatever has to be done (co-registration, brain extraction, the way onto an atlas) gives transforms and masks only;
each scan is interpolated once, straight from its own grid to the working grid.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort import INTENSITY_MAX, CaseData, Int16Array
from pipeline.config import IngestSection
from pipeline.errors import CaseError
from pipeline.ingest.brain import align_to_atlas, check_volume, extract_brain, keep_largest
from pipeline.ingest.discover import SourceCase
from pipeline.ingest.load import LoadedCase, load_case
from pipeline.ingest.manifest import Manifest
from pipeline.ingest.quality import share_outside
from pipeline.ingest.registration import PYRAMID_MM, align
from pipeline.ingest.sidecars import build_sidecars
from pipeline.ingest.tissue import classify_tissue, correct_bias
from pipeline.labels import MODALITIES
from pipeline.resampling import (
    covers,
    find_on_grid,
    invert,
    reaches,
    resample,
    resample_labels,
    resample_mask,
    resample_onto,
)
from pipeline.volumes import FloatArray, Grid, Volume

# More of the brain than this outside the grid is a wrong grid, not a rounding.
MAX_BRAIN_OUTSIDE = 0.005
# A mask from the atlas may cut the rim of a tumour at the surface; a map that lies elsewhere is no such thing.
MAX_TUMOR_OUTSIDE = 0.25


@dataclass(frozen=True)
class Placement:
    """Where the scans of a case lie.

    Parameters
    ----------
    reference : str
        Modality whose world the others are brought into.
    to_scan : dict of str to ndarray, (4, 4)
        From the reference's world to each scan's, RAS+; the identity where all share one.
    """

    reference: str
    to_scan: dict[str, FloatArray]


@dataclass(frozen=True)
class PreprocessedCase:
    """One case on the working grid.

    Parameters
    ----------
    data : CaseData
        What is written.
    scans : dict of str to ndarray, (x, y, z), float32
        Scans before intensity scaling, in the source's units.
    reached : dict of str to ndarray, (x, y, z), bool
        Where each scan's field of view reaches.
    brain : ndarray, (x, y, z), bool
        Brain mask without what the tumour map adds to it.
    reference : str
        Modality that tissue classes were made from.
    """

    data: CaseData
    scans: dict[str, NDArray[np.float32]]
    reached: dict[str, NDArray[np.bool_]]
    brain: NDArray[np.bool_]
    reference: str


def preprocess_case(case: SourceCase, subject: str, manifest: Manifest, config: IngestSection) -> PreprocessedCase:
    """Load, check, align, resample, scale and label one case.

    Parameters
    ----------
    case : SourceCase
    subject : str
        Its pseudonym.
    manifest : Manifest
    config : IngestSection

    Returns
    -------
    PreprocessedCase
        On the working grid, centred on the brain.

    Raises
    ------
    CaseError
        With the reason, if the case cannot be used.
    """
    if case.problem:
        raise CaseError(case.problem)
    loaded = load_case(case, manifest, config.min_slices)
    placement = place_scans(loaded, manifest, config)
    mask = find_brain(loaded, placement, manifest, config)
    check_contrast(loaded, mask)
    onto_reference = np.eye(4)
    if config.atlas_registration:
        onto_reference = align_to_atlas(strip(loaded.images[placement.reference], mask), is_stripped=True).matrix
    grid = brain_grid(mask, config, invert(onto_reference))
    ways = {name: placement.to_scan[name] @ onto_reference for name in loaded.images}
    brain = resample_mask(mask, grid, onto_reference)
    tumor_map = resample_labels(loaded.tumor, grid, len(manifest.scheme.tumor) + 1, ways[loaded.drawn_on]).array
    check_tumor(tumor_map > 0, brain)
    whole = brain | (tumor_map > 0)
    scans = {name: resample(volume, grid, to_volume=ways[name]).array for name, volume in loaded.images.items()}
    even = scans
    if config.bias_correction:
        even = {name: correct_bias(scan, whole, grid.spacing_mm) for name, scan in scans.items()}
    images = {name: scale_intensity(even[name], whole, name, config.intensity_percentiles) for name in scans}
    tissue_map = classify_tissue(
        scans[placement.reference],
        placement.reference,
        whole,
        tumor_map > 0,
        config.tissue_smoothness,
        grid.spacing_mm,
    )
    sidecars = build_sidecars(manifest, config, placement.reference, finds_brain(loaded, manifest))
    centred = Grid(grid.shape, grid.spacing_mm)
    data = CaseData(subject, images, tissue_map, tumor_map, centred.affine, sidecars)
    reached = {name: covers(volume, grid, ways[name]) for name, volume in loaded.images.items()}
    return PreprocessedCase(data, scans, reached, brain, placement.reference)


def place_scans(loaded: LoadedCase, manifest: Manifest, config: IngestSection) -> Placement:
    """Find where each scan lies: where its header says, or by rigid registration to the first modality.

    Raises
    ------
    CaseError
        If a scan cannot be registered.
    """
    reference = next(name for name in MODALITIES if name in loaded.images)
    to_scan = {name: np.eye(4) for name in loaded.images}
    registers = config.coregister if config.coregister is not None else not manifest.prepared.coregistered
    if registers:
        fixed = loaded.images[reference]
        for name, moving in loaded.images.items():
            if name != reference:
                to_scan[name] = register(fixed, moving)
    return Placement(reference, to_scan)


def register(fixed: Volume, moving: Volume) -> FloatArray:
    """Return the rigid transform from one scan's world to another's of the same head, (4, 4).

    Raises
    ------
    CaseError
        If the search finds nothing.
    """
    coarse = PYRAMID_MM[0]
    # As the headers say, or, where these say nothing of use, centre upon centre.
    starts = [align(fixed, moving, "rigid", "mutual information", s, None, coarse, coarse) for s in (np.eye(4), None)]
    best = max(starts, key=lambda found: found.likeness)
    return align(fixed, moving, "rigid", "mutual information", best.matrix, None, PYRAMID_MM[1]).matrix


def find_brain(loaded: LoadedCase, placement: Placement, manifest: Manifest, config: IngestSection) -> Volume:
    """Return the brain mask on the reference scan's grid, bool: the given one, that of stripped scans, or a found one.

    Raises
    ------
    CaseError
        If the scans are not skull-stripped, no mask is given and none shall be made, or the mask is empty.
    """
    reference = loaded.images[placement.reference]
    if loaded.given_brain is not None:
        given = Volume(loaded.given_brain.array.astype(np.float32), loaded.given_brain.affine)
        mask = given.array > 0
        if not given.same_grid(reference) or not np.array_equal(placement.to_scan[loaded.brain_on], np.eye(4)):
            mask = resample_onto(given, reference, placement.to_scan[loaded.brain_on]).array > 0.5
    elif manifest.prepared.skull_stripped:
        mask = reference.array != 0
        for volume in loaded.images.values():
            if volume.same_grid(reference):
                mask |= volume.array != 0
    elif config.brain_extraction == "none":
        raise CaseError("scan with skull and no brain mask; expected one of both; strip it or name `brain_mask:`")
    else:
        return extract_brain(reference, config)
    brain = Volume(keep_largest(mask), reference.affine)
    check_volume(brain)
    return brain


def finds_brain(loaded: LoadedCase, manifest: Manifest) -> bool:
    """Tell whether the brain has to be extracted: no mask is given, and the skull is on."""
    return loaded.given_brain is None and not manifest.prepared.skull_stripped


def check_tumor(tumor: NDArray[np.bool_], brain: NDArray[np.bool_]) -> None:
    """Check that the working grid holds a tumour, and that it lies in the brain.

    Raises
    ------
    CaseError
        If not.
    """
    outside = share_outside(tumor, brain)
    if outside > MAX_TUMOR_OUTSIDE:
        raise CaseError(
            f"{100 * outside:.0f}% of the tumour outside the brain; expected at most {100 * MAX_TUMOR_OUTSIDE:.0f}%; "
            "look at the label map, or give a brain mask"
        )
    if not tumor.any():
        raise CaseError("tumour smaller than a voxel of the working grid; expected at least one; lower the spacing")


def check_contrast(loaded: LoadedCase, mask: Volume) -> None:
    """Check that each scan has more than one value in the brain; after resampling, the border has shades anyway.

    Raises
    ------
    CaseError
        If one has not.
    """
    for name, volume in loaded.images.items():
        brain = mask.array if volume.same_grid(mask) else volume.array != 0
        # Two voxels that differ are soon found; only a flat image has to be read through.
        some = (slice(None, None, 4),) * 3
        if _is_flat(volume.array[some], brain[some]) and _is_flat(volume.array, brain):
            raise CaseError(f"{name} has one value in the whole brain; expected an image; convert the scan anew")


def _is_flat(array: NDArray[np.float32], mask: NDArray[np.bool_]) -> bool:
    values = array[mask]
    return values.size == 0 or bool(values.min() == values.max())


def strip(scan: Volume, brain: Volume) -> Volume:
    """Return a scan that is 0 outside the brain."""
    return Volume(np.where(brain.array, scan.array, 0.0).astype(np.float32), scan.affine)


def brain_grid(brain: Volume, config: IngestSection, from_reference: FloatArray) -> Grid:
    """Return the working grid, centred on the brain's bounding box.

    Where spacing and axes are the scan's own, the grid's voxels are too, so that nothing is interpolated.

    Parameters
    ----------
    brain : Volume
        bool.
    config : IngestSection
    from_reference : ndarray, (4, 4)
        From the mask's world to the grid's.

    Raises
    ------
    CaseError
        If the brain does not fit.
    """
    affine = from_reference @ brain.affine
    # The first and the last voxel of each column: beyond them lies no other in any direction.
    columns = np.argwhere(brain.array.any(axis=2))
    along = brain.array[columns[:, 0], columns[:, 1]]
    first, last = along.argmax(axis=1), along.shape[1] - 1 - along[:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.column_stack([columns, first]), np.column_stack([columns, last])])
    world = affine[:3, :3] @ ends.T + affine[:3, 3:]
    grid = _on_lattice(
        Grid(config.size_voxels, config.spacing_mm, _as_point((world.min(axis=1) + world.max(axis=1)) / 2)),
        Volume(brain.array, affine),
    )
    inside = reaches(invert(grid.affine) @ affine, brain.array.shape, grid.shape)
    outside = np.count_nonzero(brain.array & ~inside) / np.count_nonzero(brain.array)
    if outside > MAX_BRAIN_OUTSIDE:
        raise CaseError(
            f"{100 * outside:.1f}% of the brain outside the working grid of {grid.shape} voxels at {grid.spacing_mm} "
            "mm; expected all of it inside; raise ingest.size_voxels or ingest.spacing_mm"
        )
    return grid


def _on_lattice(grid: Grid, volume: Volume) -> Grid:
    """Move a grid by less than a voxel onto a volume's voxels; return it as it is if they differ in more than that."""
    start = np.linalg.solve(volume.affine, grid.affine[:, 3])
    # A brain is often centred between two voxels: always the same one then, whatever the last digit says.
    shift = volume.affine @ (np.floor(start + 0.5 - 1e-6) - start)
    moved = Grid(grid.shape, grid.spacing_mm, _as_point(np.array(grid.centre_mm) + shift[:3]))
    return grid if find_on_grid(volume, moved) is None else moved


def _as_point(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


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
    scaled = np.zeros_like(array, np.int16)
    # Transposed: NIfTI's arrays lie in memory from z to x, and picking voxels goes along memory then.
    values = array.T[brain.T]
    low, high = map(float, np.percentile(values, percentiles))
    if high <= low:
        raise CaseError(f"{name} has no contrast within the brain; expected an image; check the scan")
    values -= low
    values /= high - low
    values *= INTENSITY_MAX
    scaled.T[brain.T] = np.rint(np.clip(values, 0, INTENSITY_MAX, out=values), out=values)
    return scaled
