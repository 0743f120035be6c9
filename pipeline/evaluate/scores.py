"""Scores of all trainings, indexed once: by arm, share of the real data, region and metric."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.segmentation.catalogue import METRICS_BY_NAME

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """One figure: of one training, one patient, one region, one metric.

    Parameters
    ----------
    arm : str
    seed : int
        Running number of the training.
    patient, region, metric : str
    value : float
    share : float
        Share of the real training patients that the training used; 0 in arms without real scans.
    """

    arm: str
    seed: int
    patient: str
    region: str
    metric: str
    value: float
    share: float = 1.0


@dataclass(frozen=True)
class PatientTable:
    """Values by patient and training.

    Parameters
    ----------
    patients : tuple of str
        Sorted.
    seeds : tuple of int
        Sorted.
    values : ndarray, (patients, seeds), float64
    """

    patients: tuple[str, ...]
    seeds: tuple[int, ...]
    values: FloatArray

    def __len__(self) -> int:
        return len(self.patients)

    def by_patient(self) -> FloatArray:
        """Return each patient's mean over trainings: (patients,), float64."""
        means: FloatArray = self.values.mean(axis=1)
        return means

    def take(self, patients: Iterable[str]) -> "PatientTable":
        """Return the rows of some patients; who is not in the table is left out."""
        wanted = set(patients)
        rows = [number for number, patient in enumerate(self.patients) if patient in wanted]
        return PatientTable(tuple(self.patients[row] for row in rows), self.seeds, self.values[rows])


EMPTY_TABLE = PatientTable((), (), np.empty((0, 0)))


class ScoreTable:
    """All scores, to be asked for by arm, share, region and metric.

    Parameters
    ----------
    scores : iterable of Score
    diagonal_mm : float, optional
        Of the test patients' images: no distance is larger.
    """

    def __init__(self, scores: Iterable[Score], diagonal_mm: float = math.inf) -> None:
        self._diagonal_mm = diagonal_mm
        self._values: dict[tuple[str, float, str, str], dict[tuple[str, int], float]] = {}
        for score in scores:
            key = (score.arm, score.share, score.region, score.metric)
            self._values.setdefault(key, {})[score.patient, score.seed] = score.value
        self._tables: dict[tuple[str, float, str, str], PatientTable] = {}
        keys = list(self._values)
        self.arms = tuple(dict.fromkeys(arm for arm, _, _, _ in keys))
        self.regions = tuple(dict.fromkeys(region for _, _, region, _ in keys))
        self.metrics = tuple(dict.fromkeys(metric for _, _, _, metric in keys))
        self._shares = {arm: tuple(sorted({share for other, share, _, _ in keys if other == arm})) for arm in self.arms}

    def bounds(self, metric: str) -> tuple[float, float]:
        """Return the least and greatest value that a metric can have in these patients."""
        low, high = METRICS_BY_NAME[metric].bounds
        return low, min(high, self._diagonal_mm) if METRICS_BY_NAME[metric].unit == "mm" else high

    def difference_bounds(self, metric: str) -> tuple[float, float]:
        """Return the least and greatest difference between two values of a metric."""
        low, high = self.bounds(metric)
        return low - high, high - low

    def shares(self, arm: str) -> tuple[float, ...]:
        """Return the shares of the real data that an arm was trained with, rising."""
        return self._shares.get(arm, ())

    def table(self, arm: str, share: float, region: str, metric: str) -> PatientTable:
        """Return an arm's values at a share; an arm without real scans has the same at every share.

        Every training scores every patient. What has not been scored gives an empty table.

        Raises
        ------
        DataError
            If a training lacks some of the patients.
        """
        known = self.shares(arm)
        key = (arm, 0.0 if known == (0.0,) else share, region, metric)
        if key not in self._tables:
            self._tables[key] = self._arrange(arm, self._values.get(key, {}))
        return self._tables[key]

    def difference(self, arm: str, baseline: str, share: float, region: str, metric: str) -> PatientTable:
        """Return arm minus baseline, paired by patient and seed.

        Raises
        ------
        DataError
            If the two have not scored the same patients with the same seeds, or nothing at all.
        """
        first, second = (self.table(name, share, region, metric) for name in (arm, baseline))
        if not len(first) or (first.patients, first.seeds) != (second.patients, second.seeds):
            raise DataError(
                f"{arm} against {baseline} at a share of {share:g}, {region} {metric}; expected the same patients and "
                f"seeds on both sides, got {len(first)} x {len(first.seeds)} and {len(second)} x "
                f"{len(second.seeds)}; run the stage evaluate again"
            )
        return PatientTable(first.patients, first.seeds, first.values - second.values)

    def _arrange(self, arm: str, values: dict[tuple[str, int], float]) -> PatientTable:
        if not values:
            return EMPTY_TABLE
        patients = tuple(sorted({patient for patient, _ in values}))
        seeds = tuple(sorted({seed for _, seed in values}))
        if len(values) != len(patients) * len(seeds):
            raise DataError(
                f"scores of {arm}; expected every patient with every seed, {len(patients)} x {len(seeds)}, got "
                f"{len(values)}; run the stage evaluate again"
            )
        rows = [[values[patient, seed] for seed in seeds] for patient in patients]
        return PatientTable(patients, seeds, np.array(rows, np.float64))
