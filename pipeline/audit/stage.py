"""Stage audit: attack the synthetic cohort and the generator, check the attacks by controls, decide."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.audit.asked import Asked, ask_about
from pipeline.audit.attacks.registry import (
    BY_NAME,
)
from pipeline.audit.canaries import audit_by_canaries
from pipeline.audit.conclusions import (
    Conclusions,
    Evidence,
    attack_json,
    conclude,
    copies_json,
    paired_json,
    power_json,
)
from pipeline.audit.dealing import balanced_halves
from pipeline.audit.figures import save_pairs, save_roc
from pipeline.audit.gather import choose_members, gather_evidence, plant_few
from pipeline.audit.material import open_reference, open_release
from pipeline.audit.policy import Policy, load_policy, policy_file
from pipeline.audit.promise import check_promise, with_broken_promise
from pipeline.audit.references import attack_all_references
from pipeline.audit.risk import exposed_persons, subgroup_exposure
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Persons, Release
from pipeline.audit.verdict import FAMILIES
from pipeline.cohort import Cohort, digest_file, digest_of, digest_tree, open_cohort, write_json
from pipeline.config import AuditSection
from pipeline.layout import MODEL_FILE, WEIGHTS_FILE
from pipeline.parallel import training_device
from pipeline.runner import StageContext
from pipeline.seeds import numpy_stream
from pipeline.train.checkpoint import load_checkpoint
from pipeline.train.discriminator import Discriminator
from pipeline.train.generator import Generator
from pipeline.train.weights import load_generator


def run(context: StageContext) -> dict[str, Any]:
    """Audit the synthetic cohort and the generator of the run.

    Raises
    ------
    ConfigError
        If the policy cannot be read.
    DataError
        If a side of the split is empty, or a person is on both sides.
    SynthcohortError
        Whatever the training or the generation of a reference raises.
    """
    section, policy = context.config.audit, load_policy(context.config.audit.policy)
    alpha, policy_digest = policy.alpha.value, digest_file(policy_file(section.policy))
    cohort = open_cohort(context.folder("ingest"))
    setting = Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, section.n_style_draws, context.seed)
    asked, n_not_attacked = ask_about(cohort, setting)
    synthetic = open_cohort(context.folder("generate"))
    generator = load_generator(context.folder("train")).to(training_device(context.config.compute))
    release = open_release(synthetic.cases, generator, setting, _discriminator(context, cohort))

    evidence = _attack(context, cohort, setting, asked, release, generator)
    evidence = replace(evidence, n_not_attacked=n_not_attacked)
    conclusions = conclude(evidence, policy, section, context.seed)
    canaries = audit_by_canaries(cohort, generator, context.config, setting, alpha, context.out / "canaries")
    promised = json.loads((context.folder("train") / MODEL_FILE).read_text(encoding="utf-8")).get("privacy")
    privacy = check_promise(promised, evidence, canaries, alpha)
    conclusions = replace(conclusions, verdicts=with_broken_promise(conclusions.verdicts, privacy))

    content = {
        **_content(evidence, conclusions, policy, section, asked, context.seed),
        "canaries": None if canaries is None else canaries.as_json(),
        "privacy": privacy,
        "bound_to": {
            "generator": digest_file(context.folder("train") / WEIGHTS_FILE),
            "synthetic": digest_of(digest_tree(context.folder("generate"))),
            "policy": policy_digest,
        },
    }
    write_json(context.out / "audit.json", content)
    _write_persons(context, evidence, conclusions, asked, alpha)
    save_roc(evidence, conclusions.positive, alpha, context.out / "figures" / "roc.png")
    pairs = context.out / "figures" / "nearest_pairs.png"
    save_pairs(asked, evidence.copies["scan"], synthetic, setting.modalities, pairs)
    _record(context, content)
    return _summary(conclusions, content["verdict"])


def _attack(
    context: StageContext, cohort: Cohort, setting: Setting, asked: Asked, release: Release, generator: Generator
) -> Evidence:
    """Train the references, attack them and the target, plant leaks."""
    section = context.config.audit
    reference = open_reference(cohort.patients("val"), asked.targets, setting)
    sides = [cases[0].split for cases in asked.persons]
    is_in = balanced_halves(sides, section.n_references, numpy_stream(context.seed, "halves"))
    few = choose_members(asked, section.overtrained_members, context.seed, "few")
    folder = context.out / "references"
    found = attack_all_references(asked, is_in, cohort, context.config, setting, reference, folder, few)
    evidence = gather_evidence(asked, release, generator, reference, setting, found, is_in)
    if found.of_few is None:
        return evidence
    return replace(evidence, planted=[*evidence.planted, plant_few(asked, few, found.of_few)])


def _summary(conclusions: Conclusions, verdict: str) -> dict[str, Any]:
    controls = [*conclusions.negative, *conclusions.positive]
    gated = [figure for figure in conclusions.figures if BY_NAME[figure.name].threat_model != "warning"]
    return {
        "verdict": verdict,
        "attacks": len(conclusions.figures),
        "largest_auc": round(max(figure.estimate.value for figure in gated), 3),
        "largest_paired_auc": round(max(figure.estimate.value for figure in conclusions.paired), 3),
        "controls_behaved": f"{sum(control.behaved for control in controls)} of {len(controls)}",
    }


def _discriminator(context: StageContext, cohort: Cohort) -> Discriminator | None:
    """Return the discriminator of the last checkpoint; None if there is none."""
    config = context.config.train
    discriminator = Discriminator(
        config.dimensions,
        len(cohort.modalities),
        cohort.scheme.n_condition_classes,
        config.discriminator_channels,
        config.discriminator_layers,
        spectral=config.privacy is None,
    )
    if not load_checkpoint(context.folder("train") / "checkpoints", {"discriminator": discriminator}, {}):
        return None
    return discriminator.eval().requires_grad_(False).to(training_device(context.config.compute))


def _content(
    evidence: Evidence,
    conclusions: Conclusions,
    policy: Policy,
    section: AuditSection,
    asked: Asked,
    seed: int,
) -> dict[str, Any]:
    """Return what goes into audit.json, but for what it is bound to."""
    verdict = conclusions.verdicts[section.release]
    return {
        "verdict": verdict.verdict,
        "reasons": list(verdict.reasons),
        "release": section.release,
        "verdicts": {
            planned: {"verdict": one.verdict, "reasons": list(one.reasons)}
            for planned, one in conclusions.verdicts.items()
        },
        "unit": "patient",
        "members_not_attacked": evidence.n_not_attacked,
        "policy": policy.model_dump(mode="json"),
        "attacks": [attack_json(figure, evidence, policy) for figure in conclusions.figures],
        "paired": [paired_json(figure, policy) for figure in conclusions.paired],
        "controls": {
            "negative": [control.as_json() for control in conclusions.negative],
            "positive": [control.as_json() for control in conclusions.positive],
        },
        "copies": copies_json(evidence.copies, policy.alpha.value),
        "sensitivity": dict(conclusions.sensitivity),
        "n_exposed": conclusions.exposure.exposed(policy.alpha.value / FAMILIES),
        **power_json(conclusions.figures, conclusions.paired, policy, seed),
        "subgroups": subgroup_exposure(asked.persons, evidence, policy.alpha.value),
    }


def _write_scores(path: Path, evidence: Evidence, persons: Persons) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["attack", "patient", "member", "score"])
        for name, scores in evidence.target.items():
            writer.writerows(
                [name, cases[0].person, int(is_in), f"{score:.9g}"]
                for cases, is_in, score in zip(persons, evidence.is_member, scores, strict=True)
            )


def _write_persons(
    context: StageContext, evidence: Evidence, conclusions: Conclusions, asked: Asked, alpha: float
) -> None:
    """Write each person's scores and risk. Private."""
    _write_scores(context.out / "scores.csv", evidence, asked.persons)
    risks = exposed_persons(asked.persons, evidence, conclusions.exposure, alpha)
    _write_table(context.out / "patients.csv", risks)
    context.tracker.table("patients_risk", risks)


def _write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _record(context: StageContext, content: Mapping[str, Any]) -> None:
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
    tracker.tags({"verdict": content["verdict"]})
