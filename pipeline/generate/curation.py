"""Curation: of more candidates than are asked for, the best on fidelity, realism and diversity at once are kept.

Near-duplicates of a person go first, by one rule for persons trained on and persons of val alike. Distance to patients
is no criterion beyond that: a cohort picked to lie far from its members would tell who they are. What is left is
sorted into fronts, none of whose candidates is beaten by another in every criterion; within a front those come first
that stand high in all criteria, not those that are extreme in one: the most diverse of all is often an accident.

References
----------
Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", doi:10.1109/4235.996017 (fronts).
Zhang et al. 2015, "An efficient approach to nondominated sorting", doi:10.1109/TEVC.2014.2308305.
Kynkaanniemi et al. 2019, "Improved precision and recall metric for assessing generative models", arXiv:1904.06991
(realism: precision, with three neighbours).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from pipeline.cohort import Case, Cohort
from pipeline.embedding import embed_case, embed_with_mirror
from pipeline.generate.judge import Judge
from pipeline.generate.measures import read_sample
from pipeline.generate.plan import Cell
from pipeline.generate.realism import standardise, to_components
from pipeline.near_duplicates import MISSED_SHARE, copies_likeness, copy_threshold
from pipeline.progress import progress

N_NEIGHBOURS = 3

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """One candidate, with what decides about it.

    Parameters
    ----------
    cell : tuple of str
        Label source and stratum that were asked for; candidates compete within them.
    is_as_asked : bool
        Whether its label map is in the cell.
    is_near_duplicate : bool
        Of a person of train or val.
    scores : dict of str to float
        By criterion, higher is better.
    """

    cell: Cell
    is_as_asked: bool
    is_near_duplicate: bool
    scores: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """What became of a candidate.

    Parameters
    ----------
    is_kept : bool
    reason : str
        Of a refusal; empty if kept.
    front : int
        From 1; 0 for near-duplicates, which are in none.
    """

    is_kept: bool
    reason: str
    front: int


def score_candidates(judge: Judge, cases: Sequence[Case], val: Sequence[Case]) -> list[dict[str, float]]:
    """Score candidates on fidelity, realism and diversity.

    Parameters
    ----------
    judge : Judge
        Trained for choosing; not the one that the chosen are measured by.
    cases : sequence of Case
    val : sequence of Case
        Val patients: what realism is held against. Members are not: likeness to them must not decide.

    Returns
    -------
    list of dict
        ``fidelity``: mean Dice over regions of what the judge sees with the label map asked for, each weighted by the
        judge's Dice on val patients: what it cannot find there decides nothing. ``realism``: share of slices whose
        features lie where those of val patients do. ``diversity``: distance of the mean features to those of the
        nearest other candidate, on the same axes.
    """
    with_val = [judge.score(case, judge.segment(case)) for case in val]
    weights = {region: float(np.mean([dice[region] for dice in with_val])) + 1e-6 for region in with_val[0]}
    real = np.concatenate([judge.features(read_sample(case, judge.modalities).scans) for case in val])
    fidelity, features = [], []
    with progress("curated", len(cases)) as task:
        for case in cases:
            dice = judge.score(case, judge.segment(case))
            fidelity.append(sum(weights[region] * dice[region] for region in dice) / sum(weights.values()))
            features.append(judge.features(read_sample(case, judge.modalities).scans))
            task.advance()
    standard = standardise(real, *features)
    axes = to_components(standard[0], np.concatenate(standard[1:]))
    deviation = np.maximum(axes[0].std(axis=0), 1e-6)
    slices = (axes[1] / deviation).reshape(len(cases), -1, axes[1].shape[1])
    real_slices = axes[0] / deviation
    reach = neighbour_reach(real_slices)
    diversity = nearest_distances(slices.mean(axis=1))
    return [
        {"fidelity": f, "realism": share_within(one, real_slices, reach), "diversity": float(d)}
        for f, one, d in zip(fidelity, slices, diversity, strict=True)
    ]


def neighbour_reach(real: Scores) -> Scores:
    """Return how far each real point (n, dimensions) lies from the third of its neighbours: (n,)."""
    among_real = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)
    reach: Scores = among_real[:, min(N_NEIGHBOURS, len(real) - 1)]
    return reach


def share_within(points: Scores, real: Scores, reach: Scores) -> float:
    """Return the share of points (n, dimensions) that lie no farther from a real one than its reach."""
    distances = np.linalg.norm(points[:, None] - real[None], axis=2)
    return float(np.any(distances <= reach[None], axis=1).mean())


def nearest_distances(points: Scores) -> Scores:
    """Return the distance of each point (n, dimensions) to the nearest other: (n,); 0 for one alone."""
    if len(points) < 2:
        return np.zeros(len(points))
    distances, _ = cKDTree(points).query(points, k=[2])
    return np.asarray(distances, np.float64).ravel()


def find_near_duplicates(
    cases: Sequence[Case], persons: Sequence[Case], val: Sequence[Case], cohort: Cohort, seed: int
) -> list[bool]:
    """Tell which candidates are as like a real person as constructed copies are like their original.

    Parameters
    ----------
    cases : sequence of Case
        Candidates.
    persons : sequence of Case
        Trained on.
    val : sequence of Case
        Not trained on; held against candidates just as those are, and originals of the constructed copies.
    cohort : Cohort
        Gives modalities and spacing.
    seed : int
    """
    everyone, spacing_mm = (*persons, *val), cohort.spacing_mm
    searches = []
    # Who lacks modalities is compared in those that he has.
    for names in sorted({case.modalities for case in everyone}):
        able = [case for case in everyone if set(case.modalities) >= set(names)]
        vectors = [embed_with_mirror(case, names, spacing_mm) for case in able]
        threshold = _threshold(copies_likeness(val, names, spacing_mm, seed), [case.person for case in able], vectors)
        own = [one for case, one in zip(able, vectors, strict=True) if case.modalities == names]
        searches.append((names, np.concatenate(own), threshold))
    found = []
    with progress("near-duplicates", len(cases)) as task:
        for case in cases:
            found.append(
                any(
                    bool((own @ embed_case(case, names, spacing_mm)).max() >= threshold)
                    for names, own, threshold in searches
                )
            )
            task.advance()
    return found


def _threshold(copies: Scores, persons: Sequence[str], vectors: Sequence[NDArray[np.float32]]) -> float:
    """Return the likeness from which a scan is a near-duplicate; never what two persons reach.

    Parameters
    ----------
    copies : ndarray, (cases, constructions), float64
        See :func:`pipeline.near_duplicates.copies_likeness`.
    persons : sequence of str
        Of each real scan.
    vectors : sequence of ndarray, (2, dimensions)
        Its embedding, and that of its mirror image.
    """
    honest = np.array(
        [
            float((one @ other.T).max())
            for number, (person, one) in enumerate(zip(persons, vectors, strict=True))
            for other_person, other in zip(persons[:number], vectors[:number], strict=True)
            if person != other_person
        ]
    )
    # Two who are as alike as copies are one person under two names, and say nothing of what two persons reach.
    honest = honest[honest < np.quantile(copies, MISSED_SHARE)]
    if not len(honest):
        return float(np.quantile(copies, MISSED_SHARE))
    return max(copy_threshold(copies, honest), float(honest.max()))


def choose(candidates: Sequence[Candidate], n_asked: Mapping[Cell, int]) -> list[Choice]:
    """Choose as many candidates of each cell as were asked for, the best first.

    Parameters
    ----------
    candidates : sequence of Candidate
    n_asked : mapping
        Cases asked for in each cell.

    Returns
    -------
    list of Choice
        Fewer are kept than asked for where near-duplicates leave fewer.
    """
    eligible = [index for index, candidate in enumerate(candidates) if not candidate.is_near_duplicate]
    criteria = list(candidates[0].scores)
    points = np.array([[candidates[index].scores[name] for name in criteria] for index in eligible], np.float64)
    points = points.reshape(len(eligible), len(criteria))
    fronts = pareto_fronts(points)
    standing = mean_ranks(points)
    order = sorted(
        range(len(eligible)),
        key=lambda i: (not candidates[eligible[i]].is_as_asked, fronts[i], -standing[i], eligible[i]),
    )
    left = Counter(n_asked)
    choices = [Choice(False, "near-duplicate of a real person", 0)] * len(candidates)
    for position in order:
        index, front = eligible[position], int(fronts[position])
        candidate = candidates[index]
        if left[candidate.cell] > 0:
            left[candidate.cell] -= 1
            choices[index] = Choice(True, "", front)
        else:
            choices[index] = Choice(False, _reason(candidate, front), front)
    return choices


def _reason(candidate: Candidate, front: int) -> str:
    if not candidate.is_as_asked:
        return "label map not as asked for"
    if front > 1:
        return f"front {front}: others of its stratum are better in every criterion, or in a better front"
    return "front 1, but others of its stratum stand higher over all criteria"


def pareto_fronts(points: Scores) -> NDArray[np.int64]:
    """Sort points into fronts: 1 for those that no other beats, 2 for those that only these beat, and so on.

    Parameters
    ----------
    points : ndarray, (n, criteria), float64
        Higher is better. One beats another if it is nowhere worse and somewhere better.
    """
    # From the highest on: what beats a point comes before it.
    order = np.lexsort(-points.T[::-1]) if points.size else range(len(points))
    members: list[list[int]] = []
    fronts = np.zeros(len(points), np.int64)
    for index in order:
        places = (n for n, front in enumerate(members) if not _is_beaten(points[index], points[front]))
        place = next(places, len(members))
        if place == len(members):
            members.append([])
        members[place].append(int(index))
        fronts[index] = place + 1
    return fronts


def _is_beaten(point: Scores, others: Scores) -> bool:
    better = others - point
    return bool(np.any(np.all(better >= 0, axis=1) & np.any(better > 0, axis=1)))


def mean_ranks(points: Scores) -> Scores:
    """Return the mean rank of each point (n, criteria) over its criteria: (n,); higher is better."""
    if not points.size:
        return np.zeros(len(points))
    ranks: Scores = rankdata(points, axis=0).mean(axis=1)
    return ranks


def curation_rows(candidates: Sequence[Candidate], choices: Sequence[Choice]) -> list[dict[str, object]]:
    """Return a row for each candidate: its stratum, scores, front, and why it was refused."""
    rows: list[dict[str, Any]] = []
    for number, (candidate, choice) in enumerate(zip(candidates, choices, strict=True), start=1):
        scores = {name: f"{value:.4f}" for name, value in candidate.scores.items()}
        kept = "kept" if choice.is_kept else "refused"
        head = {"candidate": number, "asked": "/".join(candidate.cell), **scores}
        rows.append({**head, "front": choice.front, "outcome": kept, "reason": choice.reason})
    return rows
