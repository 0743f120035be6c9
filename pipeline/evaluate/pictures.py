"""Pictures of the evaluation: arms with intervals, paired differences, outlines on test patients.

Colours are Okabe and Ito's (2008), told apart by the colour-blind; markers tell the same in grey.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.cohort import Case
from pipeline.evaluate.comparison import Comparison, is_significant
from pipeline.evaluate.intervals import Summary
from pipeline.evaluate.scores import FloatArray
from pipeline.figures import OUTLINE_COLOURS, grey_tile, plane_slice
from pipeline.labels import REGION_TITLES, LabelScheme, UInt8Array
from pipeline.segmentation.metrics import PLANNED_METRICS

DOTS_PER_INCH = 110
BASELINE_COLOUR, ARM_COLOUR, FAINT = "black", "#0072B2", "0.65"
REGION_MARKERS = {"WT": ("o", "#0072B2"), "TC": ("s", "#D55E00"), "ET": ("^", "#009E73")}
AXIS_LABELS = {"dice": "Dice (1 is best)", "hd95": "HD95, mm (0 is best)"}
DELTA_LABELS = {"dice": "difference in Dice (right is better)", "hd95": "difference in HD95, mm (left is better)"}


@dataclass(frozen=True)
class ArmDots:
    """What one row of the dot plot shows: the values of patients, their mean and its interval."""

    arm: str
    region: str
    metric: str
    by_patient: FloatArray
    summary: Summary


def draw_arms(rows: Sequence[ArmDots], baseline: str, path: Path) -> None:
    """Write the dot plot: a panel for each region and metric, a row for each arm."""
    arms, regions = list(dict.fromkeys(r.arm for r in rows)), list(dict.fromkeys(r.region for r in rows))
    figure = Figure(figsize=(9.0, 0.9 + len(regions) * (0.55 + 0.27 * len(arms))), layout="constrained")
    axes = figure.subplots(len(regions), len(PLANNED_METRICS), sharey=True, squeeze=False)
    for row, region in enumerate(regions):
        for column, metric in enumerate(PLANNED_METRICS):
            panel = axes[row, column]
            panel.set_title(REGION_TITLES[region], loc="left", fontsize=10)
            for dots in (r for r in rows if (r.region, r.metric) == (region, metric)):
                _draw_dots(panel, dots, arms.index(dots.arm), dots.arm == baseline)
            panel.set_yticks(range(len(arms)), arms)
            panel.set_ylim(len(arms) - 0.5, -0.5)
            # A distance has no upper end, and a region that is missed is far from all others: each panel its own.
            panel.set_xlim(*((-0.02, 1.02) if metric == "dice" else (min(0.0, *panel.get_xlim()), None)))
            _tidy(panel)
            if row == len(regions) - 1:
                panel.set_xlabel(AXIS_LABELS[metric])
    handles = [
        Line2D([], [], marker="D", color=BASELINE_COLOUR, label=f"mean and interval, baseline {baseline}"),
        Line2D([], [], marker="o", color=ARM_COLOUR, label="mean and interval, other arms"),
        Line2D([], [], marker=".", color=FAINT, linestyle="", label="a test patient"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    _save(figure, path)


def _draw_dots(panel: Axes, dots: ArmDots, row: int, is_baseline: bool) -> None:
    colour, marker = (BASELINE_COLOUR, "D") if is_baseline else (ARM_COLOUR, "o")
    if is_baseline:
        panel.axvline(dots.summary.mean, color=BASELINE_COLOUR, linewidth=0.8, linestyle=":")
    panel.plot(dots.by_patient, np.full(len(dots.by_patient), row), ".", color=FAINT, markersize=4, zorder=1)
    if dots.summary.ci is not None:
        panel.plot(dots.summary.ci, [row, row], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
    panel.plot([dots.summary.mean], [row], marker=marker, color=colour, markersize=6, zorder=3)


def draw_gain(comparisons: Sequence[Comparison], alpha: float, path: Path) -> None:
    """Write the forest plot of paired differences; a full marker is significant, a hollow one is not."""
    arms, regions = (
        list(dict.fromkeys(values)) for values in zip(*[(c.arm, c.region) for c in comparisons], strict=True)
    )
    n_rows = len(arms) * (len(regions) + 1) - 1
    figure = Figure(figsize=(9.0, 1.3 + 0.24 * n_rows), layout="constrained")
    axes = figure.subplots(1, len(PLANNED_METRICS), sharey=True, squeeze=False)[0]
    ticks = {}
    for panel, metric in zip(axes, PLANNED_METRICS, strict=True):
        panel.axvline(0.0, color="black", linewidth=1)
        for comparison in (c for c in comparisons if c.metric == metric):
            row = arms.index(comparison.arm) * (len(regions) + 1) + regions.index(comparison.region)
            ticks[row] = f"{comparison.arm}  {comparison.region}"
            _draw_difference(panel, comparison, row, alpha)
        panel.set_yticks(list(ticks), list(ticks.values()))
        panel.set_ylim(n_rows - 0.5, -0.5)
        panel.set_xlabel(DELTA_LABELS[metric])
        _tidy(panel)
    figure.suptitle(f"Paired differences to {comparisons[0].baseline}, with {1 - alpha:.0%} intervals", fontsize=11)
    handles = [
        Line2D([], [], marker=marker, color=colour, markerfacecolor="white", label=REGION_TITLES[region])
        for region, (marker, colour) in REGION_MARKERS.items()
        if region in regions
    ]
    handles.append(Line2D([], [], marker="o", color="black", label="filled: significant after Holm", linestyle=""))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    _save(figure, path)


def _draw_difference(panel: Axes, comparison: Comparison, row: int, alpha: float) -> None:
    marker, colour = REGION_MARKERS[comparison.region]
    if comparison.ci is not None:
        panel.plot(comparison.ci, [row, row], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
    face = colour if is_significant(comparison, alpha) else "white"
    panel.plot([comparison.delta], [row], marker=marker, color=colour, markerfacecolor=face, markersize=6.5, zorder=3)


@dataclass(frozen=True)
class PicturedCase:
    """One row of the picture of segmentations.

    Parameters
    ----------
    case : Case
    modality : str
        Shown below the outlines.
    index : int
        Axial slice.
    predictions : mapping of str to ndarray, (x, y), uint8
        Column title to predicted tumour map of the slice.
    notes : mapping of str to str
        Column title to what is written below the tile.
    """

    case: Case
    modality: str
    index: int
    predictions: dict[str, UInt8Array]
    notes: dict[str, str]


def draw_segmentations(rows: Sequence[PicturedCase], scheme: LabelScheme, path: Path) -> None:
    """Write test patients' slices: plain, with the true outlines, with those that each arm predicts."""
    titles = ["scan", "truth", *rows[0].predictions]
    figure = Figure(figsize=(1.9 * len(titles), 2.15 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for number, row in enumerate(rows):
        image = plane_slice(row.case.image(row.modality), "axial", row.index)
        outlines = {"truth": np.asarray(row.case.tumor_map()[:, :, row.index]), **row.predictions}
        for panel, title in zip(axes[number], titles, strict=True):
            outline = outlines.get(title)
            tile = grey_tile(image, None if outline is None else plane_slice(outline[..., None], "axial", 0))
            panel.imshow(tile)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_xlabel(row.notes.get(title, ""), fontsize=9)
            if number == 0:
                panel.set_title(row.modality.upper() if title == "scan" else title, fontsize=10)
    handles = [
        Patch(facecolor=tuple(OUTLINE_COLOURS[value - 1] / 255), label=name.replace("_", " "))
        for name, value in scheme.tumor_values.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    _save(figure, path)


def _tidy(panel: Axes) -> None:
    panel.grid(axis="x", color="0.9")
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG; its bytes depend on the content only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
