"""Comparison of arms: paired differences by patient, their intervals and tests, and what they say in words.

References
----------
Efron 1987, "Better bootstrap confidence intervals", doi:10.1080/01621459.1987.10478410. Owen 2007, "The pigeonhole
bootstrap", doi:10.1214/07-AOAS122. Wilcoxon 1945, doi:10.2307/3001968. Holm 1979, "A simple sequentially rejective
multiple test procedure", https://www.jstor.org/stable/4615733.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.labels import REGION_TITLES
from pipeline.segmentation.metrics import IS_BETTER_HIGHER, METRIC_TITLES, PLANNED_METRICS

FloatArray = NDArray[np.float64]
Interval = tuple[float, float]

MIN_PATIENTS_RELIABLE = 20


@dataclass(frozen=True)
class Score:
    """One figure: of one training, one patient, one region, one metric."""

    arm: str
    seed: int
    patient: str
    region: str
    metric: str
    value: float


@dataclass(frozen=True)
class Statistics:
    """How intervals and tests are made.

    Parameters
    ----------
    n_bootstrap : int
    alpha : float
        Level: intervals hold 1 - alpha.
    seed : int
        Of the bootstrap.
    """

    n_bootstrap: int
    alpha: float
    seed: int


@dataclass(frozen=True)
class Summary:
    """A metric of an arm over patients; None where there are too few of them."""

    mean: float
    sd: float | None
    ci: Interval | None


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline, for one region and metric.

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


def table_of(scores: Sequence[Score], arm: str, region: str, metric: str) -> FloatArray:
    """Return an arm's values: (patients, seeds), float64, both sorted.

    Every training scores every patient, so the table is full; it is (0, 0) where there are no scores.
    """
    values = {
        (score.patient, score.seed): score.value
        for score in scores
        if (score.arm, score.region, score.metric) == (arm, region, metric)
    }
    patients, seeds = sorted({patient for patient, _ in values}), sorted({seed for _, seed in values})
    return np.array([[values[patient, seed] for seed in seeds] for patient in patients]).reshape(
        len(patients), len(seeds)
    )


def summarise(table: FloatArray, statistics: Statistics) -> Summary:
    """Summarise values over patients.

    Parameters
    ----------
    table : ndarray, (patients, seeds), float64
        At least one patient.
    statistics : Statistics
    """
    by_patient = table.mean(axis=1)
    sd = float(by_patient.std(ddof=1)) if len(by_patient) > 1 else None
    return Summary(float(by_patient.mean()), sd, bootstrap_interval(table, statistics))


def bootstrap_interval(table: FloatArray, statistics: Statistics) -> Interval | None:
    """Return the bootstrap interval of a mean over patients.

    Patients are drawn with all of their seeds. With several seeds, these are drawn too, the same for all patients:
    a training moves every patient's score at once, so its spread belongs in the interval.

    Parameters
    ----------
    table : ndarray, (patients, seeds), float64
    statistics : Statistics

    Returns
    -------
    tuple of float or None
        Bias-corrected and accelerated; percentiles where that is degenerate; None with fewer than two patients.
    """
    n_patients, n_seeds = table.shape
    if n_patients < 2:
        return None

    def mean_of(*indices: FloatArray, axis: int) -> FloatArray:
        patients = indices[0].astype(int)
        # One seed is no sample to draw from.
        seeds = indices[1].astype(int) if n_seeds > 1 else np.zeros((1,) * patients.ndim, int)
        means: FloatArray = table[patients[..., :, None], seeds[..., None, :]].mean(axis=(-2, -1))
        return means

    data = (np.arange(n_patients), np.arange(n_seeds)) if n_seeds > 1 else (np.arange(n_patients),)
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            # Of degenerate data; the percentiles take over.
            warnings.simplefilter("ignore")
            interval = stats.bootstrap(
                data,
                mean_of,
                n_resamples=statistics.n_bootstrap,
                confidence_level=1.0 - statistics.alpha,
                method=method,
                vectorized=True,
                axis=-1,
                rng=np.random.default_rng(statistics.seed),
            ).confidence_interval
        if math.isfinite(interval.low) and math.isfinite(interval.high):
            return float(interval.low), float(interval.high)
    return None


def compare_arms(scores: Sequence[Score], baseline: str, statistics: Statistics) -> list[Comparison]:
    """Compare every other arm with the baseline, in every region and metric: these are the planned comparisons.

    Parameters
    ----------
    scores : sequence of Score
        The same patients and seeds in every arm.
    baseline : str
    statistics : Statistics

    Returns
    -------
    list of Comparison
        In the order in which arms, regions and metrics first occur.
    """
    arms = [arm for arm in dict.fromkeys(score.arm for score in scores) if arm != baseline]
    regions = list(dict.fromkeys(score.region for score in scores))
    planned = [(arm, region, metric) for arm in arms for region in regions for metric in PLANNED_METRICS]
    differences = [table_of(scores, *plan) - table_of(scores, baseline, *plan[1:]) for plan in planned]
    p_values = [wilcoxon_p(difference.mean(axis=1)) for difference in differences]
    rows = zip(planned, differences, p_values, holm(p_values), strict=True)
    return [
        Comparison(
            arm=arm,
            baseline=baseline,
            region=region,
            metric=metric,
            delta=float(difference.mean()),
            ci=bootstrap_interval(difference, statistics),
            p=p,
            p_holm=p_holm,
            n_patients=len(difference),
            seed_deltas=tuple(float(value) for value in difference.mean(axis=0)),
        )
        for (arm, region, metric), difference, p, p_holm in rows
    ]


def wilcoxon_p(differences: FloatArray) -> float | None:
    """Return the two-sided p of Wilcoxon's signed-rank test (zeros left out); None if all differences are 0."""
    if not differences.any():
        return None
    p = float(stats.wilcoxon(differences).pvalue)
    return p if math.isfinite(p) else None


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
    """Tell whether the interval leaves 0 out and the corrected p is below the level."""
    excludes_zero = comparison.ci is not None and not crosses_zero(comparison.ci)
    return excludes_zero and comparison.p_holm is not None and comparison.p_holm < alpha


