"""Near-duplicates of whole scans: the likeness from which one counts as a copy, fixed on *constructed* copies.

What a leaking generator might make of a scan is made of scans here: shifted, rescaled, noisy, mirrored. The threshold
lies between the likeness of such copies with their originals and that of honest pairs of different persons.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.cohort import Case
from pipeline.embedding import embed_both_ways, embed_scan, mirror_scan, read_case
from pipeline.progress import progress
from pipeline.seeds import numpy_stream

N_CONSTRUCTIONS = 4
NOISE_SD = 30.0
MAX_SHIFT_MM = 2.0
# Of constructed copies, the share that may be missed where the threshold is fixed.
MISSED_SHARE = 0.05

Likeness = NDArray[np.float64]


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
    images: NDArray[np.float32], brain: NDArray[np.bool_], spacing_mm: float, stream: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Make a copy that a leaking generator might make: shifted, rescaled, noisy, maybe mirrored.

    Parameters
    ----------
    images : ndarray, (modalities, x, y, z), float32 in [0, 1000]
    brain : ndarray, (x, y, z), bool
    spacing_mm : float
    stream : numpy.random.Generator
    """
    # A length, not voxels: else copies would be as good as lost on a coarse grid and too easy to see on a fine one.
    shift = stream.uniform(-MAX_SHIFT_MM, MAX_SHIFT_MM, 3) / spacing_mm
    moved = np.stack([ndimage.shift(image, shift, order=1) for image in images])
    mask = ndimage.shift(brain.astype(np.float32), shift, order=1) > 0.5
    gain = stream.uniform(0.85, 1.15, (len(images), 1, 1, 1))
    changed = (moved * gain + stream.normal(0, NOISE_SD, moved.shape)).astype(np.float32)
    return mirror_scan(changed, mask) if stream.random() < 0.5 else (changed, mask)


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
