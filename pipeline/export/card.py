"""The card of a release and its licence: what a receiver reads.

References
----------
Gebru et al. 2021, "Datasheets for datasets", doi:10.1145/3458723.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.attributes import HEMISPHERES, VOLUMES, volume_stratum
from pipeline.audit.policy import describe_policy
from pipeline.cohort import UNKNOWN, Cohort
from pipeline.config import ExportSection
from pipeline.export.bids import IMAGE_TITLES, PUBLIC_COLUMNS
from pipeline.export.gate import MEANINGS, GateDecision
from pipeline.export.generator import GENERATOR_FOLDER, is_planned
from pipeline.export.public_audit import Audit
from pipeline.guarantee_text import describe_guarantee

CC_BY_DEED = "https://creativecommons.org/licenses/by/4.0/"


@dataclass(frozen=True)
class Release:
    """What the pages of a release speak of.

    Parameters
    ----------
    cohort : Cohort
        The synthetic cohort.
    config : ExportSection
    volume_edges_ml : tuple of float
        Edges of the strata small, medium, large.
    audit : mapping
        Public part of the audit; see :func:`public_audit`.
    decision : GateDecision
    gain : str
        The sentence on the measured gain, empty if there is none.
    """

    cohort: Cohort
    config: ExportSection
    volume_edges_ml: tuple[float, ...]
    audit: Audit
    decision: GateDecision
    gain: str


def write_card(release: Release, path: Path) -> None:
    """Write the card of a release: README.md."""
    sections = [
        _head(release),
        _contents(release),
        _made(release),
        _use(release.config),
        _privacy(release.audit, release.decision),
        f"## Does it help?\n\n{release.gain or 'The gain for segmentation has not been measured.'}\n",
        _limits(),
        _verification(),
    ]
    path.write_text("\n".join(sections), encoding="utf-8")


def _head(release: Release) -> str:
    decision = release.decision
    text = (
        f"# SYNTHETIC: {release.config.title}\n\n"
        f"{len(release.cohort.cases)} synthetic cases of brain MRI with a tumour and its label map. No scan in this "
        "folder shows a patient; each file says so in its header.\n"
    )
    if not decision.overridden:
        return f"{text}\nPrivacy audit: **{one_cell(decision.in_words)}**.\n"
    policy = one_cell(describe_policy(decision.policy))
    return (
        f"{text}\n> **Released against the privacy gate.** The verdict of the audit is **{decision.verdict}**: "
        f"{MEANINGS[decision.verdict]}. It was reached under {policy}. Whoever made this release gave as the reason:\n"
        f">\n> {decision.reason}\n"
    )


def _contents(release: Release) -> str:
    cohort = release.cohort
    modalities = ", ".join(IMAGE_TITLES[name] for name in cohort.modalities)
    return (
        "## What it is\n\n"
        f"- Modalities: {modalities}; int16, skull-stripped, on one grid per case\n"
        f"- Label maps: {', '.join(name.replace('_', ' ') for name in cohort.scheme.tumor)}; healthy tissue classes\n"
        f"- Spacing: {cohort.spacing_mm:g} mm, isotropic; {' x '.join(map(str, cohort.shape))} voxels\n"
        "- Layout: `bids/` is a BIDS derivative; `croissant.json` describes it for machine learning\n"
        f"{_generator(release.audit)}\n"
        "Cases by volume of the whole tumour and hemisphere, as measured on the label maps:\n\n"
        f"{_count_table(cohort, release.volume_edges_ml)}"
    )


def _generator(audit: Audit) -> str:
    if not is_planned(audit):
        return ""
    return (
        f"- `{GENERATOR_FOLDER}/`: the generator itself, audited as such; `pipeline.train.weights.load_generator` "
        "reads it, and it draws scans from label maps of your own\n"
    )


def _count_table(cohort: Cohort, edges_ml: Sequence[float]) -> str:
    counts: dict[tuple[str, str], int] = {}
    for case in cohort.cases:
        stratum = volume_stratum(float(case.attributes["volume_ml"]), tuple(edges_ml))
        key = (stratum, case.attributes["hemisphere"])
        counts[key] = counts.get(key, 0) + 1
    bounds = (f"below {edges_ml[1]:g} ml", f"{edges_ml[1]:g} to {edges_ml[2]:g} ml", f"{edges_ml[2]:g} ml and more")
    rows = [
        [f"{stratum} ({bound})", *(str(counts.get((stratum, side), 0)) for side in HEMISPHERES)]
        for stratum, bound in zip(VOLUMES, bounds, strict=True)
    ]
    return _table(("volume", *HEMISPHERES), rows)


def _made(release: Release) -> str:
    sources = sorted({case.source for case in release.cohort.cases} - {UNKNOWN})
    return (
        "## How it was made\n\n"
        "A conditional generative adversarial network was trained on a private cohort; it draws all modalities of a "
        "case from a map of tissue and tumour classes. Source of the label maps here: "
        f"{', '.join(sources) or 'not stated'}. ({PUBLIC_COLUMNS['source']}.) Made with synthcohort {__version__}.\n"
    )


def _use(config: ExportSection) -> str:
    contact = f"Questions: {one_cell(config.contact)}\n" if config.contact else ""
    return (
        "## Use\n\n"
        f"Licence: {config.license}; see LICENSE.txt. The terms of the cohort that the generator was trained on may "
        "bind you too.\n\n"
        "Meant for: developing and testing software, teaching, pre-training and augmenting segmentation models whose "
        "worth is then measured on real scans.\n\n"
        "Not for: diagnosis, treatment or any decision on a patient; evidence of how well a method does on patients; "
        "estimates of how frequent or how large tumours are; attempts to find out who was trained on; being passed on "
        f"without the mark that it is synthetic.\n{contact}"
    )


def _privacy(audit: Audit, decision: GateDecision) -> str:
    attacks = [
        (
            *(row.get("name"), row.get("threat_model"), f"{row.get('n_members')} / {row.get('n_nonmembers')}"),
            *(_interval(row), _number(row.get("auc_either_sign"))),
        )
        for row in audit.get("attacks", [])
    ]
    paired = [
        (
            *(row.get("attack"), row.get("threat_model"), row.get("n_patients"), row.get("n_references")),
            _interval(row) + ("" if row.get("interval_covers_generators") else ", over patients only"),
        )
        for row in audit.get("paired", [])
    ]
    head = ("attack", "threat model", "members / non-members", "AUC (interval)", "AUC, either sign")
    paired_head = ("attack", "threat model", "patients", "reference generators", "AUC (interval)")
    return (
        f"## Privacy audit\n\nVerdict: **{one_cell(decision.in_words)}**.\n\nEach attack tries to tell whether a "
        "patient was trained on, from the data set alone or with the model at hand. An AUC of .5 is a guess, 1 gives "
        f"everybody away; the unit is the patient. `audit.json` holds all figures.\n\n{_table(head, attacks)}\n"
        f"The same procedure on random halves of the cohort, each patient once in and once out:\n\n"
        f"{_table(paired_head, paired)}\n"
        f"{_guarantee(audit)}Controls: {_controls(audit)}. Near-copies of training patients: {_copies(audit)}.\n\n"
        f"What the audit could not resolve, and its reasons:\n\n{_unresolved(audit)}"
    )


def _guarantee(audit: Audit) -> str:
    text = describe_guarantee(audit)
    return f"{text}\n\n" if text else ""


def _controls(audit: Audit) -> str:
    controls = [row for side in ("negative", "positive") for row in audit.get("controls", {}).get(side, [])]
    failed = [str(row.get("name")) for row in controls if not row.get("behaved")]
    if not controls:
        return "none were run"
    if failed:
        return f"{len(failed)} of {len(controls)} misbehaved ({', '.join(failed)})"
    return f"all {len(controls)} behaved"


def _copies(audit: Audit) -> str:
    copies = audit.get("copies") or {}
    if "n_near_duplicates" not in copies:
        return "not looked for"
    recall = _number(copies.get("recall"))
    return f"{copies['n_near_duplicates']} found, by a test that finds a share of {recall} of constructed copies"


def _unresolved(audit: Audit) -> str:
    lines = [one_cell(reason) for reason in audit.get("reasons", [])]
    for row in audit.get("attacks", []):
        rates = row.get("tpr_at_fpr") or {}
        names = [name for name, rate in rates.items() if isinstance(rate, dict) and not rate.get("resolved")]
        if names:
            lines.append(f"{row.get('name')}: true positive rate at a false positive rate of {', '.join(names)}")
    if audit.get("patients_needed") is not None:
        lines.append(f"Patients needed to resolve it: {one_cell(audit['patients_needed'])}")
    return "".join(f"- {line}\n" for line in lines) or "- nothing is recorded as unresolved\n"


def _limits() -> str:
    return (
        "## Limits\n\n"
        "- An audit finds the leaks that its attacks look for. A pass is no proof that nothing leaks, nor is it "
        "differential privacy.\n"
        "- The generator learned from one cohort: its scanners, its patients, its gaps. What was rare there is rare or "
        "wrong here.\n"
        "- Texture is drawn, not acquired: fine anatomy, vessels and signs outside the label map mean nothing.\n"
    )


def _verification() -> str:
    return (
        "## Verify\n\n"
        "    synthcohort verify RELEASE\n\n"
        "with this folder for RELEASE checks every file against `manifest.json`. Checksums find accidents: damage, "
        "stale or missing parts. Who changes a file on purpose can change its checksum too: against an adversary only "
        "a signature counts, and this release has none.\n"
    )


def _interval(row: Mapping[str, Any]) -> str:
    bounds = row.get("auc_ci")
    text = _number(row.get("auc"))
    if isinstance(bounds, list) and len(bounds) == 2:
        text += f" ({_number(bounds[0])} to {_number(bounds[1])})"
    return text + (", interval unreliable" if row.get("reliable") is False else "")


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else UNKNOWN


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *(rows or [["none"] + [""] * (len(head) - 1)])]
    return "".join(f"| {' | '.join(one_cell(cell) for cell in line)} |\n" for line in lines)


def one_cell(value: object) -> str:
    """Return a value as text that stays within one line, and within one cell of a table."""
    return " ".join(str(value).split()).replace("|", "/")


def write_license(config: ExportSection, path: Path) -> None:
    """Write LICENSE.txt: the notice for CC-BY-4.0, else the SPDX identifier."""
    if config.license == "CC-BY-4.0":
        text = (
            f"{config.title}\n\n"
            "This data set is licensed under the Creative Commons Attribution 4.0 International licence (CC BY 4.0).\n"
            f"To view the deed and the text of the licence, visit {CC_BY_DEED}\n\n"
            "You may share and adapt the data if you give credit, link to the licence and say what you changed.\n"
            "The data are synthetic; keep that mark when you pass them on.\n"
        )
    else:
        text = f"{config.title}\n\nThis data set is released under the licence with the SPDX id {config.license}.\n"
    path.write_text(text, encoding="utf-8")
