"""Perceptual loss: how differently a network that was trained elsewhere sees a generated and a real scan.

The weights are the user's, from a file; nothing is fetched. They fit MONAI's ResNets of one input channel: those of
MedicalNet (3D) do as they are.

References
----------
Johnson, Alahi and Fei-Fei 2016, "Perceptual losses for real-time style transfer and super-resolution",
arXiv:1603.08155. Chen, Ma and Zheng 2019, "Med3D: transfer learning for 3D medical image analysis", arXiv:1904.00625.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets import resnet
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.config import PerceptualNetwork
from pipeline.errors import ConfigError, named_file

KEY = "train.perceptual_weights"
HEADS = ("fc.", "conv_seg.")
STAGES = ("layer1", "layer2", "layer3")


class PerceptualLoss(nn.Module):
    """Mean squared difference of features, brought to length 1 at each position, over layers and modalities.

    Parameters
    ----------
    dimensions : int
        2 or 3.
    network : str
        ``resnet10``, ``resnet18``, ``resnet34`` or ``resnet50``.
    weights : Path
        State of such a network: safetensors, or what ``torch.save`` writes, also below ``state_dict`` and with
        ``module.`` before each name.

    Raises
    ------
    ConfigError
        If the file is missing or damaged, or its weights do not fit.
    """

    def __init__(self, dimensions: int, network: PerceptualNetwork, weights: Path) -> None:
        super().__init__()
        self.network = _load_network(dimensions, network, _read_state(weights))

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Compare scans (N, modalities, *spatial) in [-1, 1]; no gradient to ``real``."""
        singles = [scan.reshape(-1, 1, *scan.shape[2:]) for scan in (fake, real.detach())]
        axes = tuple(range(1, fake.ndim))
        # Each image as such networks saw theirs: mean 0 and deviation 1, here those of the real one.
        mean, deviation = singles[1].mean(axes, keepdim=True), singles[1].std(axes, keepdim=True).clamp_min(1e-3)
        of_fake, of_real = (self._features((single - mean) / deviation) for single in singles)
        terms = [F.mse_loss(one, other) for one, other in zip(of_fake, of_real, strict=True)]
        return torch.stack(terms).mean()

    def _features(self, images: Tensor) -> list[Tensor]:
        network: Any = self.network
        features = network.maxpool(network.act(network.bn1(network.conv1(images))))
        found = []
        for stage in STAGES:
            features = getattr(network, stage)(features)
            found.append(F.normalize(features, dim=1))
        return found


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"{KEY}: no such file; expected the weights of a ResNet; fetch them first")
    try:
        with named_file(KEY):
            read: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        state = read.get("state_dict", read)
        return {str(name).removeprefix("module."): value for name, value in state.items() if torch.is_tensor(value)}
    except ConfigError:
        raise
    except Exception as error:  # safetensors, pickle and torch raise types of their own on damaged files
        raise ConfigError(
            f"{KEY}: not a file of weights ({type(error).__name__}); expected safetensors or what torch.save writes"
        ) from error


def _load_network(dimensions: int, name: PerceptualNetwork, state: dict[str, Tensor]) -> nn.Module:
    state = {key: value for key, value in state.items() if not key.startswith(HEADS)}
    # MedicalNet's smaller networks have no weights in their shortcuts.
    shortcuts = [key for key in state if "downsample" in key]
    network: nn.Module = getattr(resnet, name)(
        spatial_dims=dimensions,
        n_input_channels=1,
        feed_forward=False,
        shortcut_type="B" if shortcuts else "A",
        bias_downsample=any(key.endswith("downsample.0.bias") for key in shortcuts),
    )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        wanted = {key: value.shape for key, value in network.state_dict().items()}
        fitting = sum(key in state and state[key].shape == shape for key, shape in wanted.items())
        raise ConfigError(
            f"{KEY}: {fitting} of {len(wanted)} tensors fit; expected a {dimensions}D {name} of one input channel; "
            "train.perceptual_network names the network that the weights are of"
        ) from error
    return network.eval().requires_grad_(False)
