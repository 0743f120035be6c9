"""Seconds of a segmenter's training step against the bare network on tensors that are in memory.

    python benchmarks/segment_overhead.py

Ours: the arm real-syn-aug, batches drawn from memory-mapped cases, ordinary augmentation in full, progress. Bare: the
same network, loss and optimiser, in a loop of a few lines, on one batch. Both in turn, several times; the ratio is of
the medians, over steps and then over times. The last line is JSON.

It covers a CPU only, 2D, cases in the page cache, and one training at a time: neither a GPU, for which batches are read
and drawn on the CPU, one after the other, and augmented on the device, nor random contrasts, which are rendered on the
CPU, nor validation.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch

from pipeline.cohort import CaseData, Cohort, open_cohort, write_case, write_cohort_files
from pipeline.config import ComputeSection
from pipeline.config_evaluate import EvaluateSection
from pipeline.labels import MODALITIES, LabelScheme
from pipeline.progress import progress
from pipeline.segmentation import segmenter
from pipeline.segmentation.arms import Mixing, make_arm
from pipeline.segmentation.networks import Segmenter
from pipeline.segmentation.scans import ScanPool
from pipeline.segmentation.segmenter import WEIGHT_DECAY, SegmenterPlan, make_criterion, train_segmenter
from pipeline.volumes import Grid

SHAPE, SPACING_MM = (96, 112, 96), 2.0
N_REAL, N_SYNTHETIC, N_RUNS, N_STEPS, N_START = 4, 4, 5, 24, 3
SECTION = EvaluateSection(filters=16, batch_size=8, validate_every=10_000)


def write_cohort(folder: Path, splits: tuple[str, ...]) -> Cohort:
    """Write cases of noise in a ball with a ball of tumour: what they show takes no time."""
    stream = np.random.default_rng(0)
    distance = np.linalg.norm((np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2).T, axis=0)
    tissue = np.select([distance < 15, distance < 25, distance < 35, distance < 42], [0, 3, 2, 1], 0).astype(np.uint8)
    tumor = np.select([distance < 6, distance < 10, distance < 15], [1, 3, 2], 0).astype(np.uint8)
    brain = (tissue > 0) | (tumor > 0)
    rows = []
    for number, split in enumerate(splits):
        images = {name: (stream.integers(1, 1000, SHAPE) * brain).astype(np.int16) for name in MODALITIES}
        write_case(folder, CaseData(f"{number}", images, tissue, tumor, Grid(SHAPE, SPACING_MM).affine, {}))
        rows.append({"participant_id": f"sub-{number}", "source": "noise", "split": split})
    write_cohort_files(folder, "noise", LabelScheme(), rows, "Noise.")
    return open_cohort(folder)


def make_plan(real: Cohort, synthetic: Cohort, scans: ScanPool, steps: int) -> SegmenterPlan:
    """Return a training of so many steps."""
    arm = make_arm("real-syn-aug", 1.0, real.split("train"), synthetic.cases, Mixing(0.25), SECTION)
    window = scans.fit_window(real.split("train"), SECTION.dimensions, 2**SECTION.levels)
    section = SECTION.model_copy(update={"steps": steps})
    compute = ComputeSection(accelerator="cpu")
    return SegmenterPlan(arm, real.patients("val"), real.scheme, real.modalities, section, compute, window, 0)


class Clock:
    """Stands beside a training's progress and notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    @contextmanager
    def watch(self, description: str, total: int) -> Iterator["Clock"]:
        """Show progress, and be told of it."""
        with progress(description, total) as self._task:
            yield self

    def advance(self, n_units: int = 1) -> None:
        """Note the time."""
        self._task.advance(n_units)
        self.ends.append(time.perf_counter())

    @property
    def step_s(self) -> float:
        """Median seconds of a step."""
        return float(np.median(np.diff(self.ends)[N_START:]))


def ours(real: Cohort, synthetic: Cohort, folder: Path) -> float:
    """Return the median seconds of a step of the real training."""
    scans, clock = ScanPool(real.modalities), Clock()
    plan = make_plan(real, synthetic, scans, N_START + N_STEPS)
    with mock.patch.object(segmenter, "progress", clock.watch):
        train_segmenter(plan, scans, folder)
    # The last one holds the validation.
    clock.ends.pop()
    return clock.step_s


def bare(size: tuple[int, ...]) -> float:
    """Return the median seconds of a step of the network alone."""
    scheme, clock = LabelScheme(), Clock()
    n_classes = 1 + len(scheme.tumor)
    network = Segmenter(len(MODALITIES), n_classes, SECTION)
    criterion = make_criterion(n_classes, SECTION.background_weight)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=WEIGHT_DECAY)
    scan = torch.rand(SECTION.batch_size, len(MODALITIES), *size)
    labels = torch.randint(n_classes, (SECTION.batch_size, 1, *size)).float()
    for _ in range(N_START + N_STEPS):
        loss = criterion(network(scan), labels)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        clock.ends.append(time.perf_counter())
    return clock.step_s


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="segment-overhead-") as name:
        folder = Path(name)
        real = write_cohort(folder / "cohort", ("train",) * N_REAL + ("val",))
        synthetic = write_cohort(folder / "synthetic", ("n/a",) * N_SYNTHETIC)
        window = make_plan(real, synthetic, ScanPool(real.modalities), 1).window
        size = tuple(side.stop - side.start for side in window)
        times = [(ours(real, synthetic, folder / f"run-{run}"), bare(size)) for run in range(N_RUNS)]
    ratio = median(mine for mine, _ in times) / median(theirs for _, theirs in times)
    seconds = {"ours_s": round(median(m for m, _ in times), 4), "bare_s": round(median(b for _, b in times), 4)}
    print(
        json.dumps(
            {
                "name": "segment_overhead",
                "ratio": round(ratio, 3),
                "baseline": "bare network",
                "runs": N_RUNS,
                **seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
