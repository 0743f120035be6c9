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
from pipeline.audit.controls import Control, Planted, judge_negative
from pipeline.audit.copies import CopyFinding
from pipeline.audit.paired import PairedFigure, paired_figure, untouched_scores
from pipeline.audit.policy import Policy
from pipeline.audit.targets import Scores
from pipeline.audit.verdict import AttackFigure, Planned, Verdict, decide
from pipeline.config import AuditSection
from pipeline.seeds import numpy_stream
from pipeline.statistics import (
    FPR_LEVELS,
    auc_estimate,
    epsilon_lower_bound,
    patients_to_certify,
    permutation_aucs,
    permutation_p,
    smallest_detectable_auc,
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
    n_not_attacked : int
        Members left out.
    """

    is_member: NDArray[np.bool_]
    target: Mapping[str, Scores]
    references: Mapping[str, Scores]
    is_in: NDArray[np.bool_]
    planted: Sequence[Planted]
    copies: Mapping[str, CopyFinding]
    n_not_attacked: int = 0


@dataclass(frozen=True)
class Conclusions:
    """What follows from the evidence.

    Parameters
    ----------
    verdicts : mapping of str to Verdict
        For a release of the data set, and of the generator beside it.
    figures, paired, negative, positive
        What they rest on.
    p_values : mapping of str to float
        By attack, two-sided, of the target's AUC against membership dealt out at random.
    """

    verdicts: Mapping[Planned, Verdict]
    figures: Sequence[AttackFigure]
    paired: Sequence[PairedFigure]
    negative: Sequence[Control]
    positive: Sequence[Control]
    p_values: Mapping[str, float]


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
    alpha, is_member = policy.alpha.value, evidence.is_member
    figures = []
    permuted, p_values = {}, {}
    for name, scores in evidence.target.items():
        inside, outside = scores[is_member], scores[~is_member]
        stream = numpy_stream(seed, "bootstrap", name)
        estimate = auc_estimate(inside, outside, section.n_bootstrap, alpha, stream)
        figures.append(AttackFigure(name, estimate, len(inside), len(outside)))
        permuted[name] = permutation_aucs(inside, outside, section.n_permutations, numpy_stream(seed, "permute", name))
        p_values[name] = permutation_p(estimate.value, permuted[name])
    paired = [paired_figure(name, scores, evidence.is_in, alpha) for name, scores in evidence.references.items()]
    untouched = {name: untouched_scores(scores, evidence.is_in) for name, scores in evidence.references.items()}
    # Scores of attacks with shadows are made of who was in: they have no untouched side.
    untouched = {name: scores for name, scores in untouched.items() if not BY_NAME[name].needs_shadows}
    negative = judge_negative(evidence.target, permuted, untouched, is_member, policy.control_alpha.value)
    positive = [planted.judged(policy.planted_auc.value) for planted in evidence.planted]
    controls = [*negative, *positive]
    verdicts: dict[Planned, Verdict] = {
        planned: decide(planned, figures, paired, controls, evidence.copies, evidence.n_not_attacked, policy)
        for planned in ("dataset", "generator")
    }
    return Conclusions(verdicts, figures, paired, negative, positive, p_values)


def attack_json(figure: AttackFigure, evidence: Evidence, p_value: float, policy: Policy) -> dict[str, Any]:
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
        "p_value": p_value,
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
    paired: Sequence[PairedFigure], is_member: NDArray[np.bool_], policy: Policy, seed: int
) -> dict[str, Any]:
    """Return the smallest leak that would have been seen, and how many persons would resolve the rest."""
    alpha, n_members = policy.alpha.value, int(is_member.sum())
    n_nonmembers = len(is_member) - n_members
    smallest = smallest_detectable_auc(n_members, n_nonmembers, alpha, numpy_stream(seed, "power"))
    to_pass = policy.min_patients_a_side.value
    for figure in paired:
        room = policy.limit(figure.attack) - 0.5
        half = float(stats.t.ppf(1 - alpha / 2, figure.estimate.n_free)) * figure.estimate.standard_error
        # The interval of a figure whose truth is .5 shrinks with the root of the number of persons.
        to_pass = max(to_pass, int(np.ceil(figure.n_patients * (half / room) ** 2)))
    seen = f"an AUC of {smallest:.2f} or more" if smallest else "not even an AUC of .99"
    rates = ", ".join(str(patients_to_certify(fpr)) for fpr in FPR_LEVELS)
    sentence = (
        f"With {n_members} members and {n_nonmembers} others the attacks on the release tell {seen} from .5 with 80% "
        f"probability. About {to_pass} persons would bring the paired intervals within the limits, in one of two "
        f"audits, if nothing leaks; false-positive rates of 10%, 1% and 0.1% take {rates} non-members."
    )
    return {
        "power": {"smallest_auc": smallest, "probability": 0.8, "sentence": sentence},
        "patients_needed": {
            "paired_within_limits": to_pass,
            **{f"fpr_{fpr:g}": patients_to_certify(fpr) for fpr in FPR_LEVELS},
        },
    }
