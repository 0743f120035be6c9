"""The verdict: pass, fail, unresolved or invalid, with its reasons in words, for each kind of release."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.controls import Control
from pipeline.audit.copies import CopyFinding, least_persons
from pipeline.audit.exposure import Exposure, describe_exposed
from pipeline.audit.paired import MIN_PAIRS, PairedFigure
from pipeline.audit.policy import Policy
from pipeline.statistics import Estimate, holm, p_above

Planned = Literal["dataset", "generator"]
# Of findings that fail an audit, each at its share of the level: figures, single persons, copies.
FAMILIES = 3
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
    p, p_adjusted : float
        Two-sided, against membership dealt out at random; corrected for all gated attacks.
    """

    name: str
    estimate: Estimate
    n_members: int
    n_nonmembers: int
    p: float
    p_adjusted: float

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


@dataclass(frozen=True)
class Findings:
    """What a verdict rests on.

    Parameters
    ----------
    attacks : sequence of AttackFigure
    paired : sequence of PairedFigure
    exposure : Exposure
    controls : sequence of Control
    copies : mapping of str to CopyFinding
        By level.
    n_not_attacked : int
        Members left out.
    """

    attacks: Sequence[AttackFigure]
    paired: Sequence[PairedFigure]
    exposure: Exposure
    controls: Sequence[Control]
    copies: Mapping[str, CopyFinding]
    n_not_attacked: int


def decide(planned: Planned, findings: Findings, policy: Policy) -> Verdict:
    """Decide by the policy whether a release of a data set, or of a generator beside it, may go out.

    ``invalid``: a control misbehaved. ``fail``: a gated attack on the target, or its paired figure, lies above the
    limit beyond chance (Holm over all of them), single persons are exposed beyond chance, or members have copies.
    ``pass``: every gated attack's paired interval lies within the limits on both sides, with enough persons and
    references; the target does not stand out from chance above a limit; controls were able to misbehave; and no member
    was left out of the attacks. Else ``unresolved``.
    """
    misbehaved = [
        f"control '{c.title}': expected {c.expected}, got {c.observed}" for c in findings.controls if not c.behaved
    ]
    if misbehaved:
        return Verdict("invalid", tuple(misbehaved))
    attacks = [one for one in findings.attacks if BY_NAME[one.name].threat_model in GATES[planned]]
    paired = [figure for figure in findings.paired if BY_NAME[figure.attack].threat_model in GATES[planned]]
    names = [attack.name for attack in attacks]
    level = policy.alpha.value / FAMILIES
    leaks = [
        *_find_leaks(attacks, paired, policy, level),
        *describe_exposed(findings.exposure, names, level),
        *_find_copy_leaks(findings.copies, policy),
    ]
    if leaks:
        return Verdict("fail", tuple(leaks))
    gaps = [
        *_find_gaps(attacks, paired, policy),
        *_find_standing_out(attacks, policy),
        *_find_idle_controls(findings.controls),
        *_find_copy_gaps(findings.copies, policy),
    ]
    if findings.n_not_attacked:
        gaps.append(
            f"{findings.n_not_attacked} members lack a modality and were not attacked; expected all; set "
            "ingest.missing_modalities to quarantine for a release"
        )
    if gaps:
        return Verdict("unresolved", tuple(gaps))
    return Verdict("pass", (f"all {len(paired)} paired AUCs lie within their limits with their whole intervals",))


def _find_standing_out(attacks: Sequence[AttackFigure], policy: Policy) -> list[str]:
    """Find attacks by which the target itself looks as if it leaked more than the references do."""
    return [
        f"'{BY_NAME[a.name].title}' on the release: AUC {a.estimate.value:.2f} lies beyond {1 - limit:.2f} to "
        f"{limit:.2f}, and chance alone seldom goes so far (p = {a.p_adjusted:.3g}, corrected for all attacks)"
        for a in attacks
        if a.auc_either_sign > (limit := policy.limit(a.name)) and a.p_adjusted < policy.alpha.value
    ]


def _find_idle_controls(controls: Sequence[Control]) -> list[str]:
    idle = [control for control in controls if not control.able]
    if not idle:
        return []
    return [
        f"{len(idle)} negative controls could not have misbehaved with so few persons or references, and vouch for "
        "nothing"
    ]


def _find_leaks(
    attacks: Sequence[AttackFigure], paired: Sequence[PairedFigure], policy: Policy, level: float
) -> list[str]:
    enough = policy.min_patients_a_side.value
    figures: list[tuple[str, str, Estimate, int]] = [
        (a.name, "on the release", a.estimate, a.n_members + a.n_nonmembers)
        for a in attacks
        if min(a.n_members, a.n_nonmembers) >= enough
    ]
    # An interval that does not cover the spread between generators would call chance a leak.
    figures += [
        (p.attack, "paired", p.estimate, p.n_patients) for p in paired if p.n_patients >= enough and p.covers_generators
    ]
    limits = [policy.limit(name) for name, *_ in figures]
    p_values = holm([p_above(one[2], limit, one[3]) for one, limit in zip(figures, limits, strict=True)])
    return [
        f"'{BY_NAME[name].title}' {where}: AUC {estimate.value:.2f} is beyond the limit of {limit:.2f} "
        f"(p = {p:.3g}, Holm)"
        for (name, where, estimate, _), limit, p in zip(figures, limits, p_values, strict=True)
        if p < level
    ]


def _find_copy_leaks(copies: Mapping[str, CopyFinding], policy: Policy) -> list[str]:
    levels = [level for level in policy.copies.levels if level in copies]
    p_values = holm([copies[level].excess_p for level in levels])
    leaks = [
        f"members have more near-duplicates than others ({level}: p = {p:.3g}, Holm)"
        for level, p in zip(levels, p_values, strict=True)
        if p < policy.alpha.value / FAMILIES
    ]
    return leaks + [
        f"{copies[level].n_copies} released cases are copies of members ({level}): likeness of "
        f"{copies[level].copy_line:.2f} or more, which none has to a person never trained on"
        for level in levels
        if copies[level].n_copies
    ]


def _find_gaps(attacks: Sequence[AttackFigure], paired: Sequence[PairedFigure], policy: Policy) -> list[str]:
    gaps = []
    known = {figure.attack for figure in paired}
    if missing := [f"'{BY_NAME[attack.name].title}'" for attack in attacks if attack.name not in known]:
        gaps.append(f"no paired figure of {', '.join(missing)}; expected one of each attack; train more references")
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
            f"{n_references} reference generators; their spread, and whether single persons are exposed, is unknown "
            f"below {policy.min_references_to_pass.value}"
        )
    elif not all(figure.covers_generators for figure in paired):
        gaps.append(
            f"{n_references} reference generators; paired intervals do not cover the spread between generators; "
            f"expected at least {2 * MIN_PAIRS}; train more references"
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
