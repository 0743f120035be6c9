"""Simulated studies: paired differences whose true mean is known, to see how often intervals hold it.

A difference between two arms, of one patient in one training, is the sum of the true mean, what this patient gains or
loses in every training, what this training does to all patients, and the rest.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from pipeline.evaluate.intervals import Statistics, mean_interval
from pipeline.evaluate.scores import FloatArray


@dataclass(frozen=True)
class Spread:
    """Standard deviations of a paired difference, in the metric's unit.

    Parameters
    ----------
    patient : float
        Between patients, the same in every training; 0 if the arms are identical.
    seed : float
        Between trainings, the same for every patient.
    residual : float
        Of a patient in a training, beside these.
    """

    patient: float
    seed: float
    residual: float


def simulate_differences(
    n_patients: int, n_seeds: int, spread: Spread, n: int, stream: np.random.Generator, heavy_tailed: bool = False
) -> FloatArray:
    """Draw studies with a true mean difference of 0.

    Parameters
    ----------
    n_patients, n_seeds : int
    spread : Spread
    n : int
        Number of studies.
    stream : numpy.random.Generator
    heavy_tailed : bool
        Patients and residuals by Laplace's law: a few patients change much among many who hardly do. Else normal.

    Returns
    -------
    ndarray, (n, patients, seeds), float64
    """

    def draw(*shape: int) -> FloatArray:
        return stream.laplace(scale=np.sqrt(0.5), size=shape) if heavy_tailed else stream.normal(size=shape)

    by_patient = spread.patient * draw(n, n_patients, 1)
    by_seed = spread.seed * stream.normal(size=(n, 1, n_seeds))
    return by_patient + by_seed + spread.residual * draw(n, n_patients, n_seeds)


def simulate_jumps(
    n_patients: int,
    n_seeds: int,
    spread: Spread,
    jump: tuple[float, float],
    n: int,
    stream: np.random.Generator,
    of_trainings: bool = False,
) -> FloatArray:
    """Draw studies in which the arm misses the region entirely in a few patients, in every training.

    Or in a few trainings, in every patient.

    Parameters
    ----------
    n_patients, n_seeds : int
    spread : Spread
        Of the others.
    jump : tuple of float
        Probability that a patient is missed, or that a training fails, and by how much it then differs, in the metric's
        unit: the true mean difference is their product.
    n : int
    stream : numpy.random.Generator
    of_trainings : bool
        Whether trainings fail, not patients.

    Returns
    -------
    ndarray, (n, patients, seeds), float64
    """
    probability, size = jump
    missed = stream.random((n, 1, n_seeds) if of_trainings else (n, n_patients, 1)) < probability
    return simulate_differences(n_patients, n_seeds, spread, n, stream) + size * missed


def measure_coverage(tables: FloatArray, statistics: Statistics, truth: float = 0.0) -> float:
    """Return the share of simulated studies, (n, patients, seeds), whose interval holds the true mean."""
    intervals = [mean_interval(table, statistics) for table in tables]
    return float(np.mean([interval is not None and interval[0] <= truth <= interval[1] for interval in intervals]))


def estimate_spread(table: FloatArray) -> Spread:
    """Estimate the spread of measured paired differences, by the mean squares of a two-way layout.

    Parameters
    ----------
    table : ndarray, (patients, seeds), float64
        Two patients and two seeds at least.

    Returns
    -------
    Spread
        A part whose estimated variance is negative is 0.
    """
    n_patients, n_seeds = table.shape
    by_patient, by_seed = table.mean(axis=1), table.mean(axis=0)
    rest = table - by_patient[:, None] - by_seed[None] + table.mean()
    residual = float((rest**2).sum()) / ((n_patients - 1) * (n_seeds - 1))
    patient = max(float(by_patient.var(ddof=1)) - residual / n_seeds, 0.0)
    seed = max(float(by_seed.var(ddof=1)) - residual / n_patients, 0.0)
    return Spread(float(np.sqrt(patient)), float(np.sqrt(seed)), float(np.sqrt(residual)))


def widen_seed_spread(table: FloatArray, alpha: float) -> Spread:
    """Estimate the spread, with the upper confidence bound of the standard deviation between trainings.

    The variance of the trainings' means has one degree of freedom less than there are trainings: of three, its
    one-sided 95% bound is 19.5 times what was measured.

    Parameters
    ----------
    table : ndarray, (patients, seeds), float64
        Two patients and two seeds at least.
    alpha : float
        One-sided.
    """
    n_patients, n_seeds = table.shape
    spread = estimate_spread(table)
    variance = float(table.mean(axis=0).var(ddof=1)) * (n_seeds - 1) / float(stats.chi2.ppf(alpha, n_seeds - 1))
    return replace(spread, seed=float(np.sqrt(max(variance - spread.residual**2 / n_patients, 0.0))))
