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
    assert moved.min() == -1.0
    assert moved.max() <= 1.0
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
