"""Samples a second of a segmenter's training against a plain MONAI loop with CacheDataset and DataLoader.

    python benchmarks/segment_against_loop.py

Ours: the arm real-aug with ordinary augmentation in full. The loop: volumes cached in memory, slices cropped half of
them about tumour, MONAI's transforms with the same probabilities and ranges, each change of ours by its counterpart,
the same network, loss, optimiser and batch; with no loader process and with one, and the faster of the two counts. Both
in turn, several times; the ratio is of the medians. The last line is JSON.

What differs: MONAI's means are those of the whole slice, not of the brain; its noise has a standard deviation that is
given, a tenth of what this data has; it draws factors of scaling and gamma evenly, and of a low resolution, blur and
gamma one for all modalities, as ours does. It clips no gradients; ours does, and sets the weight of background.
"""

import json
import math
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    RandAdjustContrastd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotated,
    RandScaleIntensityFixedMeand,
    RandSimulateLowResolutiond,
    RandZoomd,
    ScaleIntensityRanged,
    SqueezeDimd,
)
from segment_overhead import N_REAL, SECTION, SHAPE, write_cohort

from pipeline.cohort import Cohort
from pipeline.config import ComputeSection
from pipeline.labels import MODALITIES
from pipeline.segmentation.arms import Arm
from pipeline.segmentation.networks import Segmenter
from pipeline.segmentation.scans import ScanPool
from pipeline.segmentation.segmenter import WEIGHT_DECAY, SegmenterPlan, make_criterion, train_segmenter

N_RUNS, N_STEPS, N_START = 3, 32, 4
# A volume gives so many slices at a time, and two volumes are a batch.
SLICES_PER_VOLUME = 4
# A tenth of the standard deviation of even noise on [-1, 1], which the cases of the benchmark are.
NOISE_SD = 0.1 * 2.0 / math.sqrt(12.0)


def ours(cohort: Cohort, folder: Path) -> float:
    """Return the samples a second of the real training: a longer one less a shorter one."""
    seconds = []
    for steps in (N_START, N_START + N_STEPS):
        scans = ScanPool(cohort.modalities)
        members = cohort.split("train")
        window = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
        section = SECTION.model_copy(update={"steps": steps})
        arm = Arm("real-aug", 1.0, members, section.augmentation)
        compute = ComputeSection(accelerator="cpu")
        val = cohort.patients("val")
        plan = SegmenterPlan(arm, val, cohort.scheme, cohort.modalities, section, compute, window, 0)
        started = time.perf_counter()
        train_segmenter(plan, scans, folder / f"{steps}")
        seconds.append(time.perf_counter() - started)
    return N_STEPS * SECTION.batch_size / (seconds[1] - seconds[0])


def make_transforms() -> Compose:
    """Return MONAI's counterparts of ordinary augmentation, as its tutorials chain them."""
    both, radians = ("image", "label"), math.radians(30)
    return Compose(
        [
            LoadImaged(both),
            EnsureChannelFirstd(both),
            ScaleIntensityRanged("image", 0, 1000, -1, 1),
            EnsureTyped(both),
            RandCropByPosNegLabeld(both, "label", (*SHAPE[:2], 1), pos=1, neg=1, num_samples=SLICES_PER_VOLUME),
            SqueezeDimd(both, dim=-1),
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandRotated(both, range_x=radians, prob=0.2, mode=("bilinear", "nearest"), padding_mode="zeros"),
            RandZoomd(both, prob=0.2, min_zoom=0.7, max_zoom=1.4, mode=("bilinear", "nearest")),
            RandGaussianNoised("image", prob=0.1, std=NOISE_SD),
            RandGaussianSmoothd("image", prob=0.2, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0)),
            RandScaleIntensityFixedMeand("image", factors=0.25, prob=0.15),
            RandScaleIntensityFixedMeand("image", factors=0.25, preserve_range=True, prob=0.15),
            RandSimulateLowResolutiond("image", prob=0.25, zoom_range=(0.5, 1.0), upsample_mode="bilinear"),
            RandAdjustContrastd("image", prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
        ]
    )


def loop(cohort: Cohort, n_workers: int) -> float:
    """Return the samples a second of a plain loop."""
    cases = cohort.split("train")
    items: list[dict[str, Any]] = [
        {"image": [str(case.path(name)) for name in MODALITIES], "label": str(case.path("tumor"))} for case in cases
    ]
    n_volumes = SECTION.batch_size // SLICES_PER_VOLUME
    # As in a larger cohort: an epoch of a handful of volumes would be over at once.
    repeated = items * (n_volumes * (N_START + N_STEPS) // len(items))
    data = CacheDataset(repeated, make_transforms(), hash_as_key=True, progress=False)
    loader = DataLoader(data, batch_size=n_volumes, shuffle=True, num_workers=n_workers)
    n_classes = 1 + len(cohort.scheme.tumor)
    network = Segmenter(len(MODALITIES), n_classes, SECTION)
    criterion = make_criterion(n_classes, SECTION.background_weight)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=WEIGHT_DECAY)
    for step, batch in enumerate(loader, start=1):
        loss = criterion(network(batch["image"].as_tensor()), batch["label"].as_tensor())
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        if step == N_START:
            started = time.perf_counter()
    return N_STEPS * SECTION.batch_size / (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="segment-against-") as name:
        folder = Path(name)
        cohort = write_cohort(folder / "cohort", ("train",) * N_REAL + ("val",))
        runs = [(ours(cohort, folder / f"run-{run}"), loop(cohort, 0), loop(cohort, 1)) for run in range(N_RUNS)]
    mine, alone, with_worker = (median(values) for values in zip(*runs, strict=True))
    figures = {"ours_per_s": mine, "loop_per_s": alone, "loop_with_worker_per_s": with_worker}
    line = {"name": "segment_against_loop", "ratio": round(mine / max(alone, with_worker), 3)}
    baseline = "MONAI CacheDataset and DataLoader"
    print(json.dumps({**line, "baseline": baseline, "runs": N_RUNS, **{k: round(v, 1) for k, v in figures.items()}}))


if __name__ == "__main__":
    main()
