"""Statistics of membership inference: by patient, with intervals, and with what a cohort cannot resolve said so.

References
----------
Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve", doi:10.1148/radiology.143.1.7063747.
Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404. Efron 1987 (BCa), doi:10.1080/01621459.1987.10478410.
Holm 1979, "A simple sequentially rejective multiple test procedure".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Scores = NDArray[np.float64]
Interval = tuple[float, float]

FPR_LEVELS = (0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval and standard error.

    Parameters
    ----------
    value : float
    ci : tuple of float
        Lower and upper bound, two-sided.
    standard_error : float
    n_free : float
        Degrees of freedom of the standard error.
    """

    value: float
    ci: Interval
    standard_error: float
    n_free: float = np.inf


def auc(member: Scores, nonmember: Scores) -> float:
    """Return the probability that a member scores above a non-member; ties count half.

    Parameters
    ----------
    member, nonmember : ndarray, (n,) and (m,), float64
        Neither empty.
    """
    ranks = stats.rankdata(np.concatenate([member, nonmember]))
    n, m = len(member), len(nonmember)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def win_matrix(member: Scores, nonmember: Scores) -> NDArray[np.float32]:
    """Return for each member and non-member 1 if the member scores above, 1/2 for a tie, else 0: (n, m), float32."""
    above = member[:, None] > nonmember[None]
    level = member[:, None] == nonmember[None]
    wins: NDArray[np.float32] = above.astype(np.float32) + np.float32(0.5) * level
    return wins


def auc_estimate(
    member: Scores, nonmember: Scores, n_bootstrap: int, alpha: float, stream: np.random.Generator
) -> Estimate:
    """Return the AUC with a bias-corrected and accelerated bootstrap interval, patients resampled on each side.

    Where the correction is undefined (perfect separation, fewer than three patients a side) the interval is the
    percentile one, widened to what Hanley and McNeil's standard error at the nearest inner AUC gives.
    """
    n, m = len(member), len(nonmember)
    wins = win_matrix(member, nonmember).astype(np.float64)
    value = float(wins.mean())
    times_n = stream.multinomial(n, np.full(n, 1 / n), size=n_bootstrap)
    times_m = stream.multinomial(m, np.full(m, 1 / m), size=n_bootstrap)
    draws = np.einsum("bi,bi->b", times_n @ wins, times_m) / (n * m)
    inner = float(np.clip(value, 0.5 / (n + m), 1 - 0.5 / (n + m)))
    floor = hanley_mcneil(inner, n, m)
    standard_error = max(float(draws.std(ddof=1)), floor if draws.std() == 0 else 0.0)
    if n < 3 or m < 3 or draws.std() == 0:
        z = float(stats.norm.ppf(1 - alpha / 2))
        ci = (max(0.0, value - z * floor), min(1.0, value + z * floor))
        return Estimate(value, ci, standard_error)
    without_member = (wins.sum() - wins.sum(axis=1)) / ((n - 1) * m)
    without_nonmember = (wins.sum() - wins.sum(axis=0)) / (n * (m - 1))
    jackknife = np.concatenate([without_member, without_nonmember])
    return Estimate(value, bca_interval(value, draws, jackknife, alpha), standard_error)


def bca_interval(value: float, draws: Scores, jackknife: Scores, alpha: float) -> Interval:
    """Return the BCa interval (Efron 1987) of a figure from its bootstrap draws and its jackknife values."""
    below = (np.sum(draws < value) + 0.5 * np.sum(draws == value)) / len(draws)
    bias = stats.norm.ppf(np.clip(below, 1 / (len(draws) + 1), len(draws) / (len(draws) + 1)))
    spread = jackknife.mean() - jackknife
    denominator = 6.0 * np.sum(spread**2) ** 1.5
    acceleration = np.sum(spread**3) / denominator if denominator > 0 else 0.0
    z = stats.norm.ppf([alpha / 2, 1 - alpha / 2])
    shifted = bias + (bias + z) / (1 - acceleration * (bias + z))
    low, high = np.quantile(draws, stats.norm.cdf(shifted))
    return float(low), float(high)


def hanley_mcneil(value: float, n_members: int, n_nonmembers: int) -> float:
    """Return the standard error of an AUC (Hanley and McNeil 1982)."""
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = (value * (1 - value) + (n_members - 1) * (q1 - value**2) + (n_nonmembers - 1) * (q2 - value**2)) / (
        n_members * n_nonmembers
    )
    return float(np.sqrt(max(variance, 0.0)))


