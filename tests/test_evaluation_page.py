"""The evaluation's section of the report: what it shows of a gain.json, and what of one that says less."""

import json

import pytest

from pipeline.evaluate.page import evaluation_section

SUMMARY = {"mean": 0.81, "sd": 0.1, "ci": [0.75, 0.86]}
ARM = {
    "meaning": "scans",
    "n_real": 0,
    "n_real_persons": 0,
    "n_synthetic": 0,
    "n_generators": 0,
    "n_generator_persons": None,
    "synthetic_share": 0.0,
    "schedule": "mixed",
    "paste_share": 0.0,
    "pasted_share": 0.0,
}
SYN = {
    "name": "syn",
    "share": 0.0,
    "n_synthetic": 96,
    "n_generators": 3,
    "n_generator_persons": 47,
    "synthetic_share": 1.0,
}
GAIN = {
    "summary": "No gain was found.",
    "arms": [
        {
            **ARM,
            "name": "real-aug",
            "share": 0.25,
            "n_real_persons": 12,
            "regions": {"WT": {"dice": SUMMARY, "sensitivity": SUMMARY}},
        },
        {**ARM, **SYN, "regions": {"WT": {"dice": {"mean": 0.5, "sd": None, "ci": None}}}},
    ],
    "comparisons": [{"sentence": "syn against real-aug: <worse>"}],
    "definitions": {"dice": "twice the overlap", "steps_check": "no rise"},
}
SUBGROUP = {
    "arm": "syn",
    "share": 0.25,
    "region": "WT",
    "metric": "dice",
    "attribute": "volume",
    "group": "small",
    "n_patients": 7,
    "delta": -0.2,
    "ci": [-0.3, -0.1],
    "worse": True,
    "filled": True,
}


@pytest.fixture
def section(tmp_path):
    def write(**more):
        (tmp_path / "gain.json").write_text(json.dumps({**GAIN, **more}))
        return evaluation_section(tmp_path)

    return write


def test_arms_are_shown_with_share_and_interval(section):
    page = section()
    assert "<td>real-aug</td><td>25%</td><td>0.81 (0.75 to 0.86)</td>" in page
    assert "<td>syn</td><td>none</td><td>0.50</td>" in page


def test_what_each_arm_was_trained_on_is_told(section):
    mixed = {**ARM, "name": "mixed", "share": 1.0, "n_real": 48, "n_real_persons": 47, "synthetic_share": 0.5}
    pasted = {**ARM, "name": "pasted", "share": 1.0, "n_real": 48, "paste_share": 0.5, "pasted_share": 0.35}
    page = section(arms=[*GAIN["arms"], *({**one, "regions": GAIN["arms"][0]["regions"]} for one in (mixed, pasted))])
    assert "<td>real-aug</td><td>scans</td><td>25%</td><td>12</td>" in page
    assert "<td>96</td><td></td><td>3</td><td>47 persons</td>" in page
    assert "<td>50% synthetic, mixed</td>" in page
    assert "<td>tumours into 50%, found a place in 35%</td>" in page


def test_metrics_beside_the_planned_ones_have_their_own_table(section):
    further = section().split("Further metrics")[1]
    assert "<th>sensitivity, whole tumour</th>" in further
    assert "<td>syn</td><td>none</td><td>no patient has it</td>" in further


def test_definitions_are_in_the_page(section):
    page = section()
    assert "<td>Dice</td><td>twice the overlap</td>" in page
    assert "<td>steps check</td><td>no rise</td>" in page


def test_sentences_are_escaped(section):
    assert "<li>syn against real-aug: &lt;worse&gt;</li>" in section()


def test_subgroups_power_and_fairness_are_shown_where_they_are_there(section):
    assert "Whom does it help?" not in section()
    few = {**SUBGROUP, "group": "large", "delta": None, "ci": None, "worse": None, "filled": None}
    page = section(
        subgroups=[SUBGROUP, few], fairness="Small ones lose.", filling="Small: worse.", power={"sentence": "0.1"}
    )
    assert "Small ones lose." in page
    assert "Small: worse." in page
    assert "What this plan could find: 0.1" in page
    assert "<td>7</td><td>-0.20 (-0.30 to -0.10)</td><td>made worse, filled by the plan</td>" in page
    assert "<td>too few patients</td>" in page


def test_cautions_are_listed_below_the_finding(section):
    assert "To be careful of" not in section()
    page = section(cautions=["Unreliable: 3 < 20."])
    assert page.index("No gain was found.") < page.index("<li>Unreliable: 3 &lt; 20.</li>") < page.index("<table")


def test_every_figure_that_is_there_is_shown(section, tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("gain", "learning-WT-dice", "learning-ET-dice", "slopes-dice", "extremes"):
        (tmp_path / "figures" / f"{name}.png").write_bytes(b"png")
    assert section().count("<img") == 5
