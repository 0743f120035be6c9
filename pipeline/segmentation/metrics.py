"""How well one patient is segmented: whole volume, region by region; defined in the catalogue.

References
----------
Menze et al. 2015, doi:10.1109/TMI.2014.2377694 (regions).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.segmentation.calibration import brier_score, calibration_error
from pipeline.segmentation.catalogue import FALSE_ALARM_METRIC, MISSED_METRIC, PRESENT_METRIC
from pipeline.segmentation.lesions import score_lesions
from pipeline.segmentation.surface import Mask, default_tolerance_mm, hd95_mm
from pipeline.segmentation.surface_dice import surface_dice


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
        Region to metric to value; :data:`PRESENT_METRIC`, :data:`MISSED_METRIC` and the relative volume error only
        where the true region is not empty, :data:`FALSE_ALARM_METRIC` only where it is.

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
        scores[MISSED_METRIC] = float(not found.any())
        scores["volume_error_relative"] = volume_error / int(true.sum())
    else:
        scores[FALSE_ALARM_METRIC] = float(found.any())
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
