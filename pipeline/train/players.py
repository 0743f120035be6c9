"""Generator against discriminator: the networks, their optimisers, and a step of the game."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from pipeline.config import ComputeSection
from pipeline.parallel import training_device
from pipeline.seeds import derive_seed, numpy_stream, torch_stream
from pipeline.train.augmentation import DiffAugment
from pipeline.train.data import Batch, OpenCase, Sampler, style_codes
from pipeline.train.discriminator import WEIGHTS, Discriminator
from pipeline.train.generator import Generator
from pipeline.train.losses import (
    balance_classes,
    discriminator_hinge,
    feature_matching,
    generator_hinge,
    split_judgement,
)
from pipeline.train.perceptual import PerceptualLoss
from pipeline.train.plan import TrainingPlan
from pipeline.train.style import BLUR

ADAM_BETAS = (0.0, 0.9)
EMA_WARM_UP = 10


class Game(Protocol):
    """What the training loop plays, step by step; a step depends on its number and the networks only."""

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averaged: Generator

    def play(self, step: int) -> dict[str, float]:
        """Do one step of both players; return their losses."""


class Players:
    """Generator, discriminator, their optimisers, and the averaged generator.

    Parameters
    ----------
    plan : TrainingPlan
    spectral : bool
        Whether the discriminator is bound by spectral norm.
    """

    def __init__(self, plan: TrainingPlan, spectral: bool = True) -> None:
        config, shape = plan.config, plan.generator_config
        self.plan, self.fabric = plan, make_fabric(plan.compute)
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
                spectral,
            )
        self.averaged = Generator(shape).requires_grad_(False).to(self.fabric.device)
        self.averaged.load_state_dict(self.generator.state_dict())
        if shape.dimensions == 2:
            # The layout that CPU and GPU convolutions prefer.
            for network in (self.generator, self.discriminator, self.averaged):
                for parameter in network.parameters():
                    if parameter.ndim == 4:
                        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.generator_optimizer = _adam(self.generator, config.learning_rate_generator)
        self.discriminator_optimizer = _adam(self.discriminator, config.learning_rate_discriminator)
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generator": self.generator_optimizer,
            "discriminator": self.discriminator_optimizer,
        }
        self.networks: dict[str, nn.Module] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "averaged": self.averaged,
        }
        self.generate, self.generator_step = self.fabric.setup(self.generator, self.generator_optimizer)

    def to_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return conditions and scans of a batch on the device, in the layout that convolutions prefer."""
        condition, scan = self.fabric.to_device((batch.condition, batch.scan))
        if condition.ndim == 4:
            condition = condition.contiguous(memory_format=torch.channels_last)
            scan = scan.contiguous(memory_format=torch.channels_last)
        return condition, scan

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Let the averaged generator follow."""
        decay = min(self.plan.config.ema_decay, (1 + step) / (EMA_WARM_UP + step))
        for mean, current in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(current, 1.0 - decay)


class OrdinaryGame(Players):
    """The game without differential privacy: both players see real scans."""

    def __init__(self, plan: TrainingPlan) -> None:
        super().__init__(plan)
        config = plan.config
        self._sampler: Sampler | None = None
        self._perceptual: PerceptualLoss | None = None
        if config.perceptual_weight > 0 and config.perceptual_weights is not None:
            loss = PerceptualLoss(config.dimensions, config.perceptual_network, config.perceptual_weights)
            self._perceptual = loss.to(self.fabric.device)
        self._judge, self._discriminator_step = self.fabric.setup(self.discriminator, self.discriminator_optimizer)

    def play(self, step: int) -> dict[str, float]:
        """Do one step of both players on a batch drawn from the plan's cases."""
        plan, config = self.plan, self.plan.config
        if self._sampler is None:
            # Not before: who times steps on a batch of his own has no cases.
            codes = style_codes(plan.cases, plan.modalities, config.style_size) if config.style == "measured" else None
            opened = [OpenCase.open(case, plan.modalities) for case in plan.cases]
            self._sampler = Sampler(opened, plan.scheme, config, codes)
        batch = self._sampler.draw(config.batch_size, numpy_stream(plan.seed, "batch", step))
        return self.play_batch(batch, step)

    def play_batch(self, batch: Batch, step: int) -> dict[str, float]:
        """Do one step of both: the discriminator on the scan just made, then the generator on its answer."""
        plan, fabric = self.plan, self.fabric
        condition, real = self.to_device(batch)
        spatial = tuple(real.shape[2:])
        stream = torch_stream(plan.seed, "noise", step)
        style, noise = draw_inputs(self.generator, len(real), spatial, stream, fabric.device)
        n_entries = batch.style.shape[1]
        if n_entries:
            # Blurred, so that the code of a person is no name.
            measured = math.sqrt(1 - BLUR) * batch.style.to(fabric.device) + math.sqrt(BLUR) * style[:, :n_entries]
            style = torch.cat([measured, style[:, n_entries:]], dim=1)
        augment_stream = torch_stream(plan.seed, "augment", step)
        augment = DiffAugment(plan.config.augmentation, spatial, [(len(real), augment_stream)], fabric.device)

        # Nobody is shown a modality that the person lacks: neither of the real scan nor of the generated one.
        has = batch.present.to(fabric.device).reshape(*batch.present.shape, *[1] * len(spatial))
        fake = torch.where(has, self.generate(condition, style, noise), -1.0)
        classes = self.generator.centre_classes(condition)
        real_seen, classes_seen = augment(real, classes)
        fake_seen = augment(fake, classes)[0]
        weight = balance_classes(classes_seen, plan.config.class_balance)
        both_seen = torch.cat([real_seen, fake_seen.detach()])
        judged = self._judge(both_seen, torch.cat([classes_seen, classes_seen]))
        real_judged, fake_judged = split_judgement(judged, len(real))
        loss_discriminator = discriminator_hinge(real_judged, fake_judged, weight)
        self._discriminator_step.zero_grad(set_to_none=True)
        fabric.backward(loss_discriminator)
        self._discriminator_step.step()

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
        self.generator_step.zero_grad(set_to_none=True)
        fabric.backward(loss_generator)
        self.generator_step.step()
        self.discriminator.requires_grad_(True)
        self.average(step)
        return {
            "loss/discriminator": float(loss_discriminator.detach()),
            "loss/adversarial": float(loss_adversarial.detach()),
            "loss/feature_matching": float(loss_matching.detach()),
            "loss/l1": float(loss_reconstruction.detach()),
            **losses,
        }


def draw_inputs(
    generator: Generator, n: int, spatial: Sequence[int], stream: torch.Generator, device: torch.device
) -> tuple[Tensor, list[Tensor]]:
    """Draw styles (n, style_size) and the noise of each block for n images."""
    style = torch.randn(n, generator.config.style_size, generator=stream).to(device)
    shapes = generator.noise_shapes(spatial)
    return style, [torch.randn(n, 1, *shape, generator=stream).to(device) for shape in shapes]


def make_fabric(compute: ComputeSection) -> Fabric:
    """Return the engine for one training device."""
    return Fabric(accelerator=training_device(compute), devices=1, precision=compute.precision)


def _adam(network: nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=ADAM_BETAS)
