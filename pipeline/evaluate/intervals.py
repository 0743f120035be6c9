"""Intervals of a mean over patients and trainings, both of which are samples.

The bootstrap alone is too sure of itself: three trainings, drawn again, vary by two thirds of what three new ones
would. Nominally at 95%, it held a true difference of 0 in 79 to 94% of simulated studies of 3 seeds whose trainings
differ. So it is widened to a t interval that counts patients and trainings as two samples with their own degrees of
freedom: then 95% or more, at 10 to 40 patients, 3 and 5 seeds. With one seed nothing helps: 28 to 96%, by how much
trainings differ (``tests/campaigns/gain_coverage.py``). That is so of Dice of regions that patients have. HD95 jumps by
a diagonal where a region is missed: if that is so in 2% of patients, an interval of 20 holds the mean in 35%.

The spread of trainings is each comparison's own. Pooled over arms it would halve intervals of 3 seeds, but if one arm's
trainings scatter two or three times as much as the others', such an interval holds the truth in 80 to 94% only.

References
----------
Efron 1987, "Better bootstrap confidence intervals", doi:10.1080/01621459.1987.10478410. Owen 2007, "The pigeonhole
bootstrap", doi:10.1214/07-AOAS122. Cochran and Cox 1957, "Experimental designs", 2nd ed., section 4.14 (t for a sum of
two variances).
"""

import math
import warnings
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import stats

from pipeline.evaluate.scores import FloatArray

Interval = tuple[float, float]
UNBOUNDED = (-math.inf, math.inf)


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


def summarise(table: FloatArray, statistics: Statistics, bounds: tuple[float, float] = UNBOUNDED) -> Summary:
    """Summarise values over patients.

    Parameters
    ----------
    table : ndarray, (patients, seeds), float64
        At least one patient.
    statistics : Statistics
    bounds : tuple of float
        Of the metric: the interval does not go beyond.
    """
    by_patient = table.mean(axis=1)
    sd = float(by_patient.std(ddof=1)) if len(by_patient) > 1 else None
    return Summary(float(by_patient.mean()), sd, mean_interval(table, statistics, bounds))


def mean_interval(
    table: FloatArray, statistics: Statistics, bounds: tuple[float, float] = UNBOUNDED
) -> Interval | None:
    """Return the interval of a mean over patients and trainings.

    Parameters
    ----------
    table : ndarray, (patients, seeds), float64
    statistics : Statistics
    bounds : tuple of float
        Least and greatest value that the mean can have: the interval does not go beyond.

    Returns
    -------
    tuple of float or None
        On each side the farther end of :func:`bootstrap_interval` and :func:`t_interval`; None with fewer than two
        patients. With one training it says nothing of others.
    """
    bootstrap, crossed = bootstrap_interval(table, statistics), t_interval(table, statistics.alpha)
    if crossed is None:
        return None
    low, high = crossed if bootstrap is None else (min(bootstrap[0], crossed[0]), max(bootstrap[1], crossed[1]))
    return max(low, bounds[0]), min(high, bounds[1])


@dataclass(frozen=True)
class MeanVariances:
    """What the mean of each table varies by: patients and trainings, as two samples.

    Parameters
    ----------
    parts : ndarray, (samples, tables), float64
        Variance of the means of patients over patients, then of the trainings' over trainings: their sum is too large
        by the noise that both hold, so that it errs on the safe side. A sample of one has no part.
    n_free : tuple of int
        Degrees of freedom of each sample.
    """

    parts: FloatArray
    n_free: tuple[int, ...]

    @classmethod
    def of(cls, tables: FloatArray) -> Self:
        """Measure them, in tables of (tables, patients, seeds)."""
        means = [tables.mean(axis=axis) for axis in (2, 1)]
        samples = [sample for sample in means if sample.shape[1] > 1]
        parts = np.array([sample.var(axis=1, ddof=1) / sample.shape[1] for sample in samples])
        return cls(parts.reshape(len(samples), len(tables)), tuple(sample.shape[1] - 1 for sample in samples))

    @property
    def standard_errors(self) -> FloatArray:
        """Standard errors of the means: (tables,)."""
        errors: FloatArray = np.sqrt(self.parts.sum(axis=0))
        return errors

    def half_widths(self, alpha: float | FloatArray) -> FloatArray:
        """Return half the width of each interval by Cochran and Cox: (tables,).

        The quantile is that of each sample's own degrees of freedom, weighted by its part of the variance. With two
        trainings that is too narrow, so that no width is below that of either sample alone.

        Parameters
        ----------
        alpha : float or ndarray, (tables,), float64
        """
        weighted, alone = np.zeros(self.parts.shape[1]), np.zeros(self.parts.shape[1])
        for part, n_free in zip(self.parts, self.n_free, strict=True):
            quantile = stats.t.ppf(1 - np.asarray(alpha) / 2, n_free)
            weighted, alone = weighted + part * quantile, np.maximum(alone, quantile * np.sqrt(part))
        errors = self.standard_errors
        both = np.divide(weighted, errors, out=np.zeros_like(errors), where=errors > 0)
        widths: FloatArray = np.maximum(both, alone)
        return widths

    def strict_half_widths(self, alpha: float) -> FloatArray:
        """Return them by the quantile of the smaller sample's degrees of freedom: (tables,)."""
        widths: FloatArray = float(stats.t.ppf(1 - alpha / 2, min(self.n_free))) * self.standard_errors
        return widths


def t_interval(table: FloatArray, alpha: float) -> Interval | None:
    """Return the t interval of a mean over patients and trainings, by Cochran and Cox.

    With one training, patients alone count.

    Parameters
    ----------
    table : ndarray, (patients, seeds), float64
    alpha : float

    Returns
    -------
    tuple of float or None
        None with fewer than two patients.
    """
    if len(table) < 2:
        return None
    half = float(MeanVariances.of(table[None]).half_widths(alpha)[0])
    return float(table.mean()) - half, float(table.mean()) + half


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
