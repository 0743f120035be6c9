"""Brain extraction: the atlas' brain mask brought onto a head with its skull, offline and without weights.

A mask by registration follows the head's shape, not its surface to the voxel: it is the default that works anywhere.
Who has SynthStrip or HD-BET names it in the config (see :mod:`pipeline.ingest.brain_tools`).
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.config import IngestSection
from pipeline.errors import CaseError
from pipeline.ingest.atlas import load_atlas
from pipeline.ingest.brain_tools import run_tool
from pipeline.ingest.registration import PYRAMID_MM, Alignment, align
from pipeline.resampling import invert, resample, resample_onto
from pipeline.volumes import FloatArray, Grid, Volume, bounding_box

# A head may be nodded, and its field of view may hold much neck or none: the search starts from each of these.
START_TILTS_DEGREES = (-20.0, 0.0, 20.0)
START_HEIGHTS_MM = (-40.0, -15.0, 10.0, 35.0)
SPACING_MM = 4.0
RIM_MM = {"starts": 8.0, "fit": 6.0}
# Of a mask that was found in a head; of any mask, also of scans that hold part of a brain only: a head with its skull
# has 3 litres and more.
FOUND_ML, ANY_ML = (700.0, 2300.0), (300.0, 2600.0)
MIN_OVERLAP = 0.8


def align_to_atlas(scan: Volume, is_stripped: bool) -> Alignment:
    """Find where the atlas' points lie in a scan: rigid from several starts, then affine, at 4 mm.

    Parameters
    ----------
    scan : Volume
        T1-weighted by preference, float.
    is_stripped : bool
        Whether the skull has been taken off already.

    Returns
    -------
    Alignment
        From the atlas' world to the scan's.

    Raises
    ------
    CaseError
        If nothing fits.
    """
    atlas, brain = _coarse_atlas()
    coarse = coarsen(scan, SPACING_MM)
    # With the skull on, likeness counts in and just around the brain: the atlas has no skull to compare with.
    distance_mm = ndimage.distance_transform_edt(~brain, sampling=SPACING_MM)
    masks = {name: None if is_stripped else distance_mm <= rim for name, rim in RIM_MM.items()}
    lowest = PYRAMID_MM[0]
    tries = [
        align(atlas, coarse, "rigid", "correlation", start, masks["starts"], lowest, lowest)
        for start in _starts(coarse, is_stripped)
    ]
    best = max(tries, key=lambda found: found.likeness)
    return align(atlas, coarse, "affine", "mutual information", best.matrix, masks["fit"], SPACING_MM, SPACING_MM)


@cache
def _coarse_atlas() -> tuple[Volume, NDArray[np.bool_]]:
    """Return the atlas at the search's resolution, and where its brain is."""
    atlas = load_atlas()
    share = Volume(atlas.brain.array.astype(np.float32), atlas.brain.affine)
    return coarsen(atlas.t1, SPACING_MM), coarsen(share, SPACING_MM).array > 0.5


def coarsen(volume: Volume, spacing_mm: float) -> Volume:
    """Resample a volume to cubic voxels over its whole field of view."""
    shape = np.array(volume.array.shape)
    centre = volume.affine @ [*((shape - 1) / 2), 1.0]
    x, y, z = np.ceil(shape * volume.spacing_mm / spacing_mm).astype(int)
    grid = Grid((int(x), int(y), int(z)), spacing_mm, (float(centre[0]), float(centre[1]), float(centre[2])))
    return resample(volume, grid)


def extract_brain(head: Volume, config: IngestSection) -> Volume:
    """Return the brain mask of a head: bool, on the head's grid.

    Parameters
    ----------
    head : Volume
        RAS, T1-weighted by preference.
    config : IngestSection
        Which method, and the weights for it.

    Raises
    ------
    CaseError
        If nothing fits, or the mask's largest part has no brain's volume or does not lie where the atlas' brain does.
    ConfigError
        If a tool or its weights are missing.
    """
    atlas = load_atlas()
    found = align_to_atlas(head, is_stripped=False)
    share = Volume(atlas.brain.array.astype(np.float32), atlas.brain.affine)
    expected = resample_onto(share, head, invert(found.matrix)).array > 0.5
    if config.brain_extraction == "atlas":
        mask = Volume(expected, head.affine)
    else:
        # The config's own check: neither tool runs without weights.
        mask = run_tool(head, config.brain_extraction, config.brain_weights or Path())
    mask = Volume(keep_largest(mask.array), mask.affine)
    check_brain(mask, expected)
    return mask


