"""Stage audit: attack the synthetic cohort and the generator, check the attacks by controls, decide."""

import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.audit import nearest_neighbour as nn
from pipeline.audit import reconstruction as rec
from pipeline.audit.controls import (
    Control,
    permuted_membership,
    planted_copies,
    planted_memory,
    untouched_patients,
)
from pipeline.audit.copies import CopyFinding, find_copies
from pipeline.audit.figures import save_roc
from pipeline.audit.paired import PairedFigure, paired_figure, patient_risk
from pipeline.audit.references import ReferenceScores, score_with_references, untouched_scores
from pipeline.audit.targets import Attack, Persons, Reference, Release, score_persons, unlabelled
from pipeline.audit.verdict import AttackFigure, Verdict, decide
from pipeline.cohort import Cohort, digest_file, digest_of, digest_tree, open_cohort, write_json
from pipeline.config import AuditSection
from pipeline.errors import DataError
from pipeline.parallel import training_device
from pipeline.runner import StageContext
from pipeline.scratch import SCRATCH, temporary_files_in
from pipeline.seeds import numpy_stream
from pipeline.statistics import (
    FPR_LEVELS,
    auc,
    auc_estimate,
    epsilon_lower_bound,
    patients_to_certify,
    permutation_aucs,
    permutation_p,
    smallest_detectable_auc,
    tpr_at_fpr,
)
from pipeline.train.weights import WEIGHTS_FILE, load_generator

ATTACKS: dict[str, Attack] = {nn.NAME: nn.nearest_neighbour, rec.NAME: rec.reconstruction}
TITLES = {nn.NAME: nn.TITLE, rec.NAME: rec.TITLE}
THREAT_MODELS = {nn.NAME: nn.THREAT_MODEL, rec.NAME: rec.THREAT_MODEL}


@dataclass(frozen=True)
class Outcome:
    """One attack on the target: a score for each person on either side."""

    name: str
    member: NDArray[np.float64]
    nonmember: NDArray[np.float64]

    def permuted(self, policy: AuditSection, seed: int) -> NDArray[np.float64]:
        """Return the AUC under random membership, once for each permutation."""
        stream = numpy_stream(seed, "permute", self.name)
        return permutation_aucs(self.member, self.nonmember, policy.n_permutations, stream)


def run(context: StageContext) -> dict[str, Any]:
    """Audit the synthetic cohort and the generator of the run.

    Raises
    ------
    DataError
        If a side of the split is empty, or a person is on both sides.
    SynthcohortError
        Whatever the training or the generation of a reference raises.
    """
    policy = context.config.audit
    cohort = open_cohort(context.folder("ingest"))
    # Scores of persons with fewer modalities are no measure beside those of persons with all: they would differ by what
    # is missing, and only members may lack any.
    members, nonmembers, val = _whole_persons(cohort, "train"), _whole_persons(cohort, "test"), cohort.patients("val")
    n_not_attacked = len(cohort.persons("train")) - len(members)
    if not members or not nonmembers or not val:
        raise DataError("a side of the split is empty; expected persons in train, val and test; change ingest.split")
    generator = load_generator(context.folder("train")).to(training_device(context.config.compute))
    release = Release(open_cohort(context.folder("generate")), generator)
    persons = (*members, *nonmembers)
    reference = Reference(val, cohort.scheme, cohort.modalities, policy.n_style_draws, context.seed)
    scans = [case for cases in persons for case in cases]
    predictability = rec.predictability_errors(unlabelled(scans), reference)
    known = {case.subject: float(error) for case, error in zip(scans, predictability, strict=True)}
    reference = replace(reference, predictability=known)

    outcomes = attack_target(members, nonmembers, release, reference)
    copies = find_copies(members, nonmembers, release, reference)
    references = score_with_references(persons, cohort, context.config, reference, ATTACKS, context.out / "references")
    permuted = {outcome.name: outcome.permuted(policy, context.seed) for outcome in outcomes}
    with temporary_files_in(context.out):
        controls = run_controls(outcomes, permuted, references, members, nonmembers, release, reference, policy)
    shutil.rmtree(context.out / SCRATCH)
    paired = [
        paired_figure(references, name, policy.n_bootstrap, policy.alpha, numpy_stream(context.seed, "paired", name))
        for name in ATTACKS
    ]
    figures = [_figure(outcome, policy, context.seed) for outcome in outcomes]
    all_controls = [*controls["negative"], *controls["positive"]]
    verdict = decide(figures, paired, all_controls, copies, n_not_attacked, policy)

    _write_scores(context.out / "scores.csv", outcomes, members, nonmembers)
    risks = _patients_at_risk(persons, references)
    _write_patients(context.out / "patients.csv", risks)
    context.tracker.table("patients_risk", risks)
    curves = [(TITLES[outcome.name], outcome.member, outcome.nonmember) for outcome in outcomes]
    save_roc(curves, controls["positive"], context.out / "figures" / "roc.png")
    content = {
        "verdict": verdict.verdict,
        "reasons": list(verdict.reasons),
        "unit": "patient",
        "members_not_attacked": n_not_attacked,
        "policy": policy.model_dump(mode="json"),
        "attacks": [_attack_json(o, f, permuted[o.name], policy) for o, f in zip(outcomes, figures, strict=True)],
        "paired": [_paired_json(figure, policy) for figure in paired],
        "controls": {side: [control.as_json() for control in controls[side]] for side in controls},
        "copies": _copies_json(copies),
        **_power_json(paired, len(members), len(nonmembers), policy, context.seed),
        "bound_to": {
            "generator": digest_file(context.folder("train") / WEIGHTS_FILE),
            "synthetic": digest_of(digest_tree(context.folder("generate"))),
        },
    }
    write_json(context.out / "audit.json", content)
    _record(context, content, verdict)
    return {
        "verdict": verdict.verdict,
        **{f"auc_{figure.name}": round(figure.estimate.value, 3) for figure in figures},
        **{f"paired_{p.attack}": round(p.estimate.value, 3) for p in paired},
    }


