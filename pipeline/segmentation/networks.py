"""The segmenter's network: MONAI's SegResNet or DynUNet, on slices or volumes of any size.

References
----------
Myronenko 2019, "3D MRI brain tumor segmentation using autoencoder regularization",
doi:10.1007/978-3-030-11726-9_28 (SegResNet). Isensee et al. 2021, "nnU-Net", doi:10.1038/s41592-020-01008-z (DynUNet:
plain convolutions, instance normalisation, deep supervision with weights halved from level to level and the lowest
level left out, so that none is left with two levels; at most 512 filters in 2D and 320 in 3D).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from torch import Tensor, nn

from pipeline.config_evaluate import SegmenterSection

# At full resolution, more below. With one channel a group, as MONAI's default has it for narrow networks, a layer
# forgets how bright a channel is.
CHANNELS_PER_GROUP = 4
MAX_FILTERS = {2: 512, 3: 320}


class Segmenter(nn.Module):
    """A segmentation network for any size: padded with background to what it takes, and cut back.

    Parameters
    ----------
    n_modalities, n_classes : int
        Background counts as a class.
    config : SegmenterSection
    """

    def __init__(self, n_modalities: int, n_classes: int, config: SegmenterSection) -> None:
        super().__init__()
        make = _make_segresnet if config.network == "segresnet" else _make_dynunet
        self.network = make(n_modalities, n_classes, config)
        # Instance normalisation needs two voxels at least at the lowest level.
        self._multiple = 2**config.levels
        self._smallest = self._multiple * (2 if config.network == "dynunet" else 1)

    def encode(self, scan: Tensor) -> Tensor:
        """Return the deepest features of scans (N, modalities, *spatial): (N, features, *coarse)."""
        network: Any = self.network
        features: Tensor = self._pad(scan)
        if isinstance(network, SegResNet):
            return torch.as_tensor(network.encode(features)[0])
        for block in (network.input_block, *network.downsamples, network.bottleneck):
            features = block(features)
        return features

    def forward(self, scan: Tensor) -> Tensor:
        """Return logits.

        Parameters
        ----------
        scan : Tensor, (N, modalities, *spatial), float32 in [-1, 1]

        Returns
        -------
        Tensor, (N, classes, *spatial), float32
            In training mode with deep supervision: (N, heads, classes, *spatial), the finest first.
        """
        logits: Tensor = self.network(self._pad(scan))
        for axis, n in enumerate(reversed(scan.shape[2:]), start=1):
            logits = logits.narrow(-axis, 0, n)
        return logits

    def _pad(self, scan: Tensor) -> Tensor:
        missing = [max(-n % self._multiple, self._smallest - n) for n in scan.shape[2:]]
        if not any(missing):
            return scan
        # Torch pads the last axis first.
        return F.pad(scan, [side for n in reversed(missing) for side in (0, n)], value=-1.0)


def _make_segresnet(n_modalities: int, n_classes: int, config: SegmenterSection) -> nn.Module:
    return SegResNet(
        spatial_dims=config.dimensions,
        init_filters=config.filters,
        in_channels=n_modalities,
        out_channels=n_classes,
        norm=("GROUP", {"num_groups": config.filters // CHANNELS_PER_GROUP}),
        blocks_down=(1, *[2] * (config.levels - 1), 4),
        blocks_up=(1,) * config.levels,
    )


def _make_dynunet(n_modalities: int, n_classes: int, config: SegmenterSection) -> nn.Module:
    strides = [1, *[2] * config.levels]
    return DynUNet(
        spatial_dims=config.dimensions,
        in_channels=n_modalities,
        out_channels=n_classes,
        kernel_size=[3] * len(strides),
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=[min(config.filters * 2**level, MAX_FILTERS[config.dimensions]) for level in range(len(strides))],
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=config.levels > 2,
        deep_supr_num=max(1, config.levels - 2),
    )


def supervised_loss(criterion: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of logits, of every head where there are several: each counts half as much as the finer one.

    Parameters
    ----------
    criterion : callable
        Of (N, classes, *spatial) and (N, 1, *spatial).
    logits : Tensor, (N, classes, *spatial) or (N, heads, classes, *spatial)
    labels : Tensor, (N, 1, *spatial)
    """
    if logits.ndim == labels.ndim:
        return criterion(logits, labels)
    heads = logits.unbind(dim=1)
    weights = [0.5**level for level in range(len(heads))]
    losses = [weight * criterion(head, labels) for weight, head in zip(weights, heads, strict=True)]
    return torch.stack(losses).sum() / sum(weights)
