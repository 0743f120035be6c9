"""Pictures of the evaluation: who is who without colour, what is drawn, the same bytes each time."""

import matplotlib.image
import numpy as np
import pytest

from pipeline.evaluate.comparison import compare_planned, plan_comparisons
from pipeline.evaluate.intervals import Statistics
from pipeline.evaluate.picture_curves import draw_learning_curves, draw_slopes, learning_curves
from pipeline.evaluate.picture_gain import draw_gain
from pipeline.evaluate.picture_style import FAMILIES, axis_label, difference_label, style_of
from pipeline.evaluate.picture_subgroups import draw_subgroups
from pipeline.evaluate.pictures import choose_extremes
from pipeline.evaluate.scores import PatientTable, Score, ScoreTable
from pipeline.evaluate.subgroups import compare_subgroups

STATISTICS = Statistics(n_bootstrap=100, alpha=0.05, seed=1)
ARMS = [f"{family}{suffix}" for family in FAMILIES for suffix in ("", "-aug")]


@pytest.fixture
def table():
    stream = np.random.default_rng(5)
    return ScoreTable(
        Score(arm, seed, f"p{patient}", region, metric, float(stream.uniform()), share)
        for arm, shares in (("real-aug", (0.25, 1.0)), ("real-syn-aug", (0.25, 1.0)), ("syn", (0.0,)))
        for share in shares
        for seed in range(2)
        for patient in range(6)
        for region in ("WT", "ET")
        for metric in ("dice", "hd95")
    )


@pytest.fixture
def plan():
    pairs = [("real-syn-aug", "real-aug"), ("syn", "real-aug")]
    return plan_comparisons(pairs, (0.25, 1.0), ("WT", "ET"), without_real=("syn",))


def test_arms_differ_in_marker_or_line_not_in_colour_alone():
    seen = {(style_of(arm).marker, style_of(arm).line) for arm in ARMS}
    assert len(seen) == len(ARMS)


def test_axes_say_unit_and_which_way_is_better():
    assert axis_label("hd95") == "HD95, mm (lower is better)"
    assert axis_label("dice") == "Dice (higher is better)"
    assert difference_label("hd95") == "difference in HD95, mm (left is better)"
    assert difference_label("volume_error_ml") == "difference in volume error, ml (left is better)"


def test_figures_are_drawn_the_same_each_time(table, plan, tmp_path):
    comparisons = compare_planned(table, plan, STATISTICS)
    curves = learning_curves(table, ("real-aug", "real-syn-aug", "syn"), "WT", "dice", STATISTICS)
    groups = {f"p{number}": {"source": "here"} for number in range(6)} | {"q": {"source": "there"}}
    findings = compare_subgroups(table, plan[0], groups, STATISTICS)
    slopes = [one for one in plan if (one.arm, one.share, one.metric) == ("real-syn-aug", 1.0, "dice")]
    for folder in (tmp_path / "first", tmp_path / "second"):
        draw_gain(comparisons, 0.05, folder / "gain.png")
        draw_learning_curves(curves, "real-aug", "WT", "dice", folder / "curves.png")
        draw_slopes(table, slopes, folder / "slopes.png")
        draw_subgroups(findings, folder / "subgroups.png")
    for name in ("gain.png", "curves.png", "slopes.png", "subgroups.png"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
        assert (matplotlib.image.imread(tmp_path / "first" / name)[..., :3] < 0.5).any()


def test_a_single_patient_and_share_can_be_drawn(tmp_path):
    table = ScoreTable(
        Score(arm, 0, "p", "WT", "dice", value) for arm, value in (("real-aug", 0.5), ("real-syn-aug", 0.6))
    )
    plan = plan_comparisons([("real-syn-aug", "real-aug")], (1.0,), ("WT",), ("dice",))
    draw_gain(compare_planned(table, plan, STATISTICS), 0.05, tmp_path / "gain.png")
    curves = learning_curves(table, table.arms, "WT", "dice", STATISTICS)
    draw_learning_curves(curves, "real-aug", "WT", "dice", tmp_path / "curves.png")
    draw_slopes(table, plan, tmp_path / "slopes.png")
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_learning_curves_hold_each_share(table):
    curves = {curve.arm: curve for curve in learning_curves(table, table.arms, "WT", "dice", STATISTICS)}
    assert curves["real-aug"].shares == (0.25, 1.0)
    assert curves["syn"].shares == (0.0,)
    expected = table.table("real-aug", 0.25, "WT", "dice").values.mean()
    assert curves["real-aug"].summaries[0].mean == pytest.approx(expected)
    assert all(0 <= end <= 1 for curve in curves.values() for summary in curve.summaries for end in summary.ci)


def test_extremes_are_whom_the_arm_harms_and_helps_most():
    difference = PatientTable(("a", "b", "c", "d", "e"), (0, 1), np.array([[0, 0.2], [-1, 0], [3, 3], [1, 2], [0, 0]]))
    # Means .1, -.5, 3, 1.5, 0.
    assert choose_extremes(difference, "dice") == (("b", "e"), ("c", "d"))
    # Of a distance less is better.
    assert choose_extremes(difference, "hd95") == (("c", "d"), ("b", "e"))
    assert choose_extremes(difference.take(["a", "b", "c"]), "dice") == (("b",), ("c",))
    assert choose_extremes(difference.take(["a"]), "dice") == ((), ())
