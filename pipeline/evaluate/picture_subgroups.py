"""The forest plot of subgroups: one comparison, a row for each group of patients."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.evaluate.comparison import share_in_words
from pipeline.evaluate.picture_style import ARM_COLOUR, WORSE_COLOUR, difference_label, save_figure, tidy
from pipeline.evaluate.subgroups import SubgroupFindings, is_worse
from pipeline.labels import REGION_TITLES

ROW_HEIGHT = 0.22


def draw_subgroups(findings: SubgroupFindings, path: Path) -> None:
    """Write the forest plot; a group that is made worse beyond its interval has a mark of its own.

    Parameters
    ----------
    findings : SubgroupFindings
        At least one group.
    path : Path
    """
    planned = findings.planned
    attributes = list(dict.fromkeys(subgroup.attribute for subgroup in findings.groups))
    n_rows = len(findings.groups) + len(attributes)
    figure = Figure(figsize=(8.0, 1.5 + ROW_HEIGHT * n_rows), layout="constrained")
    panel = figure.subplots()
    panel.axvline(0.0, color="black", linewidth=1)
    ticks: dict[float, str] = {}
    row = 0.0
    for attribute in attributes:
        for subgroup in (one for one in findings.groups if one.attribute == attribute):
            worse = is_worse(subgroup, planned.metric)
            colour, marker = (WORSE_COLOUR, "X") if worse else (ARM_COLOUR, "o")
            filled = subgroup.filling is not None and subgroup.filling.is_filled
            panel.plot(subgroup.ci, [row, row], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
            face = colour if filled or worse else "white"
            panel.plot(
                [subgroup.delta], [row], marker=marker, color=colour, markerfacecolor=face, markersize=6, zorder=3
            )
            ticks[row] = f"{attribute}: {subgroup.group} ({subgroup.n_patients})"
            row += 1.0
        # A gap between attributes.
        row += 0.6
    panel.set_yticks(list(ticks), list(ticks.values()), fontsize=9)
    panel.set_ylim(row - 1.0, -0.7)
    panel.set_xlabel(difference_label(planned.metric))
    tidy(panel)
    figure.suptitle(
        f"{planned.arm} against {planned.baseline} {share_in_words(planned.share)}: {REGION_TITLES[planned.region]}, "
        "by group (patients)\nexplored, not planned: no correction for their number",
        fontsize=10,
    )
    handles = [
        Line2D([], [], marker="o", color=ARM_COLOUR, markerfacecolor="white", label="mean and interval"),
        Line2D([], [], marker="o", color=ARM_COLOUR, label="a stratum that the plan filled"),
        Line2D([], [], marker="X", color=WORSE_COLOUR, label="made worse beyond the interval"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save_figure(figure, path)
