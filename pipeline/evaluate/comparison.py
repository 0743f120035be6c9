"""Planned comparisons of arms: paired differences by patient, their intervals and tests, and what they say in words.

References
----------
Wilcoxon 1945, doi:10.2307/3001968. Holm 1979, "A simple sequentially rejective multiple test procedure",
https://www.jstor.org/stable/4615733. Kerby 2014, "The simple difference formula", doi:10.2466/11.IT.3.1 (matched-pairs
rank-biserial correlation).
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from pipeline.evaluate.intervals import Interval, Statistics, mean_interval
from pipeline.evaluate.scores import FloatArray, ScoreTable
from pipeline.labels import REGION_TITLES
from pipeline.segmentation.catalogue import IS_BETTER_HIGHER, METRIC_TITLES, METRICS_BY_NAME, PLANNED_METRICS

MIN_PATIENTS_RELIABLE = 20
# One training of each arm cannot tell an arm from the luck of a training.
MIN_SEEDS = 2
COMPARISON_DEFINITIONS = {
    "delta": "arm minus baseline, paired by patient; a patient's value is the mean over seeds",
    "ci": (
        "bootstrap over patients and seeds (BCa; percentiles where degenerate), widened on each side to Cochran and "
        "Cox's t interval with patients and seeds as two samples; with one seed over patients only: it then says "
        "nothing of other trainings"
    ),
    "p_holm": (
        "Wilcoxon signed-rank over patients, two-sided, Holm over all planned comparisons; null if all differences "
        "are 0"
    ),
    "effect_size": (
        "matched-pairs rank-biserial correlation: the ranks of the absolute differences of patients with a higher "
        "value in the arm, less those of patients with a lower one, over all ranks; from -1 to 1, zeros left out"
    ),
    "significant": f"the interval leaves 0 out, p_holm is below alpha, and arms have {MIN_SEEDS} trainings or more",
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
    """

    arm: str
    baseline: str
    share: float
    region: str
    metric: str


@dataclass(frozen=True)
class Comparison:
    """An arm against its baseline, at one share, for one region and metric.

    Parameters
    ----------
    arm, baseline, region, metric : str
    delta : float
        Mean over patients of arm minus baseline; a patient's value is the mean over seeds.
    ci : tuple of float or None
    p, p_holm : float or None
        Wilcoxon signed-rank, two-sided; corrected over all planned comparisons. None if all differences are 0.
    n_patients : int
    seed_deltas : tuple of float
        The mean difference in each seed by itself.
    share : float
        Of the real data.
    effect_size : float or None
        Matched-pairs rank-biserial correlation; None if all differences are 0.
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


def plan_comparisons(
    pairs: Sequence[tuple[str, str]],
    shares: Sequence[float],
    regions: Sequence[str],
    metrics: Sequence[str] = PLANNED_METRICS,
    without_real: Collection[str] = (),
) -> tuple[Planned, ...]:
    """List the comparisons of a run: Holm corrects for all of them, so that they are named before it.

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
    p_values = [wilcoxon_p(values.mean(axis=1)) for values in differences]
    return [
        Comparison(
            arm=plan.arm,
            baseline=plan.baseline,
            region=plan.region,
            metric=plan.metric,
            delta=float(values.mean()),
            ci=mean_interval(values, statistics, METRICS_BY_NAME[plan.metric].difference_bounds),
            p=p,
            p_holm=p_holm,
            n_patients=len(values),
            seed_deltas=tuple(float(value) for value in values.mean(axis=0)),
            share=plan.share,
            effect_size=rank_biserial(values.mean(axis=1)),
        )
        for plan, values, p, p_holm in zip(planned, differences, p_values, holm(p_values), strict=True)
    ]


def wilcoxon_p(differences: FloatArray) -> float | None:
    """Return the two-sided p of Wilcoxon's signed-rank test (zeros left out); None if all differences are 0."""
    if not differences.any():
        return None
    p = float(stats.wilcoxon(differences).pvalue)
    return p if math.isfinite(p) else None


def rank_biserial(differences: FloatArray) -> float | None:
    """Return the matched-pairs rank-biserial correlation (zeros left out), in [-1, 1]; None if all are 0."""
    signed = differences[differences != 0]
    if not len(signed):
        return None
    ranks = stats.rankdata(np.abs(signed))
    return float((np.sign(signed) * ranks).sum() / ranks.sum())


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values by Holm's step-down; one that could not be computed counts among the tests and stays None."""
    n = len(p_values)
    order = sorted(range(n), key=lambda index: 1.0 if (p := p_values[index]) is None else p)
    corrected: list[float | None] = [None] * n
    running = 0.0
    for rank, index in enumerate(order):
        p = p_values[index]
        if p is not None:
            running = max(running, min(1.0, (n - rank) * p))
            corrected[index] = running
    return corrected


def is_significant(comparison: Comparison, alpha: float) -> bool:
    """Tell whether the interval leaves 0 out, the corrected p is below the level and there are seeds enough."""
    excludes_zero = comparison.ci is not None and not crosses_zero(comparison.ci)
    small_p = comparison.p_holm is not None and comparison.p_holm < alpha
    return excludes_zero and small_p and len(comparison.seed_deltas) >= MIN_SEEDS


def crosses_zero(interval: Interval) -> bool:
    """Tell whether 0 lies in an interval, its ends included."""
    return interval[0] <= 0.0 <= interval[1]


def describe(comparison: Comparison, alpha: float) -> str:
    """Say in words what a comparison found, and how far to trust it."""
    return " ".join([describe_finding(comparison, alpha), *_effect(comparison), *list_cautions(comparison)])


def describe_finding(comparison: Comparison, alpha: float) -> str:
    """Say in one sentence what a comparison found."""
    title = f"{REGION_TITLES[comparison.region]} {METRIC_TITLES[comparison.metric]}"
    change = f"{comparison.arm} changes {title} by {comparison.delta:+.3f}"
    if comparison.ci is not None:
        change += f" ({interval_in_words(comparison.ci, alpha)})"
    against = f"against {comparison.baseline} {share_in_words(comparison.share)}"
    return f"{change} {against}, which is {_judge(comparison, alpha)}."


def _judge(comparison: Comparison, alpha: float) -> str:
    is_better = (comparison.delta > 0) == IS_BETTER_HIGHER[comparison.metric]
    if comparison.ci is None:
        return "not significant: one patient says nothing of others"
    if crosses_zero(comparison.ci):
        return "not significant: the interval crosses 0"
    if len(comparison.seed_deltas) < MIN_SEEDS:
        return f"{'better' if is_better else 'worse'} in one training of each arm, not significant: it may be luck"
    if not is_significant(comparison, alpha):
        return "not significant after correction for all comparisons"
    return "significantly better" if is_better else "significantly worse"


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


def _effect(comparison: Comparison) -> list[str]:
    return [] if comparison.effect_size is None else [f"Rank-biserial correlation {comparison.effect_size:+.2f}."]


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
