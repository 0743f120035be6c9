"""Stage audit: attack the synthetic cohort and the generator, check the attacks by controls, decide."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.asked import Asked, ask_about
from pipeline.audit.attacks.reconstruction import reconstruction, reconstruction_errors
from pipeline.audit.attacks.registry import (
    BY_NAME,
    ShadowFindings,
    attack_references,
    attack_release,
    attack_with_shadows,
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
from pipeline.audit.controls import PLANTED_SHARES, MemorisingGenerator, Planted, n_planted, plant_copies
from pipeline.audit.copies import LEVELS, find_copies, view_copies, view_copy
from pipeline.audit.figures import save_pairs, save_roc
from pipeline.audit.material import open_reference, open_release
from pipeline.audit.policy import Policy, load_policy
from pipeline.audit.promise import check_promise, with_broken_promise
from pipeline.audit.references import attack_all_references, balanced_halves
from pipeline.audit.risk import exposed_persons, subgroup_exposure
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Persons, Reference, Release, Scores, Targets, by_person
from pipeline.cohort import Case, Cohort, digest_file, digest_of, digest_tree, open_cohort, write_json
from pipeline.config import AuditSection
from pipeline.layout import MODEL_FILE, WEIGHTS_FILE
from pipeline.parallel import training_device
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed, numpy_stream
from pipeline.train.checkpoint import load_checkpoint
from pipeline.train.discriminator import Discriminator
from pipeline.train.generator import Generator
from pipeline.train.weights import load_generator

MEMORY_SHARE = 0.2


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
    cohort = open_cohort(context.folder("ingest"))
    setting = Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, section.n_style_draws, context.seed)
    asked, n_not_attacked = ask_about(cohort, setting)
    reference = open_reference(cohort.patients("val"), asked.targets, setting)
    synthetic = open_cohort(context.folder("generate"))
    generator = load_generator(context.folder("train")).to(training_device(context.config.compute))
    release = open_release(synthetic.cases, generator, setting, _discriminator(context, cohort))

    sides = [cases[0].split for cases in asked.persons]
    is_in = balanced_halves(sides, section.n_references, numpy_stream(context.seed, "halves"))
    few = _choose(asked, section.overtrained_members, context.seed, "few")
    shadows, of_few = attack_all_references(
        asked,
        is_in,
        cohort,
        context.config,
        setting,
        reference,
        context.out / "references",
        few,
    )
    evidence = gather_evidence(asked, release, generator, reference, setting, shadows, is_in, n_not_attacked)
    if of_few is not None:
        planted = [*evidence.planted, *_of_few(asked, few, of_few)]
        evidence = replace(evidence, planted=planted)
    conclusions = conclude(evidence, policy, section, context.seed)
    canaries = audit_by_canaries(
        cohort, generator, context.config, setting, policy.alpha.value, context.out / "canaries"
    )
    promised = json.loads((context.folder("train") / MODEL_FILE).read_text(encoding="utf-8")).get("privacy")
    privacy = check_promise(promised, evidence, canaries, policy.alpha.value)
    conclusions = replace(conclusions, verdicts=with_broken_promise(conclusions.verdicts, privacy))

    controls = [*conclusions.negative, *conclusions.positive]
    _write_scores(context.out / "scores.csv", evidence, asked.persons)
    risks = exposed_persons(asked.persons, evidence, policy.alpha.value)
    _write_table(context.out / "patients.csv", risks)
    context.tracker.table("patients_risk", risks)
    save_roc(evidence, conclusions.positive, policy.alpha.value, context.out / "figures" / "roc.png")
    pairs = context.out / "figures" / "nearest_pairs.png"
    save_pairs(asked, release, synthetic, setting.modalities, evidence.copies["scan"].threshold, pairs)
    content = _content(evidence, conclusions, policy, section, asked, context.seed)
    content["canaries"] = None if canaries is None else canaries.as_json()
    content["privacy"] = privacy
    content["bound_to"] = {
        "generator": digest_file(context.folder("train") / WEIGHTS_FILE),
        "synthetic": digest_of(digest_tree(context.folder("generate"))),
    }
    write_json(context.out / "audit.json", content)
    _record(context, content)
    gated = [figure for figure in conclusions.figures if BY_NAME[figure.name].threat_model != "warning"]
    return {
        "verdict": content["verdict"],
        "attacks": len(conclusions.figures),
        "largest_auc": round(max(figure.estimate.value for figure in gated), 3),
        "largest_paired_auc": round(max(figure.estimate.value for figure in conclusions.paired), 3),
        "controls_behaved": f"{sum(c.behaved for c in controls)} of {len(controls)}",
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


def gather_evidence(
    asked: Asked,
    release: Release,
    generator: Generator,
    reference: Reference,
    setting: Setting,
    shadows: ShadowFindings,
    is_in: NDArray[np.bool_],
    n_not_attacked: int,
) -> Evidence:
    """Attack the target, plant leaks, search for copies.

    Parameters
    ----------
    asked : Asked
    release : Release
        The target.
    generator : Generator
        The target's.
    reference : Reference
    setting : Setting
    shadows : ShadowFindings
        What attacks found on the references.
    is_in : ndarray, (references, persons), bool
    n_not_attacked : int
    """
    targets = asked.targets
    found = attack_release(targets, release, reference)
    scores = found | attack_with_shadows(targets, release, reference, found, shadows.shadows())
    of_copies = view_copies(reference.others.cases, setting, derive_seed(setting.seed, "construct"))
    copies = {
        level: find_copies(
            level,
            asked.persons,
            asked.is_member,
            targets,
            release.views[level],
            reference.others,
            of_copies[level],
            setting.seed,
        )
        for level in LEVELS
    }
    return Evidence(
        asked.is_member,
        asked.per_person(scores),
        asked.per_person(attack_references(targets, reference, shadows)),
        is_in,
        [
            *(
                planted
                for share in PLANTED_SHARES
                for planted in _copies_planted(asked, release, reference, setting, share)
            ),
            _memory_planted(asked, generator, reference, setting, found["reconstruction"]),
        ],
        copies,
        n_not_attacked,
    )


def _choose(asked: Asked, n: int, seed: int, name: str) -> list[Case]:
    """Draw members; of each, the first scan."""
    members = np.flatnonzero(asked.is_member)
    picks = numpy_stream(seed, "chosen", name).choice(members, min(n, len(members)), replace=False)
    return [asked.persons[int(i)][0] for i in picks]


def _copies_planted(
    asked: Asked, release: Release, reference: Reference, setting: Setting, share: float
) -> list[Planted]:
    chosen = _choose(asked, n_planted(share, int(asked.is_member.sum())), setting.seed, f"copies {share:g}")
    stream = numpy_stream(setting.seed, "planted", f"{share:g}")
    views = [view_copy(case, setting, stream) for case in chosen]
    copies = {level: np.stack([one[level] for one in views]) for level in LEVELS}
    members = _take(asked.targets, [case.subject for case in chosen])
    return plant_copies(members, _scans_of_others(asked), release, reference, copies, share)


def _memory_planted(
    asked: Asked, generator: Generator, reference: Reference, setting: Setting, found: Scores
) -> Planted:
    """Give the generator a memory of some members: the reconstruction attack must see it.

    The memory does not change what the attack gives the others, so that they are not rendered again.
    """
    chosen = _choose(asked, n_planted(MEMORY_SHARE, int(asked.is_member.sum())), setting.seed, "memory")
    memorising = MemorisingGenerator(generator, chosen, setting)
    leaking = Release({}, partial(reconstruction_errors, generator=memorising, setting=setting))
    scores = reconstruction(_take(asked.targets, [case.subject for case in chosen]), leaking, reference)
    clean = by_person(found, asked.targets.subjects, asked.persons)[~asked.is_member]
    return Planted(
        "planted-memory",
        f"generator made to half remember {len(chosen)} members, seen by '{BY_NAME['reconstruction'].title}'",
        scores,
        clean,
    )


def _of_few(asked: Asked, few: Sequence[Case], found: Mapping[str, Scores]) -> list[Planted]:
    """Return what the reconstruction gave on the generator of few: its members, and all others whoever they are."""
    scores = asked.per_person(found)["reconstruction"]
    inside = np.array([cases[0].person in {case.person for case in few} for cases in asked.persons])
    title = f"generator trained on {len(few)} members alone, seen by '{BY_NAME['reconstruction'].title}'"
    return [Planted("overtrained", title, scores[inside], scores[~inside])]


def _take(targets: Targets, subjects: Sequence[str]) -> Targets:
    places = [targets.subjects.index(subject) for subject in subjects]
    cases = tuple(targets.cases[place] for place in places)
    return Targets(tuple(subjects), {level: views[places] for level, views in targets.views.items()}, cases)


def _scans_of_others(asked: Asked) -> Targets:
    others = [cases for cases, is_in in zip(asked.persons, asked.is_member, strict=True) if not is_in]
    return _take(asked.targets, [case.subject for cases in others for case in cases])


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
        "attacks": [
            attack_json(figure, evidence, conclusions.p_values[figure.name], policy) for figure in conclusions.figures
        ],
        "paired": [paired_json(figure, policy) for figure in conclusions.paired],
        "controls": {
            "negative": [control.as_json() for control in conclusions.negative],
            "positive": [control.as_json() for control in conclusions.positive],
        },
        "copies": copies_json(evidence.copies),
        **power_json(conclusions.paired, evidence.is_member, policy, seed),
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