def clopper_pearson(n_hits: int, n: int, alpha: float) -> Interval:
    """Return the exact two-sided interval of a share; its coverage is at least 1 - alpha."""
    low = 0.0 if n_hits == 0 else float(stats.beta.ppf(alpha / 2, n_hits, n - n_hits + 1))
    high = 1.0 if n_hits == n else float(stats.beta.ppf(1 - alpha / 2, n_hits + 1, n - n_hits))
    return low, high


def patients_to_certify(fpr: float, alpha: float = 0.05) -> int:
    """Return how many non-members without a false alarm certify a false-positive rate: (1 - fpr)^n <= alpha."""
    return int(np.ceil(np.log(alpha) / np.log1p(-fpr)))


def certified_false_alarms(fpr: float, n_nonmembers: int, alpha: float = 0.05) -> int | None:
    """Return the most false alarms that certify a false-positive rate at one-sided level alpha; None if none do."""
    counts = np.arange(n_nonmembers)
    bounds = stats.beta.ppf(1 - alpha, counts + 1, n_nonmembers - counts)
    fitting = np.flatnonzero(bounds <= fpr)
    return int(fitting[-1]) if len(fitting) else None


def tpr_at_fpr(member: Scores, nonmember: Scores, fpr: float, alpha: float) -> dict[str, object]:
    """Return the share of members found where at most a share ``fpr`` of non-members is called a member.

    Returns
    -------
    dict
        ``value``, ``ci`` (Clopper-Pearson) and ``resolved``: whether there are enough non-members to certify the rate,
        with so few false alarms that its one-sided 95% bound is not above ``fpr``; if not, the observed rate is not.
    """
    certified = certified_false_alarms(fpr, len(nonmember))
    n_allowed = int(np.floor(fpr * len(nonmember))) if certified is None else certified
    threshold = np.sort(nonmember)[::-1][n_allowed]
    n_found = int((member > threshold).sum())
    return {
        "value": n_found / len(member),
        "ci": list(clopper_pearson(n_found, len(member), alpha)),
        "resolved": certified is not None,
    }


def epsilon_lower_bound(member: Scores, nonmember: Scores, alpha: float, delta: float = 0.0) -> tuple[float, float]:
    """Return an empirical lower bound of epsilon and the largest that so many patients could have shown.

    Threshold and sign are fixed beforehand, without knowing who is a member: as many of all the scores are called
    members as there are members, the highest. Both forms of the bound rest on the same two one-sided Clopper-Pearson
    bounds, each at half the level; a turned sign, seen and then used, would be a second test. They take persons for
    independent, as those of one training are not quite: indicative, where :func:`one_run_epsilon` of coins is valid.

    Returns
    -------
    lower, resolvable : float
        Both >= 0.
    """
    threshold = float(np.sort(np.concatenate([member, nonmember]))[::-1][len(member)])
    n_true, n_false = int((member > threshold).sum()), int((nonmember > threshold).sum())
    lower = _epsilon(n_true, len(member), n_false, len(nonmember), alpha, delta)
    return lower, _epsilon(len(member), len(member), 0, len(nonmember), alpha, delta)


def one_run_epsilon(n_canaries: int, n_guesses: int, n_correct: int, alpha: float, delta: float = 0.0) -> float:
    """Return a lower bound of epsilon from guesses about who of some canaries was in, each by a coin of its own.

    Of a mechanism with epsilon and delta, so many right guesses are at most as probable as that many heads of a coin
    of weight exp(epsilon) / (1 + exp(epsilon)), but for a term in delta; the bound is the largest epsilon that this
    rules out at level alpha.

    Parameters
    ----------
    n_canaries, n_guesses, n_correct : int
        Who guesses may abstain: guesses are at most as many as canaries.
    alpha : float
        One-sided.
    delta : float

    Returns
    -------
    float
        >= 0.

    References
    ----------
    Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run", arXiv:2305.08846, theorem 5.2.
    """

    def probability(epsilon: float) -> float:
        weight = 1.0 / (1.0 + np.exp(-epsilon))
        tail = float(stats.binom.sf(n_correct - 1, n_guesses, weight))
        below = np.arange(1, n_correct + 1)
        sums = np.cumsum(stats.binom.pmf(n_correct - below, n_guesses, weight))
        steepest = float(np.max(sums / below, initial=0.0))
        return tail + steepest * delta * 2 * n_canaries

    if probability(0.0) > alpha:
        return 0.0
    low, high = 0.0, 1.0
    while probability(high) <= alpha and high < MAX_EPSILON:
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) <= alpha else (low, middle)
    return low


