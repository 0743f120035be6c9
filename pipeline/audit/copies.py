"""Copies: near-duplicates among what was released, and whether members have more of them than others.

Two findings, never one, for whole scans, tumours and label maps. The threshold comes from *constructed* copies of val
patients (shifted, turned, rescaled, noisy, mirrored) and honest pairs; recall and false alarms are measured on
constructions and pairs that did not fix it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.audit.setting import Setting
from pipeline.audit.targets import Persons, Scores, Targets, Vectors, by_person
from pipeline.audit.views import view
from pipeline.cohort import Case
from pipeline.embedding import read_case
from pipeline.near_duplicates import N_CONSTRUCTIONS, construct_copy, copy_threshold
from pipeline.progress import progress
from pipeline.seeds import numpy_stream

LEVELS = ("scan", "tumor", "labels")
N_SUBSAMPLES = 200


@dataclass(frozen=True)
class CopyFinding:
    """The two findings on one level, with how well copies are seen.

    Parameters
    ----------
    n_near_duplicates : int
        Synthetic cases that are near-duplicates of a member.
    excess_p : float
        One-sided: members have more near-duplicates than non-members.
    recall, false_alarms : float
        Shares of constructed copies found, and of honest pairs called copies.
    threshold : float
        Correlation of views from which a pair is called a near-duplicate.
    """

    n_near_duplicates: int
    excess_p: float
    recall: float
    false_alarms: float
    threshold: float


def view_copies(cases: Sequence[Case], setting: Setting, seed: int) -> dict[str, Vectors]:
    """Construct copies of cases and view them: by level (cases, constructions, dimensions), float32."""
    rows: dict[str, list[Vectors]] = {level: [] for level in LEVELS}
    with progress("construct copies", len(cases)) as task:
        for index, case in enumerate(cases):
            stream = numpy_stream(seed, index)
            copies = [view_copy(case, setting, stream) for _ in range(N_CONSTRUCTIONS)]
            for level in LEVELS:
                rows[level].append(np.stack([copy[level] for copy in copies]))
            task.advance()
    return {level: np.stack(rows[level]) for level in LEVELS}


def view_copy(
    case: Case, setting: Setting, stream: np.random.Generator, levels: Sequence[str] = LEVELS
) -> Mapping[str, Vectors]:
    """Construct a copy of a case and view it: by level (dimensions,), float32."""
    images, _ = read_case(case, setting.modalities)
    changed, condition = construct_copy(images, case.condition(setting.scheme), setting.spacing_mm, stream)
    brain = condition > 0
    # What is stored of a scan is 0 outside the brain.
    inside = np.where(brain, np.clip(changed, 0, None), 0).astype(np.float32)
    return {level: view(level, inside, brain, condition, setting) for level in levels}


def find_copies(
    level: str,
    persons: Persons,
    is_member: NDArray[np.bool_],
    targets: Targets,
    synthetic: Vectors,
    others: Targets,
    copies: Vectors,
    seed: int,
) -> CopyFinding:
    """Search what was released for near-duplicates of patients.

    Parameters
    ----------
    level : str
    persons : sequence of tuple of Case
        All scans of each person.
    is_member : ndarray, (persons,), bool
    targets : Targets
        All scans of the persons.
    synthetic : ndarray, (synthetic cases, dimensions), float32
    others : Targets
        Val patients.
    copies : ndarray, (others, constructions, dimensions), float32
        Constructed of them; see :func:`view_copies`.
    seed : int
    """
    honest = likeness(others.views[level], synthetic).max(axis=1)
    of_copies = np.einsum("nwd,ncd->nwc", others.views[level], copies).max(axis=1).astype(np.float64)
    fixing, testing = _halves(len(others))
    threshold = copy_threshold(of_copies[fixing], honest[fixing])
    is_near = (likeness(targets.views[level], synthetic) >= threshold).astype(np.float64)
    of_members = by_person(is_near.T, targets.subjects, persons)[:, is_member]
    found = by_person(is_near.max(axis=1), targets.subjects, persons) > 0
    return CopyFinding(
        int((of_members > 0).any(axis=1).sum()),
        _excess(found[is_member], found[~is_member], numpy_stream(seed, "copies", level)),
        float((of_copies[testing] >= threshold).mean()),
        float((honest[testing] >= threshold).mean()),
        threshold,
    )


def likeness(targets: Vectors, synthetic: Vectors) -> Scores:
    """Return the correlation of each target (n, ways, dimensions), the nearer way round, with each case: (n, cases)."""
    found: Scores = np.max([targets[:, way] @ synthetic.T for way in range(targets.shape[1])], axis=0)
    return found.astype(np.float64)


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
