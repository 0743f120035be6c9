import math

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.labels import LabelScheme
from pipeline.segmentation.metrics import PRESENT_METRIC, diagonal_mm, dice, hd95_mm, score_patient

SPACING_MM = (1.0, 2.0, 3.0)


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


def test_a_patient_is_scored_region_by_region():
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[0, 0, :3] = (1, 2, 2)
    predicted = np.zeros_like(truth)
    predicted[0, 0, :3] = (2, 2, 1)
    scores = score_patient(predicted, truth, LabelScheme(), (1.0, 1.0, 1.0))
    assert scores["WT"] == {"dice": 1.0, "hd95": 0.0, PRESENT_METRIC: 1.0}
    # One voxel each, two apart.
    assert scores["TC"] == {"dice": 0.0, "hd95": 2.0, PRESENT_METRIC: 0.0}
    assert scores["ET"] == {"dice": 1.0, "hd95": 0.0}


def test_maps_of_different_shape_are_refused():
    with pytest.raises(DataError, match="another shape"):
        score_patient(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8), LabelScheme(), (1.0,) * 3)
