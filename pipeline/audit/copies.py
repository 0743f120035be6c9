"""Copies: near-duplicates among the synthetic scans, and whether members have more of them than others.

Two findings, never one. The threshold comes from *constructed* copies of val patients (noise, shift, rescaling,
mirroring) and honest pairs; recall and false alarms are measured on constructions and pairs that did not fix it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from pipeline.audit.embedding import embed_scan, mirror_scan, read_case
from pipeline.audit.nearest_neighbour import embed_reference, embed_synthetic, embed_targets
from pipeline.audit.targets import Persons, Reference, Release
from pipeline.cohort import Case
from pipeline.progress import progress
from pipeline.seeds import numpy_stream

N_CONSTRUCTIONS = 4
N_SUBSAMPLES = 200
NOISE_SD = 30.0
MAX_SHIFT_MM = 2.0


@dataclass(frozen=True)
class CopyFinding:
    """The two findings, with how well copies are seen.

    Parameters
    ----------
    n_near_duplicates : int
        Synthetic cases that are near-duplicates of a member.
    excess_p : float
        One-sided: members have more near-duplicates than non-members.
    recall, false_alarms : float
        Shares of constructed copies found, and of honest pairs called copies.
    threshold : float
        Correlation of embeddings from which a pair is called a near-duplicate.
    """

    n_near_duplicates: int
    excess_p: float
    recall: float
    false_alarms: float
    threshold: float


def find_copies(members: Persons, nonmembers: Persons, release: Release, reference: Reference) -> CopyFinding:
    """Search the released scans for near-duplicates of patients.

    Parameters
    ----------
    members, nonmembers : sequence of tuple of Case
        All scans of each person.
    release : Release
    reference : Reference
        Val patients: copies are constructed from them.
    """
    synthetic = embed_synthetic(release, reference)
    honest = (embed_reference(release, reference) @ synthetic.T).max(axis=1)
    # The scan and its mirror image belong to one person.
    honest = honest.reshape(len(reference.cases), 2).max(axis=1)
    constructed = []
    with progress("construct copies", len(reference.cases)) as task:
        for index, case in enumerate(reference.cases):
            constructed.append(_copy_similarities(case, index, reference, release))
            task.advance()
    copies = np.array(constructed)
    fixing, testing = _halves(len(reference.cases))
    threshold = float((np.quantile(copies[fixing], 0.05) + honest[fixing].max()) / 2)
    is_near = [
        [embed_targets(cases, release, reference) @ synthetic.T >= threshold for cases in persons]
        for persons in (members, nonmembers)
    ]
    near = np.any([hits.any(axis=0) for hits in is_near[0]], axis=0)
    near = near.reshape(len(release.synthetic.cases), 2).any(axis=1)
    found = [np.array([bool(hits.any()) for hits in side]) for side in is_near]
    excess_p = _excess(found[0], found[1], numpy_stream(reference.seed, "copies"))
    return CopyFinding(
        int(near.sum()),
        excess_p,
        float((copies[testing] >= threshold).mean()),
        float((honest[testing] >= threshold).mean()),
        threshold,
    )


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


def _copy_similarities(case: Case, index: int, reference: Reference, release: Release) -> list[float]:
    """Return the similarity of a case with copies constructed from it, whichever way round is nearer."""
    spacing_mm = release.synthetic.spacing_mm
    images, brain = read_case(case, reference.modalities)
    original = np.stack([embed_scan(images, brain, spacing_mm), embed_scan(*mirror_scan(images, brain), spacing_mm)])
    stream = numpy_stream(reference.seed, "construct", index)
    copies = [
        embed_scan(*construct_copy(images, brain, spacing_mm, stream), spacing_mm) for _ in range(N_CONSTRUCTIONS)
    ]
    return [float((original @ copy).max()) for copy in copies]


def _halves(n: int) -> tuple[slice, slice]:
    """Return which val patients fix the threshold and which test it; a single one does both."""
    return (slice(0, (n + 1) // 2), slice((n + 1) // 2, n)) if n > 1 else (slice(0, 1), slice(0, 1))


def _excess(member: NDArray[np.bool_], nonmember: NDArray[np.bool_], stream: np.random.Generator) -> float:
    """Return the median Fisher p over subsamples that bring both sides to one size."""
    n = min(len(member), len(nonmember))
    p_values = []
    for _ in range(N_SUBSAMPLES if len(member) != len(nonmember) else 1):
        a = int(stream.choice(member, n, replace=False).sum())
        b = int(stream.choice(nonmember, n, replace=False).sum())
        p_values.append(float(stats.fisher_exact(np.array([[a, n - a], [b, n - b]]), alternative="greater").pvalue))
    return float(np.median(p_values))
