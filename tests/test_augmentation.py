"""DiffAugment: scan and condition move together, colour is the scan's, one draw serves several sets."""

import pytest
import torch
from torch import Tensor

from pipeline.train.augmentation import COLOUR_SHIFT, CUTOUT_SHARE, TRANSLATION_SHARE, DiffAugment

CPU = torch.device("cpu")
POLICIES = ("colour", "translation", "cutout")
SHAPES = [(16, 24), (8, 16, 12)]


def make(policies: tuple[str, ...], n: int, spatial: tuple[int, ...], seed: int = 0) -> DiffAugment:
    return DiffAugment(policies, spatial, [(n, torch.Generator().manual_seed(seed))], CPU)


def scan_and_condition(n: int, spatial: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return scans whose brain is the inner half, and a condition whose second channel is that brain."""
    stream = torch.Generator().manual_seed(1)
    brain = torch.zeros(n, 1, *spatial)
    brain[(slice(None), slice(None), *[slice(s // 4, -(s // 4)) for s in spatial])] = 1
    texture = torch.rand(n, 2, *spatial, generator=stream) - 0.5
    return torch.where(brain > 0, texture, -1.0), torch.cat([1 - brain, brain], dim=1)


@pytest.mark.parametrize("spatial", SHAPES)
def test_shapes_stay(spatial: tuple[int, ...]) -> None:
    scan, condition = scan_and_condition(3, spatial)
    changed, moved = make(POLICIES, 3, spatial)(scan, condition)
    assert changed.shape == scan.shape
    assert moved.shape == condition.shape
    assert not torch.equal(changed, scan)


@pytest.mark.parametrize("policies", [(), ("flip",)])
def test_without_policies_nothing_changes(policies: tuple[str, ...]) -> None:
    scan, condition = scan_and_condition(3, (16, 24))
    changed, moved = make(policies, 3, (16, 24))(scan, condition)
    assert torch.equal(changed, scan)
    assert torch.equal(moved, condition)


@pytest.mark.parametrize("spatial", SHAPES)
def test_one_draw_changes_two_sets_alike_and_another_draw_differs(spatial: tuple[int, ...]) -> None:
    scan, condition = scan_and_condition(4, spatial)
    augment = make(POLICIES, 4, spatial)
    first, second = augment(scan, condition), augment(scan.clone(), condition.clone())
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(make(POLICIES, 4, spatial, seed=1)(scan, condition)[0], first[0])


@pytest.mark.parametrize("spatial", SHAPES)
def test_a_sample_with_a_stream_of_its_own_is_changed_alike_whoever_else_is_there(spatial: tuple[int, ...]) -> None:
    scan, condition = scan_and_condition(5, spatial)

    def changed(places: list[int]) -> tuple[Tensor, Tensor]:
        """Augment these of the first three, each by its own stream, and the last two by one."""
        draws = [(1, torch.Generator().manual_seed(place)) for place in places]
        draws.append((2, torch.Generator().manual_seed(9)))
        whole = [*places, 3, 4]
        return DiffAugment(POLICIES, spatial, draws, CPU)(scan[whole], condition[whole])

    everybody = changed([0, 1, 2])
    for left_out in range(3):
        rest = [place for place in range(3) if place != left_out]
        for found, expected in zip(changed(rest), everybody, strict=True):
            assert torch.equal(found, expected[[*rest, 3, 4]])
    # Of two streams two draws; and one stream draws for two what it draws for a batch of two.
    assert not torch.equal(changed([0, 0])[0][0], everybody[0][1])
    assert torch.equal(make(POLICIES, 2, spatial, seed=9)(scan[3:], condition[3:])[0], everybody[0][3:])


@pytest.mark.parametrize("spatial", SHAPES)
@pytest.mark.parametrize("policy", ["translation", "cutout"])
def test_scan_and_condition_move_together(policy: str, spatial: tuple[int, ...]) -> None:
    n = 6
    scan, condition = scan_and_condition(n, spatial)
    changed, moved = make((policy,), n, spatial)(scan, condition)
    # Wherever the changed condition says brain there is brain in the changed scan, and nowhere else.
    assert torch.equal((changed > -1).any(dim=1), moved[:, 1] > 0)
    assert not torch.equal(moved, condition)


def test_translation_moves_by_whole_voxels_within_its_limit_and_background_comes_in() -> None:
    spatial, n = (16, 24), 40
    scan = torch.full((n, 1, *spatial), -1.0)
    scan[:, :, 8, 12] = 1.0
    changed, moved = make(("translation",), n, spatial)(scan, torch.ones(n, 1, *spatial))
    positions = (changed[:, 0] == 1.0).nonzero()[:, 1:]
    shifts = positions - torch.tensor([8, 12])
    # An eighth of 16 and of 24 voxels.
    assert [round(s * TRANSLATION_SHARE) for s in spatial] == [2, 3]
    assert shifts.abs().max(dim=0).values.tolist() == [2, 3]
    assert set(changed.unique().tolist()) == {-1.0, 1.0}
    for sample, (dx, dy) in zip(moved[:, 0], shifts.tolist(), strict=True):
        # What moved out of view is gone: (16 - |dx|) rows of (24 - |dy|).
        assert sample.sum().item() == (16 - abs(dx)) * (24 - abs(dy))


@pytest.mark.parametrize("spatial", [(20, 30), (10, 20, 30)])
def test_cutout_empties_a_box_of_its_share_at_most(spatial: tuple[int, ...]) -> None:
    n = 30
    ones = torch.ones(n, 1, *spatial)
    changed, _ = make(("cutout",), n, spatial)(ones, ones)
    for sample in changed[:, 0]:
        emptied = (sample == -1).nonzero()
        extent = (emptied.max(dim=0).values - emptied.min(dim=0).values + 1).tolist()
        # A full box: as many voxels as its corners span; never longer than its share of an axis.
        assert len(emptied) == torch.tensor(extent).prod().item()
        assert all(e <= s * CUTOUT_SHARE + 1 for e, s in zip(extent, spatial, strict=True))
    assert set(changed.unique().tolist()) == {-1.0, 1.0}


def test_colour_changes_the_brain_linearly_and_leaves_background_and_condition() -> None:
    scan, condition = scan_and_condition(8, (16, 24))
    changed, same = make(("colour",), 8, (16, 24))(scan, condition)
    assert torch.equal(same, condition)
    for before, after in zip(scan, changed, strict=True):
        brain = before > -1
        assert (after[~brain] == -1).all()
        # after + 1 = contrast * (before + 1) + brightness: two points fix the line, the others lie on it.
        x, y = before[brain] + 1, after[brain] + 1
        low, high = x.argmin(), x.argmax()
        contrast = (y[high] - y[low]) / (x[high] - x[low])
        brightness = y[low] - contrast * x[low]
        torch.testing.assert_close(y, contrast * x + brightness, atol=1e-5, rtol=0)
        assert abs(contrast - 1) <= COLOUR_SHIFT + 1e-5
        assert 0 < abs(brightness) <= COLOUR_SHIFT + 1e-5


@pytest.mark.parametrize("spatial", SHAPES)
def test_gradient_flows_through_every_policy(spatial: tuple[int, ...]) -> None:
    scan, condition = scan_and_condition(2, spatial)
    scan.requires_grad_()
    augment = make(POLICIES, 2, spatial)
    changed, _ = augment(scan, condition)
    changed.sum().backward()
    assert scan.grad is not None
    brain = scan.detach() > -1
    # What stays in view passes on its contrast (or 1 outside the brain), what is cut out or moved away passes nothing.
    assert (scan.grad[brain] > 0).float().mean() > 0.4
    assert scan.grad.max() <= 1 + COLOUR_SHIFT
    n_kept = (scan.grad.sum(dim=1) > 0).sum()
    assert 0 < n_kept < scan[:, 0].numel()


def test_colour_moves_voxels_of_the_brain_that_are_as_dark_as_outside() -> None:
    augment = make(("colour",), 1, (8, 8))
    scan = torch.full((1, 2, 8, 8), -1.0)
    condition = torch.zeros(1, 3, 8, 8)
    condition[:, 1, 2:6, 2:6], condition[:, 0] = 1.0, 1.0
    condition[:, 0, 2:6, 2:6] = 0.0
    changed, _ = augment(scan, condition)
    # As its neighbours in the brain would: else what is real is told by what stays.
    assert (changed[..., 2:6, 2:6] != -1.0).all()
    assert (changed[..., 0] == -1.0).all()
