"""The verdict: pass, fail, unresolved or invalid, with its reasons in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from pipeline.audit.controls import Control
from pipeline.audit.copies import CopyFinding
from pipeline.audit.paired import PairedFigure
from pipeline.config import AuditSection
from pipeline.statistics import Estimate, holm

MIN_COPY_RECALL = 0.95
MAX_FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class AttackFigure:
    """What one attack found on the target itself.

    Parameters
    ----------
    name, title, threat_model : str
    estimate : Estimate
        AUC of members against non-members.
    n_members, n_nonmembers : int
    """

    name: str
    title: str
    threat_model: str
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
    attacks: Sequence[AttackFigure],
    paired: Sequence[PairedFigure],
    controls: Sequence[Control],
    copies: CopyFinding,
    n_not_attacked: int,
    policy: AuditSection,
) -> Verdict:
    """Decide by the policy.

    ``invalid``: a control misbehaved. ``fail``: an attack on the target, or a paired figure, lies above the limit
    beyond chance (Holm over all of them), or members have more near-duplicates than others. ``pass``: every paired
    figure's interval lies within the limits on both sides, with enough persons and references, and no member was left
    out of the attacks. Else ``unresolved``.
    """
    misbehaved = [f"control '{c.title}': expected {c.expected}, got {c.observed}" for c in controls if not c.behaved]
    if misbehaved:
        return Verdict("invalid", tuple(misbehaved))
    leaks = _find_leaks(attacks, paired, copies, policy)
    if leaks:
        return Verdict("fail", tuple(leaks))
    gaps = [*_find_gaps(paired, policy), *_find_copy_gaps(copies)]
    if n_not_attacked:
        gaps.append(
            f"{n_not_attacked} members lack a modality and were not attacked; expected all; set "
            "ingest.missing_modalities to quarantine for a release"
        )
    if gaps:
        return Verdict("unresolved", tuple(gaps))
    limit = policy.auc_limit
    return Verdict("pass", (f"every paired AUC lies between {1 - limit:.2f} and {limit:.2f} with its interval",))


def _find_leaks(
    attacks: Sequence[AttackFigure], paired: Sequence[PairedFigure], copies: CopyFinding, policy: AuditSection
) -> list[str]:
    enough = policy.min_patients_a_side
    figures: list[tuple[str, Estimate]] = [
        (f"attack '{a.title}' on the release", a.estimate)
        for a in attacks
        if min(a.n_members, a.n_nonmembers) >= enough
    ]
    figures += [(f"paired figure of '{p.attack}'", p.estimate) for p in paired if p.n_patients >= enough]
    p_values = holm([_p_above_limit(estimate, policy.auc_limit) for _, estimate in figures])
    leaks = [
        f"{name}: AUC {estimate.value:.2f} is beyond the limit of {policy.auc_limit:.2f} (p = {p:.3g}, Holm)"
        for (name, estimate), p in zip(figures, p_values, strict=True)
        if p < policy.alpha
    ]
    if copies.excess_p < policy.alpha:
        leaks.append(f"members have more near-duplicates than others (p = {copies.excess_p:.3g})")
    return leaks


def _find_gaps(paired: Sequence[PairedFigure], policy: AuditSection) -> list[str]:
    gaps = []
    if not paired:
        gaps.append("no paired figure; expected reference generators; run the whole audit")
    for figure in paired:
        low, high = figure.estimate.ci
        if high >= policy.auc_limit or low <= 1 - policy.auc_limit:
            gaps.append(
                f"paired figure of '{figure.attack}': the interval {low:.2f} to {high:.2f} reaches beyond "
                f"{1 - policy.auc_limit:.2f} to {policy.auc_limit:.2f}"
            )
    n_patients = min((figure.n_patients for figure in paired), default=0)
    if n_patients < policy.min_patients_a_side:
        gaps.append(f"{n_patients} persons; intervals are unreliable below {policy.min_patients_a_side}")
    n_references = min((figure.n_references for figure in paired), default=0)
    if n_references < policy.min_references_to_pass:
        gaps.append(
            f"{n_references} reference generators; their spread is unknown below {policy.min_references_to_pass}"
        )
    return gaps


def _find_copy_gaps(copies: CopyFinding) -> list[str]:
    gaps = []
    if copies.recall < MIN_COPY_RECALL or copies.false_alarms > MAX_FALSE_ALARMS:
        gaps.append(
            f"the search for copies found {copies.recall:.0%} of constructed copies with {copies.false_alarms:.0%} "
            f"false alarms; expected at least {MIN_COPY_RECALL:.0%} and at most {MAX_FALSE_ALARMS:.0%}"
        )
    if copies.n_near_duplicates:
        gaps.append(f"{copies.n_near_duplicates} synthetic cases are near-duplicates of members")
    return gaps


def _p_above_limit(estimate: Estimate, limit: float) -> float:
    """Return the p value that the AUC, with the sign an attacker would choose, is not above the limit."""
    either = max(estimate.value, 1 - estimate.value)
    if either <= limit:
        return 1.0
    return float(stats.norm.sf((either - limit) / max(estimate.standard_error, 1e-9)))
