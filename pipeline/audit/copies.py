"""Copies: near-duplicates among the synthetic scans, and whether members have more of them than others.

Two findings, never one. The threshold comes from *constructed* copies of val patients (noise, shift, rescaling,
mirroring) and honest pairs; recall and false alarms are measured on constructions and pairs that did not fix it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.audit.nearest_neighbour import embed_reference, embed_synthetic, embed_targets
from pipeline.audit.targets import Persons, Reference, Release
from pipeline.near_duplicates import copies_likeness, copy_threshold
from pipeline.seeds import derive_seed, numpy_stream

N_SUBSAMPLES = 200


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
    copies = copies_likeness(
        reference.cases, reference.modalities, release.synthetic.spacing_mm, derive_seed(reference.seed, "construct")
    )
    fixing, testing = _halves(len(reference.cases))
    threshold = copy_threshold(copies[fixing], honest[fixing])
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
