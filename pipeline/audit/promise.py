"""What an audit shows of a promise of differential privacy: the largest bound of epsilon, beside what was promised."""

from collections.abc import Mapping
from typing import Any

from pipeline.audit.canaries import CanaryFinding
from pipeline.audit.conclusions import Evidence
from pipeline.audit.verdict import Planned, Verdict
from pipeline.statistics import epsilon_lower_bound


def check_promise(
    promised: Mapping[str, Any] | None, evidence: Evidence, canaries: CanaryFinding | None, alpha: float
) -> dict[str, Any] | None:
    """Hold the attacks, each at its share of the level, and the canaries against the promise.

    Parameters
    ----------
    promised : mapping or None
        See :class:`pipeline.train.private.Guarantee`; None: nothing was promised.
    evidence : Evidence
    canaries : CanaryFinding or None
    alpha : float
        Of all bounds together.

    Returns
    -------
    dict or None
        The promise with ``shown`` and ``resolvable``: the largest lower bound of epsilon, and the largest possible.
    """
    if promised is None:
        return None
    # The promise covers the discriminator too, which remembers most.
    share = alpha / (len(evidence.target) + (canaries is not None))
    members = evidence.is_member
    bounds = [
        epsilon_lower_bound(scores[members], scores[~members], share, promised["delta"])
        for scores in evidence.target.values()
    ]
    if canaries is not None:
        bounds.append((canaries.bound(share), canaries.bound(share, canaries.n_guesses)))
    shown, resolvable = (max(column) for column in zip(*bounds, strict=True))
    return {**promised, "shown": shown, "resolvable": resolvable}


def with_broken_promise(
    verdicts: Mapping[Planned, Verdict], privacy: Mapping[str, Any] | None
) -> dict[Planned, Verdict]:
    """Return the verdicts; all are `fail` where more was shown than promised, whatever the attacks' limits say."""
    if privacy is None or privacy["shown"] <= privacy["epsilon"]:
        return dict(verdicts)
    reason = (
        f"epsilon is at least {privacy['shown']:.2f}, and {privacy['epsilon']:.2f} was promised: the training is not "
        "as private as it says"
    )
    return {planned: Verdict("fail", (reason, *one.reasons)) for planned, one in verdicts.items()}
