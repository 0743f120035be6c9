"""Copies: near-duplicates among what was released, and whether members have more of them than others.

Two findings, never one, for whole scans, tumours and label maps: (a) more members than persons never seen have a
near-duplicate; (b) released cases are near-duplicates of members. Poses are searched (:mod:`pipeline.audit.gallery`).
The threshold lies between honest pairs, which are any two persons' scans, and copies constructed of val patients; how
well it does is counted by person, on one copy of each person asked about and on pairs that did not fix it.

References
----------
Dar et al. 2023, "Investigating data memorization in 3D latent diffusion models for medical image synthesis",
doi:10.1007/978-3-031-53767-7_6 (95th percentile of train-to-nearest-validation: reported, gates nothing).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.audit.gallery import COPY_LEVELS
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Scores, Vectors
from pipeline.audit.views import view
from pipeline.cohort import Case
from pipeline.embedding import read_case
from pipeline.near_duplicates import MISSED_SHARE, construct_copy
from pipeline.statistics import clopper_pearson

LEVELS = COPY_LEVELS
DAR_QUANTILE = 0.95
# Copies that make an audit fail lie beyond the middle between honest pairs and every second copy, not the low ones: in
# a small cohort those may lie among honest pairs, and then 4 % of cohorts failed whom nobody copied (docs/audit.md).
COPY_QUANTILE = 0.5
N_NEAREST = 4


@dataclass(frozen=True)
class CopyFinding:
    """The two findings on one level, with how well copies are seen.

    Parameters
    ----------
    n_near_duplicates : int
        Released cases that are near-duplicates of a member.
    n_copies : int
        Of these, those so like a member as no released case is to any person never trained on, with room to spare.
    excess_p : float
        One-sided: more members than persons never seen have a near-duplicate.
    n_persons : int
        Persons that recall and false alarms are counted on; none of them fixed what they test.
    n_found, n_alarmed : int
        Of them: whose constructed copy was found; who was called copied where nobody copied him.
    threshold, copy_line : float
        Likeness from which a pair is called a near-duplicate, and from which a copy.
    n_honest_pairs : int
        Pairs that the threshold rests on.
    by_transformation : mapping of str to tuple of int
        Of the constructed copies of each kind, how many were found, and how many there were.
    dar_share : float
        Share of members above Dar's line; gates nothing.
    nearest : tuple of tuple
        Person asked about, released case and their likeness: the members to whom a case is most alike, each once.
        Private.
    """

    n_near_duplicates: int
    n_copies: int
    excess_p: float
    n_persons: int
    n_found: int
    n_alarmed: int
    threshold: float
    copy_line: float
    n_honest_pairs: int
    by_transformation: Mapping[str, tuple[int, int]]
    dar_share: float
    nearest: tuple[tuple[int, int, float], ...] = ()

    @property
    def recall(self) -> float:
        """Share of persons whose constructed copy was found."""
        return self.n_found / max(self.n_persons, 1)

    @property
    def false_alarms(self) -> float:
        """Share of persons called copied where nobody copied them."""
        return self.n_alarmed / max(self.n_persons, 1)

    def recall_ci(self, alpha: float) -> tuple[float, float]:
        """Return the recall's exact two-sided interval by person; all is possible where there is nobody."""
        return clopper_pearson(self.n_found, self.n_persons, alpha) if self.n_persons else (0.0, 1.0)

    def false_alarms_ci(self, alpha: float) -> tuple[float, float]:
        """Return the false alarms' exact two-sided interval by person; all is possible where there is nobody."""
        return clopper_pearson(self.n_alarmed, self.n_persons, alpha) if self.n_persons else (0.0, 1.0)