def crosses_zero(interval: Interval) -> bool:
    """Tell whether 0 lies in an interval, its ends included."""
    return interval[0] <= 0.0 <= interval[1]


def describe(comparison: Comparison, alpha: float) -> str:
    """Say in words what a comparison found, and how far to trust it."""
    higher = comparison.delta > 0
    better = higher == IS_BETTER_HIGHER[comparison.metric]
    title = f"{REGION_TITLES[comparison.region]} {METRIC_TITLES[comparison.metric]}"
    start = f"{comparison.arm} against {comparison.baseline}, {title}: {comparison.delta:+.3f}"
    if comparison.ci is None:
        return f"{start}; no interval, not significant: one patient says nothing of others."
    low, high = comparison.ci
    start += f" ({1 - alpha:.0%} CI {low:+.3f} to {high:+.3f})"
    if crosses_zero(comparison.ci):
        finding = "not significant: the interval crosses 0"
    elif not is_significant(comparison, alpha):
        finding = "not significant after correction for all comparisons"
    else:
        finding = "significantly better" if better else "significantly worse"
    return " ".join([f"{start}, {finding}.", *_cautions(comparison)])


def _cautions(comparison: Comparison) -> list[str]:
    cautions = []
    if comparison.n_patients < MIN_PATIENTS_RELIABLE:
        cautions.append(f"Unreliable: {comparison.n_patients} test patients, fewer than {MIN_PATIENTS_RELIABLE}.")
    if len(comparison.seed_deltas) == 1:
        cautions.append("One training per arm: the spread between trainings is not in the interval.")
    elif min(comparison.seed_deltas) < 0 < max(comparison.seed_deltas):
        cautions.append("The trainings disagree in sign.")
    return cautions
