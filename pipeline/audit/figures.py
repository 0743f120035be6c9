"""Pictures of the audit."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

from pipeline.audit.controls import Control

matplotlib.use("Agg")

LINES = (("#0072B2", "-"), ("#D55E00", "--"))
CONTROL_LINES = (("#009E73", ":"), ("#CC79A7", "-."))


def roc_points(member: NDArray[np.float64], nonmember: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners of the ROC: (2, points), false-positive rates and true-positive rates."""
    thresholds = np.unique(np.concatenate([member, nonmember]))[::-1]
    fpr = [0.0, *((nonmember >= t).mean() for t in thresholds)]
    tpr = [0.0, *((member >= t).mean() for t in thresholds)]
    return np.array([fpr, tpr])


def save_roc(
    curves: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64]]], controls: Sequence[Control], path: Path
) -> None:
    """Draw the ROC of each attack and of each positive control, both axes logarithmic.

    Parameters
    ----------
    curves : sequence of (title, scores of members, scores of non-members)
    controls : sequence of Control
        Those with a curve are drawn.
    path : Path
    """
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(6.4, 6.6), layout="constrained")
    n_smallest = min(len(nonmember) for _, _, nonmember in curves)
    floor = 0.5 / max(n_smallest, *(len(member) for _, member, _ in curves))
    drawn = [
        (title, member, nonmember, style) for (title, member, nonmember), style in zip(curves, LINES, strict=False)
    ]
    with_curve = [control for control in controls if control.curve is not None]
    for control, style in zip(with_curve, CONTROL_LINES, strict=False):
        if control.curve is not None:
            drawn.append((f"control: {control.title}", *control.curve, style))
    for title, member, nonmember, (colour, line) in drawn:
        fpr, tpr = roc_points(member, nonmember)
        shown = np.maximum(fpr, floor), np.maximum(tpr, floor)
        axes.plot(*shown, line, color=colour, label=title, drawstyle="steps-post", linewidth=2)
    diagonal = np.geomspace(floor, 1, 50)
    axes.plot(diagonal, diagonal, color="#767676", linewidth=1, label="knows nothing")
    axes.axvspan(floor, 1 / n_smallest, color="#dddddd", zorder=0, label="too few persons to tell")
    axes.set(xscale="log", yscale="log", xlim=(floor, 1.05), ylim=(floor, 1.05))
    axes.set_xlabel("share of others called members (false-positive rate)")
    axes.set_ylabel("share of members found (true-positive rate)")
    axes.grid(visible=True, which="major", color="#eeeeee")
    figure.legend(loc="outside lower center", fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": "synthcohort"})
    plt.close(figure)
