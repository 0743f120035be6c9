"""Images a second in training, and what they are worth, against the published SPADE recipe on MONAI's SPADENet.

    python benchmarks/train_against_reference.py

The reference is written as its authors write it: one DataLoader over slices in memory; a step of the generator, on
hinge loss and ten times feature matching over two discriminators at two scales, with generated and real images in one
batch; then a step of the discriminators on a generated batch made anew; Adam (0, .9), 1e-4 and 4e-4, spectral norm in
the discriminators. Ours has the rates of the shipped short presets, 4e-4 and 8e-4, and its running average, so what
the figures of quality compare are whole recipes, not one loss against another. Size, batch, channels of both networks
and discriminator layers are those of ours. Images a second are taken in turn, several times; the ratio is of the
medians. Then both train for the same wall time with some seeds, and are held against persons of val: mean L1 in the
brain, and kernel distance on the features of one segmenter trained on the train side. The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from monai.networks.nets.spade_network import SPADENet
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader, TensorDataset

from pipeline.cohort import INTENSITY_MAX, Case, Cohort, open_cohort
from pipeline.config import ComputeSection, SegmenterSection, TrainSection, parse_config
from pipeline.generate.judge import Judge, train_judge
from pipeline.generate.realism import kernel_distance, standardise
from pipeline.generate.sampling import render_volume
from pipeline.runner import run_stages
from pipeline.train.data import one_hot
from pipeline.train.loop import train_generator
from pipeline.train.plan import TrainingPlan
from pipeline.train.weights import load_generator

CHANNELS, LEVELS, BATCH, D_CHANNELS, D_LAYERS = 24, 3, 8, 24, 2
SIZE = (64, 64, 48)
N_RUNS, N_STEPS, N_START = 4, 12, 3
CPU = ComputeSection(accelerator="cpu", workers=1)
TRAIN = TrainSection(
    channels=CHANNELS,
    levels=LEVELS,
    batch_size=BATCH,
    discriminator_channels=D_CHANNELS,
    discriminator_layers=D_LAYERS,
    learning_rate_generator=4e-4,
    learning_rate_discriminator=8e-4,
    ema_decay=0.98,
    checkpoint_every=100_000,
)
Volume = NDArray[np.float32]


class Reference:
    """The published recipe, ready to be trained for some steps at a time."""

    def __init__(self, cohort: Cohort, seed: int) -> None:
        torch.manual_seed(seed)
        self.n_classes = cohort.scheme.n_condition_classes
        scans, labels = [], []
        for case in cohort.split("train"):
            scan, condition = read_slices(case, cohort)
            inside = condition.reshape(len(condition), -1).any(axis=1)
            scans.append(torch.from_numpy(scan[inside]))
            labels.append(torch.from_numpy(condition[inside]))
        dataset = TensorDataset(torch.cat(labels), torch.cat(scans))
        self.loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True)
        self.batches = self._endless()
        # SPADENet turns the list round in place.
        self.generator = SPADENet(
            spatial_dims=2,
            in_channels=len(cohort.modalities),
            out_channels=len(cohort.modalities),
            label_nc=self.n_classes,
            input_shape=SIZE[:2],
            channels=[CHANNELS * 2**level for level in range(LEVELS + 1)],
            is_vae=False,
            last_act="TANH",
        )
        n_seen = len(cohort.modalities) + self.n_classes
        self.judges = nn.ModuleList(
            PatchDiscriminator(2, D_CHANNELS, n_seen, num_layers_d=D_LAYERS, norm="INSTANCE") for _ in range(2)
        )
        for module in self.judges.modules():
            if isinstance(module, nn.Conv2d):
                spectral_norm(module)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=rate, betas=(0.0, 0.9))
            for network, rate in ((self.generator, 1e-4), (self.judges, 4e-4))
        ]

    def _endless(self) -> Iterator[list[Tensor]]:
        while True:
            yield from self.loader

    def train(self, n_steps: int) -> None:
        """Do steps of both players."""
        for _ in range(n_steps):
            labels, real = next(self.batches)
            condition = F.one_hot(labels.long(), self.n_classes).movedim(-1, 1).float()
            (fake,) = self.generator(condition)
            of_fake, of_real = self._judge(condition, fake, real)
            loss = torch.stack([-layers[-1].mean() for layers in of_fake]).mean()
            matching = [
                F.l1_loss(one, other.detach())
                for fake_layers, real_layers in zip(of_fake, of_real, strict=True)
                for one, other in zip(fake_layers[:-1], real_layers[:-1], strict=True)
            ]
            loss = loss + 10.0 * torch.stack(matching).sum() / len(of_fake)
            self._update(0, loss)
            with torch.no_grad():
                (fake,) = self.generator(condition)
            of_fake, of_real = self._judge(condition, fake, real)
            losses = [
                F.relu(1 + fake_layers[-1]).mean() + F.relu(1 - real_layers[-1]).mean()
                for fake_layers, real_layers in zip(of_fake, of_real, strict=True)
            ]
            self._update(1, torch.stack(losses).mean())

    def _judge(self, condition: Tensor, fake: Tensor, real: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        both = torch.cat([torch.cat([condition, fake], dim=1), torch.cat([condition, real], dim=1)])
        answers = []
        for judge in self.judges:
            answers.append(judge(both))
            both = F.avg_pool2d(both, 3, stride=2, padding=1, count_include_pad=False)
        n = len(fake)
        return [[layer[:n] for layer in one] for one in answers], [[layer[n:] for layer in one] for one in answers]

    def _update(self, player: int, loss: Tensor) -> None:
        self.optimizers[player].zero_grad()
        torch.autograd.backward(loss)
        self.optimizers[player].step()

    @torch.no_grad()
    def render(self, condition: NDArray[np.uint8]) -> Volume:
        """Render a whole volume: (modalities, x, y, z) in [-1, 1]."""
        self.generator.eval()
        codes = np.moveaxis(one_hot(condition, self.n_classes), 3, 0)
        parts = [
            self.generator(torch.from_numpy(codes[i : i + 16].copy()))[0].numpy() for i in range(0, len(codes), 16)
        ]
        self.generator.train()
        return np.moveaxis(np.concatenate(parts), 0, 3)


def read_slices(case: Case, cohort: Cohort) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return a case's slices (z, modalities, x, y) in [-1, 1], and their conditions (z, x, y)."""
    scan = np.stack([np.asarray(case.image(name), np.float32) for name in cohort.modalities])
    scaled = np.ascontiguousarray(np.moveaxis(scan * (2.0 / INTENSITY_MAX) - 1.0, 3, 0))
    return scaled, np.ascontiguousarray(np.moveaxis(case.condition(cohort.scheme), 2, 0))


