"""Tiny cohorts for segmenters, plans of trainings on them, and a tracker that remembers."""

import numpy as np

from pipeline.cohort import CaseData, open_cohort, write_case, write_cohort_files
from pipeline.config import RunConfig
from pipeline.labels import MODALITIES, LabelScheme
from pipeline.segmentation.arms import DESIGNS, Mixing, make_arm
from pipeline.segmentation.segmenter import SegmenterPlan

SHAPE = (18, 16, 6)
SPLITS = ("train", "train", "train", "train", "val", "test", "test", "test")


def write_tiny_cohort(root, splits, first=0):
    """Brains are boxes within a margin, tumours bright cubes within them."""
    rows = []
    for number, split in enumerate(splits, start=first):
        rng = np.random.default_rng(number)
        tissue, tumor = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
        tissue[3:15, 2:14, 1:5] = 2
        x, y = rng.integers(4, 9, 2)
        tumor[x : x + 4, y : y + 4, 2:4], tumor[x : x + 2, y : y + 2, 2:4] = 2, 1
        tissue[tumor > 0] = 0
        brain = (tissue > 0) | (tumor > 0)
        noise = rng.integers(0, 40, SHAPE)
        images = {name: (brain * (300 + 200 * tumor.astype(int) + noise)).astype(np.int16) for name in MODALITIES}
        subject = f"s{number:03d}"
        write_case(root, CaseData(subject, images, tissue, tumor, np.diag([4.0, 4.0, 4.0, 1.0]), {}))
        rows.append({"participant_id": f"sub-{subject}", "source": "made", "split": split})
    write_cohort_files(root, "tiny", LabelScheme(), rows, "made for tests")


QUARTER = Mixing(0.25)


def tiny_evaluation(**changes):
    sections = {"steps": 4, "validate_every": 2, "filters": 8, "batch_size": 4, "n_seeds": 1, "n_bootstrap": 200}
    return RunConfig.model_validate(
        {"evaluate": {**sections, **changes}, "compute": {"accelerator": "cpu", "workers": 1}}
    )


def arm_of(config, real, synthetic, name="real-syn-aug", mixing=QUARTER, share=1.0):
    mixing = Mixing(paste_share=0.5) if DESIGNS[name].pastes else mixing
    share = share if DESIGNS[name].uses_real else 0.0
    return make_arm(name, share, real.split("train"), synthetic.cases, mixing, config.evaluate)


def plan_of(config, real, synthetic, name="real-syn-aug", mixing=QUARTER):
    window = tuple(slice(0, n) for n in SHAPE[: config.evaluate.dimensions])
    arm = arm_of(config, real, synthetic, name, mixing)
    return SegmenterPlan(
        arm, real.split("val"), real.scheme, real.modalities, config.evaluate, config.compute, window, seed=3
    )


class Recipe:
    """Stands for training a generator and making its cohort: another tiny one for each; remembers what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, config, cohort, members, seed, folder, description):
        write_tiny_cohort(folder / "synthetic", ("n/a",) * 3, first=200 + 10 * len(self.calls))
        self.calls.append((folder.name, tuple(case.subject for case in members), seed, description))
        return open_cohort(folder / "synthetic")


class Recorder:
    """Takes what a stage records; raises once a metric is recorded that often."""

    def __init__(self, fail_after=None):
        self.values, self.tables, self.images, self._left = {}, {}, [], fail_after

    def metrics(self, values, step=0):
        if self._left == 0:
            raise KeyboardInterrupt
        self._left = None if self._left is None else self._left - 1
        for key, value in values.items():
            self.values.setdefault(key, []).append((step, value))

    def table(self, name, rows):
        self.tables[name] = rows

    def image(self, key, path, step=0):
        self.images.append(path)
