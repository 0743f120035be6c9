"""Losses of the adversarial game.

MONAI's ``PatchAdversarialLoss("hinge")`` squashes logits by tanh and uses the discriminator's form for the generator;
both saturate, so the reference form stands here.

References
----------
Lim and Ye 2017, "Geometric GAN", arXiv:1705.02894 (hinge). Wang et al. 2018, doi:10.1109/CVPR.2018.00917 (feature
matching).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Judgement = list[list[Tensor]]


def discriminator_hinge(real: Judgement, fake: Judgement) -> Tensor:
    """Return mean over discriminators of relu(1 - D(real)) + relu(1 + D(fake))."""
    terms = [F.relu(1.0 - r[-1]).mean() + F.relu(1.0 + f[-1]).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def generator_hinge(fake: Judgement, weights: Sequence[float]) -> Tensor:
    """Return the weighted sum over discriminators of -D(fake)."""
    return torch.stack([-weight * one[-1].mean() for one, weight in zip(fake, weights, strict=True)]).sum()


def feature_matching(real: Judgement, fake: Judgement) -> Tensor:
    """Return the mean L1 distance of features over layers and discriminators but logits; no gradient to ``real``."""
    terms = [
        F.l1_loss(fake_layer, real_layer.detach())
        for real_scale, fake_scale in zip(real, fake, strict=True)
        for real_layer, fake_layer in zip(real_scale[:-1], fake_scale[:-1], strict=True)
    ]
    return torch.stack(terms).mean()


def split_judgement(joined: Judgement, n_first: int) -> tuple[Judgement, Judgement]:
    """Split the judgement of one batch that holds two sets."""
    first = [[layer[:n_first] for layer in scale] for scale in joined]
    second = [[layer[n_first:] for layer in scale] for scale in joined]
    return first, second
