"""Whom synthetic scans help and whom they harm: the paired differences of one comparison, group by group.

Subgroups are explored, not planned: no correction is made for their number, and none of them is called significant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluate.comparison import Planned, crosses_zero, interval_in_words, share_in_words
from pipeline.evaluate.grouping import Filling, Groups, Stratum, list_groups
from pipeline.evaluate.intervals import Interval, Statistics, mean_interval
from pipeline.evaluate.scores import ScoreTable
from pipeline.evaluate.significance import MIN_SEEDS
from pipeline.labels import REGION_TITLES
from pipeline.segmentation.catalogue import IS_BETTER_HIGHER, METRIC_TITLES

MIN_PATIENTS = 5
EXPLORATORY = (
    "Subgroups are exploratory: they were not among the planned comparisons, and no correction is made for their "
    "number, so that some intervals leave 0 out by chance."
)

FEW_SEEDS = f"{MIN_SEEDS} trainings of each arm or more are needed, intervals leave out the luck of a single one"


@dataclass(frozen=True)
class Subgroup:
    """A comparison among the patients of one group.

    Parameters
    ----------
    attribute, group : str
    n_patients : int
    delta : float
        Mean of arm minus baseline.
    ci : tuple of float
    n_seeds : int
        Trainings of each arm.
    filling : Filling or None
        Of a stratum that the plan of the synthetic cohort speaks of.
    """

    attribute: str
    group: str
    n_patients: int
    delta: float
    ci: Interval
    n_seeds: int
    filling: Filling | None


@dataclass(frozen=True)
class SubgroupFindings:
    """A comparison among the patients of every group.

    Parameters
    ----------
    planned : Planned
    groups : tuple of Subgroup
    left_out : tuple of (str, str, int)
        Attribute, group and number of patients of those with fewer than :data:`MIN_PATIENTS`.
    """

    planned: Planned
    groups: tuple[Subgroup, ...]
    left_out: tuple[tuple[str, str, int], ...]


def compare_subgroups(
    table: ScoreTable,
    planned: Planned,
    groups: Groups,
    statistics: Statistics,
    filling: Mapping[Stratum, Filling] | None = None,
) -> SubgroupFindings:
    """Make a comparison in every group of patients.

    Parameters
    ----------
    table : ScoreTable
    planned : Planned
    groups : mapping of str to mapping of str to str
        Of :func:`pipeline.evaluate.grouping.group_patients`.
    statistics : Statistics
    filling : mapping of (str, str) to Filling, optional
        Of :func:`pipeline.evaluate.grouping.read_filling`.

    Raises
    ------
    DataError
        If the comparison lacks scores.
    """
    differences = table.difference(planned.arm, planned.baseline, planned.share, planned.region, planned.metric)
    bounds = table.difference_bounds(planned.metric)
    found, left_out = [], []
    for attribute, members in list_groups(groups).items():
        for group, patients in members.items():
            own = differences.take(patients)
            interval = mean_interval(own.values, statistics, bounds) if len(own) >= MIN_PATIENTS else None
            if interval is None:
                left_out.append((attribute, group, len(own)))
                continue
            filled = (filling or {}).get((attribute, group))
            delta = float(own.values.mean())
            found.append(Subgroup(attribute, group, len(own), delta, interval, len(own.seeds), filled))
    return SubgroupFindings(planned, tuple(found), tuple(left_out))


def is_worse(subgroup: Subgroup, metric: str) -> bool:
    """Tell whether a whole interval lies on the side of harm; one training of each arm tells nothing."""
    return _is_told(subgroup) and (subgroup.delta > 0) != IS_BETTER_HIGHER[metric]


def is_helped(subgroup: Subgroup, metric: str) -> bool:
    """Tell whether a whole interval lies on the side of gain; one training of each arm tells nothing."""
    return _is_told(subgroup) and (subgroup.delta > 0) == IS_BETTER_HIGHER[metric]


def _is_told(subgroup: Subgroup) -> bool:
    return subgroup.n_seeds >= MIN_SEEDS and not crosses_zero(subgroup.ci)


def describe_fairness(findings: Sequence[SubgroupFindings], alpha: float) -> str:
    """Name every subgroup that was made worse beyond its interval; if there is none, say what may be hidden."""
    everyone = [(each.planned, subgroup) for each in findings for subgroup in each.groups]
    left_out = list(dict.fromkeys(out for each in findings for out in each.left_out))
    missing = [_list_left_out(left_out)] if left_out else []
    if not everyone:
        return " ".join(["No subgroup is large enough to tell whether it was made worse.", *missing])
    worse = [
        f"{_name(subgroup)} in {_title(planned)} ({planned.arm} {share_in_words(planned.share)}, "
        f"{subgroup.delta:+.3f}, {interval_in_words(subgroup.ci, alpha)}, {subgroup.n_patients} patients)"
        for planned, subgroup in everyone
        if is_worse(subgroup, planned.metric)
    ]
    if worse:
        return " ".join([f"Made worse beyond the interval: {'; '.join(worse)}.", EXPLORATORY, *missing])
    is_told = everyone[0][1].n_seeds >= MIN_SEEDS
    start = "No subgroup was shown to be made worse." if is_told else f"No subgroup is called made worse: {FEW_SEEDS}."
    return " ".join([start, _describe_hidden(everyone), *missing])


def _describe_hidden(everyone: Sequence[tuple[Planned, Subgroup]]) -> str:
    """Say by metric which is the largest loss that the intervals leave possible."""
    hidden = []
    for metric in dict.fromkeys(planned.metric for planned, _ in everyone):
        own = [(planned, subgroup) for planned, subgroup in everyone if planned.metric == metric]
        planned, subgroup = max(own, key=lambda pair: _hidden_loss(pair[1], metric))
        hidden.append(
            f"{_hidden_loss(subgroup, metric):.3f} in {_title(planned)} ({_name(subgroup)}, {planned.arm} "
            f"{share_in_words(planned.share)}, {subgroup.n_patients} patients)"
        )
    return f"The largest loss that intervals could hide is {' and '.join(hidden)}."


def describe_filling(findings: SubgroupFindings, alpha: float) -> str:
    """Say whether the strata that the plan filled were helped: those of which synthetic cases hold more than members.

    Returns
    -------
    str
        Empty where the plan filled no stratum that patients are grouped by.
    """
    sentences = []
    for subgroup in findings.groups:
        filling = subgroup.filling
        if filling is None or not filling.is_filled:
            continue
        if is_helped(subgroup, findings.planned.metric):
            finding = "helped"
        elif is_worse(subgroup, findings.planned.metric):
            finding = "made worse"
        else:
            finding = "not shown to be helped"
        sentences.append(
            f"{_name(subgroup)} ({filling.real:.0%} of members, {filling.obtained:.0%} of synthetic cases): {finding}, "
            f"{subgroup.delta:+.3f} ({interval_in_words(subgroup.ci, alpha)}; {subgroup.n_patients} patients)"
        )
    if not sentences:
        return ""
    planned = findings.planned
    start = f"Strata that the plan filled, {planned.arm} against {planned.baseline} {share_in_words(planned.share)}"
    few = f" Nothing is called helped or made worse: {FEW_SEEDS}." if findings.groups[0].n_seeds < MIN_SEEDS else ""
    return f"{start}, {_title(planned)}: {'; '.join(sentences)}.{few} {EXPLORATORY}"


def subgroups_json(findings: SubgroupFindings) -> list[dict[str, Any]]:
    """Return what gain.json says of the subgroups of a comparison; those left out have no figures."""
    planned = findings.planned
    head = {
        "arm": planned.arm,
        "baseline": planned.baseline,
        "share": planned.share,
        "region": planned.region,
        "metric": planned.metric,
    }
    rows: list[dict[str, Any]] = [
        {
            **head,
            "attribute": subgroup.attribute,
            "group": subgroup.group,
            "n_patients": subgroup.n_patients,
            "delta": subgroup.delta,
            "ci": subgroup.ci,
            "worse": is_worse(subgroup, planned.metric),
            "filled": None if subgroup.filling is None else subgroup.filling.is_filled,
        }
        for subgroup in findings.groups
    ]
    too_few = {"delta": None, "ci": None, "worse": None, "filled": None}
    rows += [
        {**head, "attribute": attribute, "group": group, "n_patients": n, **too_few}
        for attribute, group, n in findings.left_out
    ]
    return rows


def _name(subgroup: Subgroup) -> str:
    return f"{subgroup.attribute} {subgroup.group}"


def _title(planned: Planned) -> str:
    return f"{REGION_TITLES[planned.region]} {METRIC_TITLES[planned.metric]}"


def _list_left_out(left_out: Sequence[tuple[str, str, int]]) -> str:
    names = ", ".join(f"{attribute} {group} ({n})" for attribute, group, n in left_out)
    return f"Left out, with fewer than {MIN_PATIENTS} patients: {names}."


def _hidden_loss(subgroup: Subgroup, metric: str) -> float:
    low, high = subgroup.ci
    return max(0.0, -low if IS_BETTER_HIGHER[metric] else high)
