"""Ordinary augmentation of segmenters: range, background, labels that move along, a strength for each change."""

import pytest
import torch

from pipeline.config_evaluate import AugmentationSection
from pipeline.seeds import torch_stream
from pipeline.segmentation import augmentation
from pipeline.segmentation.augmentation import augment

FULL, OFF = AugmentationSection(), AugmentationSection.off()
MOVES = ("rotation", "scaling", "mirroring")
NAMES = tuple(AugmentationSection.model_fields)


def only(*names, strength=1.0):
    return OFF.model_copy(update=dict.fromkeys(names, strength))


@pytest.fixture
def always(monkeypatch):
    """Let every change be drawn whose strength is not 0."""
    for name in ("FLIP_PROBABILITY", "ROTATION_PROBABILITY", "SCALE_PROBABILITY"):
        monkeypatch.setattr(augmentation, name, 1.0)
    changes = tuple((name, 1.0, change) for name, _, change in augmentation._INTENSITY_CHANGES)
    monkeypatch.setattr(augmentation, "_INTENSITY_CHANGES", changes)


def brains(n, spatial):
    scan = torch.full((n, 4, *spatial), -1.0)
    labels = torch.zeros(n, 1, *spatial)
    inside = (slice(None), slice(None), *[slice(3, size - 3) for size in spatial])
    scan[inside] = torch.rand(scan[inside].shape, generator=torch_stream(0)) - 0.5
    labels[(slice(None), slice(None), *[slice(4, 8)] * len(spatial))] = 3.0
    return scan, labels


@pytest.mark.parametrize("spatial", [(20, 24), (12, 16, 10)])
def test_augmentation_keeps_shapes_range_and_background(spatial):
    scan, labels = brains(16, spatial)
    moved, moved_labels = augment(scan, labels, FULL, torch_stream(1))
    assert (moved.shape, moved.dtype) == (scan.shape, torch.float32)
    # Not cut off at black and white, but not far from them either.
    brain = (moved != -1.0).any(dim=1, keepdim=True)
    assert (torch.where(brain, 0.0, moved + 1.0) == 0.0).all()
    assert moved.abs().max() <= 1.25
    # The corner is outside of every rotated and scaled box.
    assert (moved[(slice(None), slice(None), *[0] * len(spatial))] == -1.0).all()
    assert set(moved_labels.unique().tolist()) == {0.0, 3.0}
    assert not torch.equal(moved, scan)
    again, _ = augment(scan, labels, FULL, torch_stream(1))
    assert torch.equal(moved, again)


