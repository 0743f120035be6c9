"""Held-out figures and sample grids while the training runs; val patients only."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from pipeline.cohort import INTENSITY_MAX, Case
from pipeline.figures import condition_tile, grey_tile, mosaic, plane_slice, save_picture, tumor_centre
from pipeline.labels import LabelScheme
from pipeline.seeds import torch_stream
from pipeline.tracking import StageTracker
from pipeline.train.data import one_hot, one_hot_slices, read_scan
from pipeline.train.generator import Generator
from pipeline.train.players import draw_inputs

MAX_CASES = 4


class HeldOutMonitor:
    """Renders fixed views of val patients with fixed styles; records figures and a picture.

    Parameters
    ----------
    cases : sequence of Case
        Val patients; the first few are used.
    scheme : LabelScheme
    modalities : sequence of str
    folder : Path
        Stage folder; pictures go to ``samples/``.
    seed : int
    tracker : StageTracker
    """

    def __init__(
        self,
        cases: Sequence[Case],
        scheme: LabelScheme,
        modalities: Sequence[str],
        folder: Path,
        seed: int,
        tracker: StageTracker,
    ) -> None:
        self._cases = list(cases)[:MAX_CASES]
        self._scheme, self._modalities = scheme, modalities
        self._folder, self._seed, self._tracker = folder, seed, tracker

    def record_losses(self, step: int, losses: dict[str, float]) -> None:
        """Record the means of losses."""
        self._tracker.metrics(losses, step)

    def record_samples(self, step: int, generator: Generator) -> None:
        """Record held-out figures and a sample grid."""
        rows, figures = [], []
        for number, case in enumerate(self._cases):
            real, fake, where = self._render(generator, case, number)
            figures.append(self._compare(case, real, fake, where))
            rows.append(self._row(case, real, fake, where))
        held_out = {key: float(np.mean([f[key] for f in figures])) for key in figures[0]}
        name = f"samples/step-{step:06d}.png"
        save_picture(mosaic(rows), self._folder / name)
        self._tracker.metrics(held_out, step)
        self._tracker.image("samples", name, step)

    def _render(
        self, generator: Generator, case: Case, number: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[slice | int, ...]]:
        """Return the real and the rendered view in [-1, 1], and where it lies in the volume."""
        config = generator.config
        z = tumor_centre(np.asarray(case.tumor_map()))[2]
        condition = case.condition(self._scheme)
        where: tuple[slice | int, ...]
        if config.dimensions == 2:
            context = config.context_slices
            padded = np.pad(condition, ((0, 0), (0, 0), (context, context)))
            code = one_hot_slices(padded[:, :, z : z + 2 * context + 1], config.n_classes, context)
            where = (slice(None), slice(None), z)
        else:
            code = one_hot(condition, config.n_classes)[None]
            where = (slice(None), slice(None), slice(None))
        device = next(generator.parameters()).device
        style, noise = draw_inputs(generator, 1, code.shape[2:], torch_stream(self._seed, "monitor", number), device)
        with torch.no_grad():
            fake = generator(torch.from_numpy(code).to(device), style, noise)[0].float().cpu().numpy()
        return read_scan(case, self._modalities, where), fake, where

    def _compare(
        self, case: Case, real: NDArray[np.float32], fake: NDArray[np.float32], where: tuple[slice | int, ...]
    ) -> dict[str, float]:
        tumor = np.asarray(case.tumor_map()[where]) > 0
        brain = tumor | (np.asarray(case.tissue_map()[where]) > 0)
        distance = np.mean([wasserstein_distance(r[brain], f[brain]) for r, f in zip(real, fake, strict=True)])
        return {
            "held_out/l1_brain": float(np.abs(real - fake)[:, brain].mean()),
            "held_out/l1_tumor": float(np.abs(real - fake)[:, tumor].mean()),
            "held_out/histogram_distance": float(distance),
        }

    def _row(
        self, case: Case, real: NDArray[np.float32], fake: NDArray[np.float32], where: tuple[slice | int, ...]
    ) -> list[NDArray[np.uint8]]:
        """Return a row of tiles: condition, the real modalities, the rendered ones."""
        condition = case.condition(self._scheme)
        z = tumor_centre(np.asarray(case.tumor_map()))[2]
        tiles = [condition_tile(plane_slice(condition, "axial", z))]
        for scan in (real, fake):
            for modality in scan:
                shown = modality if modality.ndim == 2 else modality[:, :, z]
                tiles.append(grey_tile((shown[::-1, ::-1].T + 1) * (INTENSITY_MAX / 2)))
        return tiles
