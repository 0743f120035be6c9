"""Losses of the adversarial game, all of them weighted by place: rare classes of the label map count for more.

An enhancing rim is a thousandth of a slice: where all places count alike neither player gains much by heeding it.

MONAI's ``PatchAdversarialLoss("hinge")`` squashes logits by tanh and uses the discriminator's form for the generator;
both saturate, so the reference form stands here.

References
----------
Lim and Ye 2017, "Geometric GAN", arXiv:1705.02894 (hinge). Wang et al. 2018, doi:10.1109/CVPR.2018.00917 (feature
matching). Schonfeld et al. 2021, "You only need adversarial supervision for semantic image synthesis",
arXiv:2012.04781 (balance of classes).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BALANCE_LIMIT, TINY = 20.0, 1e-9
TRIMMED = 2
Judgement = list[list[Tensor]]


def balance_classes(condition: Tensor, exponent: float) -> Tensor:
    """Return the weight of each place: the share of its class in the batch to the power of minus ``exponent``.

    Parameters
    ----------
    condition : Tensor, (N, classes, *spatial), float32
        One-hot. Places where all channels are 0, cut out or moved in by augmentation, are a class of their own.
    exponent : float
        0: all places alike; 1: all classes alike.

    Returns
    -------
    Tensor, (N, 1, *spatial), float32 in [0, 20]
        Mean 1, or a little less where the limit bites.
    """
    classes = torch.cat([condition, 1.0 - condition.sum(dim=1, keepdim=True)], dim=1)
    share = classes.mean(dim=(0, *range(2, condition.ndim)), keepdim=True).clamp_min(TINY)
    weight = (classes * share**-exponent).sum(dim=1, keepdim=True)
    return (weight / weight.mean()).clamp_max(BALANCE_LIMIT)


def discriminator_hinge(real: Judgement, fake: Judgement, weight: Tensor) -> Tensor:
    """Return the mean over discriminators of relu(1 - D(real)) + relu(1 + D(fake)), each by place ``weight``."""
    terms = [weighted_mean(F.relu(1.0 - r[-1]) + F.relu(1.0 + f[-1]), weight) for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def generator_hinge(fake: Judgement, shares: Sequence[float], weight: Tensor) -> Tensor:
    """Return the sum over discriminators of -D(fake), each by its share and by place ``weight``."""
    terms = [-share * weighted_mean(one[-1], weight) for one, share in zip(fake, shares, strict=True)]
    return torch.stack(terms).sum()


def feature_matching(real: Judgement, fake: Judgement, weight: Tensor) -> Tensor:
    """Return the mean L1 distance of features, over layers but the logits and by place ``weight``, to ``real``'s."""
    terms = [
        weighted_mean((fake_layer - real_layer.detach()).abs(), weight)
        for real_scale, fake_scale in zip(real, fake, strict=True)
        for real_layer, fake_layer in zip(real_scale[:-1], fake_scale[:-1], strict=True)
    ]
    return torch.stack(terms).mean()


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of a layer's values, each weighted by the mean weight of the places that it stands for.

    Parameters
    ----------
    values : Tensor, (N, channels, *smaller)
        Of a patch discriminator: convolutions of stride 2 halve the grid, the last ones of stride 1 take a cell each.
    weight : Tensor, (N, 1, *spatial), float32
    """
    pool = F.avg_pool2d if values.ndim == 4 else F.avg_pool3d
    stride = 1
    while any(n // stride > n_cells + TRIMMED for n, n_cells in zip(weight.shape[2:], values.shape[2:], strict=True)):
        stride *= 2
    cells = pool(weight, stride)
    window = [n - n_cells + 1 for n, n_cells in zip(cells.shape[2:], values.shape[2:], strict=True)]
    return (values * pool(cells, window, 1)).mean()


def split_judgement(joined: Judgement, n_first: int) -> tuple[Judgement, Judgement]:
    """Split the judgement of one batch that holds two sets."""
    first = [[layer[:n_first] for layer in scale] for scale in joined]
    second = [[layer[n_first:] for layer in scale] for scale in joined]
    return first, second
