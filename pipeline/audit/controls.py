"""Controls: what must not fire, and what must. An audit whose controls misbehave is invalid, whatever it says."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.paired import paired_figure
from pipeline.audit.policy import Policy
from pipeline.audit.targets import Scores
from pipeline.seeds import numpy_stream
from pipeline.statistics import auc, holm, permutation_p, smallest_permutation_p

# How far off .5 the mean of an attack with shadows may lie where nothing is to be found. With the complement of the
# release under attack among the shadows it was .25; without any leak the likelihood ratio of four references, each of
# which has two shadows, is at .45.
MAX_DRIFT = 0.1
# Attacks whose paired figure must show a release that tells everything. The others look for what many synthetic scans
# have in common, and may be blind to it: what each sees is reported.
MUST_SEE_EVERYTHING = (
    *("nearest-neighbour", "nearest-texture", "nearest-tumor", "nearest-labels", "monte-carlo", "patient-set"),
    *("likelihood-ratio-neighbour", "reconstruction", "likelihood-ratio", "relative-likelihood"),
)


@dataclass(frozen=True)
class Control:
    """One control.

    Parameters
    ----------
    name, title : str
    expected, observed : str
        In words and figures.
    behaved : bool
    able : bool
        Whether it could have misbehaved at all with so few persons and references.
    curve : tuple of ndarray
        Scores of the two sides, for the picture.
    """

    name: str
    title: str
    expected: str
    observed: str
    behaved: bool
    able: bool = True
    curve: tuple[Scores, Scores] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what goes into audit.json."""
        return {key: value for key, value in asdict(self).items() if key != "curve"}


@dataclass(frozen=True)
class Planted:
    """A leak made on purpose, and what an attack gave those planted and those not.

    Parameters
    ----------
    name, title : str
    planted, clean : ndarray, (n,) and (m,), float64
    """

    name: str
    title: str
    planted: Scores
    clean: Scores

    def judged(self, least_auc: float) -> Control:
        """Return the control: the attack must tell the planted from the clean."""
        value = auc(self.planted, self.clean)
        return Control(
            self.name,
            self.title,
            f"AUC of at least {least_auc:g}",
            f"AUC {value:.2f}",
            value >= least_auc,
            curve=(self.planted, self.clean),
        )


@dataclass(frozen=True)
class Dealt:
    """Scores by a membership of the references that was dealt out anew: nothing is to be found.

    Parameters
    ----------
    is_in : ndarray, (references, persons), bool
    scores : mapping of str to ndarray, (references, persons), float64
        By attack; those of attacks with shadows are made with this membership.
    """

    is_in: NDArray[np.bool_]
    scores: Mapping[str, Scores]


def judge_dealt(dealt: Sequence[Dealt], policy: Policy) -> list[Control]:
    """Judge what paired figures say where membership was dealt out anew.

    Attacks without shadows: intervals must hold .5 about as often as they promise, whatever the scores are like (Holm
    over attacks), so that intervals that are too short are seen. With few persons and few references at once they are
    too short by nature: of nine persons and two references without any leak one audit in ten would be invalid. Then the
    control could not misbehave, and says so: the same scores by a membership and by its complement give .5 on average,
    whatever they are.

    Attacks with shadows learn from a membership dealt out with the one they are asked about: their figure must be .5 on
    average over the deals, and a way of learning that tells who is in draws it off. (Their intervals are no control
    where something leaks: the false shadows then agree by chance with the true ones, or not.)
    """
    alpha, level = policy.alpha.value, policy.control_alpha.value
    figures = {
        name: [paired_figure(name, one.scores[name], one.is_in, alpha) for one in dealt]
        for name in (dealt[0].scores if dealt else ())
    }
    found = {name: [figure.estimate for figure in several] for name, several in figures.items()}
    means = {name: float(np.mean([one.value for one in estimates])) for name, estimates in found.items()}
    n_missed = {name: sum(not e.ci[0] <= 0.5 <= e.ci[1] for e in estimates) for name, estimates in found.items()}
    enough = policy.min_patients_a_side.value
    judged = [
        name
        for name, (figure, *_) in figures.items()
        if not BY_NAME[name].needs_shadows and (figure.covers_generators or figure.n_patients >= enough)
    ]
    # Twice what is promised: the intervals of one set of scores are not apart from each other.
    p_values = holm([float(stats.binom.sf(n_missed[name] - 1, len(dealt), 2 * alpha)) for name in judged])
    by_intervals = [
        Control(
            f"dealt-{name}",
            f"{BY_NAME[name].title}, membership of the references dealt out at random",
            f"at most {2 * alpha:.0%} of intervals leave out .5 (p of at least {level:g}, Holm over {len(judged)})",
            f"mean AUC {means[name]:.2f}, {n_missed[name]} of {len(dealt)} intervals leave out .5, p = {p:.3g}",
            p >= level,
        )
        for name, p in zip(judged, p_values, strict=True)
    ]
    by_means = [
        Control(
            f"dealt-{name}",
            f"{BY_NAME[name].title}, membership of the references{_shadows(name)} dealt out at random",
            f"mean AUC of {0.5 - MAX_DRIFT:.2f} to {0.5 + MAX_DRIFT:.2f}",
            f"mean AUC {mean:.2f} over {len(dealt)} deals"
            + ("" if BY_NAME[name].needs_shadows else "; so few persons and references cannot draw it off"),
            abs(mean - 0.5) <= MAX_DRIFT,
            able=BY_NAME[name].needs_shadows,
        )
        for name, mean in means.items()
        if name not in judged
    ]
    return [*by_intervals, *by_means]


