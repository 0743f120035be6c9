"""Pictures of the audit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.audit.asked import Asked
from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.conclusions import Evidence
from pipeline.audit.controls import Control
from pipeline.audit.copies import CopyFinding
from pipeline.audit.targets import Scores
from pipeline.cohort import Case, Cohort
from pipeline.figures import grey_tile, plane_slice, tumor_centre
from pipeline.labels import MODALITY_TITLES
from pipeline.statistics import auc, clopper_pearson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

matplotlib.use("Agg")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)), (0, (4, 2, 1, 2)))
NULL_COLOUR = "#767676"
PANELS = (("dataset", "what the released scans tell"), ("model", "what the generator tells"))
PAIR_MODALITIES = ("t1ce", "flair")


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


def random_membership_band(n_members: int, n_nonmembers: int, alpha: float) -> Scores:
    """Return what the ROC is where membership is dealt out at random: the negative control, exactly.

    How many members score above the k-th highest non-member has a negative hypergeometric law.

    Returns
    -------
    ndarray, (3, n_nonmembers), float64
        False-positive rates, lower and upper true-positive rates that hold 1 - alpha of the curves at each rate.
    """
    n_false = np.arange(n_nonmembers)
    law = stats.nhypergeom(n_members + n_nonmembers, n_members, n_false + 1)
    band: Scores = np.array(
        [n_false / n_nonmembers, law.ppf(alpha / 2) / n_members, law.ppf(1 - alpha / 2) / n_members]
    )
    return band


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
        _draw_random_membership(axes, inside, alpha, floor)
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


def _draw_random_membership(axes: "Axes", inside: NDArray[np.bool_], alpha: float, floor: float) -> None:
    fpr, *bounds = np.maximum(random_membership_band(int(inside.sum()), int((~inside).sum()), alpha), floor)
    for number, bound in enumerate(bounds):
        label = f"{1 - alpha:.0%} of random memberships (control) lie between" if number == 0 else None
        axes.step(fpr, bound, where="post", color=NULL_COLOUR, linewidth=0.9, label=label)


def _draw_controls(axes: "Axes", controls: Sequence[Control], threat_model: str, floor: float) -> None:
    is_copy = threat_model == "dataset"
    shown = [c for c in controls if c.curve is not None and c.name.startswith("planted-copies") == is_copy]
    for number, control in enumerate(shown):
        if control.curve is not None:
            points = np.maximum(roc_points(*control.curve), floor)
            label = "planted leaks (controls), must lie far above" if number == 0 else None
            axes.plot(
                *points, color="#444444", marker="|", markersize=7, linewidth=0.7, drawstyle="steps-post", label=label
            )


def _finish(axes: "Axes", title: str, n_nonmembers: int, floor: float) -> None:
    diagonal = np.geomspace(floor, 1, 50)
    axes.plot(diagonal, diagonal, ":", color=NULL_COLOUR, linewidth=1, label="knows nothing")
    axes.axvspan(floor, 1 / n_nonmembers, color="#eeeeee", zorder=0, label="too few persons to tell")
    axes.set(xscale="log", yscale="log", xlim=(floor, 1.05), ylim=(floor, 1.05), title=title)
    axes.set_xlabel("share of others called members (false-positive rate)")
    axes.set_ylabel("share of members found (true-positive rate)")
    axes.grid(visible=True, which="major", color="#e8e8e8")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8, frameon=False)


def save_pairs(
    asked: Asked,
    found: CopyFinding,
    synthetic: Cohort,
    modalities: Sequence[str],
    path: Path,
) -> None:
    """Draw the members to whom a synthetic case is most alike, each beside it. Private: these are patients.

    Parameters
    ----------
    asked : Asked
    found : CopyFinding
        Of whole scans.
    synthetic : Cohort
    modalities : sequence of str
    path : Path
        A row for each pair: axial slices through the tumour of the member, and of the synthetic case in its own pose.
    """
    import matplotlib.pyplot as plt

    names = [name for name in modalities if name in PAIR_MODALITIES] or list(modalities[:1])
    figure, panels = plt.subplots(
        len(found.nearest),
        2 * len(names),
        figsize=(2 * 2 * len(names), 2.3 * len(found.nearest)),
        layout="constrained",
        squeeze=False,
    )
    for row, (person, place, likeness) in zip(panels, found.nearest, strict=True):
        pair = (("member", asked.persons[person][0]), ("synthetic", synthetic.cases[place]))
        tiles = [(kind, _tile(case, name), name) for kind, case in pair for name in names]
        for axes, (kind, tile, name) in zip(row, tiles, strict=True):
            axes.imshow(tile)
            axes.set_title(f"{kind}, {MODALITY_TITLES.get(name, name)}", fontsize=9)
            axes.set_axis_off()
        row[0].set_axis_on()
        row[0].set(xticks=[], yticks=[])
        row[0].set_ylabel(f"likeness {likeness:.2f}\n(a copy: {found.threshold:.2f} or more)", fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": "synthcohort"})
    plt.close(figure)


def _tile(case: Case, name: str) -> NDArray[np.uint8]:
    return grey_tile(plane_slice(np.asarray(case.image(name)), "axial", tumor_centre(np.asarray(case.tumor_map()))[2]))
