"""Simulated studies: paired differences whose true mean is known, to see how often intervals hold it.

A difference between two arms, of one patient in one training, is the sum of the true mean, what this patient gains or
loses in every training, what this training does to all patients, and the rest.
"""

from dataclasses import dataclass

import numpy as np

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


def measure_coverage(tables: FloatArray, statistics: Statistics) -> float:
    """Return the share of simulated studies, (n, patients, seeds), whose interval holds the true mean of 0."""
    intervals = [mean_interval(table, statistics) for table in tables]
    return float(np.mean([interval is not None and interval[0] <= 0.0 <= interval[1] for interval in intervals]))


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