def keep_largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected part of a mask, its holes filled.

    Raises
    ------
    CaseError
        If the mask is empty.
    """
    if not mask.any():
        raise CaseError("empty brain mask; expected a brain; check the scan")
    box = bounding_box(mask)
    parts, n_parts = ndimage.label(mask[box].T)  # transposed: along memory
    largest = parts > 0 if n_parts == 1 else parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    # What is not connected with the rim around the box is a hole.
    outside, _ = ndimage.label(~np.pad(largest, 1))
    kept = np.zeros_like(mask)
    kept[box] = (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1].T
    return kept


def check_brain(mask: Volume, expected: NDArray[np.bool_]) -> None:
    """Check that a mask has the volume of a brain, and lies where the atlas says that the brain is.

    Parameters
    ----------
    mask : Volume
        bool.
    expected : ndarray, (x, y, z), bool
        The atlas' brain on the same grid.

    Raises
    ------
    CaseError
        If not.
    """
    overlap = 2.0 * float((mask.array & expected).sum()) / max(float(mask.array.sum() + expected.sum()), 1.0)
    if overlap < MIN_OVERLAP:
        raise CaseError(
            f"brain mask that shares {overlap:.2f} (Dice) with the atlas' brain; expected at least {MIN_OVERLAP}; look "
            "at the scan, or give a mask"
        )
    check_volume(mask, FOUND_ML)


def check_volume(mask: Volume, limits_ml: tuple[float, float] = ANY_ML) -> None:
    """Check that a mask, found, given or of a stripped scan, has the volume of a brain: a head with its face has not.

    Parameters
    ----------
    mask : Volume
        bool.
    limits_ml : tuple of float
        Least and greatest volume.

    Raises
    ------
    CaseError
        If not.
    """
    volume_ml = np.count_nonzero(mask.array) * mask.voxel_ml
    low, high = limits_ml
    if not low <= volume_ml <= high:
        raise CaseError(
            f"brain mask of {volume_ml:.0f} ml; expected {low:.0f} to {high:.0f} ml; look at the scan, or give a mask"
        )


def _starts(head: Volume, is_stripped: bool) -> Iterator[FloatArray]:
    """Yield first guesses, from the atlas' world to the head's."""
    brain = load_atlas().brain
    atlas_centre = (brain.affine @ [*np.argwhere(brain.array).mean(axis=0), 1.0])[:3]
    threshold = 0.0 if is_stripped else float(np.percentile(head.array, 99)) * 0.15
    filled = np.argwhere(head.array > threshold)
    if not len(filled):
        raise CaseError("scan with nothing brighter than its background; expected a head; look at the scan")
    top = float((head.affine @ [*filled.max(axis=0), 1.0])[2])
    middle = (head.affine @ [*filled.mean(axis=0), 1.0])[:3]
    # The crown of the head is where the field of view, or the head, ends; the neck's length says nothing.
    atlas_top = float((brain.affine @ [*np.argwhere(brain.array).max(axis=0), 1.0])[2])
    heights = (0.0,) if is_stripped else START_HEIGHTS_MM
    for tilt in START_TILTS_DEGREES:
        for height in heights:
            matrix = np.eye(4)
            matrix[:3, :3] = Rotation.from_euler("x", tilt, degrees=True).as_matrix()
            target = middle if is_stripped else np.array([*middle[:2], top - (atlas_top - atlas_centre[2]) + height])
            matrix[:3, 3] = target - matrix[:3, :3] @ atlas_centre
            yield matrix
