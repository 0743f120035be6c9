import math

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.labels import LabelScheme
from pipeline.segmentation.catalogue import (
    ALL_METRICS,
    COMPARED_METRICS,
    FALSE_ALARM_METRIC,
    METRICS_BY_NAME,
    MISSED_METRIC,
    PRESENT_METRIC,
)
from pipeline.segmentation.metrics import dice, score_patient, share_covered
from pipeline.segmentation.surface import default_tolerance_mm, diagonal_mm, hd95_mm
from pipeline.segmentation.surface_dice import surface_dice

SPACING_MM = (1.0, 2.0, 3.0)
# MONAI warns of what it does itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*get_mask_edges:FutureWarning")


def mask_of(*voxels, shape=(5, 5, 5)):
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def test_dice_is_twice_the_overlap_over_both_sizes():
    first = mask_of((0, 0, 0), (1, 0, 0), (2, 0, 0))
    second = mask_of((2, 0, 0), (3, 0, 0))
    # 2 * 1 / (3 + 2)
    assert dice(first, second) == pytest.approx(0.4)


def test_two_empty_masks_agree_fully():
    empty = mask_of()
    assert dice(empty, empty) == 1.0
    assert hd95_mm(empty, empty, SPACING_MM) == 0.0


@pytest.mark.parametrize("swapped", [False, True])
def test_one_empty_mask_scores_zero_and_the_diagonal(swapped):
    masks = (mask_of((1, 1, 1)), mask_of())
    first, second = masks[::-1] if swapped else masks
    assert dice(first, second) == 0.0
    # sqrt((5 * 1)^2 + (5 * 2)^2 + (5 * 3)^2) = sqrt(25 + 100 + 225)
    assert hd95_mm(first, second, SPACING_MM) == pytest.approx(math.sqrt(350))
    assert diagonal_mm((5, 5, 5), SPACING_MM) == pytest.approx(math.sqrt(350))


def test_hd95_of_two_voxels_is_their_distance_in_mm():
    # Two steps along x of 1 mm, one along y of 2 mm, one along z of 3 mm: sqrt(4 + 4 + 9)
    distance = hd95_mm(mask_of((0, 0, 0)), mask_of((2, 1, 1)), SPACING_MM)
    assert distance == pytest.approx(math.sqrt(17))


def test_hd95_is_the_larger_direction_with_interpolated_percentile():
    first = mask_of((0, 0, 0))
    second = mask_of((0, 0, 0), (0, 0, 4))
    # From the first: 0. From the second: distances 0 and 4 * 3 mm; the 95th percentile lies at .95 between them: 11.4
    assert hd95_mm(first, second, SPACING_MM) == pytest.approx(11.4)
    assert hd95_mm(second, first, SPACING_MM) == pytest.approx(11.4)


def test_hd95_agrees_with_monai():
    import torch
    from monai.metrics import compute_hausdorff_distance

    rng = np.random.default_rng(0)
    first, second = (rng.random((9, 8, 7)) < 0.2 for _ in range(2))
    batch = [torch.from_numpy(mask[None, None]) for mask in (first, second)]
    expected = compute_hausdorff_distance(*batch, include_background=True, percentile=95, spacing=list(SPACING_MM))
    assert hd95_mm(first, second, SPACING_MM) == pytest.approx(float(expected), rel=1e-5)


def cube_of(start, shape=(12, 12, 12)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(first, first + 4) for first in start)] = True
    return mask


def test_surface_dice_is_the_share_of_both_surfaces_within_the_tolerance():
    first, moved = cube_of((3, 3, 3)), cube_of((4, 3, 3))
    assert surface_dice(first, moved, (1.0,) * 3, 1.0) == 1.0
    # Surface elements lie between voxels: on each face of a cube of 4 voxels 3 x 3 flat ones of 1 mm2, on each of 12
    # edges 3 slanted ones of sqrt(2) / 2, on each of 8 corners a triangle of sqrt(3) / 8.
    edge, corner = math.sqrt(2) / 2, math.sqrt(3) / 8
    total = 6 * 9 + 12 * 3 * edge + 8 * corner
    # A cube that moves by 1 mm takes its rear face along, with its rim, and its front face without: these are 1 mm off.
    wrong = (9 + 4 * 3 * edge + 4 * corner) + 9
    assert surface_dice(first, moved, (1.0,) * 3, 0.5) == pytest.approx((total - wrong) / total)


