"""The report: one self-contained page with every stage's picture and figures, readable by a clinician."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.attributes import TITLES
from pipeline.audit.page import audit_section
from pipeline.cohort import read_tsv
from pipeline.evaluate.page import evaluation_section
from pipeline.labels import REGION_TITLES
from pipeline.layout import FOLDERS, STAGES, read_done
from pipeline.page import STYLE, escape, make_table, picture, with_interval

STAGE_TITLES = {
    "ingest": "1. The real cohort",
    "train": "2. The generator",
    "generate": "3. The synthetic cohort",
    "audit": "4. Privacy audit",
    "evaluate": "5. Does it help segmentation?",
    "export": "6. Release",
}
VERDICT_REASONS = {
    "pass": "the audit found no leak above its limits",
    "fail": "the audit found that the release would tell who was in the training data",
    "unresolved": "the audit could neither find a leak nor exclude one",
    "invalid": "the audit's own controls misbehaved",
}
NO_AUDIT = "the audit has not been run"
GROUP_TITLES = {
    "recombine": "recombined from two persons",
    "atlas": "grown in an atlas",
    "real": "real persons, not trained on",
}
FIDELITY_HEAD = (
    *("region", "synthetic", "real test persons", "synthetic / real", "their maps, drawn", "drawn less real"),
    "no region, and none seen: synthetic; real; drawn",
)
REALISM_TITLES = {
    "frechet_distance": "Frechet distance of features",
    "kernel_distance": "kernel distance of features (below 0: by chance)",
    "histogram_distance": "brightness of tissues: share of the range by which it is off",
    "spectrum_distance": "power spectrum: difference in natural logarithms",
    "likeness_between_persons": "structural similarity between two persons (diversity: lower is more)",
    "two_sample_auc": "two-sample test: AUC of a classifier (.5: cannot tell)",
}
MAX_CASE_PICTURES = 4


def write_report(run_dir: Path, current: Collection[str] = STAGES) -> Path:
    """Write ``report.html`` from what is finished in a run folder.

    Parameters
    ----------
    run_dir : Path
    current : collection of str
        Stages whose result belongs to the present config; the others are called out of date, and not shown.

    Returns
    -------
    Path
    """
    sections = "\n".join(_section(run_dir, stage, stage in current) for stage in STAGES)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>synthcohort: {escape(run_dir.name)}</title><style>{STYLE}</style></head><body>
<h1>Synthetic brain-tumour cohort: {escape(run_dir.name)}</h1>
<p class="note">Pictures of real scans are under pseudonyms and stay in this building. Scans are shown in radiological
convention: the patient's right is on the left.</p>
{_headline(run_dir, current)}
{_phantom_note(run_dir)}
{sections}
</body></html>
"""
    path = run_dir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _headline(run_dir: Path, current: Collection[str]) -> str:
    """Return verdict and gain in one sentence, cheap rivals in a second; in smaller type how far to trust them."""
    audit, gain, manifest = (
        _read_json(run_dir / FOLDERS[stage] / name) if stage in current else {}
        for stage, name in (("audit", "audit.json"), ("evaluate", "gain.json"), ("export", "manifest.json"))
    )
    verdict = str(audit.get("verdict", ""))
    found = f"<b>Verdict: {escape(verdict or 'none yet')}</b>, as {VERDICT_REASONS.get(verdict, NO_AUDIT)}"
    summary = str(gain.get("summary", "")).rstrip(".")
    # A sentence of its own elsewhere; here it goes on after a semicolon.
    helps = f"; {escape(summary[0].lower() + summary[1:])}" if summary else ""
    rivals = str(gain.get("rivals", "")).rstrip(".")
    helps += f". {escape(rivals)}" if rivals else ""
    notes = [*map(str, gain.get("cautions", ())), _released(audit, manifest)]
    return f'<p class="verdict {escape(verdict)}">{found}{helps}.</p><p class="note">{escape(" ".join(notes))}</p>'