def permutation_p(
    scores: Scores, is_member: NDArray[np.bool_], n_permutations: int, stream: np.random.Generator
) -> tuple[Scores, Scores]:
    """Return two-sided p values of AUCs against membership dealt out at random, of each attack and of all together.

    Parameters
    ----------
    scores : ndarray, (attacks, persons), float64
    is_member : ndarray, (persons,), bool
    n_permutations : int
    stream : numpy.random.Generator

    Returns
    -------
    p, p_adjusted : ndarray, (attacks,), float64
        How often chance is as far from .5 by that attack, and by any: attacks that agree are not corrected twice.

    References
    ----------
    Westfall and Young 1993, "Resampling-based multiple testing" (the maximum over tests).
    """
    ranks = stats.rankdata(scores, axis=1)
    n, m = int(is_member.sum()), int((~is_member).sum())

    def distance(sums: Scores) -> Scores:
        found: Scores = np.abs((sums - n * (n + 1) / 2) / (n * m) - 0.5)
        return found

    observed = distance(ranks[:, is_member].sum(axis=1))
    permuted = np.array([distance(ranks[:, stream.permutation(n + m)[:n]].sum(axis=1)) for _ in range(n_permutations)])
    alone = (permuted >= observed - 1e-12).sum(axis=0)
    together = (permuted.max(axis=1)[:, None] >= observed - 1e-12).sum(axis=0)
    return (1 + alone) / (1 + n_permutations), (1 + together) / (1 + n_permutations)


def smallest_permutation_p(n_members: int, n_nonmembers: int, n_permutations: int) -> float:
    """Return the smallest two-sided p that so many persons and permutations can give."""
    return max(2.0 / float(special.comb(n_members + n_nonmembers, n_members)), 1.0 / (1 + n_permutations))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values, in the order given."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[int(index)]))
        adjusted[index] = running
    return [float(p) for p in adjusted]


def p_above(estimate: Estimate, limit: float, n: int) -> float:
    """Return the one-sided p value that an AUC, with the sign an attacker would choose, is not above a limit.

    The standard error is brought to what it would be at the limit: near 1 an AUC varies less.

    Parameters
    ----------
    estimate : Estimate
    limit : float
    n : int
        Of persons: how near to 1 the truth can be told to lie.
    """
    either = max(estimate.value, 1 - estimate.value)
    if either <= limit:
        return 1.0
    inner = min(either, 1 - 0.5 / n)
    at_limit = estimate.standard_error * np.sqrt(limit * (1 - limit) / (inner * (1 - inner)))
    return float(stats.t.sf((either - limit) / max(at_limit, 1e-9), estimate.n_free))


def smallest_auc_above(
    limit: float, n_members: int, n_nonmembers: int, level: float, stream: np.random.Generator, power: float = 0.8
) -> float | None:
    """Return the smallest AUC that is found to lie above a limit with this power, by simulation of normal scores.

    Parameters
    ----------
    limit : float
    n_members, n_nonmembers : int
    level : float
        One-sided, of a single test.
    stream : numpy.random.Generator
    power : float

    Returns
    -------
    float or None
        None if not even an AUC of .99 is found.
    """
    members = stream.normal(size=(POWER_SIMULATIONS, n_members))
    nonmembers = stream.normal(size=(POWER_SIMULATIONS, n_nonmembers))
    for candidate in np.arange(limit + 0.01, 0.995, 0.01):
        shift = np.sqrt(2.0) * stats.norm.ppf(candidate)
        found = stats.mannwhitneyu(members + shift, nonmembers, axis=1, method="asymptotic").statistic
        n = n_members + n_nonmembers
        values = [float(value) for value in found / (n_members * n_nonmembers)]
        errors = [hanley_mcneil(min(value, 1 - 0.5 / n), n_members, n_nonmembers) for value in values]
        estimates = [Estimate(value, (value, value), error) for value, error in zip(values, errors, strict=True)]
        if float(np.mean([p_above(one, limit, n) < level for one in estimates])) >= power:
            return round(float(candidate), 2)
    return None


POWER_SIMULATIONS = 400
MAX_EPSILON, BISECTIONS = 64.0, 40


def _epsilon(n_true: int, n_members: int, n_false: int, n_nonmembers: int, alpha: float, delta: float) -> float:
    """Return log((TPR_low - delta) / FPR_high) or the same of TNR and FNR, whichever is larger, at least 0."""
    tpr_low, _ = clopper_pearson(n_true, n_members, alpha)
    _, fpr_high = clopper_pearson(n_false, n_nonmembers, alpha)
    ratios = [(tpr_low - delta, fpr_high), (1 - fpr_high - delta, 1 - tpr_low)]
    return max([0.0, *(float(np.log(a / b)) for a, b in ratios if a > 0 and b > 0)])
