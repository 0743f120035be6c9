"""Seconds of a training step against the bare networks on tensors that are in memory.

    python benchmarks/train_overhead.py

Ours: batches drawn from memory-mapped cases, noise, augmentation, both players, the running average, progress. Bare:
the same networks, losses and optimisers, in a loop of a few lines, on one batch. Both in turn, several times; the ratio
is of the medians. The last line is JSON.
"""

import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from pipeline.cohort import CaseData, Cohort, open_cohort, write_case, write_cohort_files
from pipeline.config import ComputeSection, TrainSection
from pipeline.labels import MODALITIES, LabelScheme
from pipeline.train.discriminator import WEIGHTS, Discriminator
from pipeline.train.generator import Generator
from pipeline.train.loop import train_generator
from pipeline.train.losses import discriminator_hinge, feature_matching, generator_hinge, split_judgement
from pipeline.train.plan import TrainingPlan
from pipeline.train.players import draw_inputs
from pipeline.volumes import Grid

SHAPE, SPACING_MM = (96, 112, 96), 2.0
N_CASES, N_RUNS, N_STEPS, N_START = 6, 5, 30, 4
TRAIN = TrainSection(channels=24, levels=3, batch_size=4, discriminator_channels=24, discriminator_layers=2)


def make_cohort(folder: Path) -> Cohort:
    """Write cases of noise in a ball with a ball of tumour: what they show takes no time."""
    stream = np.random.default_rng(0)
    distance = np.linalg.norm((np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2).T, axis=0)
    tissue = np.select([distance < 15, distance < 25, distance < 35, distance < 42], [0, 3, 2, 1], 0).astype(np.uint8)
    tumor = np.select([distance < 6, distance < 10, distance < 15], [1, 3, 2], 0).astype(np.uint8)
    rows = []
    for number in range(N_CASES):
        images = {name: stream.integers(1, 1000, SHAPE).astype(np.int16) for name in MODALITIES}
        write_case(folder, CaseData(f"{number}", images, tissue, tumor, Grid(SHAPE, SPACING_MM).affine, {}))
        rows.append({"participant_id": f"sub-{number}", "source": "noise", "split": "train", "person": f"{number}"})
    write_cohort_files(folder, "noise", LabelScheme(), rows, "Noise.")
    return open_cohort(folder)


def ours(cohort: Cohort, folder: Path) -> float:
    """Return the seconds of a step of the real training: a longer one less a shorter one."""
    seconds = []
    for steps in (N_START, N_START + N_STEPS):
        section = TRAIN.model_copy(update={"steps": steps, "checkpoint_every": 10_000})
        compute = ComputeSection(accelerator="cpu")
        plan = TrainingPlan(cohort.cases, cohort.scheme, cohort.modalities, section, compute, 0)
        started = time.perf_counter()
        train_generator(plan, folder / f"{steps}")
        seconds.append(time.perf_counter() - started)
    return (seconds[1] - seconds[0]) / N_STEPS


def bare(cohort: Cohort) -> float:
    """Return the seconds of a step of the networks alone."""
    plan = TrainingPlan(cohort.cases, cohort.scheme, cohort.modalities, TRAIN, ComputeSection(accelerator="cpu"), 0)
    shape = plan.generator_config
    generator = Generator(shape).to(memory_format=torch.channels_last)
    judge = Discriminator(
        2, shape.n_modalities, shape.n_classes, TRAIN.discriminator_channels, TRAIN.discriminator_layers
    )
    judge = judge.to(memory_format=torch.channels_last)
    players = [torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.0, 0.9)) for network in (generator, judge)]
    n = TRAIN.batch_size
    condition = torch.rand(n, shape.condition_channels, *SHAPE[:2]).contiguous(memory_format=torch.channels_last)
    real = torch.rand(n, shape.n_modalities, *SHAPE[:2]).contiguous(memory_format=torch.channels_last)
    classes = generator.centre_classes(condition)
    even = torch.ones(n, 1, *SHAPE[:2])
    style, noise = draw_inputs(generator, n, SHAPE[:2], torch.Generator().manual_seed(0), torch.device("cpu"))
    for step in range(N_START + N_STEPS):
        if step == N_START:
            started = time.perf_counter()
        fake = generator(condition, style, noise)
        both = torch.cat([real, fake.detach()])
        loss = discriminator_hinge(*split_judgement(judge(both, torch.cat([classes, classes])), n), even)
        players[1].zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        players[1].step()
        judge.requires_grad_(False)
        with torch.no_grad():
            real_judged = judge(real, classes, with_grain=False)
        fake_judged = judge(fake, classes)
        loss_matching = feature_matching(real_judged, fake_judged[: len(real_judged)], even)
        loss = generator_hinge(fake_judged, WEIGHTS, even) + 10.0 * loss_matching
        players[0].zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        players[0].step()
        judge.requires_grad_(True)
    return (time.perf_counter() - started) / N_STEPS


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="train-overhead-") as folder:
        cohort = make_cohort(Path(folder, "cohort"))
        times = [(ours(cohort, Path(folder, f"run-{run}")), bare(cohort)) for run in range(N_RUNS)]
    ratio = median(mine for mine, _ in times) / median(theirs for _, theirs in times)
    print(json.dumps({"name": "train_overhead", "ratio": round(ratio, 3), "baseline": "bare networks", "runs": N_RUNS}))


if __name__ == "__main__":
    main()