def test_surface_dice_measures_in_millimetres():
    first, moved = cube_of((3, 3, 3)), cube_of((4, 3, 3))
    assert surface_dice(first, moved, (2.0, 1.0, 1.0), 2.0) == 1.0
    assert surface_dice(first, moved, (2.0, 1.0, 1.0), 1.5) < 1.0


def test_a_mask_at_the_image_edge_has_a_surface_there():
    whole = np.ones((4, 4, 4), bool)
    assert surface_dice(whole, whole, (1.0,) * 3, 0.0) == 1.0
    assert surface_dice(whole, mask_of((0, 0, 0), shape=(4, 4, 4)), (1.0,) * 3, 1.0) < 0.5


def test_surface_dice_of_empty_sides_is_as_that_of_dice():
    empty = mask_of()
    assert surface_dice(empty, empty, SPACING_MM, 1.0) == 1.0
    assert surface_dice(empty, mask_of((1, 1, 1)), SPACING_MM, 1.0) == 0.0
    assert surface_dice(mask_of((1, 1, 1)), empty, SPACING_MM, 1.0) == 0.0


def test_the_tolerance_is_a_millimetre_or_a_voxel():
    assert default_tolerance_mm((0.5, 0.5, 0.5)) == 1.0
    assert default_tolerance_mm((1.0, 1.0, 4.0)) == 4.0


def test_sensitivity_and_precision_are_shares_of_truth_and_finding():
    truth, found = mask_of((0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)), mask_of((3, 0, 0), (4, 0, 0))
    # One voxel in common, of four and of two.
    assert share_covered(truth, found) == 0.25
    assert share_covered(found, truth) == 0.5


def test_shares_of_empty_sides_are_as_dice():
    empty, one = mask_of(), mask_of((1, 1, 1))
    assert share_covered(empty, empty) == 1.0
    assert share_covered(empty, one) == 0.0
    assert share_covered(one, empty) == 0.0


def test_a_patient_is_scored_region_by_region():
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[0, 0, :3] = (1, 2, 2)
    predicted = np.zeros_like(truth)
    predicted[0, 0, :3] = (2, 2, 1)
    scores = score_patient(predicted, truth, LabelScheme(), (1.0, 1.0, 1.0))
    assert scores["WT"] == {
        "dice": 1.0,
        "hd95": 0.0,
        PRESENT_METRIC: 1.0,
        MISSED_METRIC: 0.0,
        "surface_dice": 1.0,
        "sensitivity": 1.0,
        "precision": 1.0,
        # Three voxels of 1 mm3 are too small a lesion to be scored, and what touches it is not false.
        "lesion_dice": 1.0,
        "lesion_hd95": 0.0,
        "volume_error_ml": 0.0,
        "volume_error_relative": 0.0,
    }
    nothing = score_patient(np.zeros_like(truth), truth, LabelScheme(), (1.0, 1.0, 1.0))
    assert nothing["WT"][MISSED_METRIC] == 1.0
    # One voxel each, two apart.
    assert (scores["TC"]["dice"], scores["TC"]["hd95"], scores["TC"]["sensitivity"]) == (0.0, 2.0, 0.0)
    assert (scores["ET"]["dice"], scores["ET"]["hd95"]) == (1.0, 0.0)


def test_what_needs_the_region_is_not_measured_without_it():
    scores = score_patient(*[np.zeros((4, 4, 4), np.uint8)] * 2, LabelScheme(), (1.0,) * 3)
    assert scores["ET"].keys().isdisjoint({PRESENT_METRIC, MISSED_METRIC, "volume_error_relative"})


