"""The two networks, in two and three dimensions: shapes, padding, deep supervision."""

import pytest
import torch

from pipeline.config_evaluate import SegmenterSection
from pipeline.segmentation.networks import Segmenter, supervised_loss

KINDS = [(network, dimensions) for network in ("segresnet", "dynunet") for dimensions in (2, 3)]


def make(network, dimensions, levels=3):
    torch.manual_seed(0)
    return Segmenter(4, 3, SegmenterSection(network=network, dimensions=dimensions, filters=8, levels=levels))


@pytest.mark.parametrize(("network", "dimensions"), KINDS)
def test_logits_have_the_size_of_the_scan_whatever_it_is(network, dimensions):
    spatial = (19, 8, 10)[:dimensions]
    with torch.no_grad():
        logits = make(network, dimensions).eval()(torch.rand(2, 4, *spatial))
    assert logits.shape == (2, 3, *spatial)


@pytest.mark.parametrize(("network", "dimensions"), KINDS)
def test_padding_is_background(network, dimensions):
    segmenter = make(network, dimensions).eval()
    spatial, padded = (13, 16, 16)[:dimensions], (16, 16, 16)[:dimensions]
    scan = torch.rand(1, 4, *spatial)
    whole = torch.full((1, 4, *padded), -1.0)
    whole[:, :, :13] = scan
    with torch.no_grad():
        torch.testing.assert_close(segmenter(scan), segmenter(whole)[:, :, :13])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_deep_supervision_has_a_head_for_each_level_but_the_lowest_and_in_training_only(dimensions):
    segmenter = make("dynunet", dimensions, levels=4)
    spatial = (32,) * dimensions
    scan = torch.rand(1, 4, *spatial)
    assert segmenter(scan).shape == (1, 3, 3, *spatial)
    assert segmenter.eval()(scan).shape == (1, 3, *spatial)


def test_with_two_levels_none_is_left_to_be_supervised_beside_the_finest():
    segmenter = make("dynunet", 2, levels=2)
    assert segmenter(torch.rand(1, 4, 16, 16)).shape == (1, 3, 16, 16)


def test_heads_count_half_as_much_from_level_to_level():
    def criterion(logits, labels):
        return (logits.mean() - labels.mean()).abs()

    heads = torch.stack([torch.full((2, 3, 4, 4), value) for value in (1.0, 4.0, 8.0)], dim=1)
    labels = torch.zeros(2, 1, 4, 4)
    # (1 * 1 + 4 / 2 + 8 / 4) / (1 + 1/2 + 1/4) = 5 / 1.75
    assert supervised_loss(criterion, heads, labels).item() == pytest.approx(5 / 1.75)
    assert supervised_loss(criterion, heads[:, 1], labels).item() == pytest.approx(4.0)


@pytest.mark.parametrize(("network", "dimensions"), KINDS)
def test_deepest_features_have_the_coarsest_resolution(network, dimensions):
    features = make(network, dimensions).encode(torch.rand(2, 4, *(32, 16, 16)[:dimensions]))
    # Three halvings of the resolution, and doublings of 8 filters.
    assert features.shape == (2, 64, *(4, 2, 2)[:dimensions])
