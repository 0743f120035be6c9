"""Leakage guard: the same person under two identifiers, found by comparing anatomy at low resolution.

A person who is in train under one name and in test under another makes an audit blind and a gain too good. Real
collections hold such pairs. Each brain is brought onto the atlas by an affine transform, so that cropping, resampling
and pose do not count; brightness is brought to mean 0 and deviation 1 around each voxel, so that scaling and bias
fields do not count, neither in what is compared nor, at the end, in the registration. What is left is the course of
gyri and ventricles, and two scans of one person correlate in it far more than two persons do. Figures measured on real
patients and phantoms are in ``docs/leakage.md``.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import CaseError
from pipeline.ingest.atlas import load_atlas
from pipeline.ingest.registration import align
from pipeline.resampling import resample, resample_mask
from pipeline.volumes import FloatArray, Grid, Volume

SPACING_MM = 4.0
SHAPE = (48, 56, 48)
LOCAL_SD_VOXELS = 3.0
MIN_LOCAL_DEVIATION = 0.02
# Masks of two brain extractions differ at the border, so the border does not count.
BORDER_VOXELS = 2
# Of a standardised pattern, so that a few extreme voxels do not lead the registration.
PATTERN_LIMIT = 3.0

Anatomy = NDArray[np.float32]


@dataclass(frozen=True)
class SamePerson:
    """Two subjects whose anatomy is so alike that they are taken for one person.

    Parameters
    ----------
    first, second : str
        Pseudonyms.
    correlation : float
        Of their anatomies.
    """

    first: str
    second: str
    correlation: float


def describe_anatomy(image: NDArray[np.floating | np.integer], brain: NDArray[np.bool_], affine: FloatArray) -> Anatomy:
    """Reduce a brain to what tells persons apart.

    Parameters
    ----------
    image : ndarray, (x, y, z), float
        One modality; only one modality's descriptions can be compared.
    brain : ndarray, (x, y, z), bool
    affine : ndarray, (4, 4)
        RAS+.

    Returns
    -------
    ndarray, (n,), float32
        Of length 1: a dot product is a correlation. Voxels of the atlas' brain; 0 where this brain does not reach.
    """
    low, high = np.percentile(image[brain], [1.0, 99.0])
    scaled = np.where(brain, np.clip((image - low) / max(high - low, 1e-6), 0.0, 1.0), 0.0).astype(np.float32)
    grid, atlas, atlas_pattern, inside_atlas = _atlas_at_low_resolution()
    # About its own centre: the registration starts from centres that lie on each other.
    centre = affine @ [*np.argwhere(brain).mean(axis=0), 1.0]
    own_grid = Grid(SHAPE, SPACING_MM, (float(centre[0]), float(centre[1]), float(centre[2])))
    coarse = resample(Volume(scaled, affine), own_grid)
    mask = resample(Volume(brain.astype(np.float32), affine), own_grid)
    own_pattern = Volume(_limited_pattern(coarse.array, ndimage.binary_erosion(mask.array > 0.5)), coarse.affine)
    to_brain = np.eye(4)
    to_brain[:3, 3] = np.asarray(own_grid.centre_mm) - grid.centre_mm
    # A brain that cannot be registered is compared as it lies: the guard is no reason to lose a case.
    with suppress(CaseError):
        to_brain = align(atlas, coarse, "affine", "correlation", to_brain, finest_mm=SPACING_MM).matrix
        to_brain = align(
            atlas_pattern, own_pattern, "affine", "correlation", to_brain, inside_atlas, finest_mm=SPACING_MM
        ).matrix
    brain_there = resample(mask, grid, to_volume=to_brain).array > 0.5
    pattern = standardise_locally(resample(coarse, grid, to_volume=to_brain).array, brain_there)
    inner = ndimage.binary_erosion(brain_there, iterations=BORDER_VOXELS)
    counts = inner & inside_atlas
    mean = float(pattern[counts].mean()) if counts.any() else 0.0
    vector = np.where(counts, pattern - mean, 0.0)[inside_atlas]
    length = max(float(np.linalg.norm(vector)), 1e-6)
    return np.asarray(vector / length, np.float32)


def standardise_locally(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Bring an image to mean 0 and standard deviation 1 in a Gaussian window around each voxel of a mask."""
    weight = mask.astype(np.float32)
    total = np.maximum(ndimage.gaussian_filter(weight, LOCAL_SD_VOXELS), 1e-3)
    mean = ndimage.gaussian_filter(image * weight, LOCAL_SD_VOXELS) / total
    centred = (image - mean) * weight
    deviation = np.sqrt(ndimage.gaussian_filter(centred**2, LOCAL_SD_VOXELS) / total)
    return np.asarray(centred / np.maximum(deviation, MIN_LOCAL_DEVIATION), np.float32)


def _limited_pattern(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    pattern = standardise_locally(image, mask)
    return np.where(mask, np.clip(pattern, -PATTERN_LIMIT, PATTERN_LIMIT), 0.0).astype(np.float32)


def find_same_persons(
    anatomies: Mapping[str, Anatomy], person_of: Mapping[str, str], threshold: float
) -> list[SamePerson]:
    """Find subjects of different persons whose anatomies are alike.

    Parameters
    ----------
    anatomies : mapping of str to ndarray
        By subject's pseudonym.
    person_of : mapping of str to str
        Person by subject, as the source tells them apart.
    threshold : float
        Correlation from which two subjects are taken for one person.

    Returns
    -------
    list of SamePerson
        Most alike first.
    """
    subjects = sorted(anatomies)
    if len(subjects) < 2:
        return []
    stacked = np.stack([anatomies[subject] for subject in subjects])
    pairs = []
    for index, subject in enumerate(subjects[:-1]):
        correlations = stacked[index + 1 :] @ stacked[index]
        for offset in np.flatnonzero(correlations >= threshold):
            other = subjects[index + 1 + int(offset)]
            if person_of[subject] != person_of[other]:
                pairs.append(SamePerson(subject, other, float(correlations[offset])))
    return sorted(pairs, key=lambda pair: -pair.correlation)


def merge_persons(person_of: Mapping[str, str], pairs: Sequence[SamePerson]) -> dict[str, str]:
    """Give all subjects that pairs connect one person: the first of their pseudonyms in alphabetical order."""
    merged = dict(person_of)
    for pair in pairs:
        persons = {merged[pair.first], merged[pair.second]}
        kept = min(persons)
        merged = {subject: kept if person in persons else person for subject, person in merged.items()}
    return merged


@cache
def _atlas_at_low_resolution() -> tuple[Grid, Volume, Volume, NDArray[np.bool_]]:
    """Return the grid, the atlas' brain in [0, 1] on it, its pattern, and where that brain is."""
    atlas = load_atlas()
    masked = Volume(np.where(atlas.brain.array, atlas.t1.array, 0.0).astype(np.float32), atlas.t1.affine)
    centre = atlas.brain.affine @ [*np.argwhere(atlas.brain.array).mean(axis=0), 1.0]
    grid = Grid(SHAPE, SPACING_MM, (float(centre[0]), float(centre[1]), float(centre[2])))
    inside = resample_mask(atlas.brain, grid)
    coarse = resample(masked, grid)
    return grid, coarse, Volume(_limited_pattern(coarse.array, inside), coarse.affine), inside
