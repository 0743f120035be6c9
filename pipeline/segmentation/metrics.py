"""How well one patient is segmented: whole volume, region by region.

References
----------
Menze et al. 2015, doi:10.1109/TMI.2014.2377694 (regions). Maier-Hein et al. 2024, "Metrics reloaded",
doi:10.1038/s41592-023-02151-z (definitions).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.segmentation.calibration import N_BINS, brier_score, calibration_error
from pipeline.segmentation.lesions import MAX_IGNORED_MM3, MERGE_MM, score_lesions
from pipeline.segmentation.surface import MIN_TOLERANCE_MM, Mask, default_tolerance_mm, hd95_mm, surface_dice

# What arms are compared by: named before the run, and few, as each more makes the correction harder.
PLANNED_METRICS = ("dice", "hd95")
# Dice over the patients who have the region: an empty region scores 0 or 1, which says little of a segmenter.
PRESENT_METRIC = "dice_present"
EMPTY_SIDES = "both empty: 1; one empty: 0"


@dataclass(frozen=True)
class Metric:
    """What is to be known of a metric.

    Parameters
    ----------
    title : str
    definition : str
    is_better_higher : bool
    bounds : tuple of float
        Least and greatest value that it can have.
    unit : str
        Empty where it has none.
    """

    title: str
    definition: str
    is_better_higher: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    unit: str = ""


UNBOUNDED = (0.0, math.inf)
METRICS_BY_NAME: dict[str, Metric] = {
    "dice": Metric("Dice", f"2 |A and B| / (|A| + |B|) over the patient's whole volume; {EMPTY_SIDES}"),
    "hd95": Metric(
        "HD95",
        "the larger of the 95th percentiles of the distances, mm, from each surface voxel of one mask to the nearest "
        "surface voxel of the other, both ways; both empty: 0; one empty: the image's diagonal",
        is_better_higher=False,
        bounds=UNBOUNDED,
        unit="mm",
    ),
    PRESENT_METRIC: Metric("Dice where present", "Dice over the patients whose true region is not empty"),
    "surface_dice": Metric(
        "surface Dice",
        f"share of the area of both surfaces that lies within {MIN_TOLERANCE_MM:g} mm, or one voxel where that is "
        f"more, of the other surface; {EMPTY_SIDES}",
    ),
    "sensitivity": Metric("sensitivity", f"share of the true region's voxels that are found; {EMPTY_SIDES}"),
    "precision": Metric("precision", f"share of the voxels found that belong to the true region; {EMPTY_SIDES}"),
    "lesion_dice": Metric(
        "lesion-wise Dice",
        f"as BraTS 2023: mean Dice over true lesions of more than {MAX_IGNORED_MM3:g} mm3 (26-connected; those that a "
        f"dilation by about {MERGE_MM:g} mm joins are one), each with the found parts that touch its dilation, and "
        "over found parts that touch none, with 0; nothing of either: 1",
    ),
    "lesion_hd95": Metric(
        "lesion-wise HD95",
        "mean HD95, mm, over the same lesions and parts; a missed lesion and a part that touches none: the image's "
        "diagonal (BraTS 2023: 374 mm); nothing of either: 0",
        is_better_higher=False,
        bounds=UNBOUNDED,
        unit="mm",
    ),
    "volume_error_ml": Metric(
        "volume error",
        "absolute difference between the volumes found and true, ml",
        is_better_higher=False,
        bounds=UNBOUNDED,
        unit="ml",
    ),
    "volume_error_relative": Metric(
        "relative volume error",
        "absolute difference between the volumes found and true, over the true one; over the patients whose true "
        "region is not empty",
        is_better_higher=False,
        bounds=UNBOUNDED,
    ),
    "calibration_error": Metric(
        "calibration error",
        f"expected calibration error of the region's probability over the voxels of the brain, {N_BINS} bins of equal "
        "width; most voxels of a brain are easy, so that it is small throughout: compare it between arms",
        is_better_higher=False,
    ),
    "brier": Metric(
        "Brier score",
        "mean squared difference between the region's probability and 1 in it, 0 outside, over the voxels of the brain",
        is_better_higher=False,
    ),
}
ALL_METRICS = tuple(METRICS_BY_NAME)
METRIC_TITLES = {
    name: f"{metric.title} ({metric.unit})" if metric.unit else metric.title for name, metric in METRICS_BY_NAME.items()
}
IS_BETTER_HIGHER = {name: metric.is_better_higher for name, metric in METRICS_BY_NAME.items()}
DEFINITIONS = {name: metric.definition for name, metric in METRICS_BY_NAME.items()}


def score_patient(
    predicted: UInt8Array,
    truth: UInt8Array,
    scheme: LabelScheme,
    spacing_mm: Sequence[float],
    probabilities: NDArray[np.float32] | None = None,
    brain: Mask | None = None,
    tolerance_mm: float | None = None,
) -> dict[str, dict[str, float]]:
    """Score a predicted tumour map.

    Parameters
    ----------
    predicted, truth : ndarray, (x, y, z), uint8
        Tumour maps of the scheme.
    scheme : LabelScheme
    spacing_mm : sequence of float
        Edge lengths of a voxel along x, y, z.
    probabilities : ndarray, (classes, x, y, z), float32 in [0, 1], optional
        Of background and each tumour class, in the order of their values: sum 1. Without them, and with a brain
        that has no voxel, calibration is not measured.
    brain : ndarray, (x, y, z), bool, optional
        Where calibration is measured; the whole volume where not given.
    tolerance_mm : float, optional
        Of surface Dice; see :func:`pipeline.segmentation.surface.default_tolerance_mm`.

    Returns
    -------
    dict of str to dict of str to float
        Region to metric to value; :data:`PRESENT_METRIC` and the relative volume error only where the true region is
        not empty.

    Raises
    ------
    DataError
        If the maps have different shapes.
    """
    shapes = [array.shape for array in (predicted, brain) if array is not None]
    shapes += [] if probabilities is None else [probabilities.shape[1:]]
    if wrong := [shape for shape in shapes if shape != truth.shape]:
        raise DataError(
            f"prediction of another shape; expected {truth.shape}, got {wrong[0]}; "
            "predict on the grid that the truth is on"
        )
    tolerance_mm = default_tolerance_mm(spacing_mm) if tolerance_mm is None else tolerance_mm
    inside = np.ones(truth.shape, bool) if brain is None else brain
    scores = {}
    for region, values in scheme.regions.items():
        found, true = scheme.region_mask(predicted, region), scheme.region_mask(truth, region)
        scores[region] = _score_masks(found, true, spacing_mm, tolerance_mm)
        if probabilities is not None and inside.any():
            probability = probabilities[list(values)].sum(axis=0)
            scores[region]["calibration_error"] = calibration_error(probability, true, inside)
            scores[region]["brier"] = brier_score(probability, true, inside)
    return scores


def _score_masks(found: Mask, true: Mask, spacing_mm: Sequence[float], tolerance_mm: float) -> dict[str, float]:
    lesions = score_lesions(found, true, spacing_mm)
    volume_error = abs(int(found.sum()) - int(true.sum()))
    scores = {
        "dice": dice(found, true),
        "hd95": hd95_mm(found, true, spacing_mm),
        "surface_dice": surface_dice(found, true, spacing_mm, tolerance_mm),
        "sensitivity": share_covered(true, found),
        "precision": share_covered(found, true),
        "lesion_dice": lesions.dice,
        "lesion_hd95": lesions.hd95,
        "volume_error_ml": volume_error * float(np.prod(spacing_mm)) / 1000.0,
    }
    if true.any():
        scores[PRESENT_METRIC] = scores["dice"]
        scores["volume_error_relative"] = volume_error / int(true.sum())
    return scores


def dice(first: Mask, second: Mask) -> float:
    """Return 2 |A and B| / (|A| + |B|); 1 where both are empty, 0 where one is.

    Parameters
    ----------
    first, second : ndarray, same shape, bool
    """
    total = int(first.sum()) + int(second.sum())
    return 2.0 * int((first & second).sum()) / total if total else 1.0


def share_covered(mask: Mask, other: Mask) -> float:
    """Return the share of a mask that another covers; 1 where both are empty, 0 where one is.

    Of the truth by what was found it is sensitivity, the other way round precision. A share of nothing is not
    defined: like Dice it is 0 here, or who finds nothing would be precise.

    Parameters
    ----------
    mask, other : ndarray, same shape, bool
    """
    n = int(mask.sum())
    if not n:
        return 0.0 if other.any() else 1.0
    return int((mask & other).sum()) / n
