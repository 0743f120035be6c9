"""Prediction of whole volumes: probabilities, sliding windows, flips, field of view."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from segment_builders import SHAPE, plan_of, tiny_evaluation

from pipeline.evaluate import trainings
from pipeline.segmentation import segmenter
from pipeline.segmentation.inference import Inference, most_probable, predict_case, predict_probabilities
from pipeline.segmentation.scans import fit_window, join_boxes


class Threshold(torch.nn.Module):
    """Sees tumour where the first modality is bright; odds of 1 to e."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))
        self.shapes = []

    def forward(self, scan):
        self.shapes.append(tuple(scan.shape[2:]))
        tumor = (scan[:, :1] > 0.0).float()
        return torch.cat([1 - tumor, tumor], dim=1)


class Rightmost(Threshold):
    """Sees tumour in the right half of what it is shown."""

    def forward(self, scan):
        tumor = torch.zeros_like(scan[:, :1])
        tumor[:, :, scan.shape[2] // 2 :] = 1.0
        return torch.cat([1 - tumor, tumor], dim=1)


SLICES = (slice(6, 14), slice(4, 12))


def inference(real, window=SLICES, patch=None, flips=False):
    return Inference(real.modalities, 2, window, 8, patch, flips)


@pytest.mark.parametrize(
    ("window", "patch"),
    [
        (SLICES, None),
        (SLICES, (8, 8)),
        ((*SLICES, slice(2, 4)), None),
        ((*SLICES, slice(2, 4)), (8, 8, 4)),
    ],
)
def test_prediction_covers_the_brain_beyond_the_training_window(real, window, patch):
    case, network = real.split("test")[0], Threshold()
    predicted = predict_case(network, case, inference(real, window, patch))
    # Tumour intensities start at 500, the middle of the scale; noise of up to 39 is added.
    assert predicted.dtype == np.uint8
    assert np.array_equal(predicted > 0, (np.asarray(case.tumor_map()) > 0) & (case.image("t1") > 500))
    assert all(len(shape) == len(window) for shape in network.shapes)
    if patch is not None:
        assert set(network.shapes) == {patch}


@pytest.mark.parametrize("patch", [None, (8, 8)])
def test_probabilities_sum_to_one_and_are_sure_of_background_where_nothing_was_asked(real, patch):
    case = real.split("test")[0]
    found = predict_probabilities(Threshold(), case, inference(real, patch=patch))
    assert (found.shape, found.dtype) == ((2, *SHAPE), np.float32)
    np.testing.assert_allclose(found.sum(axis=0), 1.0, atol=1e-5)
    # Slices 0 and 5 hold no brain.
    assert (found[0][..., [0, 5]] == 1.0).all()
    tumor = most_probable(found) > 0
    # The windows agree about each voxel, so that their mean is what each says: e to 1.
    np.testing.assert_allclose(found[1][tumor], np.e / (1 + np.e), atol=1e-5)


def test_flips_average_the_prediction_with_that_of_the_mirrored_scan(real):
    case, window = real.split("test")[0], (slice(0, 18), slice(0, 16))
    plain, flipped = (
        predict_probabilities(Rightmost(), case, inference(real, window, flips=flips)) for flips in (False, True)
    )
    shown = slice(1, 5)
    mirrored = plain[:, ::-1]
    np.testing.assert_allclose(flipped[..., shown], (plain + mirrored)[..., shown] / 2, atol=1e-6)
    assert not np.allclose(flipped, plain)


def test_even_probabilities_count_for_the_lower_class():
    assert most_probable(np.full((3, 1, 1, 1), 1 / 3, np.float32)).item() == 0


def test_the_window_holds_the_box_and_suits_the_network():
    # 9 -> 16 voxels about (10 + 19) / 2; 15 -> 16, moved to stay inside
    assert fit_window((slice(10, 19), slice(5, 20)), (40, 21, 9), 8) == (slice(6, 22), slice(4, 20))
    assert fit_window((slice(0, 20), slice(0, 20)), (20, 20), 8) == (slice(0, 20), slice(0, 20))
    assert fit_window((slice(3, 9), slice(0, 8), slice(5, 6)), (16, 8, 24), 8) == (
        slice(2, 10),
        slice(0, 8),
        slice(1, 9),
    )


def test_boxes_are_joined_to_the_smallest_that_holds_them():
    boxes = [(slice(3, 5), slice(1, 9)), (slice(4, 8), slice(2, 3))]
    assert join_boxes(boxes) == (slice(3, 8), slice(1, 9))


class Noting(Threshold):
    """Notes whether it works in half precision."""

    def __init__(self):
        super().__init__()
        self.is_half = []

    def forward(self, scan):
        self.is_half.append(torch.is_autocast_enabled("cpu"))
        return super().forward(scan)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_val_and_test_are_predicted_in_the_arithmetic_of_the_training(real, synthetic, precision):
    config = tiny_evaluation()
    plan = plan_of(config, real, synthetic)
    plan = replace(plan, compute=config.compute.model_copy(update={"precision": precision}))
    best, validated = SimpleNamespace(segmenter=Noting()), Noting()
    best.segmenter.forward = four_classes(best.segmenter.forward)
    validated.forward = four_classes(validated.forward)
    segmenter.validate(validated, plan)
    trainings.score_case(best, real.split("test")[0], plan, 4.0)
    expected = precision == "bf16-mixed"
    assert set(validated.is_half) == set(best.segmenter.is_half) == {expected}


def four_classes(forward):
    return lambda scan: torch.nn.functional.pad(forward(scan), (0, 0, 0, 0, 0, 2))


def test_only_arms_trained_on_mirrored_scans_are_shown_mirrored_ones(real, synthetic):
    config = tiny_evaluation(test_time_flips=True)
    flips = {name: plan_of(config, real, synthetic, name).inference.flips for name in ("real", "real-aug", "real-syn")}
    assert flips == {"real": False, "real-aug": True, "real-syn": False}
    still = tiny_evaluation(test_time_flips=True, augmentation={"mirroring": 0.0})
    assert not plan_of(still, real, synthetic, "real-aug").inference.flips
    assert not plan_of(tiny_evaluation(), real, synthetic, "real-aug").inference.flips
