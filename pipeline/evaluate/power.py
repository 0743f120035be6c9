"""What a plan can find: the smallest paired difference that it detects, before anything is trained.

The planned comparisons are judged as :mod:`pipeline.evaluate.comparison` judges them: the interval must leave 0 out and
Wilcoxon's p, corrected as if this comparison were the only one that differs, must be below the level.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipeline.evaluate.comparison import MIN_SEEDS
from pipeline.evaluate.intervals import half_widths
from pipeline.evaluate.scores import FloatArray
from pipeline.evaluate.simulation import Spread, simulate_differences

N_SIMULATED = 1000
BISECTIONS = 12
# Beyond this many standard deviations of a patient's difference, what is not found is not to be found.
MAX_SHIFT_SD = 20.0
# Assumed before anything is known of an evaluation; afterwards :func:`estimate_spread` tells. Trainings of a plateau:
# short ones differ three times as much.
ASSUMED_SPREADS = {"dice": Spread(0.06, 0.03, 0.06), "hd95": Spread(6.0, 3.0, 6.0)}


@dataclass(frozen=True)
class Study:
    """The size of a plan.

    Parameters
    ----------
    n_patients, n_seeds : int
    n_comparisons : int
        Planned ones, all of them: Holm corrects for these.
    alpha : float
    """

    n_patients: int
    n_seeds: int
    n_comparisons: int
    alpha: float


def smallest_detectable_gain(study: Study, spread: Spread, power: float = 0.8) -> float | None:
    """Return the smallest mean difference that a study finds with this probability.

    Parameters
    ----------
    study : Study
    spread : Spread
        Of the paired differences, as assumed: in the metric's unit.
    power : float

    Returns
    -------
    float or None
        In the metric's unit; None if no difference is found, however large: one seed, or too few patients for so many
        comparisons (the smallest p of Wilcoxon's test is 2 / 2^n).
    """
    if study.n_seeds < MIN_SEEDS:
        return None
    stream = np.random.default_rng(0)
    tables = simulate_differences(study.n_patients, study.n_seeds, spread, N_SIMULATED, stream)
    total_sd = float(np.sqrt(spread.patient**2 + spread.seed**2 + spread.residual**2))
    low, high = 0.0, MAX_SHIFT_SD * total_sd
    if detection_rate(tables + high, study) < power:
        return None
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if detection_rate(tables + middle, study) < power else (low, middle)
    return high


def detection_rate(tables: FloatArray, study: Study) -> float:
    """Return the share of tables whose mean is found to differ from 0: (tables, patients, seeds), float64."""
    outside = np.abs(tables.mean(axis=(1, 2))) > half_widths(tables, study.alpha)
    # Where the interval holds 0 nothing is found, whatever the test says.
    if not outside.any():
        return 0.0
    p_values = stats.wilcoxon(tables[outside].mean(axis=2), axis=1).pvalue
    return float((p_values * study.n_comparisons < study.alpha).sum() / len(tables))


def describe_power(study: Study, spread: Spread, unit: str = "", power: float = 0.8, is_measured: bool = False) -> str:
    """Say in words what a plan can find, with a spread that was assumed before it or measured after it."""
    gain = smallest_detectable_gain(study, spread, power)
    size = (
        f"{study.n_patients} test patients, {study.n_seeds} {'seed' if study.n_seeds == 1 else 'seeds'} and "
        f"{study.n_comparisons} planned comparisons"
    )
    origin = "measured" if is_measured else "assumed"
    known = (
        f"{origin} standard deviations of the paired difference: {spread.patient:.2g} between patients, "
        f"{spread.seed:.2g} between trainings, {spread.residual:.2g} else"
    )
    if gain is None:
        return f"{size} find no difference, however large; more seeds, more patients or fewer comparisons would."
    found = f"{gain:.3f}{' ' if unit else ''}{unit}"
    return f"{size} find a mean difference of {found} or more with a probability of {power:.0%} ({known})."
