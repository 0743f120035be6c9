"""The p of a comparison: one figure that holds the luck of patients and that of trainings.

A training's luck moves all patients at once, so that a test over patients takes it for an effect: with ten identical
arms of 3 trainings and 20 patients, Wilcoxon's test, corrected by Holm, finds a difference in most plans
(``tests/campaigns/gain_families.py``). So p is the larger of Wilcoxon's and of a t test of the mean, whose variance is
that of patients and of trainings.

References
----------
Wilcoxon 1945, doi:10.2307/3001968. Holm 1979, "A simple sequentially rejective multiple test procedure",
https://www.jstor.org/stable/4615733. Kerby 2014, "The simple difference formula", doi:10.2466/11.IT.3.1 (matched-pairs
rank-biserial correlation).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from pipeline.evaluate.intervals import MeanVariances
from pipeline.evaluate.scores import FloatArray

# What a comparison may claim: alone at the level, corrected among its like, nothing.
Role = Literal["primary", "secondary", "reported"]
# One training of each arm cannot tell an arm from the luck of a training.
MIN_SEEDS = 2
# Halvings of the range of p.
BISECTIONS = 50


def combined_p(tables: FloatArray, role: Role) -> FloatArray:
    """Return the two-sided p of each mean: the larger of Wilcoxon's over patients and of the t test over both samples.

    The t test of the primary comparison is its interval's, by Cochran and Cox. Holm looks at small levels, where that
    is too narrow with few trainings: secondary comparisons have the degrees of freedom of the smaller sample.

    Parameters
    ----------
    tables : ndarray, (tables, patients, seeds), float64
        Paired differences.
    role : str

    Returns
    -------
    ndarray, (tables,), float64
        NaN where all differences are 0, and with fewer trainings than :data:`MIN_SEEDS` or than two patients.
    """
    n_patients, n_seeds = tables.shape[1:]
    if role == "reported" or n_seeds < MIN_SEEDS or n_patients < 2:
        return np.full(len(tables), np.nan)
    of_mean = cochran_cox_p(tables) if role == "primary" else strict_p(tables)
    larger: FloatArray = np.maximum(wilcoxon_p(tables.mean(axis=2)), of_mean)
    return larger


def wilcoxon_p(differences: FloatArray) -> FloatArray:
    """Return the two-sided p of Wilcoxon's signed-rank test, zeros left out: (tables, patients) to (tables,).

    NaN where all differences are 0.
    """
    found = np.full(len(differences), np.nan)
    differ = differences.any(axis=1)
    if differ.any():
        found[differ] = stats.wilcoxon(differences[differ], axis=1).pvalue
    return found


def strict_p(tables: FloatArray) -> FloatArray:
    """Return the p of a t test with the smaller sample's degrees of freedom: (tables, patients, seeds) to (tables,)."""
    variances = MeanVariances.of(tables)
    distance, errors = np.abs(tables.mean(axis=(1, 2))), variances.standard_errors
    statistic = np.divide(distance, errors, out=np.where(distance > 0, np.inf, 0.0), where=errors > 0)
    p: FloatArray = 2 * stats.t.sf(statistic, min(variances.n_free))
    return p


def cochran_cox_p(tables: FloatArray) -> FloatArray:
    """Return the level at which each interval by Cochran and Cox ends at 0: (tables, patients, seeds) to (tables,)."""
    variances = MeanVariances.of(tables)
    distance = np.abs(tables.mean(axis=(1, 2)))
    low, high = np.zeros(len(tables)), np.ones(len(tables))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        holds_zero = variances.half_widths(middle) >= distance
        low, high = np.where(holds_zero, middle, low), np.where(holds_zero, high, middle)
    return high


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
