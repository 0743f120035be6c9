"""The paired figure: every person scored in and out, compared with himself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.references import ReferenceScores, calibrate
from pipeline.statistics import Estimate, auc

MIN_PAIRS_TO_RESAMPLE = 4


@dataclass(frozen=True)
class PairedFigure:
    """What this procedure leaks at this cohort size, by one attack.

    Parameters
    ----------
    attack : str
    estimate : Estimate
        AUC of scores in against scores out.
    n_patients, n_references : int
    resamples_references : bool
        Whether the interval covers the spread between generators too.
    """

    attack: str
    estimate: Estimate
    n_patients: int
    n_references: int
    resamples_references: bool


def paired_figure(
    references: ReferenceScores, attack: str, n_bootstrap: int, alpha: float, stream: np.random.Generator
) -> PairedFigure:
    """Return the paired AUC with a percentile bootstrap interval over persons, and over pairs of references if enough.

    Parameters
    ----------
    references : ReferenceScores
    attack : str
    n_bootstrap : int
    alpha : float
    stream : numpy.random.Generator
    """
    calibrated, inside = calibrate(references, attack), references.is_member
    n_references, n_patients = calibrated.shape
    n_pairs = n_references // 2
    resamples_references = n_pairs >= MIN_PAIRS_TO_RESAMPLE
    draws = np.empty(n_bootstrap)
    for index in range(n_bootstrap):
        persons = stream.integers(n_patients, size=n_patients)
        pairs = stream.integers(n_pairs, size=n_pairs) if resamples_references else np.arange(n_pairs)
        rows = np.stack([2 * pairs, 2 * pairs + 1], axis=1).ravel()
        draws[index] = _pooled_auc(calibrated[np.ix_(rows, persons)], inside[np.ix_(rows, persons)])
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    estimate = Estimate(_pooled_auc(calibrated, inside), (float(low), float(high)), float(draws.std(ddof=1)))
    return PairedFigure(attack, estimate, n_patients, n_references, resamples_references)


def patient_risk(references: ReferenceScores, attack: str) -> NDArray[np.float64]:
    """Return how much higher each person scores when in than when out, in standard deviations: (persons,)."""
    calibrated, inside = calibrate(references, attack), references.is_member
    score_in = np.where(inside, calibrated, 0).sum(axis=0) / inside.sum(axis=0)
    score_out = np.where(~inside, calibrated, 0).sum(axis=0) / (~inside).sum(axis=0)
    risk: NDArray[np.float64] = score_in - score_out
    return risk


def _pooled_auc(scores: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    return auc(scores[inside], scores[~inside])
