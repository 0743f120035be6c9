"""Perceptual loss: weights from a file of the user's, gradients to the generated scan only, part of what decides."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import write_toy_cohort
from monai.networks.nets import resnet
from safetensors.torch import save_file

from pipeline.cohort import Cohort, digest_file, open_cohort
from pipeline.config import RunConfig, parse_config
from pipeline.errors import ConfigError
from pipeline.layout import WEIGHTS_FILE
from pipeline.runner import fingerprint
from pipeline.train.loop import train_generator
from pipeline.train.perceptual import PerceptualLoss
from pipeline.train.plan import TrainingPlan

MakeConfig = Callable[..., RunConfig]


def write_weights(path: Path, dimensions: int = 2, shortcut_type: str = "B", bias: bool = False) -> Path:
    """Write weights of chance, as MedicalNet's files are laid out: below state_dict, names with module., and a head."""
    torch.manual_seed(0)
    network = resnet.resnet10(
        spatial_dims=dimensions,
        n_input_channels=1,
        feed_forward=False,
        shortcut_type=shortcut_type,
        bias_downsample=bias,
    )
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": {**state, "module.conv_seg.0.weight": torch.zeros(1)}}, path)
    return path


@pytest.mark.parametrize(
    ("dimensions", "shortcut_type", "bias"), [(2, "B", False), (2, "B", True), (2, "A", False), (3, "B", False)]
)
def test_equal_scans_are_no_distance_apart_and_only_the_generated_one_is_pulled(
    tmp_path: Path, dimensions: int, shortcut_type: str, bias: bool
) -> None:
    loss = PerceptualLoss(dimensions, "resnet10", write_weights(tmp_path / "w.pth", dimensions, shortcut_type, bias))
    real = torch.rand(1, 2, *[32] * dimensions, requires_grad=True)
    assert float(loss(real.detach(), real).detach()) == 0.0
    fake = torch.rand(1, 2, *[32] * dimensions, requires_grad=True)
    distance = loss(fake, real)
    assert float(distance.detach()) > 0
    torch.autograd.backward(distance)
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0
    assert real.grad is None
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_safetensors_do_as_well(tmp_path: Path) -> None:
    network = resnet.resnet10(spatial_dims=2, n_input_channels=1, feed_forward=False)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    PerceptualLoss(2, "resnet10", tmp_path / "w.safetensors")


def test_weights_that_are_none_or_do_not_fit_are_the_configs_problem(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="perceptual_weights: no such file"):
        PerceptualLoss(2, "resnet10", tmp_path / "nowhere.pth")
    with pytest.raises(ConfigError, match=r"perceptual_weights: \d+ of \d+ tensors fit; expected a 2D resnet18"):
        PerceptualLoss(2, "resnet18", weights)
    with pytest.raises(ConfigError, match="expected a 3D resnet10"):
        PerceptualLoss(3, "resnet10", weights)
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(ConfigError, match="perceptual_weights: not a file of weights"):
            PerceptualLoss(2, "resnet10", tmp_path / name)
    with pytest.raises(ConfigError, match="name perceptual_weights"):
        parse_config({"train": {"perceptual_weight": 1.0}}, "tests")


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return open_cohort(write_toy_cohort(tmp_path / "cohort", {"train": 3}))


def test_a_training_with_every_option_ends_the_same_after_a_kill(
    cohort: Cohort, tmp_path: Path, tiny_config: MakeConfig
) -> None:
    class Killer:
        def record_losses(self, step: int, losses: dict[str, float]) -> None:
            assert losses["loss/perceptual"] > 0
            if step == 5:
                raise KeyboardInterrupt

        def record_samples(self, step: int, generator: object) -> None:
            pass

    options = {
        "perceptual_weight": 2.0,
        "perceptual_weights": str(write_weights(tmp_path / "w.pth")),
        "reconstruction_weight": 1.0,
        "style": "random",
        "gradient_checkpointing": True,
        "monitor_every": 1,
    }
    config = tiny_config(train=options)
    plan = TrainingPlan(cohort.cases, cohort.scheme, cohort.modalities, config.train, config.compute, 1)
    train_generator(plan, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train_generator(plan, tmp_path / "killed", Killer())
    train_generator(plan, tmp_path / "killed")
    digests = [digest_file(tmp_path / name / WEIGHTS_FILE) for name in ("straight", "killed")]
    assert digests[0] == digests[1]


def test_what_the_file_holds_decides_not_where_it_lies(tmp_path: Path, tiny_config: MakeConfig) -> None:
    def of(path: Path) -> str:
        config = tiny_config(train={"perceptual_weight": 1.0, "perceptual_weights": str(path)})
        return fingerprint("train", config, {})

    first = of(write_weights(tmp_path / "w.pth"))
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "w.pth").rename(tmp_path / "moved" / "w.pth")
    assert of(moved) == first
    moved.write_bytes(b"other")
    assert of(moved) != first
