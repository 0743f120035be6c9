"""Losses of the adversarial game, computed by hand."""

import pytest
import torch
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator

from pipeline.train.losses import (
    BALANCE_LIMIT,
    balance_classes,
    discriminator_hinge,
    feature_matching,
    generator_hinge,
    split_judgement,
    weighted_mean,
)

EVEN = torch.ones(1, 1, 2, 1)


def judgement(*scales: list[list[float]]) -> list[list[torch.Tensor]]:
    """Build a judgement of one sample: for each scale the values of each layer, one channel, in a column."""
    return [[torch.tensor(layer).reshape(1, 1, -1, 1) for layer in scale] for scale in scales]


def test_hinge_of_the_discriminator_is_as_by_hand() -> None:
    real = judgement([[9.0], [0.5, 2.0]], [[9.0], [-1.0]])
    fake = judgement([[9.0], [-2.0, 0.0]], [[9.0], [0.5]])
    # First scale: relu(1 - .5) = .5 and relu(1 - 2) = 0, mean .25; relu(1 - 2) = 0 and relu(1 + 0) = 1, mean .5; .75.
    # Second scale: relu(1 + 1) = 2; relu(1 + .5) = 1.5; 3.5. Mean of scales: (.75 + 3.5) / 2 = 2.125.
    assert discriminator_hinge(real, fake, EVEN).item() == pytest.approx(2.125)


def test_hinge_of_the_discriminator_is_zero_and_flat_beyond_the_margin() -> None:
    real = judgement([[0.0], [1.5]])
    fake = judgement([[0.0], [-1.5]])
    real[0][-1].requires_grad_()
    loss = discriminator_hinge(real, fake, EVEN)
    loss.backward()
    assert loss.item() == 0
    assert real[0][-1].grad is not None
    assert real[0][-1].grad.item() == 0


def test_hinge_of_the_generator_is_linear_and_never_saturates() -> None:
    fake = judgement([[9.0], [-30.0, 10.0]], [[9.0], [4.0]])
    fake[0][-1].requires_grad_()
    loss = generator_hinge(fake, (0.5, 0.25), EVEN)
    # First: -(-30 + 10) / 2 = 10, half of it; second: -4, a quarter of it.
    assert loss.item() == pytest.approx(4.0)
    loss.backward()
    # -1 / 2 positions * .5 at each logit, however sure the discriminator is.
    assert fake[0][-1].grad is not None
    assert fake[0][-1].grad.flatten().tolist() == [-0.25, -0.25]


def test_feature_matching_is_as_by_hand_and_leaves_the_logits_out() -> None:
    real = judgement([[0.0, 2.0], [1.0], [100.0]], [[3.0], [0.0], [100.0]])
    fake = judgement([[1.0, 5.0], [1.5], [-100.0]], [[3.0], [-4.0], [-100.0]])
    # Layers: (1 + 3) / 2 = 2; .5; 0; 4; mean 6.5 / 4 = 1.625. The logits, 200 apart, do not count.
    assert feature_matching(real, fake, EVEN).item() == pytest.approx(1.625)


def test_feature_matching_gives_no_gradient_to_the_real_features() -> None:
    real, fake = judgement([[1.0, 2.0], [0.0]]), judgement([[0.0, 5.0], [0.0]])
    real[0][0].requires_grad_()
    fake[0][0].requires_grad_()
    feature_matching(real, fake, EVEN).backward()
    assert real[0][0].grad is None
    assert fake[0][0].grad is not None
    assert fake[0][0].grad.flatten().tolist() == [-0.5, 0.5]


def test_joined_judgement_splits_into_what_was_joined() -> None:
    joined = [[torch.arange(5.0), torch.arange(5.0) * 10]]
    first, second = split_judgement(joined, 2)
    assert [layer.tolist() for layer in first[0]] == [[0, 1], [0, 10]]
    assert [layer.tolist() for layer in second[0]] == [[2, 3, 4], [20, 30, 40]]