def _released(audit: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    override = manifest.get("override") or {}
    if override:
        return f"A release was written by override; the reason given: {override.get('reason', '')}"
    if manifest:
        return "A release was written."
    return "No release was written." if audit else "Without an audit nothing may leave the building."


def _phantom_note(run_dir: Path) -> str:
    """Say so where the patients are phantoms."""
    table = run_dir / FOLDERS["ingest"] / "participants.tsv"
    sources = {row["source"] for row in read_tsv(table)} if table.is_file() else set()
    if not any("phantom" in source for source in sources):
        return ""
    return (
        "<p><b>Made on phantoms.</b> They play the patients here, and they warp the same atlas as the label maps of "
        "the source <code>atlas</code>: no figure on this page says anything about patients.</p>"
    )


def _section(run_dir: Path, stage: str, is_current: bool) -> str:
    folder = run_dir / FOLDERS[stage]
    title = f"<h2>{STAGE_TITLES[stage]}</h2>"
    done = read_done(folder)
    if done is None:
        return f'{title}<p class="note">Not finished.</p>'
    if not is_current:
        return f'{title}<p class="note">Out of date: made with another config, or from data that have changed.</p>'
    content = {
        "ingest": _ingest,
        "train": _train,
        "generate": _generate,
        "audit": _audit,
        "evaluate": _evaluate,
        "export": _export,
    }[stage](folder, done["summary"])
    return f"{title}{content}"


def _ingest(folder: Path, summary: Mapping[str, Any]) -> str:
    text = (
        f"<p>{summary['cases']} cases are used: {summary['train']} to train the generator, {summary['val']} "
        f"for choices, {summary['test']} kept aside for attacks and tests. "
        f"{summary['quarantined']} could not be used. Figures of every case, and what stands out: "
        '<a href="cohort/quality.html">cohort/quality.html</a>.</p>'
    )
    if summary["same_person_pairs"]:
        text += (
            f"<p>{summary['same_person_pairs']} pairs of subjects look like one person under two identifiers; they "
            "share a side of the split. The quality page lists them.</p>"
        )
    if summary.get("lacking_a_modality"):
        text += (
            f"<p>{summary['lacking_a_modality']} cases lack a modality: their persons only train the generator, in the "
            "modalities that they have.</p>"
        )
    if summary.get("source_files_not_readable"):
        text += (
            f"<p><b>{summary['source_files_not_readable']} files or folders of the source may not be read</b>: cases "
            "in them are missing here, or incomplete.</p>"
        )
    quarantined = read_tsv(folder / "quarantine.tsv")
    rows = [(row["case_number"], row["reason"]) for row in quarantined]
    table = make_table(("case in the source", "why it is not used"), rows) if rows else ""
    pictures = _case_pictures(folder, "Real case: T1, T1 with contrast, T2, FLAIR; outlines of tumour and brain mask")
    return text + table + pictures


def _train(folder: Path, summary: Mapping[str, Any]) -> str:
    text = f"<p>{summary['steps']} steps on {summary['members']} persons.</p>"
    if "epsilon" in summary:
        text += (
            f"<p>With differential privacy: epsilon {summary['epsilon']:.2f} at delta {summary['delta']:.1e}, patient "
            f"by patient; noise {summary['noise_multiplier']:.2f} times the clipping norm.</p>"
        )
    samples = sorted((folder / "samples").glob("*.png"))
    caption = (
        "Persons not trained on. Left: label map; then their real T1, T1 with contrast, T2, FLAIR; then the scans made "
        "from the label map"
    )
    return text + "".join(picture(path, caption) for path in samples[-1:])


def _generate(folder: Path, summary: Mapping[str, Any]) -> str:
    text = f"<p>{summary['cases']} synthetic cases with label maps.</p>"
    n_worse = summary["refused"] - summary["near_duplicates"]
    if summary["refused"] and not n_worse:
        text = (
            f"<p>{summary['cases']} synthetic cases with label maps; {summary['refused']} more were near-duplicates of "
            "a real person, refused and not replaced "
            f'(<a href="{FOLDERS["generate"]}/curation.tsv">curation.tsv</a>).</p>'
        )
    elif n_worse:
        text = (
            f"<p>{summary['cases']} synthetic cases with label maps, chosen out of "
            f"{summary['cases'] + summary['refused']} candidates; {summary['near_duplicates']} of those refused were "
            "near-duplicates of a real person, the others were worse in fidelity, realism or diversity than those kept "
            f'(why, one by one: <a href="{FOLDERS["generate"]}/curation.tsv">curation.tsv</a>).</p>'
        )
    plan = read_tsv(folder / "plan.tsv") if (folder / "plan.tsv").is_file() else []
    counts = {
        "asked": "asked",
        "obtained": "in the label maps",
        "seen": "in the scans, as a segmenter sees them",
        "source": "among the members",
    }
    strata = [name for name in plan[0] if name not in counts] if plan else []
    rows = [tuple(row[name] for name in (*strata, *counts)) for row in plan]
    head = (*(TITLES[name] for name in strata), *counts.values())
    plan_picture = picture(folder / "figures" / "plan.png", "The plan: shares of cases by stratum")
    pictures = _case_pictures(folder, "SYNTHETIC case: T1, T1 with contrast, T2, FLAIR, FLAIR with outlines, label map")
    return text + plan_picture + (make_table(head, rows) if rows else "") + _realism(folder) + pictures + _walk(folder)


def _walk(folder: Path) -> str:
    steps = _read_json(folder / "realism.json").get("walk")
    if not steps:
        return ""
    caption = (
        "SYNTHETIC. Upper rows: one label map, from one style to another (T1 with contrast, FLAIR). Lower rows: from "
        "one map to another in one style (label map, T1 with contrast, FLAIR)"
    )
    return (
        "<h3>Between two styles, between two persons</h3><p>Six even steps in style, then in shape. The largest in "
        f"style changes the scan by {steps['style']:.1f} times the mean, the largest in shape by {steps['shape']:.1f} "
        f"times.</p>{picture(folder / 'figures' / 'walk.png', caption)}"
    )


def _realism(folder: Path) -> str:
    measured = _read_json(folder / "realism.json")
    if not measured:
        return ""
    fidelity = [
        (
            REGION_TITLES[region],
            _dice(scores, "synthetic"),
            _dice(scores, "real_test"),
            _share(scores["ratio"]),
            _dice(scores, "redrawn"),
            _difference(scores["redrawn_less_real"]),
            "; ".join("{} of {}".format(*scores["clean"][name]) for name in ("synthetic", "real_test", "redrawn")),
        )
        for region, scores in measured["fidelity"].items()
    ]
    realism = [
        (title, *(_realism_cell(measured["realism"], name, side) for side in ("synthetic", "real")))
        for name, title in REALISM_TITLES.items()
    ]
    draws = f"{measured['likeness_between_draws']:.2f}"
    return (
        "<h3>Do the scans show what their label maps say?</h3><p>A segmenter trained on real training persons looks at "
        "them; Dice of what it finds with the label map, beside its Dice on real test persons, over cases that have "
        "the region (how many). Then the test persons' own label maps, drawn by the generator, and the mean difference "
        "to their real scans with its interval: what is worse there lies in the drawing; to be better is no merit, "
        "since drawn scans are plainer. Last, of the cases without the region those in which none is seen.</p>"
        f"{make_table(FIDELITY_HEAD, fidelity)}"
        "<h3>How real do they look?</h3><p>Each figure compares scans with those of persons trained on; the last "
        "column compares real persons who were not trained on with them: as good as it can get. Features are "
        "those of the segmenter above.</p>"
        f"{make_table(('figure', 'synthetic', 'real, not trained on'), realism)}"
        f"{_geometry(measured['geometry'])}"
        f"<p>Two scans made from one label map have a structural similarity of {draws}: 1 would mean that every label "
        "map gives one scan only.</p>"
    )


def _geometry(geometry: Mapping[str, Any]) -> str:
    rows = [
        (GROUP_TITLES.get(name, name), *(_nearest_text(geometry[part][name]) for part in ("tumor", "tissue")))
        for name in geometry["tumor"]
    ]
    return (
        "<h3>Whose label maps are they?</h3><p>Dice with the most alike of the label maps of persons trained on, "
        "centres laid on each other: mean, and the highest. Real persons who were not trained on show what chance "
        f"gives.</p>{make_table(('label maps', 'tumour', 'tissues'), rows)}"
    )


def _nearest_text(figures: Mapping[str, Any]) -> str:
    return f"{with_interval(figures['mean'], figures['ci'])}; highest {figures['max']:.2f}"


def _realism_cell(realism: Mapping[str, Any], name: str, side: str) -> str:
    value = realism[name][side]
    if value is None:
        return "too few persons"
    interval = realism.get(f"{name}_ci", {}).get(side)
    return with_interval(value, interval) if interval else f"{value:.3g}"


def _dice(scores: Mapping[str, Any], name: str) -> str:
    return "none has it" if scores[name] is None else f"{scores[name]:.2f} ({scores['n'][name]})"


def _difference(found: Mapping[str, Any] | None) -> str:
    return "too few" if found is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(found["value"], *found["ci"])


def _share(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.0%}"


def _audit(folder: Path, summary: Mapping[str, Any]) -> str:
    return audit_section(folder)


def _evaluate(folder: Path, summary: Mapping[str, Any]) -> str:
    return evaluation_section(folder)


def _export(folder: Path, summary: Mapping[str, Any]) -> str:
    manifest = _read_json(folder / "manifest.json")
    override = manifest.get("override") or {}
    reason = f"<p><b>Released by override.</b> Reason: {escape(override.get('reason', ''))}</p>" if override else ""
    how = "A receiver checks them with <code>synthcohort verify release</code>."
    return f"<p>{len(manifest['files'])} files. {how}</p>{reason}"


def _case_pictures(folder: Path, caption: str) -> str:
    paths = sorted((folder / "figures").glob("sub-*.png"))
    return "".join(picture(path, caption) for path in paths[:MAX_CASE_PICTURES])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    return content
