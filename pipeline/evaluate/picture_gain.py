"""The forest plot: every planned comparison with its interval, shares of the real data one below the other."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.evaluate.comparison import Comparison, is_significant, share_in_words
from pipeline.evaluate.picture_style import difference_label, save_figure, tidy
from pipeline.labels import REGION_TITLES

# From the smallest share on.
SHARE_MARKERS = (("o", "#0072B2"), ("s", "#D55E00"), ("^", "#009E73"), ("D", "#CC79A7"), ("v", "#E69F00"))
ROW_HEIGHT, SHARE_HEIGHT = 0.16, 0.14


def draw_gain(comparisons: Sequence[Comparison], alpha: float, path: Path) -> None:
    """Write the forest plot; a full marker is significant, a hollow one is not.

    Parameters
    ----------
    comparisons : sequence of Comparison
        At least one. A row of panels for each metric, a column for each region.
    alpha : float
    path : Path
    """
    pairs = list(dict.fromkeys((c.arm, c.baseline) for c in comparisons))
    shares = sorted({c.share for c in comparisons})
    regions, metrics = (
        list(dict.fromkeys(c.region for c in comparisons)),
        list(dict.fromkeys(c.metric for c in comparisons)),
    )
    baselines = list(dict.fromkeys(baseline for _, baseline in pairs))
    names = [arm if len(baselines) == 1 else f"{arm} - {baseline}" for arm, baseline in pairs]
    height = len(metrics) * (0.75 + len(pairs) * (ROW_HEIGHT + SHARE_HEIGHT * len(shares))) + 0.9
    figure = Figure(figsize=(2.0 + 2.7 * len(regions), height), layout="constrained")
    axes = figure.subplots(len(metrics), len(regions), sharex="row", sharey=True, squeeze=False)
    for row, metric in enumerate(metrics):
        for column, region in enumerate(regions):
            panel = axes[row, column]
            panel.axvline(0.0, color="black", linewidth=1)
            for c in comparisons:
                if (c.region, c.metric) == (region, metric):
                    number = shares.index(c.share)
                    place = pairs.index((c.arm, c.baseline)) + (number - (len(shares) - 1) / 2) * 0.7 / len(shares)
                    _draw_difference(panel, c, place, number, alpha)
            panel.set_title(REGION_TITLES[region], loc="left", fontsize=10)
            panel.set_yticks(range(len(pairs)), names)
            panel.set_ylim(len(pairs) - 0.5, -0.5)
            tidy(panel)
        for line in range(1, len(pairs)):
            for panel in axes[row]:
                panel.axhline(line - 0.5, color="0.9", linewidth=0.8)
        axes[row, len(regions) // 2].set_xlabel(difference_label(metric))
    what = f"to {baselines[0]}" if len(baselines) == 1 else "of the first arm to the second"
    figure.suptitle(f"Paired differences {what}, with {1 - alpha:.0%} intervals", fontsize=11)
    figure.legend(handles=_legend(shares), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, path)


def _draw_difference(panel: Axes, comparison: Comparison, place: float, number: int, alpha: float) -> None:
    marker, colour = SHARE_MARKERS[number % len(SHARE_MARKERS)]
    if comparison.ci is not None:
        panel.plot(comparison.ci, [place, place], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
    face = colour if is_significant(comparison, alpha) else "white"
    panel.plot([comparison.delta], [place], marker=marker, color=colour, markerfacecolor=face, markersize=5, zorder=3)


def _legend(shares: Sequence[float]) -> list[Line2D]:
    handles = []
    for number, share in enumerate(shares):
        marker, colour = SHARE_MARKERS[number % len(SHARE_MARKERS)]
        handles.append(
            Line2D([], [], marker=marker, color=colour, markerfacecolor="white", label=share_in_words(share))
        )
    handles.append(Line2D([], [], marker="o", color="black", linestyle="", label="filled: significant"))
    return handles