def test_places_weigh_where_the_answer_stands_for_them() -> None:
    weight = torch.tensor([0.0, 2.0, 1.0, 1.0, 2.0, 6.0, 0.0, 8.0]).reshape(1, 1, 8, 1).expand(1, 1, 8, 8)
    # Three answers for eight places: halved once, cells 1, 1, 4, 4; one lost, between neighbours: 1, 2.5, 4.
    answer = judgement([[9.0], [2.0, 4.0, 6.0]])
    answer[0] = [layer.expand(1, 1, -1, layer.shape[2]) for layer in answer[0]]
    # Real: relu(1 - 2) and so on are 0. Generated: 3 * 1 + 5 * 2.5 + 7 * 4 = 43.5, a third of it.
    assert discriminator_hinge(answer, answer, weight).item() == pytest.approx(14.5)
    # -(2 * 1 + 4 * 2.5 + 6 * 4) / 3 = -12.
    assert generator_hinge(answer, (1.0,), weight).item() == pytest.approx(-12.0)


@pytest.mark.parametrize("shape", [(80, 52), (64, 96), (77, 69), (64, 56, 48)])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_weights_lie_where_the_discriminator_looks(shape: tuple[int, ...], n_layers: int) -> None:
    """A lone place weighs most in the answers that it changes most."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PatchDiscriminator(len(shape), 8, 1, num_layers_d=n_layers, norm=None)
    place = tuple(n // 3 for n in shape)
    scan, weight = torch.zeros(1, 1, *shape), torch.zeros(1, 1, *shape)
    scan[(0, 0, *place)] = weight[(0, 0, *place)] = 1.0
    for before, after in zip(network(torch.zeros_like(scan)), network(scan), strict=True):
        changed = (after - before).detach().abs().sum(dim=1, keepdim=True)
        ones = torch.zeros_like(changed, requires_grad=True)
        weighted_mean(ones, weight).backward()
        heeded = ones.grad
        assert heeded is not None
        centres = [torch.nonzero(one[0, 0]).float().mean(dim=0) for one in (changed, heeded)]
        assert torch.all((centres[0] - centres[1]).abs() <= 1.0), (changed.shape, centres)


def map_of(*classes: int) -> torch.Tensor:
    """Return the condition of a sample of one column: (1, 3, n, 1); 3 is no class."""
    return torch.nn.functional.one_hot(torch.tensor(classes), 4)[:, :3].T.reshape(1, 3, -1, 1).float()


def test_rare_classes_count_for_more() -> None:
    condition = map_of(0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    # Shares .9 and .1, to the power of -1: 1.111 and 10; their mean over ten places is 2.
    assert balance_classes(condition, 1.0).flatten().tolist() == pytest.approx([0.5556] * 9 + [5.0], rel=1e-3)
    assert balance_classes(condition, 0.0).flatten().tolist() == [1.0] * 10
    # To the power of -.5: 1.054 and 3.162; their mean is 1.265.
    assert balance_classes(condition, 0.5).flatten().tolist() == pytest.approx([0.8333] * 9 + [2.5], rel=1e-3)


def test_places_without_a_class_are_one_of_their_own_and_a_lone_voxel_does_not_outweigh_all() -> None:
    assert balance_classes(map_of(0, 1, 3, 3), 0.0).flatten().tolist() == [1.0] * 4
    # Shares .25, .25, .5: weights 4, 4, 2, 2, their mean 3.
    assert balance_classes(map_of(0, 1, 3, 3), 1.0).flatten().tolist() == pytest.approx([4 / 3, 4 / 3, 2 / 3, 2 / 3])
    assert balance_classes(map_of(3, 3), 0.5).flatten().tolist() == [1.0, 1.0]
    lone = balance_classes(map_of(1, *[0] * 9999), 1.0)
    assert lone.max().item() == BALANCE_LIMIT


def test_shares_are_those_of_the_batch() -> None:
    joined = balance_classes(torch.cat([map_of(0, 0, 0, 1), map_of(0, 0, 0, 0)]), 1.0)
    # Shares 7/8 and 1/8: weights 8/7 and 8, their mean 2.
    assert joined.flatten().tolist() == pytest.approx([4 / 7] * 3 + [4.0] + [4 / 7] * 4)
