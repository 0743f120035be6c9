"""The paired figure: every person attacked when in and when out, compared with himself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.audit.attacks.likelihood_ratio import standardise
from pipeline.audit.targets import Scores
from pipeline.statistics import Estimate, Interval, auc, win_matrix

MIN_PAIRS_TO_RESAMPLE = 4
DRAWS_AT_ONCE = 200


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


@dataclass(frozen=True)
class Risk:
    """How exposed each person is, by one attack, in standard deviations of its scores.

    Parameters
    ----------
    value : ndarray, (persons,), float64
        How much higher a person scores when in than when out.
    ci : ndarray, (persons, 2), float64
        From the spread over references, one variance for all persons; infinite with two references.
    """

    value: Scores
    ci: Scores


def calibrate(scores: Scores) -> Scores:
    """Return scores free of what belongs to the generator or to the person: (references, persons).

    Each reference's scores are standardised over persons (half of whom are in, by design), then each person's own mean
    is subtracted.
    """
    standardised = standardise(scores)
    calibrated: Scores = standardised - standardised.mean(axis=0, keepdims=True)
    return calibrated


def untouched_scores(scores: Scores, is_member: NDArray[np.bool_]) -> Scores:
    """Return each person's mean score by the references that did not see him, standardised by reference: (persons,)."""
    outside = ~is_member
    mean: Scores = np.where(outside, standardise(scores), 0).sum(axis=0) / outside.sum(axis=0)
    return mean


def paired_figure(
    attack: str,
    scores: Scores,
    is_member: NDArray[np.bool_],
    n_bootstrap: int,
    alpha: float,
    stream: np.random.Generator,
) -> PairedFigure:
    """Return the paired AUC with a percentile bootstrap interval over persons, and over pairs of references if enough.

    Parameters
    ----------
    attack : str
        Its name.
    scores : ndarray, (references, persons), float64
    is_member : ndarray, (references, persons), bool
    n_bootstrap : int
    alpha : float
    stream : numpy.random.Generator
    """
    calibrated = calibrate(scores)
    n_references, n_patients = calibrated.shape
    resamples_references = n_references // 2 >= MIN_PAIRS_TO_RESAMPLE
    draws = _bootstrap(calibrated, is_member, n_bootstrap, resamples_references, stream)
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    value = auc(calibrated[is_member], calibrated[~is_member])
    ci: Interval = (float(low), float(high))
    return PairedFigure(
        attack, Estimate(value, ci, float(draws.std(ddof=1))), n_patients, n_references, resamples_references
    )


def _bootstrap(
    calibrated: Scores,
    is_member: NDArray[np.bool_],
    n_bootstrap: int,
    resamples_references: bool,
    stream: np.random.Generator,
) -> Scores:
    """Return the AUC of each resample: (n_bootstrap,).

    A resample is a weight for each score: how often its person was drawn, times how often its pair of references was.
    """
    n_references, n_patients = calibrated.shape
    n_pairs = n_references // 2
    wins = win_matrix(calibrated[is_member], calibrated[~is_member]).astype(np.float32)
    draws = []
    for start in range(0, n_bootstrap, DRAWS_AT_ONCE):
        n = min(DRAWS_AT_ONCE, n_bootstrap - start)
        of_person = stream.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=n)
        of_pair = np.ones((n, n_pairs), int)
        if resamples_references:
            of_pair = stream.multinomial(n_pairs, np.full(n_pairs, 1 / n_pairs), size=n)
        weights = (np.repeat(of_pair, 2, axis=1)[:, :, None] * of_person[:, None, :]).astype(np.float32)
        inside, outside = weights[:, is_member], weights[:, ~is_member]
        won = np.einsum("bi,bi->b", inside @ wins, outside, dtype=np.float64)
        draws.append(won / (inside.sum(axis=1, dtype=np.float64) * outside.sum(axis=1, dtype=np.float64)))
    return np.concatenate(draws)


def patient_risk(scores: Scores, is_member: NDArray[np.bool_], alpha: float) -> Risk:
    """Return how much higher each person scores when in than when out, with intervals.

    Parameters
    ----------
    scores : ndarray, (references, persons), float64
    is_member : ndarray, (references, persons), bool
    alpha : float
    """
    calibrated = calibrate(scores)
    n_in = is_member.sum(axis=0)
    n_out = (~is_member).sum(axis=0)
    mean_in = np.where(is_member, calibrated, 0).sum(axis=0) / n_in
    mean_out = np.where(~is_member, calibrated, 0).sum(axis=0) / n_out
    value: Scores = mean_in - mean_out
    residuals = calibrated - np.where(is_member, mean_in, mean_out)
    n_free = calibrated.size - 2 * calibrated.shape[1]
    if n_free <= 0:
        return Risk(value, np.stack([np.full_like(value, -np.inf), np.full_like(value, np.inf)], axis=1))
    deviation = np.sqrt(float((residuals**2).sum()) / n_free)
    half = stats.t.ppf(1 - alpha / 2, n_free) * deviation * np.sqrt(1 / n_in + 1 / n_out)
    return Risk(value, np.stack([value - half, value + half], axis=1))
