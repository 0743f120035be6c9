"""What a plan can find: the smallest gain that it detects, before anything is trained.

A gain is found as :mod:`pipeline.evaluate.comparison` finds it, in the right direction: the primary comparison alone at
the level, a secondary one as if it were the only one that differs among its family. The bootstrap, which may widen an
interval further, is left out: in normal data it reaches further on that side in at most 4 of 100 studies.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from pipeline.evaluate.intervals import MeanVariances
from pipeline.evaluate.scores import FloatArray
from pipeline.evaluate.significance import MIN_SEEDS
from pipeline.evaluate.simulation import Spread, simulate_differences

N_SIMULATED = 1000
BISECTIONS = 12
# Of two Dice.
LARGEST_GAIN = 1.0
# Assumed before anything is known of an evaluation; afterwards the spread is measured. Trainings of a plateau: short
# ones differ three times as much.
ASSUMED_SPREAD = Spread(0.06, 0.03, 0.06)
Family = Literal["primary", "secondary"]


@dataclass(frozen=True)
class Study:
    """The size of a plan.

    Parameters
    ----------
    n_patients, n_seeds : int
    n_secondary : int
        Planned comparisons beside the primary one: Holm corrects for these.
    alpha : float
    """

    n_patients: int
    n_seeds: int
    n_secondary: int
    alpha: float

    def level(self, family: Family) -> float:
        """Return the level at which a comparison of a family is tested, were it the only one that differs."""
        return self.alpha if family == "primary" else self.alpha / max(self.n_secondary, 1)


def smallest_detectable_gain(
    study: Study, spread: Spread, family: Family = "primary", power: float = 0.8
) -> float | None:
    """Return the smallest mean gain that a study finds with this probability.

    Parameters
    ----------
    study : Study
    spread : Spread
        Of the paired differences in Dice, as assumed.
    family : str
        Of the comparison.
    power : float

    Returns
    -------
    float or None
        In Dice; None if no gain is found, however large: one seed, too few of them for so many comparisons, or too few
        patients (the smallest p of Wilcoxon's test is 2 / 2^n).
    """
    if study.n_seeds < MIN_SEEDS or study.n_patients < 2:
        return None
    stream = np.random.default_rng(0)
    tables = simulate_differences(study.n_patients, study.n_seeds, spread, N_SIMULATED, stream)
    low, high = 0.0, LARGEST_GAIN
    if detection_rate(tables + high, study, family) < power:
        return None
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if detection_rate(tables + middle, study, family) < power else (low, middle)
    return high


def detection_rate(tables: FloatArray, study: Study, family: Family) -> float:
    """Return the share of tables that are found to gain: (tables, patients, seeds), float64."""
    return float(finds_gain(tables, study.level(family), family).mean())


def finds_gain(tables: FloatArray, level: float, family: Family) -> np.typing.NDArray[np.bool_]:
    """Tell which tables are found to gain at a level, by mean and by ranks: (tables, patients, seeds) to (tables,)."""
    variances = MeanVariances.of(tables)
    half_widths = variances.half_widths(level) if family == "primary" else variances.strict_half_widths(level)
    found: np.typing.NDArray[np.bool_] = tables.mean(axis=(1, 2)) > half_widths
    # Where the mean is not found nothing is, whatever the ranks say.
    if found.any():
        # Half the two-sided p, where ranks point to a gain.
        p_values = stats.wilcoxon(tables[found].mean(axis=2), axis=1, alternative="greater").pvalue
        found[found] = 2 * p_values < level
    return found


def describe_power(study: Study, spread: Spread, upper: Spread | None = None, power: float = 0.8) -> str:
    """Say in words what a plan can find.

    Parameters
    ----------
    study : Study
    spread : Spread
        Assumed before the run, or measured after it.
    upper : Spread, optional
        With the largest spread of trainings that so few do not rule out, where the spread was measured.
    power : float
    """
    seeds = f"{study.n_seeds} {'training' if study.n_seeds == 1 else 'trainings'} of each arm"
    kind = "assumed" if upper is None else "measured"
    said = (
        f"{study.n_patients} test patients and {seeds} would find, with a probability of {power:.0%}, "
        f"{_findable(study, spread, power)} ({kind} standard deviations of the paired difference: "
        f"{_sd_in_words(spread.patient)} between patients, {_sd_in_words(spread.seed)} between trainings, "
        f"{_sd_in_words(spread.residual)} else)."
    )
    if upper is None:
        return said
    return (
        f"{said} So few trainings do not rule out {upper.seed:.2g} between trainings; then it would be "
        f"{_findable(study, upper, power)}."
    )


def _findable(study: Study, spread: Spread, power: float) -> str:
    """Say how large a gain must be to be found, in each family of comparisons."""
    families: list[tuple[Family, str]] = [("primary", "the primary comparison")]
    if study.n_secondary:
        families.append(("secondary", f"one of {study.n_secondary} secondary comparisons"))
    found = []
    for family, name in families:
        gain = smallest_detectable_gain(study, spread, family, power)
        size = "no gain, however large," if gain is None else f"a true gain of {gain:.3f} or more"
        found.append(f"{size} in {name}")
    return " and ".join(found)


def _sd_in_words(sd: float) -> str:
    return f"{sd:.2g}" if sd > 0 else "none that shows"
