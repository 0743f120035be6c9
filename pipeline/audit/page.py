"""The audit's section of the report: for a data-protection officer, in words first. Private: it shows patients."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.audit.policy import Policy, describe_policy
from pipeline.guarantee_text import describe_guarantee
from pipeline.page import escape, make_table, picture, with_interval

VERDICT_SENTENCES = {
    "pass": "The audit found no leak above its limits: the synthetic cohort may be released.",
    "fail": "The audit found that the release would tell who was in the training data: no release.",
    "unresolved": "The audit could neither find a leak nor exclude one; its reasons are listed below: no release "
    "without a written reason.",
    "invalid": "The audit's own controls misbehaved: nothing can be concluded, no release.",
}
THREAT_TITLES = {
    "dataset": "whoever holds the synthetic scans",
    "model": "whoever can use the generator",
    "warning": "whoever stole the discriminator (never released)",
}
PLANNED_TITLES = {"dataset": "the synthetic cohort alone", "generator": "the generator too"}
LEVEL_TITLES = {"scan": "whole scan", "tumor": "tumour and its surroundings", "labels": "label map"}
N_EXPOSED = 8


def audit_section(folder: Path) -> str:
    """Return the section as HTML; ``folder`` is the stage's."""
    audit = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    return "".join(
        (
            _verdict(audit),
            _attacks(audit, folder),
            _paired(audit),
            _copies(audit, folder),
            _exposed(audit, folder),
            _canaries(audit),
            _controls(audit),
            _unresolved(audit),
        )
    )


def _verdict(audit: Mapping[str, Any]) -> str:
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in audit["reasons"])
    verdicts = [(PLANNED_TITLES[planned], one["verdict"]) for planned, one in audit["verdicts"].items()]
    guarantee = describe_guarantee(audit)
    policy = describe_policy(Policy.model_validate(audit["policy"]))
    return (
        f"<p>Can an attacker tell who was trained on? {escape(VERDICT_SENTENCES[audit['verdict']])}</p>"
        f"<p>Limits: those of {escape(policy)}. What is planned to leave: "
        f"{escape(PLANNED_TITLES[audit['release']])}. The reasons:</p><ul>{reasons}</ul>"
        f"{make_table(('if this left', 'verdict'), verdicts)}" + (f"<p>{escape(guarantee)}</p>" if guarantee else "")
    )


def _attacks(audit: Mapping[str, Any], folder: Path) -> str:
    rows = [
        (
            attack["title"],
            THREAT_TITLES[attack["threat_model"]],
            attack["story"],
            with_interval(attack["auc"], attack["auc_ci"]) + ("" if attack["reliable"] else ", interval unreliable"),
            f"{attack['n_members']} / {attack['n_nonmembers']}",
            _tpr_text(attack["tpr_at_fpr"]),
            f"{attack['epsilon_lower']:.2f} of {attack['epsilon_resolvable']:.2f}",
        )
        for attack in audit["attacks"]
    ]
    head = (
        "attack",
        "by",
        "how",
        "AUC (.5: knows nothing)",
        "members / others",
        "members found at false alarms of",
        "epsilon shown (indicative), of the most that could be",
    )
    return (
        "<h3>What was attacked, and how</h3><p>Each attack gives a person a score; members of the training cohort are "
        "compared with persons of the same source that nothing was trained on. The attacker does not know who is "
        f"who.</p>{make_table(head, rows)}"
        f"{picture(folder / 'figures' / 'roc.png', 'ROC of each attack with the planted leaks; axes logarithmic')}"
    )


def _tpr_text(rates: Mapping[str, Mapping[str, Any]]) -> str:
    parts = []
    for fpr, rate in rates.items():
        shown = with_interval(rate["value"], rate["ci"]) if rate["resolved"] else "unresolved"
        parts.append(f"{100 * float(fpr):g}%: {shown}")
    return "; ".join(parts)


def _paired(audit: Mapping[str, Any]) -> str:
    rows = [
        (
            figure["title"],
            with_interval(figure["auc"], figure["auc_ci"]),
            f"{1 - figure['limit']:.2f} to {figure['limit']:.2f}",
            figure["n_patients"],
            figure["n_references"],
            "yes" if figure["interval_covers_generators"] else "no: too few",
        )
        for figure in audit["paired"]
    ]
    head = ("attack", "AUC", "limits", "persons", "references", "interval covers generators")
    return (
        "<h3>The same person in and out</h3><p>Each reference generator was trained on half of the persons by the "
        "same recipe; each person is attacked on generators that had him and on generators that had not. AUC .5: no "
        "difference. This is what the procedure leaks at this cohort size, and what a pass rests on.</p>"
        f"{make_table(head, rows)}"
    )


