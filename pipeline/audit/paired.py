"""The paired figure: every person attacked when in and when out, compared with himself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.audit.attacks.likelihood_ratio import standardise
from pipeline.audit.targets import Scores
from pipeline.statistics import Estimate, Interval, hanley_mcneil

# A variance between fewer is hardly known.
MIN_PAIRS = 4


@dataclass(frozen=True)
class PairedFigure:
    """What this procedure leaks at this cohort size, by one attack.

    Parameters
    ----------
    attack : str
    estimate : Estimate
        AUC of scores in against scores out.
    n_patients, n_references : int
    covers_generators : bool
        Whether the interval covers the spread between generators too.
    """

    attack: str
    estimate: Estimate
    n_patients: int
    n_references: int
    covers_generators: bool


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


def paired_figure(attack: str, scores: Scores, is_member: NDArray[np.bool_], alpha: float) -> PairedFigure:
    """Return the paired AUC with an interval over persons, and over pairs of references if there are enough.

    Parameters
    ----------
    attack : str
        Its name.
    scores : ndarray, (references, persons), float64
    is_member : ndarray, (references, persons), bool
    alpha : float
    """
    calibrated = calibrate(scores)
    n_references, n_patients = calibrated.shape
    covers_generators = n_references // 2 >= MIN_PAIRS
    value, influence = auc_influence(calibrated, is_member)
    variance, n_free = clustered_variance(influence, covers_generators)
    # Where all are told apart nothing varies, and that is no certainty.
    inner = float(np.clip(value, 0.5 / n_patients, 1 - 0.5 / n_patients))
    error = float(np.sqrt(variance)) if variance > 0 else hanley_mcneil(inner, n_patients, n_patients)
    half = float(stats.t.ppf(1 - alpha / 2, n_free)) * error
    ci: Interval = (max(0.0, value - half), min(1.0, value + half))
    return PairedFigure(attack, Estimate(value, ci, error, n_free), n_patients, n_references, covers_generators)


def auc_influence(calibrated: Scores, is_member: NDArray[np.bool_]) -> tuple[float, Scores]:
    """Return the AUC of scores in against scores out, and how much each score moves it: (references, persons).

    To first order the AUC of other persons and generators differs by the sum of such influences.
    """
    inside, outside = calibrated[is_member], calibrated[~is_member]
    ranks = stats.rankdata(np.concatenate([inside, outside]))
    n, m = len(inside), len(outside)
    below = (ranks[:n] - stats.rankdata(inside)) / m
    above = 1 - (ranks[n:] - stats.rankdata(outside)) / n
    value = float(below.mean())
    influence = np.zeros_like(calibrated)
    influence[is_member] = (below - value) / n
    influence[~is_member] = (above - value) / m
    return value, influence


def clustered_variance(influence: Scores, covers_generators: bool) -> tuple[float, float]:
    """Return the variance of an AUC and its degrees of freedom, from the influences of its scores.

    A person's scores belong together, and so do those of a pair of references: the variance is that between persons,
    and what that between pairs has beyond what the scores' own spread explains. A bootstrap over persons and pairs
    counts that spread three times: its 95 % intervals held the truth in 99 % and more (benchmarks/audit_coverage.py).

    Parameters
    ----------
    influence : ndarray, (references, persons), float64
        Rows 2 i and 2 i + 1 are a pair.
    covers_generators : bool
        Else the generators are taken as they are.

    References
    ----------
    Cameron, Gelbach, Miller 2011, "Robust inference with multiway clustering", doi:10.1198/jbes.2010.07136.
    Satterthwaite 1946, doi:10.2307/3002019 (degrees of freedom).
    """
    n_references, n_persons = influence.shape
    of_persons = float((influence.sum(axis=0) ** 2).sum()) * n_persons / (n_persons - 1)
    if not covers_generators:
        return of_persons, n_persons - 1.0
    n_pairs = n_references // 2
    by_pair = influence.reshape(n_pairs, 2, n_persons).sum(axis=1)
    of_pairs = float((by_pair.sum(axis=1) ** 2).sum()) * n_pairs / (n_pairs - 1)
    excess = of_pairs - float((by_pair**2).sum())
    if excess <= 0:
        return of_persons, n_persons - 1.0
    variance = of_persons + excess
    return variance, variance**2 / (of_persons**2 / (n_persons - 1) + of_pairs**2 / (n_pairs - 1))


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
