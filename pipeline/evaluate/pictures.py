"""Pictures of the evaluation: arms with intervals, outlines on test patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.cohort import Case
from pipeline.evaluate.intervals import Summary
from pipeline.evaluate.picture_style import ARM_COLOUR, BASELINE_COLOUR, FAINT, axis_label, save_figure, tidy
from pipeline.evaluate.scores import FloatArray, PatientTable
from pipeline.figures import OUTLINE_COLOURS, grey_tile, plane_slice
from pipeline.labels import REGION_TITLES, LabelScheme, UInt8Array
from pipeline.segmentation.catalogue import COMPARED_METRICS, gain_sign


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
    axes = figure.subplots(len(regions), len(COMPARED_METRICS), sharey=True, squeeze=False)
    for row, region in enumerate(regions):
        for column, metric in enumerate(COMPARED_METRICS):
            panel = axes[row, column]
            panel.set_title(REGION_TITLES[region], loc="left", fontsize=10)
            for dots in (r for r in rows if (r.region, r.metric) == (region, metric)):
                _draw_dots(panel, dots, arms.index(dots.arm), dots.arm == baseline)
            panel.set_yticks(range(len(arms)), arms)
            panel.set_ylim(len(arms) - 0.5, -0.5)
            # A distance has no upper end, and a region that is missed is far from all others: each panel its own.
            panel.set_xlim(*((-0.02, 1.02) if metric == "dice" else (min(0.0, *panel.get_xlim()), None)))
            tidy(panel)
            if row == len(regions) - 1:
                panel.set_xlabel(axis_label(metric))
    handles = [
        Line2D([], [], marker="D", color=BASELINE_COLOUR, label=f"mean and interval, baseline {baseline}"),
        Line2D([], [], marker="o", color=ARM_COLOUR, label="mean and interval, other arms"),
        Line2D([], [], marker=".", color=FAINT, linestyle="", label="a test patient"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save_figure(figure, path)


def _draw_dots(panel: Axes, dots: ArmDots, row: int, is_baseline: bool) -> None:
    colour, marker = (BASELINE_COLOUR, "D") if is_baseline else (ARM_COLOUR, "o")
    if is_baseline:
        panel.axvline(dots.summary.mean, color=BASELINE_COLOUR, linewidth=0.8, linestyle=":")
    panel.plot(dots.by_patient, np.full(len(dots.by_patient), row), ".", color=FAINT, markersize=4, zorder=1)
    if dots.summary.ci is not None:
        panel.plot(dots.summary.ci, [row, row], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
    panel.plot([dots.summary.mean], [row], marker=marker, color=colour, markersize=6, zorder=3)


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
    title : str
        Written beside the row.
    """

    case: Case
    modality: str
    index: int
    predictions: dict[str, UInt8Array]
    notes: dict[str, str]
    title: str = ""


def choose_extremes(difference: PatientTable, metric: str, n: int = 2) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the patients whom an arm harms most and helps most, by their mean difference over seeds.

    Parameters
    ----------
    difference : PatientTable
        Arm minus baseline.
    metric : str
    n : int
        Of each kind; fewer where there are not twice as many patients.

    Returns
    -------
    tuple of tuple of str
        The worst, worst first, and the best, best first; nobody is both.
    """
    gains = difference.by_patient() * gain_sign(metric)
    order = [difference.patients[int(number)] for number in np.argsort(gains, kind="stable")]
    n = min(n, len(order) // 2)
    return tuple(order[:n]), tuple(order[::-1][:n])


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
            if title == "scan":
                panel.set_ylabel(row.title, fontsize=9)
            if number == 0:
                panel.set_title(row.modality.upper() if title == "scan" else title, fontsize=10)
    handles = [
        Patch(facecolor=tuple(OUTLINE_COLOURS[value - 1] / 255), label=name.replace("_", " "))
        for name, value in scheme.tumor_values.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    save_figure(figure, path)