def _shadows(name: str) -> str:
    return " and of its shadows" if BY_NAME[name].needs_shadows else ""


def judge_sides(
    untouched: Mapping[str, Scores], is_member: NDArray[np.bool_], n_permutations: int, alpha: float, seed: int
) -> list[Control]:
    """Judge whether the sides of the split differ where no generator saw either; corrected for all attacks.

    What is found there is a difference between the sides, or a fault of the scorer, and would be taken for a leak on
    the target.

    Parameters
    ----------
    untouched : mapping of str to ndarray, (persons,), float64
        By attack: mean score by references that did not see the person.
    is_member : ndarray, (persons,), bool
    n_permutations : int
    alpha : float
    seed : int
    """
    if not untouched:
        return []
    scores = np.stack(list(untouched.values()))
    _, adjusted = permutation_p(scores, is_member, n_permutations, numpy_stream(seed, "sides"))
    able = smallest_permutation_p(int(is_member.sum()), int((~is_member).sum()), n_permutations) < alpha
    return [
        Control(
            f"untouched-{name}",
            f"{BY_NAME[name].title} by references that saw neither side, train against test persons",
            f"p of at least {alpha:g}, corrected for {len(untouched)} attacks",
            f"AUC {auc(one[is_member], one[~is_member]):.2f}, p = {p:.3g}"
            + ("" if able else "; so few persons cannot give a smaller one"),
            bool(p >= alpha),
            able,
        )
        for (name, one), p in zip(untouched.items(), adjusted, strict=True)
    ]


def judge_planted_references(
    planted: Mapping[str, Scores], is_in: NDArray[np.bool_], policy: Policy
) -> tuple[list[Control], dict[str, dict[str, Any]]]:
    """Judge whether references that tell everything give paired figures above the limits.

    Returns
    -------
    controls : list of Control
        Of attacks that must see it.
    sensitivity : dict
        By attack: AUC, its interval, and whether that lies beyond the limits, on either side.
    """
    controls, sensitivity = [], {}
    for name, scores in planted.items():
        estimate, limit = paired_figure(name, scores, is_in, policy.alpha.value).estimate, policy.limit(name)
        is_above = estimate.ci[0] > limit
        # An attacker may turn the sign.
        sees = is_above or estimate.ci[1] < 1 - limit
        sensitivity[name] = {"auc": estimate.value, "auc_ci": list(estimate.ci), "sees": sees}
        if name in MUST_SEE_EVERYTHING:
            controls.append(
                Control(
                    f"planted-paired-{name}",
                    f"references made to tell everything of their members, paired figure of '{BY_NAME[name].title}'",
                    f"an interval above {limit:.2f}",
                    f"AUC {estimate.value:.2f} ({estimate.ci[0]:.2f} to {estimate.ci[1]:.2f})",
                    is_above,
                )
            )
    return controls, sensitivity
