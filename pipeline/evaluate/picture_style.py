"""What pictures of the evaluation have in common: colours, markers, axis labels, how they are saved.

Colours are Okabe and Ito's (2008), told apart by the colour-blind; markers and lines tell the same in grey.
"""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.segmentation.catalogue import METRICS_BY_NAME

DOTS_PER_INCH = 110
BASELINE_COLOUR, ARM_COLOUR, FAINT = "black", "#0072B2", "0.65"
BETTER_COLOUR, WORSE_COLOUR = "#0072B2", "#D55E00"
# Of each family of arms; the same with augmentation has a full marker and an unbroken line.
FAMILIES = {
    "real": ("black", "o"),
    "real-syn": ("#0072B2", "s"),
    "syn": ("#E69F00", "^"),
    "syn-ft": ("#CC79A7", "v"),
    "copypaste": ("#009E73", "D"),
    "random-contrast": ("#D55E00", "P"),
}
OTHER_FAMILY = ("#56B4E9", "X")
AUGMENTED = "-aug"


@dataclass(frozen=True)
class ArmStyle:
    """How an arm is drawn."""

    colour: str
    marker: str
    line: str
    face: str


def style_of(arm: str) -> ArmStyle:
    """Return how an arm is drawn, wherever it is."""
    colour, marker = FAMILIES.get(arm.removesuffix(AUGMENTED), OTHER_FAMILY)
    is_augmented = arm.endswith(AUGMENTED)
    return ArmStyle(colour, marker, "-" if is_augmented else "--", colour if is_augmented else "white")


def axis_label(metric: str) -> str:
    """Return a metric's title with its unit and which way is better."""
    metric_ = METRICS_BY_NAME[metric]
    unit = f", {metric_.unit}" if metric_.unit else ""
    return f"{metric_.title}{unit} ({'higher' if metric_.is_better_higher else 'lower'} is better)"


def difference_label(metric: str) -> str:
    """Return the label of an axis of differences that runs to the right."""
    metric_ = METRICS_BY_NAME[metric]
    unit = f", {metric_.unit}" if metric_.unit else ""
    return f"difference in {metric_.title}{unit} ({'right' if metric_.is_better_higher else 'left'} is better)"


def tidy(panel: Axes) -> None:
    """Leave of a panel's frame what helps to read it: rows without ticks, a faint grid."""
    panel.grid(axis="x", color="0.9")
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG; its bytes depend on the content only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