@pytest.mark.parametrize("name", NAMES)
def test_each_change_has_a_strength_of_its_own(always, name):
    scan, labels = brains(8, (20, 24))
    changed, moved = augment(scan, labels, only(name), torch_stream(2))
    assert not torch.equal(changed, scan)
    assert torch.equal(labels, moved) == (name not in MOVES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mirroring"])
def test_a_lower_strength_changes_less(always, name):
    scan, labels = brains(64, (20, 24))
    changes = [
        (augment(scan, labels, only(name, strength=strength), torch_stream(3))[0] - scan).abs().mean()
        for strength in (0.25, 1.0)
    ]
    assert 0 < changes[0] < changes[1]


def test_a_lower_strength_is_drawn_less_often():
    scan, labels = brains(400, (8, 10))
    counts = []
    for strength in (0.5, 1.0):
        changed, _ = augment(scan, labels, only("mirroring", strength=strength), torch_stream(4))
        counts.append(int(((changed - scan).abs() > 1e-3).flatten(1).any(dim=1).sum()))
    # Mirrored by a chance of .25 and .5: 100 and 200 of 400, SD 9 and 10
    assert counts == pytest.approx([100, 200], abs=40)


def test_background_stays_where_nothing_moves(always):
    scan, labels = brains(4, (16, 16))
    changed, same_labels = augment(scan, labels, FULL.model_copy(update=dict.fromkeys(MOVES, 0.0)), torch_stream(2))
    outside = (scan == -1.0).all(dim=1, keepdim=True).expand_as(scan)
    assert (changed[outside] == -1.0).all()
    assert not torch.equal(changed[~outside], scan[~outside])
    assert torch.equal(labels, same_labels)


def bright_brains(n=400, spatial=(16, 18)):
    """Return scans of which one modality is wide and near white, and the others narrow and dark."""
    stream = torch_stream(5)
    scan, labels = torch.full((n, 4, *spatial), -1.0), torch.zeros(n, 1, *spatial)
    inside = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    scan[inside] = torch.randn(scan[inside].shape, generator=stream).clamp(-2, 2) * 0.05 - 0.5
    scan[:, 0, 3:-3, 3:-3] = torch.randn(scan[:, 0, 3:-3, 3:-3].shape, generator=stream).clamp(-2, 2) * 0.2 + 0.6
    return scan, labels, (scan > -1.0).any(dim=1, keepdim=True)


def brain_moments(scan, brain):
    """Return mean and standard deviation over the brain: (N, modalities) each."""
    values = scan.masked_select(brain).reshape(*scan.shape[:2], -1)
    return values.mean(dim=2), values.std(dim=2, correction=0)


def test_noise_has_up_to_a_tenth_of_the_standard_deviation_of_each_modality_as_nnunet_has_it(always):
    scan, labels, brain = bright_brains()
    noise = augment(scan, labels, only("noise"), torch_stream(6))[0] - scan
    ratio = brain_moments(noise, brain)[1] / brain_moments(scan, brain)[1]
    # One draw a sample, from 0 to .1, for all modalities; 120 voxels tell it within a fifth.
    assert ratio.amax() < 0.13
    assert ratio.mean() == pytest.approx(0.05, abs=0.005)
    assert ratio.mean(dim=0) == pytest.approx([0.05] * 4, abs=0.006)
    assert ratio.std(dim=1).mean() < 0.01


def test_brightness_multiplies_z_scored_intensities_and_erases_nothing(always):
    scan, labels, brain = bright_brains()
    changed, _ = augment(scan, labels, only("brightness"), torch_stream(6))
    (old_mean, old_sd), (mean, sd) = brain_moments(scan, brain), brain_moments(changed, brain)
    factor = sd / old_sd
    assert factor.min() == pytest.approx(0.75, abs=0.01)
    assert factor.max() == pytest.approx(1.25, abs=0.01)
    # One factor for all modalities of a sample, about the mean of each.
    assert torch.allclose(factor, factor[:, :1].expand_as(factor), atol=1e-4)
    assert torch.allclose(mean, old_mean, atol=1e-5)
    # What was told apart before still is: near white a cut would make one value of many.
    inside = (slice(None), 0, slice(3, -3), slice(3, -3))
    before, after = scan[inside].flatten(1), changed[inside].flatten(1)
    z_before, z_after = ((x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True) for x in (before, after))
    assert torch.allclose(z_before, z_after, atol=1e-4)


@pytest.mark.parametrize("name", ["contrast", "gamma"])
def test_contrast_keeps_the_range_and_gamma_the_moments_of_each_modality(always, name):
    scan, labels, brain = bright_brains()
    changed, _ = augment(scan, labels, only(name), torch_stream(6))
    assert not torch.allclose(changed, scan, atol=0.05)
    if name == "gamma":
        for old, new in zip(brain_moments(scan, brain), brain_moments(changed, brain), strict=True):
            assert torch.allclose(old, new, atol=1e-4)
    else:
        for bound in (torch.amin, torch.amax):
            old, new = (bound(x[:, :, 3:-3, 3:-3], dim=(2, 3)) for x in (scan, changed))
            sign = 1.0 if bound is torch.amin else -1.0
            assert (sign * (new - old) >= -1e-6).all()


def test_labels_move_with_the_scan():
    labels = torch.zeros(32, 1, 20, 28)
    labels[:, :, 6:12, 8:18] = 1.0
    moved, moved_labels = augment(labels * 1.5 - 0.9, labels, FULL, torch_stream(4))
    inside = (moved * moved_labels).sum(dim=(1, 2, 3)) / moved_labels.sum(dim=(1, 2, 3))
    outside = (moved * (1 - moved_labels)).sum(dim=(1, 2, 3)) / (1 - moved_labels).sum(dim=(1, 2, 3))
    assert (inside - outside > 0.5).all()


def test_augmentation_that_is_off_changes_nothing():
    scan, labels = brains(2, (8, 12))
    moved, moved_labels = augment(scan, labels, OFF, torch_stream(0))
    assert moved is scan
    assert moved_labels is labels


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("spatial", [(20, 24), (12, 16, 10)])
def test_a_batch_on_a_gpu_is_augmented_there_as_on_the_cpu(always, spatial):
    scan, labels = brains(8, spatial)
    expected, expected_labels = augment(scan, labels, FULL, torch_stream(1))
    found, found_labels = augment(scan.cuda(), labels.cuda(), FULL, torch_stream(1))
    assert torch.allclose(found.cpu(), expected, atol=1e-3)
    assert (found_labels.cpu() == expected_labels).float().mean() > 0.999
