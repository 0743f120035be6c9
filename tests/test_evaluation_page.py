"""The evaluation's section of the report: what it shows of a gain.json, and what of one that says less."""

import json

import pytest

from pipeline.evaluate.page import evaluation_section

SUMMARY = {"mean": 0.81, "sd": 0.1, "ci": [0.75, 0.86]}
GAIN = {
    "summary": "No gain was found.",
    "arms": [
        {"name": "real-aug", "share": 0.25, "regions": {"WT": {"dice": SUMMARY, "sensitivity": SUMMARY}}},
        {"name": "syn", "share": 0.0, "regions": {"WT": {"dice": {"mean": 0.5, "sd": None, "ci": None}}}},
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
