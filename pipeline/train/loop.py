"""The training loop: reads top to bottom, goes on from its last checkpoint, ends bit-identical on a CPU."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from lightning.fabric import Fabric
from torch import Tensor

from pipeline.cohort import Case, write_json
from pipeline.config import ComputeSection, TrainSection
from pipeline.labels import LabelScheme
from pipeline.parallel import training_device
from pipeline.progress import progress
from pipeline.seeds import derive_seed, numpy_stream, torch_stream
from pipeline.train.augmentation import DiffAugment
from pipeline.train.checkpoint import load_checkpoint, save_checkpoint
from pipeline.train.data import Batch, Sampler, style_codes
from pipeline.train.discriminator import WEIGHTS, Discriminator
from pipeline.train.generator import Generator, GeneratorConfig
from pipeline.train.losses import (
    balance_classes,
    discriminator_hinge,
    feature_matching,
    generator_hinge,
    split_judgement,
)
from pipeline.train.perceptual import PerceptualLoss
from pipeline.train.style import BLUR
from pipeline.train.weights import save_generator

ADAM_BETAS = (0.0, 0.9)
EMA_WARM_UP = 10
LOSSES_PER_SAMPLE = 10


@dataclass(frozen=True)
class TrainingPlan:
    """What one training needs to know.

    Parameters
    ----------
    cases : tuple of Case
        Members: the only patients whose scans the networks see.
    scheme : LabelScheme
    modalities : tuple of str
    config : TrainSection
    compute : ComputeSection
    seed : int
        Root of the training's streams.
    description : str
        Shown with the progress.
    """

    cases: tuple[Case, ...]
    scheme: LabelScheme
    modalities: tuple[str, ...]
    config: TrainSection
    compute: ComputeSection
    seed: int
    description: str = "train"

    @property
    def n_members(self) -> int:
        """Number of persons among the cases."""
        return len({case.person for case in self.cases})

    @property
    def generator_config(self) -> GeneratorConfig:
        """Shape of the generator."""
        return GeneratorConfig(
            dimensions=self.config.dimensions,
            n_classes=self.scheme.n_condition_classes,
            n_modalities=len(self.modalities),
            channels=self.config.channels,
            levels=self.config.levels,
            style_size=self.config.style_size,
            context_slices=self.config.context_slices,
        )


class Monitor(Protocol):
    """What looks at a training from outside."""

    def record_losses(self, step: int, losses: dict[str, float]) -> None:
        """Take the mean losses since the last call."""

    def record_samples(self, step: int, generator: Generator) -> None:
        """Look at what the averaged generator makes."""


def train_generator(plan: TrainingPlan, folder: Path, monitor: Monitor | None = None) -> None:
    """Train a generator and write its averaged weights.

    Parameters
    ----------
    plan : TrainingPlan
    folder : Path
        Gets ``generator.safetensors``, ``model.json`` and ``checkpoints/``; a checkpoint found there is gone on from.
    monitor : Monitor, optional
        Shown losses ten times as often as samples, which it gets at the start, every ``monitor_every`` steps and at
        the end.
    """
    config = plan.config
    losses_every = max(1, config.monitor_every // LOSSES_PER_SAMPLE)
    fabric = _make_fabric(plan.compute)
    players = _Players(plan, fabric)
    step = load_checkpoint(folder / "checkpoints", players.networks, players.optimizers)
    sampler = Sampler(
        plan.cases,
        plan.scheme,
        plan.modalities,
        config.dimensions,
        config.context_slices,
        config.patch_voxels,
        style_codes(plan.cases, plan.modalities, config.style_size) if config.style == "measured" else None,
    )
    flip = "flip" in config.augmentation
    losses = _Mean()
    with progress(plan.description, config.steps) as task:
        task.advance(step)
        if monitor is not None and step == 0:
            monitor.record_samples(step, players.averaged)
        while step < config.steps:
            stream = numpy_stream(plan.seed, "batch", step)
            batch = sampler.draw(config.batch_size, stream, flip)
            losses.add(players.play(batch, step))
            step += 1
            is_last = step == config.steps
            if monitor is not None and (step % losses_every == 0 or is_last):
                monitor.record_losses(step, losses.take())
            if monitor is not None and (step % config.monitor_every == 0 or is_last):
                monitor.record_samples(step, players.averaged)
            if step % config.checkpoint_every == 0 or is_last:
                save_checkpoint(folder / "checkpoints", step, players.networks, players.optimizers)
            task.advance(1, losses.note())
    save_generator(players.averaged, folder)


def time_steps(plan: TrainingPlan, batch: Batch, n_steps: int) -> float:
    """Return the seconds that a step takes on a batch, the first left out; nothing is kept."""
    players = _Players(plan, _make_fabric(plan.compute))
    players.play(batch, 0)
    started = time.perf_counter()
    for step in range(1, n_steps + 1):
        players.play(batch, step)
    return (time.perf_counter() - started) / n_steps


class _Players:
    """Generator, discriminator, their optimisers, and the averaged generator."""

    def __init__(self, plan: TrainingPlan, fabric: Fabric) -> None:
        config = plan.config
        self._plan, self._fabric = plan, fabric
        shape = plan.generator_config
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(plan.seed, "weights"))
            self.generator = Generator(shape)
            self.generator.recomputes = config.gradient_checkpointing
            self.discriminator = Discriminator(
                shape.dimensions,
                shape.n_modalities,
                shape.n_classes,
                config.discriminator_channels,
                config.discriminator_layers,
            )
        self.averaged = Generator(shape).requires_grad_(False).to(fabric.device)
        self.averaged.load_state_dict(self.generator.state_dict())
        if shape.dimensions == 2:
            # The layout that CPU and GPU convolutions prefer.
            for network in (self.generator, self.discriminator, self.averaged):
                for parameter in network.parameters():
                    if parameter.ndim == 4:
                        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._perceptual: PerceptualLoss | None = None
        if config.perceptual_weight > 0 and config.perceptual_weights is not None:
            loss = PerceptualLoss(shape.dimensions, config.perceptual_network, config.perceptual_weights)
            self._perceptual = loss.to(fabric.device)
        generator_optimizer = _adam(self.generator, config.learning_rate_generator)
        discriminator_optimizer = _adam(self.discriminator, config.learning_rate_discriminator)
        self.optimizers = {"generator": generator_optimizer, "discriminator": discriminator_optimizer}
        self.networks = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "averaged": self.averaged,
        }
        self._generate, self._generator_optimizer = fabric.setup(self.generator, generator_optimizer)
        self._judge, self._discriminator_optimizer = fabric.setup(self.discriminator, discriminator_optimizer)

    def play(self, batch: Batch, step: int) -> dict[str, float]:
        """Do one step of both players: the discriminator on the scan just made, then the generator on its answer."""
        plan, fabric = self._plan, self._fabric
        condition, real = fabric.to_device((batch.condition, batch.scan))
        if condition.ndim == 4:
            condition = condition.contiguous(memory_format=torch.channels_last)
            real = real.contiguous(memory_format=torch.channels_last)
        spatial = tuple(real.shape[2:])
        stream = torch_stream(plan.seed, "noise", step)
        style, noise = draw_inputs(self.generator, len(real), spatial, stream, fabric.device)
        n_entries = batch.style.shape[1]
        if n_entries:
            # Blurred, so that the code of a person is no name.
            measured = math.sqrt(1 - BLUR) * batch.style.to(fabric.device) + math.sqrt(BLUR) * style[:, :n_entries]
            style = torch.cat([measured, style[:, n_entries:]], dim=1)
        augment_stream = torch_stream(plan.seed, "augment", step)
        augment = DiffAugment(plan.config.augmentation, len(real), spatial, augment_stream, fabric.device)

        # Nobody is shown a modality that the person lacks: neither of the real scan nor of the generated one.
        has = batch.present.to(fabric.device).reshape(*batch.present.shape, *[1] * len(spatial))
        fake = torch.where(has, self._generate(condition, style, noise), -1.0)
        classes = self.generator.centre_classes(condition)
        real_seen, classes_seen = augment(real, classes)
        fake_seen = augment(fake, classes)[0]
        weight = balance_classes(classes_seen, plan.config.class_balance)
        both_seen = torch.cat([real_seen, fake_seen.detach()])
        judged = self._judge(both_seen, torch.cat([classes_seen, classes_seen]))
        real_judged, fake_judged = split_judgement(judged, len(real))
        loss_discriminator = discriminator_hinge(real_judged, fake_judged, weight)
        self._discriminator_optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss_discriminator)
        self._discriminator_optimizer.step()

        self.discriminator.requires_grad_(False)
        with torch.no_grad():
            real_judged = self._judge(real_seen, classes_seen, with_grain=False)
        fake_judged = self._judge(fake_seen, classes_seen)
        loss_adversarial = generator_hinge(fake_judged, WEIGHTS, weight)
        loss_matching = feature_matching(real_judged, fake_judged[: len(real_judged)], weight)
        loss_generator = loss_adversarial + plan.config.feature_matching_weight * loss_matching
        loss_reconstruction = (fake - real).abs().mean()
        if plan.config.reconstruction_weight > 0:
            loss_generator = loss_generator + plan.config.reconstruction_weight * loss_reconstruction
        losses = {}
        if self._perceptual is not None:
            with fabric.autocast():
                loss_perceptual = self._perceptual(fake, real)
            loss_generator = loss_generator + plan.config.perceptual_weight * loss_perceptual
            losses["loss/perceptual"] = float(loss_perceptual.detach())
        self._generator_optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss_generator)
        self._generator_optimizer.step()
        self.discriminator.requires_grad_(True)
        self._average(step)
        return {
            "loss/discriminator": float(loss_discriminator.detach()),
            "loss/adversarial": float(loss_adversarial.detach()),
            "loss/feature_matching": float(loss_matching.detach()),
            "loss/l1": float(loss_reconstruction.detach()),
            **losses,
        }

    @torch.no_grad()
    def _average(self, step: int) -> None:
        decay = min(self._plan.config.ema_decay, (1 + step) / (EMA_WARM_UP + step))
        for mean, current in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(current, 1.0 - decay)


def draw_inputs(
    generator: Generator, n: int, spatial: Sequence[int], stream: torch.Generator, device: torch.device
) -> tuple[Tensor, list[Tensor]]:
    """Draw styles (n, style_size) and the noise of each block for n images."""
    style = torch.randn(n, generator.config.style_size, generator=stream).to(device)
    shapes = generator.noise_shapes(spatial)
    return style, [torch.randn(n, 1, *shape, generator=stream).to(device) for shape in shapes]


class _Mean:
    """Means of losses since the last look."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0
        self._last: dict[str, float] = {}

    def add(self, values: dict[str, float]) -> None:
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count += 1
        self._last = values

    def take(self) -> dict[str, float]:
        means = {key: value / self._count for key, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def note(self) -> str:
        return " ".join(f"{key.removeprefix('loss/')} {value:.2f}" for key, value in self._last.items())


def _adam(network: torch.nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=ADAM_BETAS)


def _make_fabric(compute: ComputeSection) -> Fabric:
    return Fabric(accelerator=training_device(compute), devices=1, precision=compute.precision)


def write_model_card(folder: Path, plan: TrainingPlan, spacing_mm: float, shape: Sequence[int]) -> None:
    """Write ``model.json``: what the generator is and what it expects."""
    write_json(
        folder / "model.json",
        {
            "generator": plan.generator_config.model_dump(),
            "condition_classes": list(plan.scheme.condition_names),
            "modalities": list(plan.modalities),
            "spacing_mm": spacing_mm,
            "shape": list(shape),
            "steps": plan.config.steps,
            "n_members": plan.n_members,
        },
    )
