"""The generator: label map and style to a four-modality scan, one definition for 2D and 3D.

SPADE (Park et al. 2019): at each resolution the label map modulates the features. Two changes, both so that a network
trained on slices or patches gives the same result on a whole volume, and that neighbouring slices agree:

* features are normalised per position over channels (Karras et al. 2018) instead of over the image, so that nothing
  depends on what else is in the field of view;
* the scale and shift of a label come from convolutions of the label map without normalisation, so that they do not
  depend on the size of a lesion.

References
----------
Park et al. 2019, "Semantic image synthesis with spatially-adaptive normalization", doi:10.1109/CVPR.2019.00244.
Karras et al. 2018, "Progressive growing of GANs", arXiv:1710.10196. Karras et al. 2019 (noise inputs),
doi:10.1109/CVPR.2019.00453.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

EMBEDDING_CHANNELS = 32
MAX_CHANNEL_FACTOR = 8


class GeneratorConfig(BaseModel):
    """Everything that defines a generator's shape; stored beside its weights.

    Parameters
    ----------
    dimensions : int
        2 or 3.
    n_classes : int
        Classes of the condition, background included.
    n_modalities : int
    channels : int
        At full resolution; doubled at each halving, at most eightfold.
    levels : int
        Halvings.
    style_size : int
    context_slices : int
        Neighbouring label slices on each side (2D only).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: int
    n_classes: int
    n_modalities: int
    channels: int
    levels: int
    style_size: int
    context_slices: int

    @property
    def condition_channels(self) -> int:
        """Channels of the condition that the network sees."""
        return self.n_classes * (2 * self.context_slices + 1 if self.dimensions == 2 else 1)

    def channels_at(self, level: int) -> int:
        """Channels of features at a level; 0 is full resolution."""
        return self.channels * min(1 << level, MAX_CHANNEL_FACTOR)


