"""The verdict: pass, fail, unresolved or invalid, with its reasons in words, for each kind of release."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.controls import Control
from pipeline.audit.copies import CopyFinding, least_persons
from pipeline.audit.paired import PairedFigure
from pipeline.audit.policy import Policy
from pipeline.statistics import Estimate, holm

Planned = Literal["dataset", "generator"]
GATES: dict[Planned, tuple[str, ...]] = {"dataset": ("dataset",), "generator": ("dataset", "model")}


@dataclass(frozen=True)
class AttackFigure:
    """What one attack found on the target itself.

    Parameters
    ----------
    name : str
    estimate : Estimate
        AUC of members against non-members.
    n_members, n_nonmembers : int
    """

    name: str
    estimate: Estimate
    n_members: int
    n_nonmembers: int

    @property
    def auc_either_sign(self) -> float:
        """AUC of an attacker who may turn the sign."""
        return max(self.estimate.value, 1 - self.estimate.value)


@dataclass(frozen=True)
class Verdict:
    """What the audit concludes.

    Parameters
    ----------
    verdict : str
        pass, fail, unresolved or invalid.
    reasons : tuple of str
    """

    verdict: str
    reasons: tuple[str, ...]


def decide(
    planned: Planned,
    attacks: Sequence[AttackFigure],
    paired: Sequence[PairedFigure],
    controls: Sequence[Control],
    copies: Mapping[str, CopyFinding],
    n_not_attacked: int,
    policy: Policy,
) -> Verdict:
    """Decide by the policy whether a release of a data set, or of a generator beside it, may go out.

    ``invalid``: a control misbehaved. ``fail``: a gated attack on the target, or its paired figure, lies above the
    limit beyond chance (Holm over all of them), or members have more near-duplicates than others. ``pass``: every
    gated paired figure's interval lies within the limits on both sides, with enough persons and references, and no
    member was left out of the attacks. Else ``unresolved``.
    """
    misbehaved = [f"control '{c.title}': expected {c.expected}, got {c.observed}" for c in controls if not c.behaved]
    if misbehaved:
        return Verdict("invalid", tuple(misbehaved))
    attacks = [attack for attack in attacks if BY_NAME[attack.name].threat_model in GATES[planned]]
    paired = [figure for figure in paired if BY_NAME[figure.attack].threat_model in GATES[planned]]
    leaks = [*_find_leaks(attacks, paired, policy), *_find_copy_leaks(copies, policy)]
    if leaks:
        return Verdict("fail", tuple(leaks))
    gaps = [*_find_gaps(paired, policy), *_find_copy_gaps(copies, policy)]
    if n_not_attacked:
        gaps.append(
            f"{n_not_attacked} members lack a modality and were not attacked; expected all; set "
            "ingest.missing_modalities to quarantine for a release"
        )
    if gaps:
        return Verdict("unresolved", tuple(gaps))
    return Verdict("pass", (f"all {len(paired)} paired AUCs lie within their limits with their whole intervals",))


def _find_leaks(attacks: Sequence[AttackFigure], paired: Sequence[PairedFigure], policy: Policy) -> list[str]:
    enough = policy.min_patients_a_side.value
    figures: list[tuple[str, str, Estimate]] = [
        (a.name, "on the release", a.estimate) for a in attacks if min(a.n_members, a.n_nonmembers) >= enough
    ]
    # An interval that does not cover the spread between generators would call chance a leak.
    figures += [(p.attack, "paired", p.estimate) for p in paired if p.n_patients >= enough and p.covers_generators]
    limits = [policy.limit(name) for name, _, _ in figures]
    p_values = holm([_p_above_limit(one[2], limit) for one, limit in zip(figures, limits, strict=True)])
    return [
        f"'{BY_NAME[name].title}' {where}: AUC {estimate.value:.2f} is beyond the limit of {limit:.2f} "
        f"(p = {p:.3g}, Holm)"
        for (name, where, estimate), limit, p in zip(figures, limits, p_values, strict=True)
        if p < policy.alpha.value
    ]


def _find_copy_leaks(copies: Mapping[str, CopyFinding], policy: Policy) -> list[str]:
    levels = [level for level in policy.copies.levels if level in copies]
    p_values = holm([copies[level].excess_p for level in levels])
    leaks = [
        f"members have more near-duplicates than others ({level}: p = {p:.3g}, Holm)"
        for level, p in zip(levels, p_values, strict=True)
        if p < policy.alpha.value
    ]
    return leaks + [
        f"{copies[level].n_copies} released cases are copies of members ({level}): likeness of "
        f"{copies[level].copy_line:.2f} or more, which none has to a person never trained on"
        for level in levels
        if copies[level].n_copies
    ]


def _find_gaps(paired: Sequence[PairedFigure], policy: Policy) -> list[str]:
    gaps = []
    if not paired:
        gaps.append("no paired figure; expected reference generators; run the whole audit")
    for figure in paired:
        kind = BY_NAME[figure.attack]
        limit, (low, high) = policy.limit(figure.attack), figure.estimate.ci
        if high >= limit or low <= 1 - limit:
            gaps.append(
                f"paired figure of '{kind.title}': the interval {low:.2f} to {high:.2f} reaches beyond "
                f"{1 - limit:.2f} to {limit:.2f}"
            )
    n_patients = min((figure.n_patients for figure in paired), default=0)
    if n_patients < policy.min_patients_a_side.value:
        gaps.append(f"{n_patients} persons; intervals are unreliable below {policy.min_patients_a_side.value}")
    n_references = min((figure.n_references for figure in paired), default=0)
    if n_references < policy.min_references_to_pass.value:
        gaps.append(
            f"{n_references} reference generators; their spread is unknown below {policy.min_references_to_pass.value}"
        )
    return gaps


def _find_copy_gaps(copies: Mapping[str, CopyFinding], policy: Policy) -> list[str]:
    gaps = []
    recall, alarms = policy.copies.min_recall.value, policy.copies.max_false_alarms.value
    for level in policy.copies.levels:
        if level not in copies:
            gaps.append(f"no search for copies of level '{level}'; expected one; run the whole audit")
            continue
        found = copies[level]
        # One-sided bounds: each end of a two-sided interval at twice the level.
        least, most = found.recall_ci(2 * policy.alpha.value)[0], found.false_alarms_ci(2 * policy.alpha.value)[1]
        if least < recall or most > alarms:
            enough = least_persons(recall, alarms, policy.alpha.value)
            why = f"; fewer than {enough} persons cannot certify that" if found.n_persons < enough else ""
            gaps.append(
                f"the search for copies ({level}) found those of {found.n_found} of {found.n_persons} persons with "
                f"{found.n_alarmed} false alarms: at least {least:.0%} and at most {most:.0%} of persons, expected at "
                f"least {recall:.0%} and at most {alarms:.0%}{why}"
            )
        if found.n_near_duplicates:
            gaps.append(f"{found.n_near_duplicates} synthetic cases are near-duplicates of members ({level})")
    return gaps


def _p_above_limit(estimate: Estimate, limit: float) -> float:
    """Return the p value that the AUC, with the sign an attacker would choose, is not above the limit."""
    either = max(estimate.value, 1 - estimate.value)
    if either <= limit:
        return 1.0
    return float(stats.t.sf((either - limit) / max(estimate.standard_error, 1e-9), estimate.n_free))