def _whole_persons(cohort: Cohort, side: str) -> Persons:
    """Return the scans of each person on a side that lack no modality; persons who have none such are left out."""
    scans = (cohort.complete(cases) for cases in cohort.persons(side))
    return tuple(cases for cases in scans if cases)


def attack_target(members: Persons, nonmembers: Persons, release: Release, reference: Reference) -> list[Outcome]:
    """Run each attack on the release."""
    if {cases[0].person for cases in members} & {cases[0].person for cases in nonmembers}:
        raise DataError("a person on both sides of the audit; expected persons on one side; check the split")
    outcomes = []
    for name, attack in ATTACKS.items():
        scores = score_persons(attack, (*members, *nonmembers), release, reference)
        outcomes.append(Outcome(name, scores[: len(members)], scores[len(members) :]))
    return outcomes


def run_controls(
    outcomes: Sequence[Outcome],
    permuted: Mapping[str, NDArray[np.float64]],
    references: ReferenceScores,
    members: Persons,
    nonmembers: Persons,
    release: Release,
    reference: Reference,
    policy: AuditSection,
) -> dict[str, list[Control]]:
    """Run the negative and the positive controls of each attack."""
    is_train = np.arange(len(members) + len(nonmembers)) < len(members)
    negative = []
    for outcome in outcomes:
        value = auc(outcome.member, outcome.nonmember)
        negative.append(permuted_membership(outcome.name, TITLES[outcome.name], value, permuted[outcome.name]))
        untouched = untouched_scores(references, outcome.name)
        negative.append(
            untouched_patients(outcome.name, TITLES[outcome.name], untouched, is_train, policy, reference.seed)
        )
    by_name = {outcome.name: outcome for outcome in outcomes}
    positive = [
        planted_copies(members, nonmembers, release, reference, policy.planted_share),
        planted_memory(members, by_name[rec.NAME].nonmember, release, reference, policy.planted_share),
    ]
    return {"negative": negative, "positive": positive}


def _figure(outcome: Outcome, policy: AuditSection, seed: int) -> AttackFigure:
    estimate = auc_estimate(
        outcome.member,
        outcome.nonmember,
        policy.n_bootstrap,
        policy.alpha,
        numpy_stream(seed, "bootstrap", outcome.name),
    )
    return AttackFigure(
        outcome.name,
        TITLES[outcome.name],
        THREAT_MODELS[outcome.name],
        estimate,
        len(outcome.member),
        len(outcome.nonmember),
    )