@dataclass(frozen=True)
class CopySearch:
    """What was compared. Persons are numbered: those asked about first, then val patients.

    Parameters
    ----------
    is_member : ndarray, (persons asked about,), bool
    owners : ndarray, (scans,), int
        Person of each real scan.
    held : ndarray, (held,), int
        Persons whose scans were held against all real scans.
    released : mapping of str to ndarray, (scans, cases), float32
        By level, likeness of real scans to released cases.
    real : mapping of str to ndarray, (scans, held), float32
        By level, likeness of real scans to real scans.
    fixing : mapping of str to ndarray, (copies,), float64
        By level, likeness of copies of val patients to their originals.
    testing : mapping of str to ndarray, (persons asked about,), float64
        The same of one copy of each person asked about.
    kinds : tuple of str
        Of the latter.
    """

    is_member: NDArray[np.bool_]
    owners: NDArray[np.intp]
    held: NDArray[np.intp]
    released: Mapping[str, NDArray[np.float32]]
    real: Mapping[str, NDArray[np.float32]]
    fixing: Mapping[str, Scores]
    testing: Mapping[str, Scores]
    kinds: tuple[str, ...]

    @cached_property
    def n_asked(self) -> int:
        """Number of persons asked about."""
        return len(self.is_member)


def nothing_copied(n_persons: int) -> CopyFinding:
    """Return the finding of a perfect search that finds nothing: for worlds in which nobody looks for copies."""
    return CopyFinding(0, 0, 1.0, n_persons, n_persons, 0, 1.0, 1.0, 0, {}, 0.0)


def least_persons(recall: float, alarms: float, alpha: float) -> int:
    """Return how many persons certify a recall and false alarms, one-sided, if nothing is missed and nothing alarms."""
    return int(np.ceil(max(np.log(alpha) / np.log(recall), np.log(alpha) / np.log1p(-alarms)) - 1e-9))


def judge_copies(search: CopySearch, level: str) -> CopyFinding:
    """Judge the copies of one level: pure, no file, no chance."""
    n, copies = search.n_asked, search.fixing[level]
    to_released = _by_person(search.released[level], search.owners)
    of_members, never_trained = to_released[:n][search.is_member], to_released[n:]
    of_unseen = to_released[:n][~search.is_member]
    values, first, second = _honest_pairs(search, level)
    # Persons never seen do not fix this one: members are compared with them.
    threshold = fix_line(copies, np.concatenate([values, never_trained.ravel()]))
    outside = np.concatenate([of_unseen, never_trained]).ravel()
    line = fix_line(copies, np.concatenate([values, outside]), COPY_QUANTILE)
    line = max(threshold, line, float(np.nextafter(outside.max(), 2)))
    alarms = _strangers(search, level) >= [
        # Without his own pairs, so that nobody fixes what he tests.
        fix_line(copies, np.concatenate([values[(first != one) & (second != one)], _highest(never_trained, copies)]))
        for one in range(n)
    ]
    is_found = search.testing[level] >= threshold
    return CopyFinding(
        n_near_duplicates=int((of_members >= threshold).any(axis=0).sum()),
        n_copies=int((of_members >= line).any(axis=0).sum()),
        excess_p=excess(of_members.max(axis=1) >= threshold, of_unseen.max(axis=1) >= threshold),
        n_persons=n,
        n_found=int(is_found.sum()),
        n_alarmed=int(alarms.sum()),
        threshold=threshold,
        copy_line=line,
        n_honest_pairs=len(values) + never_trained.size,
        by_transformation={
            kind: (int(is_found[of_kind].sum()), int(of_kind.sum()))
            for kind in dict.fromkeys(search.kinds)
            if (of_kind := np.array(search.kinds) == kind).any()
        },
        dar_share=_dar_share(search, level, of_members),
        nearest=_nearest(of_members, np.flatnonzero(search.is_member)),
    )


