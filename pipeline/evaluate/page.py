"""The evaluation's section of the report: for a clinician, in words first. Private: it shows patients."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.labels import REGION_TITLES
from pipeline.page import escape, make_table, picture, with_interval
from pipeline.segmentation.catalogue import COMPARED_METRICS, METRIC_TITLES, RATE_METRICS

# A distance says little without the shares of patients in whom the region is missed, or found where there is none.
TABLE_METRICS = (*COMPARED_METRICS, *RATE_METRICS)
ARMS_HEAD = (
    *("arm", "trained on", "real data", "real persons", "synthetic cases", "mixed in", "generators"),
    "each trained on",
)
SUBGROUP_HEAD = ("arm", "real data", "region", "group", "patients", "difference", "remark")
PICTURES = (
    ("gain.png", "Every planned comparison: mean difference over patients, with intervals"),
    ("learning-*.png", "By share of the real data, with intervals; dotted: the baseline"),
    ("arms.png", "Every arm: test patients, mean and interval"),
    ("subgroups*.png", "The main comparison in every group of patients"),
    ("slopes*.png", "Each test patient's way from the baseline to the arm"),
    ("extremes*.png", "The patients whom the arm harmed most and helped most: true outline and what was found"),
    (
        "segmentations.png",
        "Test patients from small to large tumours: true outline, what the baseline found, and what that arm with "
        "synthetic scans found that did best on val",
    ),
)


def evaluation_section(folder: Path) -> str:
    """Return the section as HTML; ``folder`` is the stage's.

    Of ``gain.json`` it shows, where they are there, beside arms and comparisons: ``rivals``, ``cautions``, ``power``
    (with a ``sentence``), ``steps_check`` (so too), ``fairness`` and ``filling`` (sentences), ``subgroups``.
    """
    gain = json.loads((folder / "gain.json").read_text(encoding="utf-8"))
    return "".join(
        (
            "".join(f"<p>{escape(gain[key])}</p>" for key in ("summary", "rivals") if gain.get(key)),
            _cautions(gain),
            _power(gain),
            _steps(gain),
            _meanings(gain),
            _arms(gain, TABLE_METRICS),
            _comparisons(gain),
            *(
                picture(path, caption)
                for pattern, caption in PICTURES
                for path in sorted((folder / "figures").glob(pattern))
            ),
            _subgroups(gain),
            _further_metrics(gain),
            _definitions(gain),
        )
    )


def _cautions(gain: Mapping[str, Any]) -> str:
    said = "".join(f"<li>{escape(caution)}</li>" for caution in gain.get("cautions", ()))
    return f"<p>To be careful of:</p><ul>{said}</ul>" if said else ""


def _power(gain: Mapping[str, Any]) -> str:
    sentence = gain.get("power", {}).get("sentence", "")
    return f"<p>What this plan could find: {escape(sentence)}</p>" if sentence else ""


def _steps(gain: Mapping[str, Any]) -> str:
    """Say what twice the steps reached, unless that is among the cautions."""
    sentence = (gain.get("steps_check") or {}).get("sentence", "")
    return f"<p>{escape(sentence)}</p>" if sentence and sentence not in gain.get("cautions", ()) else ""


def _meanings(gain: Mapping[str, Any]) -> str:
    """Return the table of what each arm was trained on."""
    rows = [
        (
            arm["name"],
            arm["meaning"],
            _share(arm["share"]),
            arm["n_real_persons"],
            arm["n_synthetic"],
            _mixed_in(arm),
            arm["n_generators"],
            "" if arm["n_generator_persons"] is None else f"{arm['n_generator_persons']} persons",
        )
        for arm in gain["arms"]
    ]
    return f"<details><summary>What the arms are</summary>{make_table(ARMS_HEAD, rows)}</details>"


def _mixed_in(arm: Mapping[str, Any]) -> str:
    if arm["paste_share"]:
        return f"tumours into {arm['paste_share']:.0%}, found a place in {arm['pasted_share']:.0%}"
    if not arm["synthetic_share"] or not arm["n_real"]:
        return ""
    return f"{arm['synthetic_share']:.0%} synthetic, {arm['schedule']}"


def _arms(gain: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """Return the table of arms: a column for each metric and region that any of them has."""
    arms = gain["arms"]
    columns = [
        (region, metric)
        for metric in metrics
        for region in arms[0]["regions"]
        if any(metric in arm["regions"][region] for arm in arms)
    ]
    head = ("arm", "real data", *(f"{METRIC_TITLES[metric]}, {REGION_TITLES[region]}" for region, metric in columns))
    rows = [
        (arm["name"], _share(arm["share"]), *(_cell(arm["regions"][region].get(metric)) for region, metric in columns))
        for arm in arms
    ]
    return make_table(head, rows) if columns else ""


def _cell(summary: Mapping[str, Any] | None) -> str:
    return "no patient has it" if summary is None else with_interval(summary["mean"], summary["ci"])


def _share(share: float) -> str:
    return "none" if share == 0.0 else f"{share:.0%}"


def _comparisons(gain: Mapping[str, Any]) -> str:
    sentences = "".join(f"<li>{escape(c['sentence'])}</li>" for c in gain["comparisons"])
    if not sentences:
        return ""
    return (
        "<h3>Comparisons</h3><details><summary>"
        f"{len(gain['comparisons'])} comparisons in words</summary><ul>{sentences}</ul></details>"
    )


def _subgroups(gain: Mapping[str, Any]) -> str:
    text = "".join(f"<p>{escape(gain[key])}</p>" for key in ("fairness", "filling") if gain.get(key))
    rows = [
        (
            row["arm"],
            _share(row["share"]),
            f"{REGION_TITLES[row['region']]}, {METRIC_TITLES[row['metric']]}",
            f"{row['attribute']}: {row['group']}",
            row["n_patients"],
            "too few patients" if row["ci"] is None else with_interval(row["delta"], row["ci"]),
            _remark(row),
        )
        for row in gain.get("subgroups", ())
    ]
    table = f"<details><summary>Every subgroup</summary>{make_table(SUBGROUP_HEAD, rows)}</details>" if rows else ""
    return f"<h3>Whom does it help?</h3>{text}{table}" if text or table else ""


def _remark(row: Mapping[str, Any]) -> str:
    remarks = ["made worse"] if row["worse"] else []
    remarks += ["filled by the plan"] if row["filled"] else []
    return ", ".join(remarks)


def _further_metrics(gain: Mapping[str, Any]) -> str:
    """Return a table for each metric that was measured of which no differences are shown."""
    measured = {metric for arm in gain["arms"] for region in arm["regions"].values() for metric in region}
    tables = "".join(
        _arms(gain, (metric,)) for metric in METRIC_TITLES if metric in measured and metric not in TABLE_METRICS
    )
    return f"<details><summary>Further metrics</summary>{tables}</details>" if tables else ""


def _definitions(gain: Mapping[str, Any]) -> str:
    rows = [(METRIC_TITLES.get(name, name.replace("_", " ")), text) for name, text in gain["definitions"].items()]
    return f"<details><summary>How everything is defined</summary>{make_table(('name', 'definition'), rows)}</details>"
