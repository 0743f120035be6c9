"""Losses of the adversarial game, computed by hand."""

import pytest
import torch

from pipeline.train.losses import discriminator_hinge, feature_matching, generator_hinge, split_judgement


def judgement(*scales: list[list[float]]) -> list[list[torch.Tensor]]:
    """Build a judgement: for each scale the values of each layer."""
    return [[torch.tensor(layer) for layer in scale] for scale in scales]


def test_hinge_of_the_discriminator_is_as_by_hand() -> None:
    real = judgement([[9.0], [0.5, 2.0]], [[9.0], [-1.0]])
    fake = judgement([[9.0], [-2.0, 0.0]], [[9.0], [0.5]])
    # First scale: relu(1 - .5) = .5 and relu(1 - 2) = 0, mean .25; relu(1 - 2) = 0 and relu(1 + 0) = 1, mean .5; .75.
    # Second scale: relu(1 + 1) = 2; relu(1 + .5) = 1.5; 3.5. Mean of scales: (.75 + 3.5) / 2 = 2.125.
    assert discriminator_hinge(real, fake).item() == pytest.approx(2.125)


def test_hinge_of_the_discriminator_is_zero_and_flat_beyond_the_margin() -> None:
    real = judgement([[0.0], [1.5]])
    fake = judgement([[0.0], [-1.5]])
    real[0][-1].requires_grad_()
    loss = discriminator_hinge(real, fake)
    loss.backward()
    assert loss.item() == 0
    assert real[0][-1].grad is not None
    assert real[0][-1].grad.item() == 0


def test_hinge_of_the_generator_is_linear_and_never_saturates() -> None:
    fake = judgement([[9.0], [-30.0, 10.0]], [[9.0], [4.0]])
    fake[0][-1].requires_grad_()
    loss = generator_hinge(fake, (0.5, 0.25))
    # First: -(-30 + 10) / 2 = 10, half of it; second: -4, a quarter of it.
    assert loss.item() == pytest.approx(4.0)
    loss.backward()
    # -1 / 2 positions * .5 at each logit, however sure the discriminator is.
    assert fake[0][-1].grad is not None
    assert fake[0][-1].grad.tolist() == [-0.25, -0.25]


def test_feature_matching_is_as_by_hand_and_leaves_the_logits_out() -> None:
    real = judgement([[0.0, 2.0], [1.0], [100.0]], [[3.0], [0.0], [100.0]])
    fake = judgement([[1.0, 5.0], [1.5], [-100.0]], [[3.0], [-4.0], [-100.0]])
    # Layers: (1 + 3) / 2 = 2; .5; 0; 4; mean 6.5 / 4 = 1.625. The logits, 200 apart, do not count.
    assert feature_matching(real, fake).item() == pytest.approx(1.625)


def test_feature_matching_gives_no_gradient_to_the_real_features() -> None:
    real, fake = judgement([[1.0, 2.0], [0.0]]), judgement([[0.0, 5.0], [0.0]])
    real[0][0].requires_grad_()
    fake[0][0].requires_grad_()
    feature_matching(real, fake).backward()
    assert real[0][0].grad is None
    assert fake[0][0].grad is not None
    assert fake[0][0].grad.tolist() == [-0.5, 0.5]


def test_joined_judgement_splits_into_what_was_joined() -> None:
    joined = [[torch.arange(5.0), torch.arange(5.0) * 10]]
    first, second = split_judgement(joined, 2)
    assert [layer.tolist() for layer in first[0]] == [[0, 1], [0, 10]]
    assert [layer.tolist() for layer in second[0]] == [[2, 3, 4], [20, 30, 40]]
