"""From scores to conclusions: figures, controls and verdicts. Pure: no file, no network, no clock.

The audit of a run and the simulations behind its documentation (``benchmarks/audit_verdicts.py``) go through here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.controls import Control, Dealt, Planted, judge_dealt, judge_planted_references, judge_sides
from pipeline.audit.copies import CopyFinding
from pipeline.audit.dealing import deal_again
from pipeline.audit.exposure import Exposure, find_exposed
from pipeline.audit.paired import PairedFigure, paired_figure, untouched_scores
from pipeline.audit.policy import Policy
from pipeline.audit.targets import Scores
from pipeline.audit.verdict import FAMILIES, AttackFigure, Findings, Planned, Verdict, decide
from pipeline.config import AuditSection
from pipeline.seeds import numpy_stream
from pipeline.statistics import (
    FPR_LEVELS,
    auc_estimate,
    epsilon_lower_bound,
    patients_to_certify,
    permutation_p,
    smallest_auc_above,
    tpr_at_fpr,
)


@dataclass(frozen=True)
class Evidence:
    """What the attacks gave, by person.

    Parameters
    ----------
    is_member : ndarray, (persons,), bool
        Of the target.
    target : mapping of str to ndarray, (persons,), float64
        By attack.
    references : mapping of str to ndarray, (references, persons), float64
        By attack.
    is_in : ndarray, (references, persons), bool
    planted : sequence of Planted
    copies : mapping of str to CopyFinding
        By level.
    dealt : sequence of Dealt
        The references' scores by memberships dealt out anew.
    everything : mapping of str to ndarray, (references, persons), float64
        By attack, on references made to tell everything of their members.
    n_not_attacked : int
        Members left out.
    """

    is_member: NDArray[np.bool_]
    target: Mapping[str, Scores]
    references: Mapping[str, Scores]
    is_in: NDArray[np.bool_]
    planted: Sequence[Planted]
    copies: Mapping[str, CopyFinding]
    dealt: Sequence[Dealt]
    everything: Mapping[str, Scores]
    n_not_attacked: int = 0


@dataclass(frozen=True)
class Conclusions:
    """What follows from the evidence.

    Parameters
    ----------
    verdicts : mapping of str to Verdict
        For a release of the data set, and of the generator beside it.
    figures, paired, exposure, negative, positive
        What they rest on.
    sensitivity : mapping of str to mapping
        By attack, what its paired figure shows of references that tell everything.
    """

    verdicts: Mapping[Planned, Verdict]
    figures: Sequence[AttackFigure]
    paired: Sequence[PairedFigure]
    exposure: Exposure
    negative: Sequence[Control]
    positive: Sequence[Control]
    sensitivity: Mapping[str, Mapping[str, Any]]


def conclude(evidence: Evidence, policy: Policy, section: AuditSection, seed: int) -> Conclusions:
    """Draw the conclusions.

    Parameters
    ----------
    evidence : Evidence
    policy : Policy
    section : AuditSection
        Numbers of permutations and bootstrap samples.
    seed : int
    """
    alpha, level = policy.alpha.value, policy.control_alpha.value
    figures = _attack_figures(evidence, section, alpha, seed)
    paired = [paired_figure(name, scores, evidence.is_in, alpha) for name, scores in evidence.references.items()]
    tables = deal_again(evidence.is_member, len(evidence.is_in), section.n_permutations, seed)
    exposure = find_exposed(evidence.references, evidence.is_in, tables)
    # Scores of attacks with shadows are made of who was in: they have no untouched side.
    untouched = {
        name: untouched_scores(scores, evidence.is_in)
        for name, scores in evidence.references.items()
        if not BY_NAME[name].needs_shadows
    }
    negative = [
        *judge_dealt(evidence.dealt, policy),
        *judge_sides(untouched, evidence.is_member, section.n_permutations, level, seed),
    ]
    whole_way, sensitivity = judge_planted_references(evidence.everything, evidence.is_in, policy)
    positive = [*(planted.judged(policy.planted_auc.value) for planted in evidence.planted), *whole_way]
    findings = Findings(figures, paired, exposure, [*negative, *positive], evidence.copies, evidence.n_not_attacked)
    verdicts: dict[Planned, Verdict] = {
        planned: decide(planned, findings, policy) for planned in ("dataset", "generator")
    }
    return Conclusions(verdicts, figures, paired, exposure, negative, positive, sensitivity)


def _attack_figures(evidence: Evidence, section: AuditSection, alpha: float, seed: int) -> list[AttackFigure]:
    """Return what each attack found on the target, with p values of each and of all gated ones together."""
    is_member = evidence.is_member
    names = list(evidence.target)
    gated = [name for name in names if BY_NAME[name].threat_model != "warning"]
    p_of: dict[str, tuple[float, float]] = {}
    for group in (gated, [name for name in names if name not in gated]):
        if group:
            scores = np.stack([evidence.target[name] for name in group])
            both = permutation_p(scores, is_member, section.n_permutations, numpy_stream(seed, "permute", group[0]))
            p_of |= {name: (float(p), float(adjusted)) for name, p, adjusted in zip(group, *both, strict=True)}
    figures = []
    for name in names:
        inside, outside = evidence.target[name][is_member], evidence.target[name][~is_member]
        estimate = auc_estimate(inside, outside, section.n_bootstrap, alpha, numpy_stream(seed, "bootstrap", name))
        figures.append(AttackFigure(name, estimate, len(inside), len(outside), *p_of[name]))
    return figures


def attack_json(figure: AttackFigure, evidence: Evidence, policy: Policy) -> dict[str, Any]:
    """Return what audit.json says of an attack on the target."""
    scores, kind = evidence.target[figure.name], BY_NAME[figure.name]
    member, nonmember = scores[evidence.is_member], scores[~evidence.is_member]
    alpha = policy.alpha.value
    lower, resolvable = epsilon_lower_bound(member, nonmember, alpha)
    return {
        "name": figure.name,
        "title": kind.title,
        "threat_model": kind.threat_model,
        "story": kind.story,
        "n_members": figure.n_members,
        "n_nonmembers": figure.n_nonmembers,
        "auc": figure.estimate.value,
        "auc_ci": list(figure.estimate.ci),
        "reliable": min(figure.n_members, figure.n_nonmembers) >= policy.min_patients_a_side.value,
        "auc_either_sign": figure.auc_either_sign,
        "p_value": figure.p,
        "p_adjusted": figure.p_adjusted,
        "tpr_at_fpr": {f"{fpr:g}": tpr_at_fpr(member, nonmember, fpr, alpha) for fpr in FPR_LEVELS},
        "epsilon_lower": lower,
        "epsilon_resolvable": resolvable,
    }


def paired_json(figure: PairedFigure, policy: Policy) -> dict[str, Any]:
    """Return what audit.json says of a paired figure."""
    kind = BY_NAME[figure.attack]
    return {
        "attack": figure.attack,
        "title": kind.title,
        "threat_model": kind.threat_model,
        "n_patients": figure.n_patients,
        "n_references": figure.n_references,
        "auc": figure.estimate.value,
        "auc_ci": list(figure.estimate.ci),
        "limit": policy.limit(figure.attack),
        "reliable": figure.n_patients >= policy.min_patients_a_side.value,
        "interval_covers_generators": figure.covers_generators,
    }


def copies_json(copies: Mapping[str, CopyFinding], alpha: float) -> dict[str, Any]:
    """Return what audit.json says of copies: of whole scans, and under ``levels`` of each level."""
    levels = {
        level: {
            "n_near_duplicates": found.n_near_duplicates,
            "n_copies": found.n_copies,
            "excess_p": found.excess_p,
            "recall": found.recall,
            "recall_ci": list(found.recall_ci(alpha)),
            "false_alarms": found.false_alarms,
            "false_alarms_ci": list(found.false_alarms_ci(alpha)),
            "n_persons": found.n_persons,
            "n_honest": found.n_honest_pairs,
            "by_transformation": {kind: {"found": hits, "n": n} for kind, (hits, n) in found.by_transformation.items()},
            "threshold": found.threshold,
            "copy_line": found.copy_line,
            "dar_share": found.dar_share,
        }
        for level, found in copies.items()
    }
    return {**levels["scan"], "levels": levels}


def power_json(
    figures: Sequence[AttackFigure], paired: Sequence[PairedFigure], policy: Policy, seed: int
) -> dict[str, Any]:
    """Return the smallest leak on the release that would fail, and how many persons would resolve the rest."""
    n_members, n_nonmembers = figures[0].n_members, figures[0].n_nonmembers
    gated = [figure for figure in figures if BY_NAME[figure.name].threat_model != "warning"]
    # Holm's first step over all figures that can fail an audit.
    level = policy.alpha.value / FAMILIES / max(len(gated) + len(paired), 1)
    limit = min(policy.limit(figure.name) for figure in gated)
    smallest = smallest_auc_above(limit, n_members, n_nonmembers, level, numpy_stream(seed, "power"))
    enough = min(n_members, n_nonmembers) >= policy.min_patients_a_side.value
    seen = f"from an AUC of {smallest:.2f} on" if smallest and enough else "at no AUC: there are too few persons"
    n_references = max([policy.min_references_to_pass.value, *(figure.n_references for figure in paired)])
    to_pass = persons_to_pass(paired, n_references, policy)
    rates = ", ".join(str(patients_to_certify(fpr)) for fpr in FPR_LEVELS)
    sentence = (
        f"With {n_members} members and {n_nonmembers} others an attack on the release makes the audit fail with 80% "
        f"probability {seen}. If nothing leaks, about {to_pass} persons with {n_references} references would bring all "
        "paired intervals within the limits in one of two audits; false-positive rates of 10%, 1% and 0.1% take "
        f"{rates} non-members."
    )
    return {
        "power": {"smallest_auc": smallest if enough else None, "probability": 0.8, "sentence": sentence},
        "patients_needed": {
            "paired_within_limits": to_pass,
            "with_references": n_references,
            **{f"fpr_{fpr:g}": patients_to_certify(fpr) for fpr in FPR_LEVELS},
        },
    }


def persons_to_pass(paired: Sequence[PairedFigure], n_references: int, policy: Policy) -> int:
    """Return about how many persons bring all paired intervals within their limits with so many references.

    In one of two audits, if nothing leaks: a figure's interval must fit though the figure itself is off .5 by chance,
    and all figures at once (taken to be apart from each other, so rather too many). The standard error falls with the
    roots of the numbers of persons and of references.
    """
    quantile = float(stats.norm.ppf((1 + 0.5 ** (1 / max(len(paired), 1))) / 2))
    reach = float(stats.norm.ppf(1 - policy.alpha.value / 2)) + quantile
    # Standard errors are estimates, and the largest of many is too large: their mean square it is.
    ratios = [
        figure.n_patients
        * (figure.n_references / n_references)
        * (reach * figure.estimate.standard_error / (policy.limit(figure.attack) - 0.5)) ** 2
        for figure in paired
    ]
    return max(policy.min_patients_a_side.value, int(np.ceil(np.mean(ratios))) if ratios else 0)
