"""Near-duplicates of whole scans: the likeness from which one counts as a copy, fixed on *constructed* copies.

What a leaking generator might make of a scan is made of scans here: shifted, turned, rescaled, noisy, mirrored. The
threshold lies between the likeness of such copies with their originals and that of honest pairs of different persons.
A narrow law, on purpose: curation refuses, for persons of train and val alike, what any viewer would call the same
scan, thousands of times over; and the copies that the audit plants must be seen by attacks that search no poses. The
audit's own search for copies looks in every pose (:mod:`pipeline.audit.copies`).
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.cohort import Case
from pipeline.embedding import embed_both_ways, embed_scan, read_case
from pipeline.progress import progress
from pipeline.seeds import numpy_stream

N_CONSTRUCTIONS = 4
NOISE_SD = 30.0
MAX_SHIFT_MM, MAX_TURN_DEGREES, MAX_RESCALING = 2.0, 5.0, 0.03
# Of constructed copies, the share that may be missed where the threshold is fixed.
MISSED_SHARE = 0.05

Likeness = NDArray[np.float64]
Kind = TypeVar("Kind", np.bool_, np.uint8)


def copy_threshold(copies: Likeness, honest: Likeness) -> float:
    """Return the likeness from which a pair is a near-duplicate: midway from the highest honest to the low copies.

    Parameters
    ----------
    copies : ndarray, any shape, float64
        Likeness of constructed copies with their originals, see :func:`copies_likeness`.
    honest : ndarray, any shape, float64
        Likeness of scans that are no copies of each other.

    Returns
    -------
    float
        Correlation of embeddings.
    """
    return float((np.quantile(copies, MISSED_SHARE) + honest.max()) / 2)


def copies_likeness(cases: Sequence[Case], modalities: Sequence[str], spacing_mm: float, seed: int) -> Likeness:
    """Return the likeness of each case with copies constructed from it: (cases, constructions), float64."""
    likeness = []
    with progress("construct copies", len(cases)) as task:
        for index, case in enumerate(cases):
            likeness.append(_likeness_with_copies(case, modalities, spacing_mm, numpy_stream(seed, index)))
            task.advance()
    return np.array(likeness)


def construct_copy(
    images: NDArray[np.float32], labels: NDArray[Kind], spacing_mm: float, stream: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[Kind]]:
    """Make a copy that a leaking generator might make: shifted, turned, rescaled, noisy, maybe mirrored.

    Parameters
    ----------
    images : ndarray, (modalities, x, y, z), float32 in [0, 1000]
    labels : ndarray, (x, y, z), bool or uint8
        Brain mask or label map; goes the same way as the images, and stays of its kind.
    spacing_mm : float
    stream : numpy.random.Generator
    """
    turn = Rotation.from_euler("xyz", stream.uniform(-MAX_TURN_DEGREES, MAX_TURN_DEGREES, 3), degrees=True).as_matrix()
    matrix = turn * stream.uniform(1 - MAX_RESCALING, 1 + MAX_RESCALING)
    centre = (np.array(labels.shape) - 1) / 2
    # A length, not voxels: else copies would be as good as lost on a coarse grid and too easy to see on a fine one.
    offset = centre - matrix @ centre + stream.uniform(-MAX_SHIFT_MM, MAX_SHIFT_MM, 3) / spacing_mm
    moved = np.stack([ndimage.affine_transform(image, matrix, offset, order=1) for image in images])
    map_moved = ndimage.affine_transform(labels.astype(np.uint8), matrix, offset, order=0).astype(labels.dtype)
    gain = stream.uniform(0.85, 1.15, (len(images), 1, 1, 1))
    changed = (moved * gain + stream.normal(0, NOISE_SD, moved.shape)).astype(np.float32)
    return (changed[:, ::-1], map_moved[::-1]) if stream.random() < 0.5 else (changed, map_moved)


def _likeness_with_copies(
    case: Case, modalities: Sequence[str], spacing_mm: float, stream: np.random.Generator
) -> list[float]:
    """Return the likeness of a case with copies constructed from it, whichever way round is nearer."""
    images, brain = read_case(case, modalities)
    original = embed_both_ways(images, brain, spacing_mm)
    copies = [
        embed_scan(*construct_copy(images, brain, spacing_mm, stream), spacing_mm) for _ in range(N_CONSTRUCTIONS)
    ]
    return [float((original @ copy).max()) for copy in copies]
