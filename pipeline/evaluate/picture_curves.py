"""Learning curves over the share of the real data, and each patient's way from the baseline to an arm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.evaluate.comparison import Planned, share_in_words
from pipeline.evaluate.intervals import Statistics, Summary, summarise
from pipeline.evaluate.picture_style import (
    BETTER_COLOUR,
    FAINT,
    WORSE_COLOUR,
    axis_label,
    save_figure,
    style_of,
    tidy,
)
from pipeline.evaluate.scores import ScoreTable
from pipeline.labels import REGION_TITLES
from pipeline.segmentation.catalogue import gain_sign

MAX_COLUMNS = 5
# Of the axis of shares: beyond its ends, and between two that stand at one share.
MARGIN, ASIDE = 1.25, 1.05


@dataclass(frozen=True)
class LearningCurve:
    """A metric of an arm by share of the real data.

    Parameters
    ----------
    arm : str
    shares : tuple of float
        Rising; only 0 in an arm without real scans, whose value is drawn across.
    summaries : tuple of Summary
        At each share.
    """

    arm: str
    shares: tuple[float, ...]
    summaries: tuple[Summary, ...]


def learning_curves(
    table: ScoreTable, arms: Sequence[str], region: str, metric: str, statistics: Statistics
) -> list[LearningCurve]:
    """Sum up each arm at each of its shares."""
    bounds = table.bounds(metric)
    return [
        LearningCurve(
            arm,
            table.shares(arm),
            tuple(
                summarise(table.table(arm, share, region, metric).values, statistics, bounds)
                for share in table.shares(arm)
            ),
        )
        for arm in arms
    ]


def draw_learning_curves(curves: Sequence[LearningCurve], baseline: str, region: str, metric: str, path: Path) -> None:
    """Write learning curves: a panel for each arm, with the baseline in grey behind it.

    Parameters
    ----------
    curves : sequence of LearningCurve
        That of the baseline among them.
    baseline : str
    region, metric : str
    path : Path
    """
    behind = next(curve for curve in curves if curve.arm == baseline)
    shown = [curve for curve in curves if curve.arm != baseline] or [behind]
    n_rows = math.ceil(len(shown) / MAX_COLUMNS)
    n_columns = math.ceil(len(shown) / n_rows)
    figure = Figure(figsize=(max(7.0, 1.0 + 1.9 * n_columns), 1.2 + 1.9 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    shares = sorted({share for curve in curves for share in curve.shares if share > 0} or {1.0})
    for panel, curve in zip(axes.flat, shown, strict=False):
        if curve is not behind:
            _draw_curve(panel, behind, shares, is_behind=True)
        _draw_curve(panel, curve, shares, is_behind=False)
        panel.set_title(curve.arm, fontsize=9, loc="left")
        # Shares are doubled rather than added to.
        panel.set_xscale("log")
        panel.minorticks_off()
        panel.set_xticks(shares, [f"{share:.0%}" for share in shares])
        panel.set_xlim(shares[0] / MARGIN, shares[-1] * MARGIN)
        panel.tick_params(labelbottom=True)
        panel.grid(axis="y", color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes.flat[len(shown) :]:
        panel.set_visible(False)
    figure.suptitle(f"{REGION_TITLES[region]}: {axis_label(metric)}", fontsize=11)
    for panel in axes.flat[max(0, len(shown) - n_columns) : len(shown)]:
        panel.set_xlabel("share of real patients (log)", fontsize=9)
    handles: list[Line2D | Patch] = [
        Line2D([], [], color="0.4", linestyle=":", linewidth=1.5, label=f"baseline {baseline}"),
        Line2D([], [], color="black", marker="o", label="the arm that the panel names"),
        Patch(facecolor="0.85", label="intervals, patients and trainings"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save_figure(figure, path)


def _draw_curve(panel: Axes, curve: LearningCurve, shares: Sequence[float], is_behind: bool) -> None:
    style = style_of(curve.arm)
    places, summaries = curve.shares, curve.summaries
    has_real = places != (0.0,)
    if not has_real:
        places, summaries = (shares[0], shares[-1]), summaries * 2
    means = [summary.mean for summary in summaries]
    ends = [summary.ci or (summary.mean, summary.mean) for summary in summaries]
    low, high = zip(*ends, strict=True)
    colour = "0.4" if is_behind else style.colour
    # One share only: a band has no width, so that the interval is a line, and the two stand side by side.
    if len(set(places)) == 1:
        places = tuple(place * (1 / ASIDE if is_behind else ASIDE) for place in places)
        panel.plot([places[0]] * 2, [low[0], high[0]], color=colour, alpha=0.4, linewidth=6, solid_capstyle="butt")
    else:
        panel.fill_between(places, low, high, color=colour, alpha=0.15 if is_behind else 0.25, linewidth=0)
    if is_behind:
        panel.plot(places, means, color=colour, linestyle=":", linewidth=1.5, marker=".")
    else:
        marker = style.marker if has_real else ""
        panel.plot(
            places, means, color=colour, linestyle=style.line, marker=marker, markerfacecolor=style.face, markersize=5
        )


def draw_slopes(table: ScoreTable, planned: Sequence[Planned], path: Path) -> None:
    """Write each patient's way from the baseline to an arm: a panel for each comparison, a line for each patient.

    Parameters
    ----------
    table : ScoreTable
    planned : sequence of Planned
        Of one arm and one metric, say its regions.
    path : Path
    """
    figure = Figure(figsize=(1.2 + 2.5 * len(planned), 4.0), layout="constrained")
    axes = figure.subplots(1, len(planned), squeeze=False)[0]
    for panel, plan in zip(axes, planned, strict=True):
        sides = [
            table.table(arm, plan.share, plan.region, plan.metric).by_patient() for arm in (plan.baseline, plan.arm)
        ]
        sign = gain_sign(plan.metric)
        for before, after in zip(*sides, strict=True):
            gain = sign * (after - before)
            colour, line = (BETTER_COLOUR, "-") if gain > 0 else (WORSE_COLOUR, "--") if gain < 0 else (FAINT, "-")
            panel.plot([0, 1], [before, after], color=colour, linestyle=line, linewidth=0.9, alpha=0.7)
        means = [float(np.mean(side)) for side in sides]
        panel.plot([0, 1], means, color="black", linewidth=2.5, marker="o", markersize=6, zorder=3)
        gains = sign * (sides[1] - sides[0])
        panel.set_title(
            f"{REGION_TITLES[plan.region]}\n{int((gains > 0).sum())} better, {int((gains < 0).sum())} worse, "
            f"{int((gains == 0).sum())} the same",
            loc="left",
            fontsize=9,
        )
        panel.set_xticks([0, 1], [plan.baseline, plan.arm], fontsize=9)
        panel.set_xlim(-0.25, 1.25)
        tidy(panel)
        panel.grid(axis="x", visible=False)
        panel.grid(axis="y", color="0.9")
    axes[0].set_ylabel(axis_label(planned[0].metric))
    figure.suptitle(f"Test patients one by one, {share_in_words(planned[0].share)}", fontsize=11)
    handles = [
        Line2D([], [], color=BETTER_COLOUR, label="a patient, better"),
        Line2D([], [], color=WORSE_COLOUR, linestyle="--", label="a patient, worse"),
        Line2D([], [], color=FAINT, label="a patient, the same"),
        Line2D([], [], color="black", linewidth=2.5, marker="o", label="mean"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save_figure(figure, path)