def _copies(audit: Mapping[str, Any], folder: Path) -> str:
    rows = [
        (
            LEVEL_TITLES[level],
            found["n_near_duplicates"],
            found["n_copies"],
            f"{found['excess_p']:.2g}",
            with_interval(found["recall"], found["recall_ci"]),
            with_interval(found["false_alarms"], found["false_alarms_ci"]),
            found["n_persons"],
            "; ".join(f"{kind} {one['found']} of {one['n']}" for kind, one in found["by_transformation"].items()),
        )
        for level, found in audit["copies"]["levels"].items()
    ]
    head = (
        "of",
        "synthetic cases that are near-duplicates of a member",
        "of these, beyond all that persons never seen show: copies",
        "more of members than of others: p",
        "share of persons whose constructed copy is found (95%)",
        "share of persons called copied who were not (95%)",
        "persons",
        "found by kind of copy",
    )
    caption = "Members (left) nearest to a synthetic case, and that case (right). Private: these are patients."
    return f"<h3>Copies</h3>{make_table(head, rows)}{picture(folder / 'figures' / 'nearest_pairs.png', caption)}"


def _exposed(audit: Mapping[str, Any], folder: Path) -> str:
    with (folder / "patients.csv").open(encoding="utf-8") as file:
        patients = list(csv.DictReader(file))[:N_EXPOSED]
    attacks = [name.removesuffix("_ci") for name in patients[0] if name.endswith("_ci")]
    titles = {attack["name"]: attack["title"] for attack in audit["attacks"]}
    rows = []
    for patient in patients:
        worst = max(attacks, key=lambda name: float(patient[name]))
        interval = patient[f"{worst}_ci"]
        risk = f"{float(patient[worst]):.2f} ({'too few references' if interval == 'n/a' else interval})"
        head = (patient["patient"], patient["split"], patient["volume_ml"], titles[worst], risk, patient["p"])
        rows.append(head)
    groups = [
        (titles[row["attack"]], row["group"], row["n"], with_interval(row["risk"], row["ci"]))
        for row in audit["subgroups"]
        if row["attack"] in ("nearest-neighbour", "reconstruction")
    ]
    exposed = audit["n_exposed"]
    found = "; ".join(f"{n} by '{escape(titles[name])}'" for name, n in exposed.items())
    sentence = (
        f"Persons whom an attack tells apart when in from when out, beyond chance: {found}."
        if exposed
        else "No single person is told apart when in from when out beyond chance, over all persons and attacks."
    )
    return (
        f"<h3>Who is most exposed</h3><p>{sentence}</p><p>Risk: how much higher the attack scores a person when he was "
        "in than when he was out, in standard deviations of its scores; 0 is none. The highest of many is high by "
        "chance too: read the corrected p. Taking the most exposed out does not end it: others, now the rarest, become "
        "more exposed; train anew and audit again.</p>"
        f"{make_table(('person (pseudonym)', 'side', 'tumour, ml', 'attack', 'risk (interval)', 'p, corrected'), rows)}"
        f"{make_table(('attack', 'group', 'persons', 'mean risk (interval)'), groups)}"
    )


def _canaries(audit: Mapping[str, Any]) -> str:
    found = audit.get("canaries")
    if not found:
        return ""
    return (
        "<h3>One more training, with invented persons</h3>"
        f"<p>{found['n_canaries']} persons whom nobody scanned were put into one more training, or not, by a coin "
        f"each. Of {found['n_guesses']} guesses about the coins {found['n_correct']} were right. So epsilon of this "
        f"procedure is at least {found['epsilon_lower']:.2f}; so many guesses could have shown "
        f"{found['epsilon_resolvable']:.2f} at most.</p>"
    )


def _controls(audit: Mapping[str, Any]) -> str:
    negative, positive = audit["controls"]["negative"], audit["controls"]["positive"]
    head = ("control", "expected", "observed", "as expected")
    tables = {
        title: make_table(head, [(c["title"], c["expected"], c["observed"], _behaviour(c)) for c in controls])
        for title, controls in (("Leaks made on purpose", positive), ("Where there is nothing to find", negative))
    }
    titles = {attack["name"]: attack["title"] for attack in audit["attacks"]}
    seen = make_table(
        ("attack", "paired AUC where everything is told", "sees it"),
        [
            (titles[name], with_interval(one["auc"], one["auc_ci"]), "yes" if one["sees"] else "not with so few")
            for name, one in audit["sensitivity"].items()
        ],
    )
    tables["What each attack sees of references that tell everything of their members"] = seen
    controls = [*negative, *positive]
    n_idle = sum(not control["able"] for control in controls)
    idle = (
        f" {n_idle} of them could not have misbehaved with so few persons or references: they vouch for nothing."
        if n_idle
        else ""
    )
    n_behaved = sum(control["behaved"] for control in controls)
    return (
        f"<h3>Would the audit have seen a leak?</h3><p>{n_behaved} of {len(controls)} controls behaved. Leaks made on "
        f"purpose must be found; where nothing can be, nothing must be.{idle}</p>"
        + "".join(f"<details><summary>{title}</summary>{table}</details>" for title, table in tables.items())
    )


def _behaviour(control: Mapping[str, Any]) -> str:
    if not control["behaved"]:
        return "NO"
    return "yes" if control["able"] else "cannot tell"


def _unresolved(audit: Mapping[str, Any]) -> str:
    return f"<h3>What could not be resolved</h3><p>{escape(audit['power']['sentence'])}</p>"
