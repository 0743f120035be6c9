"""Label maps rendered with random contrasts."""

import numpy as np
import pytest
import torch

from pipeline.seeds import torch_stream
from pipeline.segmentation.random_contrast import render


def layered(spatial, n=6):
    """Three classes in layers within a margin of background."""
    condition = torch.zeros(n, *spatial, dtype=torch.uint8)
    inner = tuple(slice(2, size - 2) for size in spatial[1:])
    for value in (1, 2, 3):
        condition[(slice(None), slice(2 + (value - 1) * 6, 2 + value * 6), *inner)] = value
    return condition


@pytest.mark.parametrize("spatial", [(22, 20), (22, 20, 18)])
def test_rendering_has_the_range_and_the_background_of_scans(spatial):
    condition = layered(spatial)
    scan = render(condition, 4, 3, torch_stream(0))
    assert scan.shape == (6, 3, *spatial)
    brain = (condition > 0)[:, None].expand_as(scan)
    assert (scan[~brain] == -1.0).all()
    for one, inside in zip(scan.flatten(0, 1), brain.flatten(0, 1), strict=True):
        assert float(one[inside].min()) == pytest.approx(-1.0)
        assert float(one[inside].max()) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(scan, render(condition, 4, 3, torch_stream(0)))


def test_classes_have_contrasts_of_their_own_in_each_sample_and_modality():
    condition = layered((22, 60), n=40)
    scan = render(condition, 4, 2, torch_stream(1))
    # Away from the borders of the layers, which are blurred.
    means = torch.stack([scan[:, :, 4 + k * 6 : 6 + k * 6, 6:-6].mean(dim=(2, 3)) for k in range(3)], dim=2)
    brighter = (means[..., 0] > means[..., 1]).flatten().double()
    # Either of two classes is the brighter one: 40 of 80 expected, SD 4.5
    assert 25 <= brighter.sum() <= 55
    assert means[:, 0].std() > 0.3
    correlation = np.corrcoef(means[:, 0].flatten(), means[:, 1].flatten())[0, 1]
    # The order of layers is drawn anew for the other modality: 120 pairs, SD .09, and somewhat more for three together.
    assert abs(correlation) < 0.4


def test_an_empty_label_map_is_background():
    assert (render(torch.zeros(1, 8, 8, dtype=torch.uint8), 4, 2, torch_stream(0)) == -1.0).all()