class Generator(nn.Module):
    """See the module's docstring.

    Parameters
    ----------
    config : GeneratorConfig
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        top = config.channels_at(config.levels)
        self.stem = Reading(config, top)
        widths = [config.channels_at(level) for level in range(config.levels, -1, -1)]
        self.blocks = nn.ModuleList(
            SpadeBlock(config, n_in, n_out) for n_in, n_out in zip([top, *widths[:-1]], widths, strict=True)
        )
        self.head = _conv(config.dimensions, widths[-1], config.n_modalities)
        # Blocks are computed again in the backward pass instead of kept: less memory, more time, the same numbers.
        self.recomputes = False

    def forward(self, condition: Tensor, style: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render scans.

        Parameters
        ----------
        condition : Tensor, (N, condition_channels, *spatial), float32
            One-hot classes; in 2D those of the slice and its neighbours, slice by slice. Spatial sizes are multiples
            of ``2**levels``.
        style : Tensor, (N, style_size), float32
            Standard normal.
        noise : sequence of Tensor, (N, 1, *spatial / 2**level)
            One for each block, coarse to fine; see :meth:`noise_shapes`.

        Returns
        -------
        Tensor, (N, n_modalities, *spatial), float32 in [-1, 1]
            -1 outside the brain.
        """
        pyramid = [condition]
        for _ in range(self.config.levels):
            pyramid.append(_pool(pyramid[-1], self.config.dimensions))
        features = self.stem(pyramid[-1], style)
        for level, block, field in zip(range(self.config.levels, -1, -1), self.blocks, noise, strict=True):
            if self.recomputes and torch.is_grad_enabled():
                features = checkpoint(block, features, pyramid[level], style, field, use_reentrant=False)
            else:
                features = block(features, pyramid[level], style, field)
        # In full precision: the steps of half precision are as large as the grain of a scan.
        with torch.autocast(features.device.type, enabled=False):
            image = torch.tanh(self.head(F.leaky_relu(features.float(), 0.2)))
        brain = 1.0 - self.centre_classes(condition)[:, :1]
        result: Tensor = image * brain - (1.0 - brain)
        return result

    def centre_classes(self, condition: Tensor) -> Tensor:
        """Return the classes of the slice itself, without its neighbours: (N, n_classes, *spatial)."""
        start = self.config.n_classes * (self.config.context_slices if self.config.dimensions == 2 else 0)
        return condition[:, start : start + self.config.n_classes]

    def noise_shapes(self, spatial: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the spatial shape of each block's noise for an image of this spatial shape, coarse to fine."""
        return [tuple(n // 2**level for n in spatial) for level in range(self.config.levels, -1, -1)]


class Reading(nn.Module):
    """What a layer reads from label map and style: a convolution of the one, a linear map of the other, added."""

    def __init__(self, config: GeneratorConfig, n_out: int) -> None:
        super().__init__()
        self.of_map = _conv(config.dimensions, config.condition_channels, n_out)
        self.of_style = nn.Linear(config.style_size, n_out, bias=False)

    def forward(self, condition: Tensor, style: Tensor) -> Tensor:
        """Map (N, condition_channels, *spatial) and (N, style_size) to (N, n_out, *spatial)."""
        of_style = self.of_style(style).reshape(len(style), -1, *[1] * (condition.ndim - 2))
        result: Tensor = self.of_map(condition) + of_style
        return result


class SpadeBlock(nn.Module):
    """Two modulated convolutions with noise; both modulations share what they read from the map.

    Features from the level below are brought to this block's width before they are enlarged, where it costs least.
    """

    def __init__(self, config: GeneratorConfig, n_in: int, n_out: int) -> None:
        super().__init__()
        self.embedding = Reading(config, EMBEDDING_CHANNELS)
        self.narrow = _conv(config.dimensions, n_in, n_out, kernel_size=1) if n_in != n_out else nn.Identity()
        self.first = Modulation(config, n_out)
        self.second = Modulation(config, n_out)
        self.conv_first = _conv(config.dimensions, n_out, n_out)
        self.conv_second = _conv(config.dimensions, n_out, n_out)
        self.noise_strength = nn.Parameter(torch.full((n_out,), 0.05))

    def forward(self, features: Tensor, condition: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """Map (N, n_in, *spatial or half of it) to (N, n_out, *spatial); spatial is that of the condition."""
        features = self.narrow(features)
        if features.shape[2:] != condition.shape[2:]:
            # Linear, not nearest: the latter prints its grid on the scan.
            mode = "bilinear" if condition.ndim == 4 else "trilinear"
            features = F.interpolate(features, scale_factor=2.0, mode=mode, align_corners=False)
        embedded = self.embed(condition, style)
        inner = self.conv_first(F.leaky_relu(self.first(features, embedded), 0.2))
        strength = self.noise_strength.reshape(1, -1, *[1] * (inner.ndim - 2))
        inner = inner + strength * noise
        inner = self.conv_second(F.leaky_relu(self.second(inner, embedded), 0.2))
        result: Tensor = features + inner
        return result

    def embed(self, condition: Tensor, style: Tensor) -> Tensor:
        """Read label map and style: (N, EMBEDDING_CHANNELS, *spatial); nothing is normalised."""
        return F.relu(self.embedding(condition, style))


class Modulation(nn.Module):
    """Normalise each position over channels, then scale and shift it by what the label map and the style say."""

    def __init__(self, config: GeneratorConfig, n_features: int) -> None:
        super().__init__()
        self.scale_and_shift = _conv(config.dimensions, EMBEDDING_CHANNELS, 2 * n_features, kernel_size=1)

    def forward(self, features: Tensor, embedded: Tensor) -> Tensor:
        """Return modulated features of the same shape."""
        scale, shift = self.modulation(embedded)
        normalised = features * torch.rsqrt(features.square().mean(dim=1, keepdim=True) + 1e-6)
        return normalised * (1.0 + scale) + shift

    def modulation(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift, each (N, n_features, *spatial)."""
        scale, shift = self.scale_and_shift(embedded).chunk(2, dim=1)
        return scale, shift


def _conv(dimensions: int, n_in: int, n_out: int, kernel_size: int = 3) -> nn.Module:
    convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
    return convolution(n_in, n_out, kernel_size, padding=kernel_size // 2)


def _pool(condition: Tensor, dimensions: int) -> Tensor:
    return F.avg_pool2d(condition, 2) if dimensions == 2 else F.avg_pool3d(condition, 2)
