"""Pictures of the audit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from numpy.typing import NDArray

from pipeline.audit.attacks.nearest_neighbour import nearest_distances
from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.conclusions import Evidence
from pipeline.audit.controls import Control
from pipeline.audit.copies import likeness
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Release, Scores, Targets
from pipeline.cohort import Case, Cohort
from pipeline.figures import grey_tile, mosaic, plane_slice, save_picture, tumor_centre
from pipeline.statistics import auc, clopper_pearson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

matplotlib.use("Agg")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
LINES = ("-", "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)), (0, (4, 2, 1, 2)))
PANELS = (("dataset", "what the released scans tell"), ("model", "what the generator tells"))
N_PAIRS, PAIR_MODALITIES = 4, ("t1ce", "flair")


def roc_points(member: Scores, nonmember: Scores) -> Scores:
    """Return the corners of the ROC: (2, points), false-positive rates and true-positive rates."""
    thresholds = np.unique(np.concatenate([member, nonmember]))[::-1]
    fpr = [0.0, *((nonmember >= t).mean() for t in thresholds)]
    tpr = [0.0, *((member >= t).mean() for t in thresholds)]
    return np.array([fpr, tpr])


def roc_band(tpr: Scores, n_members: int, alpha: float) -> tuple[Scores, Scores]:
    """Return the Clopper-Pearson bounds of true-positive rates, point by point."""
    bounds = [clopper_pearson(round(float(rate) * n_members), n_members, alpha) for rate in tpr]
    low, high = np.array(bounds).T
    return low, high


def save_roc(evidence: Evidence, controls: Sequence[Control], alpha: float, path: Path) -> None:
    """Draw the ROC of each attack on the target and of each positive control, both axes logarithmic.

    Parameters
    ----------
    evidence : Evidence
    controls : sequence of Control
        Those with a curve are drawn.
    alpha : float
        Level of the band, which is that of the attack that finds most.
    path : Path
    """
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, panels = plt.subplots(1, 2, figsize=(11.5, 7.6), layout="constrained")
    inside = evidence.is_member
    floor = 0.5 / len(inside)
    for axes, (threat_model, title) in zip(panels, PANELS, strict=True):
        names = [name for name in evidence.target if BY_NAME[name].threat_model == threat_model]
        for number, name in enumerate(names):
            scores = evidence.target[name]
            points = np.maximum(roc_points(scores[inside], scores[~inside]), floor)
            axes.plot(
                *points,
                linestyle=LINES[number % len(LINES)],
                color=COLOURS[number % len(COLOURS)],
                label=f"{BY_NAME[name].title}, AUC {auc(scores[inside], scores[~inside]):.2f}",
                drawstyle="steps-post",
                linewidth=1.8,
            )
        most = max(names, key=lambda name: auc(evidence.target[name][inside], evidence.target[name][~inside]))
        _draw_band(axes, evidence.target[most], inside, alpha, floor, COLOURS[names.index(most) % len(COLOURS)])
        _draw_controls(axes, controls, threat_model, floor)
        _finish(axes, title, int((~inside).sum()), floor)
    figure.savefig(path, dpi=110, metadata={"Software": "synthcohort"})
    plt.close(figure)


def _draw_band(
    axes: "Axes", scores: Scores, inside: NDArray[np.bool_], alpha: float, floor: float, colour: str
) -> None:
    fpr, tpr = roc_points(scores[inside], scores[~inside])
    low, high = roc_band(tpr, int(inside.sum()), alpha)
    label = f"{1 - alpha:.0%} band of the attack that finds most"
    fpr, low, high = (np.maximum(bound, floor) for bound in (fpr, low, high))
    axes.fill_between(fpr, low, high, step="post", color=colour, alpha=0.15, linewidth=0, label=label)


def _draw_controls(axes: "Axes", controls: Sequence[Control], threat_model: str, floor: float) -> None:
    is_copy = threat_model == "dataset"
    shown = [c for c in controls if c.curve is not None and c.name.startswith("planted-copies") == is_copy]
    for number, control in enumerate(shown):
        if control.curve is not None:
            points = np.maximum(roc_points(*control.curve), floor)
            label = "planted leaks (controls: must lie far above)" if number == 0 else None
            axes.plot(*points, ":", color="#444444", linewidth=1.4, drawstyle="steps-post", label=label)


def _finish(axes: "Axes", title: str, n_nonmembers: int, floor: float) -> None:
    diagonal = np.geomspace(floor, 1, 50)
    axes.plot(diagonal, diagonal, color="#767676", linewidth=1, label="knows nothing")
    axes.axvspan(floor, 1 / n_nonmembers, color="#eeeeee", zorder=0, label="too few persons to tell")
    axes.set(xscale="log", yscale="log", xlim=(floor, 1.05), ylim=(floor, 1.05), title=title)
    axes.set_xlabel("share of others called members (false-positive rate)")
    axes.set_ylabel("share of members found (true-positive rate)")
    axes.grid(visible=True, which="major", color="#e8e8e8")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8, frameon=False)


def save_pairs(
    targets: Targets, is_member: NDArray[np.bool_], release: Release, synthetic: Cohort, setting: Setting, path: Path
) -> None:
    """Draw the members' scans that lie nearest to a synthetic one, each beside it. Private: these are patients.

    Parameters
    ----------
    targets : Targets
    is_member : ndarray, (targets,), bool
    release : Release
    synthetic : Cohort
    setting : Setting
    path : Path
        A row for each pair: axial slices through the member's tumour, of the member and of the synthetic case, which is
        mirrored where that is nearer.
    """
    views = targets.views["scan"]
    distance = np.where(is_member, nearest_distances(views, release.views["scan"]), np.inf)
    names = [name for name in setting.modalities if name in PAIR_MODALITIES] or list(setting.modalities[:1])
    rows = []
    for index in np.argsort(distance, kind="stable")[: min(N_PAIRS, int(is_member.sum()))]:
        case = targets.cases[int(index)]
        alike = likeness(views[index : index + 1], release.views["scan"])[0]
        other = synthetic.cases[int(alike.argmax())]
        ways = views[index] @ release.views["scan"][int(alike.argmax())]
        z = tumor_centre(np.asarray(case.tumor_map()))[2]
        rows.append(
            [_tile(case, name, z, mirrored=False) for name in names]
            + [_tile(other, name, z, mirrored=bool(ways.argmax() == 1)) for name in names]
        )
    save_picture(mosaic(rows), path)


def _tile(case: Case, name: str, z: int, mirrored: bool) -> NDArray[np.uint8]:
    image = np.asarray(case.image(name))
    return grey_tile(plane_slice(image[::-1] if mirrored else image, "axial", z))