def _attack_json(
    outcome: Outcome, figure: AttackFigure, permuted: NDArray[np.float64], policy: AuditSection
) -> dict[str, Any]:
    member, nonmember = outcome.member, outcome.nonmember
    lower, resolvable = epsilon_lower_bound(member, nonmember, policy.alpha)
    return {
        "name": figure.name,
        "title": figure.title,
        "threat_model": figure.threat_model,
        "n_members": figure.n_members,
        "n_nonmembers": figure.n_nonmembers,
        "auc": figure.estimate.value,
        "auc_ci": list(figure.estimate.ci),
        "reliable": min(figure.n_members, figure.n_nonmembers) >= policy.min_patients_a_side,
        "auc_either_sign": figure.auc_either_sign,
        "p_value": permutation_p(figure.estimate.value, permuted),
        "tpr_at_fpr": {f"{fpr:g}": tpr_at_fpr(member, nonmember, fpr, policy.alpha) for fpr in FPR_LEVELS},
        "epsilon_lower": lower,
        "epsilon_resolvable": resolvable,
    }


def _paired_json(figure: PairedFigure, policy: AuditSection) -> dict[str, Any]:
    return {
        "attack": figure.attack,
        "threat_model": THREAT_MODELS[figure.attack],
        "n_patients": figure.n_patients,
        "n_references": figure.n_references,
        "auc": figure.estimate.value,
        "auc_ci": list(figure.estimate.ci),
        "reliable": figure.n_patients >= policy.min_patients_a_side,
        "interval_covers_generators": figure.resamples_references,
    }


def _copies_json(copies: CopyFinding) -> dict[str, Any]:
    return {
        "n_near_duplicates": copies.n_near_duplicates,
        "excess_p": copies.excess_p,
        "recall": copies.recall,
        "false_alarms": copies.false_alarms,
        "threshold": copies.threshold,
    }


def _power_json(
    paired: Sequence[PairedFigure], n_members: int, n_nonmembers: int, policy: AuditSection, seed: int
) -> dict[str, Any]:
    """Return the smallest leak that would have been seen, and how many persons would resolve the rest."""
    smallest = smallest_detectable_auc(n_members, n_nonmembers, policy.alpha, numpy_stream(seed, "power"))
    room, z = policy.auc_limit - 0.5, float(stats.norm.ppf(1 - policy.alpha / 2))
    # The interval of a figure whose truth is .5 shrinks with the root of the number of persons.
    to_pass = max((int(np.ceil(p.n_patients * (z * p.estimate.standard_error / room) ** 2)) for p in paired), default=0)
    to_pass = max(to_pass, policy.min_patients_a_side)
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


def _write_scores(path: Path, outcomes: Sequence[Outcome], members: Persons, nonmembers: Persons) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["attack", "patient", "member", "score"])
        for outcome in outcomes:
            for persons, scores, flag in ((members, outcome.member, 1), (nonmembers, outcome.nonmember, 0)):
                writer.writerows(
                    [outcome.name, cases[0].person, flag, f"{score:.6g}"]
                    for cases, score in zip(persons, scores, strict=True)
                )


def _patients_at_risk(persons: Persons, references: ReferenceScores) -> list[dict[str, str]]:
    """Return each person's risk: how much higher he scores in than out, most exposed first."""
    risks: Mapping[str, NDArray[np.float64]] = {name: patient_risk(references, name) for name in references.scores}
    exposure = np.max(list(risks.values()), axis=0)
    rows = []
    for index in np.argsort(-exposure, kind="stable"):
        case = persons[int(index)][0]
        head = {"patient": case.person, "split": case.split, "volume_ml": case.attributes["volume_ml"]}
        rows.append(head | {name: f"{values[index]:.3f}" for name, values in risks.items()})
    return rows


def _write_patients(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _record(context: StageContext, content: Mapping[str, Any], verdict: Verdict) -> None:
    tracker = context.tracker
    for attack in content["attacks"]:
        tracker.metrics({f"auc/{attack['name']}": attack["auc"]})
    for paired in content["paired"]:
        tracker.metrics({f"paired_auc/{paired['attack']}": paired["auc"]})
    rows = [
        {key: attack[key] for key in ("name", "threat_model", "auc", "n_members", "n_nonmembers", "p_value")}
        for attack in content["attacks"]
    ]
    tracker.table("attacks", rows)
    tracker.image("roc", "figures/roc.png")
    tracker.tags({"verdict": verdict.verdict})
