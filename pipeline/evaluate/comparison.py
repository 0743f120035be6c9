"""Planned comparisons of arms: paired differences by patient, their intervals and tests, and what they say in words.

Two families, named before the run: the primary comparison, alone at the level, and the secondary ones, corrected among
themselves. What is neither has an interval and claims nothing.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.evaluate.intervals import Interval, Statistics, mean_interval
from pipeline.evaluate.scores import FloatArray, ScoreTable
from pipeline.evaluate.significance import MIN_SEEDS, Role, combined_p, holm, rank_biserial
from pipeline.labels import REGION_TITLES
from pipeline.segmentation.catalogue import (
    COMPARED_METRICS,
    DISTANCE_METRIC,
    FALSE_ALARM_METRIC,
    IS_BETTER_HIGHER,
    METRIC_TITLES,
    MISSED_METRIC,
    gain_sign,
)

MIN_PATIENTS_RELIABLE = 20
COMPARISON_DEFINITIONS = {
    "delta": "arm minus baseline, paired by patient; a patient's value is the mean over seeds",
    "ci": (
        "of this comparison alone, not corrected for their number: bootstrap over patients and seeds (BCa; percentiles "
        "where degenerate), widened on each side to Cochran and Cox's t interval with patients and seeds as two "
        "samples; with one seed over patients only: it then says nothing of other trainings. Of HD95 it may hold the "
        "truth far less often than it says: one patient in whom a region is missed or falsely found can decide it"
    ),
    "role": (
        "primary: the main arm against the baseline at the largest share, whole-tumour Dice, tested alone at alpha; "
        "secondary: all others by planned_metrics, corrected among themselves; reported: by another metric, or uneven "
        "(of one arm the generator saw more patients than the other arm), no claim"
    ),
    "p": (
        "two-sided, the larger of Wilcoxon's signed-rank over patients and of a t test of the mean with the variance "
        "of patients and trainings: the interval's by Cochran and Cox in the primary comparison, in secondary ones "
        "with one degree of freedom less than patients or trainings, whichever are fewer; null with one training of "
        "each arm, if all differences are 0, and where nothing is claimed"
    ),
    "p_holm": "p of a secondary comparison, by Holm over all secondary ones; null in others",
    "effect_size": (
        "matched-pairs rank-biserial correlation: the ranks of the absolute differences of patients with a higher "
        "value in the arm, less those of patients with a lower one, over all ranks; from -1 to 1, zeros left out"
    ),
    "missed_shares": "of HD95: share of the patients who have the region in whom arm and baseline find none of it",
    "false_alarm_shares": "of HD95: share of the patients who lack the region in whom arm and baseline find some",
    "n_better": "patients, of `n_patients`, whose value is better in the arm; `n_worse`: worse",
    "significant": (
        "the interval leaves 0 out, delta and effect_size have one sign, p (primary) or p_holm (secondary) is below "
        f"alpha, and arms have {MIN_SEEDS} trainings or more; secondary claims are corrected among themselves, not for "
        "the primary one"
    ),
}


@dataclass(frozen=True)
class Planned:
    """A comparison that is named before the run.

    Parameters
    ----------
    arm, baseline : str
    share : float
        Of the real data that the arm uses, or its baseline where the arm has no real scans.
    region, metric : str
    role : str
        What it may claim.
    """

    arm: str
    baseline: str
    share: float
    region: str
    metric: str
    role: Role = "secondary"


@dataclass(frozen=True)
class Comparison:
    """An arm against its baseline, at one share, for one region and metric.

    Parameters
    ----------
    arm, baseline, region, metric : str
    delta : float
        Mean over patients of arm minus baseline; a patient's value is the mean over seeds.
    ci : tuple of float or None
    p : float or None
        Of both kinds of luck, :func:`pipeline.evaluate.significance.combined_p`; None where there is none.
    p_holm : float or None
        Corrected over the secondary comparisons; None in others.
    n_patients : int
    seed_deltas : tuple of float
        The mean difference in each seed by itself.
    share : float
        Of the real data.
    effect_size : float or None
        Matched-pairs rank-biserial correlation; None if all differences are 0.
    role : str
    missed_shares, false_alarm_shares : tuple of float or None
        Of HD95: share of patients in whom arm and baseline miss the region entirely, and find some where there is none;
        None elsewhere and if there are no such patients.
    n_better, n_worse : int
        Patients whose value is better, and worse, in the arm.
    """

    arm: str
    baseline: str
    region: str
    metric: str
    delta: float
    ci: Interval | None
    p: float | None
    p_holm: float | None
    n_patients: int
    seed_deltas: tuple[float, ...]
    share: float = 1.0
    effect_size: float | None = None
    role: Role = "secondary"
    missed_shares: tuple[float, float] | None = None
    false_alarm_shares: tuple[float, float] | None = None
    n_better: int = 0
    n_worse: int = 0


def plan_comparisons(
    pairs: Sequence[tuple[str, str]],
    shares: Sequence[float],
    regions: Sequence[str],
    metrics: Sequence[str] = COMPARED_METRICS,
    without_real: Collection[str] = (),
) -> tuple[Planned, ...]:
    """List the comparisons of a run, all of them secondary ones.

    Parameters
    ----------
    pairs : sequence of (str, str)
        Arm and its baseline.
    shares : sequence of float
        Of the real data.
    regions, metrics : sequence of str
    without_real : collection of str
        Arms that use no real scans: one of them is compared with its baseline at each share; two of them once.
    """
    planned = [
        Planned(arm, baseline, 0.0 if {arm, baseline} <= set(without_real) else share, region, metric)
        for arm, baseline in pairs
        for share in shares
        for region in regions
        for metric in metrics
    ]
    return tuple(dict.fromkeys(planned))


def compare_planned(table: ScoreTable, planned: Sequence[Planned], statistics: Statistics) -> list[Comparison]:
    """Make the planned comparisons, in their order.

    Raises
    ------
    DataError
        If one of them lacks scores.
    """
    differences = [table.difference(p.arm, p.baseline, p.share, p.region, p.metric).values for p in planned]
    p_values = [_p_of(values, plan.role) for plan, values in zip(planned, differences, strict=True)]
    secondary = [number for number, plan in enumerate(planned) if plan.role == "secondary"]
    corrected = dict(zip(secondary, holm([p_values[number] for number in secondary]), strict=True))
    return [
        Comparison(
            arm=plan.arm,
            baseline=plan.baseline,
            region=plan.region,
            metric=plan.metric,
            delta=float(values.mean()),
            ci=mean_interval(values, statistics, table.difference_bounds(plan.metric)),
            p=p_values[number],
            p_holm=corrected.get(number),
            n_patients=len(values),
            seed_deltas=tuple(float(value) for value in values.mean(axis=0)),
            share=plan.share,
            effect_size=rank_biserial(values.mean(axis=1)),
            role=plan.role,
            missed_shares=_shares_of(table, plan, MISSED_METRIC),
            false_alarm_shares=_shares_of(table, plan, FALSE_ALARM_METRIC),
            n_better=_count_gains(values.mean(axis=1), plan.metric),
            n_worse=_count_gains(-values.mean(axis=1), plan.metric),
        )
        for number, (plan, values) in enumerate(zip(planned, differences, strict=True))
    ]


def _p_of(values: FloatArray, role: Role) -> float | None:
    p = float(combined_p(values[None], role)[0])
    return p if math.isfinite(p) else None


def _count_gains(differences: FloatArray, metric: str) -> int:
    return int((gain_sign(metric) * differences > 0).sum())


def _shares_of(table: ScoreTable, plan: Planned, rate: str) -> tuple[float, float] | None:
    """Return a rate of arm and baseline beside a distance; None beside other metrics and where nobody has it."""
    if plan.metric != DISTANCE_METRIC:
        return None
    values = [table.table(name, plan.share, plan.region, rate).values for name in (plan.arm, plan.baseline)]
    return (float(values[0].mean()), float(values[1].mean())) if all(map(len, values)) else None


def is_significant(comparison: Comparison, alpha: float) -> bool:
    """Tell whether a claim holds: interval, p of its family, mean and ranks of one sign, and seeds enough."""
    excludes_zero = comparison.ci is not None and not crosses_zero(comparison.ci)
    p = {"primary": comparison.p, "secondary": comparison.p_holm, "reported": None}[comparison.role]
    has_seeds = len(comparison.seed_deltas) >= MIN_SEEDS
    return excludes_zero and has_seeds and agrees_in_sign(comparison) and p is not None and p < alpha


def agrees_in_sign(comparison: Comparison) -> bool:
    """Tell whether the mean and the ranks of patients point the same way: else a few patients decide the mean."""
    return comparison.effect_size is not None and comparison.effect_size * comparison.delta > 0


def crosses_zero(interval: Interval) -> bool:
    """Tell whether 0 lies in an interval, its ends included."""
    return interval[0] <= 0.0 <= interval[1]


def describe(comparison: Comparison, alpha: float) -> str:
    """Say in words what a comparison found, and how far to trust it."""
    return " ".join([describe_finding(comparison, alpha), *_details(comparison), *list_cautions(comparison)])


def describe_finding(comparison: Comparison, alpha: float) -> str:
    """Say in one sentence what a comparison found."""
    title = f"{REGION_TITLES[comparison.region]} {METRIC_TITLES[comparison.metric]}"
    title += "" if IS_BETTER_HIGHER[comparison.metric] else ", lower being better,"
    interval = "" if comparison.ci is None else f" ({interval_in_words(comparison.ci, alpha)})"
    change = f"{comparison.arm} changes {title} by {comparison.delta:+.3f}{interval}"
    against = f"against {comparison.baseline} {share_in_words(comparison.share)}"
    return f"{change} {against}, which is {_judge(comparison, alpha)}; {_counts(comparison)}."


def _judge(comparison: Comparison, alpha: float) -> str:
    """Say what may be claimed, and if nothing, the first thing that is against it."""
    is_better = (comparison.delta > 0) == IS_BETTER_HIGHER[comparison.metric]
    direction = "better" if is_better else "worse"
    if is_significant(comparison, alpha):
        return f"significantly {direction}"
    has_interval, is_primary = comparison.ci is not None, comparison.role == "primary"
    obstacles = (
        (not has_interval, "one patient says nothing of others"),
        (has_interval and crosses_zero(comparison.ci or (0.0, 0.0)), "the interval crosses 0"),
        (len(comparison.seed_deltas) < MIN_SEEDS, f"{direction} in one training of each arm, it may be luck"),
        (not agrees_in_sign(comparison), "mean and ranks disagree, few patients decide it"),
        (comparison.role == "reported", "reported only, no claim was planned"),
        (is_primary, f"p is not below {alpha:g}"),
        (not is_primary, f"after Holm's correction over the secondary comparisons p is not below {alpha:g}"),
    )
    return f"not significant: {next(reason for holds, reason in obstacles if holds)}"


def comparison_json(comparison: Comparison, alpha: float) -> dict[str, Any]:
    """Return what gain.json says of a comparison."""
    return {
        **asdict(comparison),
        "significant": is_significant(comparison, alpha),
        "sentence": describe(comparison, alpha),
    }


def share_in_words(share: float) -> str:
    """Say how much of the real data a comparison is at."""
    if share == 0.0:
        return "without real scans"
    return "with all real scans" if share == 1.0 else f"with {share:.0%} of the real patients"


def interval_in_words(interval: Interval, alpha: float) -> str:
    """Write an interval with its level."""
    return f"{1 - alpha:.0%} CI {interval[0]:+.3f} to {interval[1]:+.3f}"


def _counts(comparison: Comparison) -> str:
    """Say in how many patients, and in how many trainings, the arm is better and worse."""
    by_seed = np.array(comparison.seed_deltas)
    n_better, n_worse = (_count_gains(one, comparison.metric) for one in (by_seed, -by_seed))
    patients = f"better in {comparison.n_better} of {comparison.n_patients} patients, worse in {comparison.n_worse}"
    if len(comparison.seed_deltas) == 1:
        return patients
    return f"{patients}; better in {n_better} of {len(comparison.seed_deltas)} trainings, worse in {n_worse}"


def _details(comparison: Comparison) -> list[str]:
    details = []
    if comparison.effect_size is not None:
        details.append(f"Rank-biserial correlation {comparison.effect_size:+.2f}.")
    for what, who, shares in (
        ("missed entirely", "have", comparison.missed_shares),
        ("found falsely", "lack", comparison.false_alarm_shares),
    ):
        if shares is not None:
            arm, baseline = (f"{share:.1%}" for share in shares)
            found = f"by {comparison.arm} in {arm} of the patients who {who} it, by {comparison.baseline} in {baseline}"
            details.append(f"The region is {what} {found}.")
    if comparison.metric == DISTANCE_METRIC:
        details.append("Do not rely on the interval: of a distance a single patient can decide it.")
    return details


def list_cautions(comparison: Comparison) -> list[str]:
    """Say what is against trusting a comparison: few patients, few trainings, trainings that disagree."""
    cautions = []
    if comparison.n_patients < MIN_PATIENTS_RELIABLE:
        cautions.append(f"Unreliable: {comparison.n_patients} test patients, fewer than {MIN_PATIENTS_RELIABLE}.")
    if len(comparison.seed_deltas) == 1:
        cautions.append("One training per arm: the spread between trainings is not in the interval.")
    elif min(comparison.seed_deltas) < 0 < max(comparison.seed_deltas):
        cautions.append("The trainings disagree in sign.")
    return cautions