def plan_of(cohort: Cohort, steps: int, seed: int) -> TrainingPlan:
    """Return our training of so many steps."""
    section = TRAIN.model_copy(update={"steps": steps})
    return TrainingPlan(cohort.split("train"), cohort.scheme, cohort.modalities, section, CPU, seed)


def seconds_a_step(cohort: Cohort, folder: Path) -> tuple[float, float]:
    """Return the medians of ours and the reference's, measured in turn."""
    mine, theirs = [], []
    reference = Reference(cohort, 0)
    reference.train(N_START)
    for run in range(N_RUNS):
        taken = []
        for steps in (N_START, N_START + N_STEPS):
            started = time.perf_counter()
            train_generator(plan_of(cohort, steps, run), folder / f"speed-{run}-{steps}")
            taken.append(time.perf_counter() - started)
        mine.append((taken[1] - taken[0]) / N_STEPS)
        started = time.perf_counter()
        reference.train(N_STEPS)
        theirs.append((time.perf_counter() - started) / N_STEPS)
    return median(mine), median(theirs)


def measure(volumes: list[Volume], cohort: Cohort, judge: Judge) -> dict[str, float]:
    """Hold renderings of the label maps of val persons against their real scans."""
    distances, features = [], {"real": [], "fake": []}
    for case, fake in zip(cohort.patients("val"), volumes, strict=True):
        real = np.moveaxis(read_slices(case, cohort)[0], 0, 3)
        brain = case.brain()
        distances.append(float(np.abs(real - fake)[:, brain].mean()))
        chosen = np.flatnonzero(brain.any(axis=(0, 1)))[4:-4:2]
        for name, volume in (("real", real), ("fake", np.where(brain, fake, -1.0))):
            slices = np.moveaxis((volume[..., chosen] + 1) * (INTENSITY_MAX / 2), 3, 0)
            features[name].append(judge.features(np.ascontiguousarray(slices, np.float32)))
    real_features, fake_features = standardise(np.concatenate(features["real"]), np.concatenate(features["fake"]))
    return {"l1": mean(distances), "kid": kernel_distance(real_features, fake_features)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=80.0, help="wall time of each training")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="train-against-") as name:
        folder = Path(name)
        ingest = {"phantom_cases": 40, "phantom_spacing_mm": 3.0, "spacing_mm": 3.0, "size_voxels": list(SIZE)}
        content = {"ingest": ingest, "tracking": {"uri": "none"}, "compute": {"accelerator": "cpu"}}
        run_stages(parse_config(content, "benchmark"), folder / "run", "ingest", "ingest")
        cohort = open_cohort(folder / "run" / "cohort")
        mine, theirs = seconds_a_step(cohort, folder)
        section = SegmenterSection(steps=600, filters=8, learning_rate=3e-3, validate_every=150)
        judge = train_judge(cohort, cohort.split("train"), section, CPU, 0, folder / "judge")
        found: dict[str, list[dict[str, float]]] = {"ours": [], "reference": []}
        for seed in range(arguments.seeds):
            started = time.perf_counter()
            train_generator(plan_of(cohort, max(1, int(arguments.seconds / mine)), seed), folder / f"ours-{seed}")
            seconds = time.perf_counter() - started
            generator = load_generator(folder / f"ours-{seed}")
            conditions = [case.condition(cohort.scheme) for case in cohort.patients("val")]
            volumes = [render_volume(generator, one, torch.Generator().manual_seed(seed)) for one in conditions]
            found["ours"].append(measure(volumes, cohort, judge))
            reference, started = Reference(cohort, seed), time.perf_counter()
            while time.perf_counter() - started < seconds:
                reference.train(1)
            found["reference"].append(measure([reference.render(one) for one in conditions], cohort, judge))
    quality = {
        f"{figure}_{name}": round(mean(one[figure] for one in ones), 4)
        for name, ones in found.items()
        for figure in ("l1", "kid")
    }
    ratio = {"name": "train_against_reference", "ratio": round(theirs / mine, 2), "baseline": "SPADE on SPADENet"}
    print(json.dumps({**ratio, "runs": N_RUNS, "seeds": arguments.seeds, "seconds": arguments.seconds, **quality}))


if __name__ == "__main__":
    main()