def test_a_false_alarm_is_a_single_voxel_in_a_patient_without_the_region():
    truth, predicted = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    truth[0, 0, :3] = predicted[0, 0, :3] = 2
    quiet = score_patient(predicted, truth, LabelScheme(), (1.0,) * 3)
    predicted[3, 3, 3] = 3
    alarmed = score_patient(predicted, truth, LabelScheme(), (1.0,) * 3)
    assert (quiet["ET"][FALSE_ALARM_METRIC], alarmed["ET"][FALSE_ALARM_METRIC]) == (0.0, 1.0)
    assert (quiet["ET"]["dice"], alarmed["ET"]["dice"]) == (1.0, 0.0)
    assert FALSE_ALARM_METRIC not in alarmed["WT"]


def test_volume_errors_are_absolute():
    truth, predicted = np.zeros((10, 10, 10), np.uint8), np.zeros((10, 10, 10), np.uint8)
    truth[:5, :5, :4], predicted[:5, :5, :2] = 2, 2
    scores = score_patient(predicted, truth, LabelScheme(), (1.0, 2.0, 3.0))["WT"]
    # 100 voxels of 6 mm3 are there, 50 are found: 300 mm3 less, half of it.
    assert scores["volume_error_ml"] == pytest.approx(0.3)
    assert scores["volume_error_relative"] == pytest.approx(0.5)
    swapped = score_patient(truth, predicted, LabelScheme(), (1.0, 2.0, 3.0))["WT"]
    assert swapped["volume_error_ml"] == pytest.approx(0.3)
    assert swapped["volume_error_relative"] == pytest.approx(1.0)


def test_a_region_is_as_probable_as_its_classes_together():
    truth = np.zeros((2, 1, 1), np.uint8)
    truth[0] = 3
    # Background, necrotic core, oedema, enhancing.
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.2, 0.1]], np.float32).T.reshape(4, 2, 1, 1)
    scores = score_patient(truth, truth, LabelScheme(), (1.0,) * 3, probabilities)
    # Whole tumour .9 and .3, core .6 and .1, enhancing .4 and .1; the first voxel is enhancing tumour.
    assert scores["WT"]["brier"] == pytest.approx((0.1**2 + 0.3**2) / 2)
    assert scores["TC"]["brier"] == pytest.approx((0.4**2 + 0.1**2) / 2)
    assert scores["ET"]["brier"] == pytest.approx((0.6**2 + 0.1**2) / 2)
    # Each voxel has a bin for itself: (.1 + .3) / 2
    assert scores["WT"]["calibration_error"] == pytest.approx(0.2)


def test_calibration_is_measured_in_the_brain_only():
    truth = np.zeros((2, 1, 1), np.uint8)
    probabilities = np.array([[0.5, 0.0, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]], np.float32).T.reshape(4, 2, 1, 1)
    brain = np.array([False, True]).reshape(2, 1, 1)
    assert score_patient(truth, truth, LabelScheme(), (1.0,) * 3, probabilities, brain)["WT"]["brier"] == 0.0
    assert "brier" not in score_patient(truth, truth, LabelScheme(), (1.0,) * 3, probabilities, ~(brain | True))["WT"]


def test_every_metric_is_told_about_and_compared_ones_are_among_them():
    assert set(COMPARED_METRICS) <= set(ALL_METRICS)
    truth = np.ones((4, 4, 4), np.uint8)
    probabilities = np.full((4, 4, 4, 4), 0.25, np.float32)
    # All of it is necrotic core: whole tumour and core are there, enhancing tumour is not.
    scores = score_patient(truth, truth, LabelScheme(), (1.0,) * 3, probabilities)
    assert set(scores["WT"]) | set(scores["ET"]) == set(ALL_METRICS)
    assert all(metric.definition and metric.title for metric in METRICS_BY_NAME.values())


def test_maps_of_different_shape_are_refused():
    with pytest.raises(DataError, match="another shape"):
        score_patient(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8), LabelScheme(), (1.0,) * 3)


def test_probabilities_of_another_shape_are_refused():
    truth = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(DataError, match="another shape"):
        score_patient(truth, truth, LabelScheme(), (1.0,) * 3, np.zeros((4, 2, 2, 3), np.float32))
