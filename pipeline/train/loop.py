"""The training loop: reads top to bottom, goes on from its last checkpoint, ends bit-identical on a CPU."""

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from pipeline.cohort import write_json
from pipeline.errors import ConfigError
from pipeline.layout import MODEL_FILE
from pipeline.progress import progress
from pipeline.train.checkpoint import load_checkpoint, save_checkpoint
from pipeline.train.data import Batch
from pipeline.train.generator import Generator
from pipeline.train.plan import TrainingPlan
from pipeline.train.players import Game, OrdinaryGame
from pipeline.train.weights import save_generator

CHECKPOINTS = "checkpoints"
LOSSES_PER_SAMPLE = 10


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
    game = _start_game(plan, folder)
    step = load_checkpoint(folder / CHECKPOINTS, game.networks, game.optimizers)
    losses = _Mean()
    with progress(plan.description, config.steps) as task:
        task.advance(step)
        if monitor is not None and step == 0:
            monitor.record_samples(step, game.averaged)
        while step < config.steps:
            losses.add(game.play(step))
            step += 1
            is_last = step == config.steps
            if monitor is not None and (step % losses_every == 0 or is_last):
                monitor.record_losses(step, losses.take())
            if monitor is not None and (step % config.monitor_every == 0 or is_last):
                monitor.record_samples(step, game.averaged)
            if step % config.checkpoint_every == 0 or is_last:
                save_checkpoint(folder / CHECKPOINTS, step, game.networks, game.optimizers)
            task.advance(1, losses.note())
    save_generator(game.averaged, folder)
    if config.privacy is not None:
        # Who knew it could take the noise away; nothing is left to go on with.
        _import_private().forget_noise_key(folder / CHECKPOINTS)


def _start_game(plan: TrainingPlan, folder: Path) -> Game:
    if plan.config.privacy is None:
        return OrdinaryGame(plan)
    private = _import_private()
    game: Game = private.PrivateGame(plan, private.read_noise_key(folder / CHECKPOINTS))
    return game


def _import_private() -> ModuleType:
    """Return what trains with differential privacy; who trains without needs no `dp` extra."""
    try:
        return importlib.import_module("pipeline.train.private")
    except ModuleNotFoundError as error:
        raise ConfigError("train.privacy needs the `dp` extra; pip install 'synthcohort[dp]'") from error


def time_steps(plan: TrainingPlan, batch: Batch, n_steps: int) -> float:
    """Return the seconds that a step takes on a batch, the first left out; nothing is kept."""
    game = OrdinaryGame(plan)
    game.play_batch(batch, 0)
    started = time.perf_counter()
    for step in range(1, n_steps + 1):
        game.play_batch(batch, step)
    return (time.perf_counter() - started) / n_steps


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


def guarantee_of(plan: TrainingPlan) -> dict[str, Any]:
    """Return what a training promises under differential privacy; nothing without `train.privacy`."""
    if plan.config.privacy is None:
        return {}
    guarantee = _import_private().promise_of(plan)
    content: dict[str, Any] = guarantee.to_json()
    return content


def write_model_card(folder: Path, plan: TrainingPlan, spacing_mm: float, shape: Sequence[int]) -> None:
    """Write ``model.json``: what the generator is and what it expects."""
    write_json(
        folder / MODEL_FILE,
        {
            "generator": plan.generator_config.model_dump(),
            "condition_classes": list(plan.scheme.condition_names),
            "modalities": list(plan.modalities),
            "spacing_mm": spacing_mm,
            "shape": list(shape),
            "steps": plan.config.steps,
            "n_members": plan.n_members,
            "privacy": guarantee_of(plan) or None,
        },
    )
