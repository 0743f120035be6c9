"""The metrics: what each is called, how it is defined, which way is better. Light: no network library is loaded.

References
----------
Maier-Hein et al. 2024, "Metrics reloaded", doi:10.1038/s41592-023-02151-z (definitions).
"""

import math
from dataclasses import dataclass

from pipeline.segmentation.calibration import N_BINS
from pipeline.segmentation.lesions import MAX_IGNORED_MM3, MERGE_MM
from pipeline.segmentation.surface import MIN_TOLERANCE_MM

# What differences between arms are shown of. Which of them may be claimed is the config's `planned_metrics`.
COMPARED_METRICS = ("dice", "hd95")
# A region that is missed entirely counts as the image's diagonal: the share of these stands beside.
DISTANCE_METRIC, MISSED_METRIC = "hd95", "missed"
# Of who lacks a region Dice is 0 or 1, and HD95 0 or the diagonal, by a single voxel.
FALSE_ALARM_METRIC = "false_alarm"
# Shares of patients: what is rare has no interval from few of them.
RATE_METRICS = (MISSED_METRIC, FALSE_ALARM_METRIC)
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
        Least and greatest value that it can have, whatever the image; no distance is beyond an image's diagonal.
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
    MISSED_METRIC: Metric(
        "missed",
        "1 where nothing of the region is found, else 0; over the patients whose true region is not empty",
        is_better_higher=False,
    ),
    FALSE_ALARM_METRIC: Metric(
        "false alarm",
        "1 where anything of the region is found, else 0; over the patients whose true region is empty",
        is_better_higher=False,
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
        f"dilation joins are one; it reaches as many voxels as come nearest to {MERGE_MM:g} mm, at least one), each "
        "with the found parts that touch its dilation, and "
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


def gain_sign(metric: str) -> float:
    """Return 1 or -1: a difference of a metric times it is above 0 where it is a gain."""
    return 1.0 if IS_BETTER_HIGHER[metric] else -1.0
