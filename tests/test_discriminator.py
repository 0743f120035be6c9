"""The discriminator: it is shown grain apart, amplified, and matches none of it."""

import pytest
import torch

from pipeline.train import discriminator as discriminator_module
from pipeline.train.discriminator import DETAIL_GAIN, DETAIL_LIMIT, Discriminator
from pipeline.train.losses import discriminator_hinge, split_judgement


def make(dimensions: int, n_layers: int = 2) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(dimensions, 2, 3, 8, n_layers)


def condition_of(n: int, *spatial: int) -> torch.Tensor:
    """Return class 1 everywhere."""
    return torch.nn.functional.one_hot(torch.ones(n, *spatial, dtype=torch.long), 3).movedim(-1, 1).float()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_detail_is_what_differs_from_the_local_mean_amplified_and_cut(dimensions: int) -> None:
    spatial, discriminator = (9,) * dimensions, make(dimensions)
    condition = condition_of(1, *spatial)
    middle = (0, 0, *[4] * dimensions)
    flat = torch.full((1, 2, *spatial), 0.3)
    assert discriminator.detail(flat, condition).abs().max() < 1e-4
    speck = flat.clone()
    speck[middle] += 0.02
    share = 1 - 1 / 3**dimensions
    assert discriminator.detail(speck, condition)[middle] == pytest.approx(DETAIL_GAIN * 0.02 * share, rel=1e-3)
    speck[middle] += 1.0
    assert discriminator.detail(speck, condition)[middle] == DETAIL_LIMIT
    # Nothing outside the brain, nor where augmentation has left no class at all.
    for channel in (0, None):
        nowhere = torch.zeros_like(condition)
        if channel is not None:
            nowhere[:, channel] = 1.0
        mixed = torch.where(torch.arange(9) < 3, nowhere, condition)
        detail = discriminator.detail(speck, mixed)
        assert not detail[..., :3].any()
        assert detail[middle] == DETAIL_LIMIT


def hinge_on_grain() -> float:
    """Return the loss of a discriminator trained to tell scans with grain from scans without."""
    discriminator = make(2)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.0, 0.9))
    stream = torch.Generator().manual_seed(0)
    condition = condition_of(8, 32, 32)
    losses = []
    for _ in range(100):
        # Contrasts between scans are large beside the grain.
        scan = 0.4 * torch.randn(4, 2, 1, 1, generator=stream).expand(4, 2, 32, 32)
        grainy = scan + 0.02 * torch.randn(4, 2, 32, 32, generator=stream)
        real, fake = split_judgement(discriminator(torch.cat([grainy, scan]), condition)[-1:], 4)
        loss = discriminator_hinge(real, fake, torch.ones(4, 1, 32, 32))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-20:]) / 20


def test_grain_of_a_hundredth_of_the_range_is_told_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2 where nothing is told apart, 0 where all is.
    assert hinge_on_grain() < 1.4
    monkeypatch.setattr(discriminator_module, "DETAIL_GAIN", 0.0)
    assert hinge_on_grain() > 1.9


def test_grain_is_judged_by_its_surroundings_alone() -> None:
    # Spectral norm moves on at each call in training.
    discriminator = make(2).eval()
    scan = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(1))
    changed = scan.clone()
    changed[..., 48:] += 1.0
    condition = condition_of(1, 64, 64)
    judged = discriminator(scan, condition)
    for before, after in zip(judged, discriminator(changed, condition), strict=True):
        assert not torch.equal(before[-1][..., -1], after[-1][..., -1])
    # The norm of the other two looks at the whole image.
    assert torch.equal(judged[-1][-1][..., 0], discriminator(changed, condition)[-1][-1][..., 0])


def test_grain_has_logits_and_nothing_to_match() -> None:
    judged = make(3)(torch.zeros(1, 2, 32, 32, 32), condition_of(1, 32, 32, 32))
    assert [len(one) for one in judged] == [4, 4, 1]


def test_the_generator_learns_from_grain() -> None:
    scan = torch.full((1, 2, 32, 32), 0.1).requires_grad_()
    make(2)(scan, condition_of(1, 32, 32))[-1][-1].sum().backward()
    assert scan.grad is not None
    assert scan.grad.any()


def test_who_wants_features_to_match_is_not_made_to_wait_for_the_grain(monkeypatch: pytest.MonkeyPatch) -> None:
    discriminator, condition = make(2), condition_of(2, 32, 32)
    scan = torch.zeros(2, 2, 32, 32)
    whole = discriminator.eval()(scan, condition)
    asked: list[torch.Tensor] = []
    monkeypatch.setattr(discriminator.grain, "forward", asked.append)
    without = discriminator(scan, condition, with_grain=False)
    assert not asked
    assert len(without) == len(whole) - 1 == 2
    for one, other in zip(without, whole, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_grain_is_judged_at_half_the_width() -> None:
    discriminator = make(2)
    for part, width in ((discriminator.scales[0], 8), (discriminator.scales[1], 8), (discriminator.grain, 4)):
        assert next(m.out_channels for m in part.modules() if isinstance(m, torch.nn.Conv2d)) == width