def fix_line(copies: Scores, honest: Scores, quantile: float = MISSED_SHARE) -> float:
    """Return the likeness from which a pair is no honest one: midway from the highest honest to copies.

    Never what an honest pair reaches: where the two overlap, copies are missed, and that is counted. Pairs of different
    persons as alike as every second copy are one person under two names, and would blind the search.

    Parameters
    ----------
    copies : ndarray, (copies,), float64
    honest : ndarray, (pairs,), float
    quantile : float
        Which of the copies are meant: the low ones, lest copies be missed.
    """
    low = float(np.quantile(copies, quantile))
    honest = honest[honest < np.median(copies)]
    if not len(honest):
        return low
    highest = float(honest.max())
    return max((low + highest) / 2, float(np.nextafter(highest, 2)))


def excess(member: NDArray[np.bool_], nonmember: NDArray[np.bool_]) -> float:
    """Return Fisher's one-sided p that members, (n,), have more hits than non-members, (m,).

    Exact for sides of any size, as it conditions on the number of hits; no need to bring them to one.
    """
    hits = [int(member.sum()), int(nonmember.sum())]
    table = [[hits[0], len(member) - hits[0]], [hits[1], len(nonmember) - hits[1]]]
    return float(stats.fisher_exact(np.array(table), alternative="greater").pvalue)


def view_copy(
    case: Case, setting: Setting, stream: np.random.Generator, levels: Sequence[str] = LEVELS
) -> Mapping[str, Vectors]:
    """Construct a copy that stays in its place, for the planted controls, and view it: by level (dimensions,)."""
    images, _ = read_case(case, setting.modalities)
    changed, condition = construct_copy(images, case.condition(setting.scheme), setting.spacing_mm, stream)
    brain = condition > 0
    # What is stored of a scan is 0 outside the brain.
    inside = np.where(brain, np.clip(changed, 0, None), 0).astype(np.float32)
    return {level: view(level, inside, brain, condition, setting) for level in levels}


def _by_person(likeness: NDArray[np.float32], owners: NDArray[np.intp]) -> Scores:
    """Return the likeness of each person's most telling scan: (persons, cases) of (scans, cases)."""
    found = np.zeros((int(owners.max()) + 1, likeness.shape[1]))
    np.maximum.at(found, owners, likeness)
    return found


def _honest_pairs(search: CopySearch, level: str) -> tuple[Scores, NDArray[np.intp], NDArray[np.intp]]:
    """Return the likeness of scans of two persons, and who they are: (pairs,) each."""
    scans, held = np.nonzero(search.owners[:, None] != search.held)
    return search.real[level][scans, held].astype(np.float64), search.owners[scans], search.held[held]


def _strangers(search: CopySearch, level: str) -> Scores:
    """Return the highest likeness of each person asked about to who is no copy of him: (persons asked about,).

    Other persons' scans; and for who was never trained on, released cases.
    """
    is_other = search.owners[:, None] != search.held
    others = _by_person(np.where(is_other, search.real[level], 0), search.owners).max(axis=1)[: search.n_asked]
    released = _by_person(search.released[level], search.owners).max(axis=1)[: search.n_asked]
    highest: Scores = np.maximum(others, np.where(search.is_member, 0, released))
    return highest


def _highest(honest: Scores, copies: Scores) -> Scores:
    """Return the highest of honest likenesses, but for those that :func:`fix_line` leaves out: (1,) or (0,)."""
    below = honest[honest < np.median(copies)]
    return np.array([below.max()]) if len(below) else below


def _dar_share(search: CopySearch, level: str, of_members: Scores) -> float:
    is_val = search.held >= search.n_asked
    to_val = _by_person(search.real[level][:, is_val], search.owners)[: search.n_asked][search.is_member]
    return float((of_members.max(axis=1) > np.quantile(to_val.max(axis=1), DAR_QUANTILE)).mean())


def _nearest(of_members: Scores, members: NDArray[np.intp]) -> tuple[tuple[int, int, float], ...]:
    rows = np.argsort(-of_members.max(axis=1), kind="stable")[:N_NEAREST]
    cases = of_members.argmax(axis=1)
    return tuple((int(members[row]), int(cases[row]), float(of_members[row].max())) for row in rows)
