"""What an audit shows of a promise of differential privacy: a lower bound of epsilon, beside what was promised.

Only canaries can show that a promise is broken. Each was put in by a coin of its own, so that the theorem of Steinke,
Nasr, Jagielski 2023 (arXiv:2305.08846, 5.2) holds, delta counted for all of them: a promise that was kept is called
broken with probability alpha at most. The bounds of the attacks on members are of one training too, but nobody tossed
coins for the split: its sides have fixed sizes, and what one training does to different persons is not independent, as
Clopper and Pearson's interval assumes. They are indicative: a large one is a reason to look, and no proof.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.audit.canaries import CanaryFinding
from pipeline.audit.conclusions import Evidence
from pipeline.audit.verdict import Planned, Verdict
from pipeline.guarantee_text import is_broken
from pipeline.statistics import epsilon_lower_bound


def check_promise(
    promised: Mapping[str, Any] | None, evidence: Evidence, canaries: CanaryFinding | None, alpha: float
) -> dict[str, Any] | None:
    """Hold the canaries against the promise; beside them the attacks, each at its share of the level.

    Parameters
    ----------
    promised : mapping or None
        See :class:`pipeline.train.private.Guarantee`; None: nothing was promised.
    evidence : Evidence
    canaries : CanaryFinding or None
    alpha : float
        Of the attacks' bounds together; the canaries have theirs.

    Returns
    -------
    dict or None
        The promise with ``shown`` and ``resolvable``: the canaries' lower bound of epsilon, and the largest possible;
        both 0 without canaries. ``indicative`` has the largest of the attacks, the same.
    """
    if promised is None:
        return None
    # The promise covers the discriminator too, which remembers most.
    share, members = alpha / len(evidence.target), evidence.is_member
    bounds = [
        epsilon_lower_bound(scores[members], scores[~members], share, promised["delta"])
        for scores in evidence.target.values()
    ]
    shown, resolvable = (max(column) for column in zip(*bounds, strict=True))
    return {
        **promised,
        "shown": 0.0 if canaries is None else canaries.epsilon_lower,
        "resolvable": 0.0 if canaries is None else canaries.epsilon_resolvable,
        "indicative": {"shown": shown, "resolvable": resolvable},
    }


def with_broken_promise(
    verdicts: Mapping[Planned, Verdict], privacy: Mapping[str, Any] | None
) -> dict[Planned, Verdict]:
    """Return the verdicts; all are `fail` where canaries show more than was promised, whatever the limits say."""
    if privacy is None or not is_broken(privacy):
        return dict(verdicts)
    reason = (
        f"epsilon is at least {privacy['shown']:.2f} by the canaries, and {privacy['epsilon']:.2f} was promised: the "
        "training is not as private as it says"
    )
    return {planned: Verdict("fail", (reason, *one.reasons)) for planned, one in verdicts.items()}
