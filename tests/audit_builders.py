"""Synthetic scans, releases and references for the tests of the audit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from conftest import TINY, rng, toy_brain, write_toy_cohort
from numpy.typing import NDArray

from pipeline.audit.dealing import balanced_halves
from pipeline.audit.material import open_reference
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Reference, Release, Targets
from pipeline.audit.views import view_synthetic
from pipeline.cohort import Case, CaseData, Cohort, open_cohort, write_case, write_cohort_files
from pipeline.config import RunConfig, parse_config
from pipeline.generate.synthesis import generate_cohort
from pipeline.labels import LabelScheme
from pipeline.train.loop import train_generator, write_model_card
from pipeline.train.plan import TrainingPlan
from pipeline.train.weights import load_generator
from pipeline.volumes import Grid

SHAPE = (24, 24, 16)
GRID = Grid(SHAPE, 8.0)
N_MEMBERS, N_OTHERS = 12, 12


def write_synthetic(root: Path, scans: Sequence[tuple[Mapping[str, NDArray], NDArray, NDArray]]) -> Cohort:
    """Write (images, tissue map, tumour map) as a synthetic cohort."""
    rows = []
    for number, (images, tissue, tumor) in enumerate(scans):
        subject = f"syn{number:05d}"
        scaled = {name: np.clip(image, 0, 1000).astype(np.int16) for name, image in images.items()}
        write_case(root, CaseData(subject, scaled, tissue, tumor, GRID.affine, {}))
        rows.append({"participant_id": f"sub-{subject}", "source": "toy"})
    write_cohort_files(root, "synthetic", LabelScheme(), rows, "Toy scans. " * 20)
    return open_cohort(root)


def fresh(seed: int) -> tuple[dict[str, NDArray], NDArray, NDArray]:
    images, tissue, tumor = toy_brain(SHAPE, rng(seed), individual=True)
    return {name: image * 8 for name, image in images.items()}, tissue, tumor


def copy_of(case: Case, seed: int, mirrored: bool = False) -> tuple[dict[str, NDArray], NDArray, NDArray]:
    """Return a noisy copy of a case, mirrored or not."""
    step = -1 if mirrored else 1
    names = case.modalities
    images = {name: case.image(name)[::step] + rng(seed).normal(0, 20, SHAPE) for name in names}
    return images, np.asarray(case.tissue_map())[::step], np.asarray(case.tumor_map())[::step]


def setting_of(cohort: Cohort, n_style_draws: int = 1) -> Setting:
    return Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, n_style_draws, 5)


def release_of(synthetic: Cohort, cohort: Cohort) -> Release:
    """Return a release of scans alone."""
    return Release(view_synthetic(synthetic.cases, setting_of(cohort)), lambda targets: np.zeros(len(targets)))


def reference_of(cohort: Cohort, targets: Targets) -> Reference:
    return open_reference(cohort.split("val"), targets, setting_of(cohort))


def read_images(case: Case, cohort: Cohort) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    images = np.stack([np.asarray(case.image(name), np.float32) for name in cohort.modalities])
    return images, case.condition(cohort.scheme) > 0


def scored(n_references: int, n_persons: int, leak: float, seed: int) -> tuple[NDArray, NDArray]:
    """Return scores with offsets of generators and persons many times the noise, and a leak in units of the noise.

    Beside them who is in: both (references, persons).
    """
    stream = rng(seed)
    inside = balanced_halves(["train"] * n_persons, n_references, stream)
    scores = stream.normal(size=inside.shape) + leak * inside
    scores += stream.normal(0, 3, n_persons) + stream.normal(0, 50, (n_references, 1))
    return scores * stream.uniform(0.5, 2, (n_references, 1)), inside


def config_of(n_references: int = 2) -> RunConfig:
    content = {**TINY, "audit": {**TINY["audit"], "n_references": n_references}}
    return parse_config(content, "tests")


def write_run(root: Path) -> Path:
    """Write a run folder whose stages before the audit are finished; return it."""
    config = config_of()
    write_toy_cohort(root / "cohort", {"train": 6, "val": 3, "test": 5})
    made = open_cohort(root / "cohort")
    plan = TrainingPlan(made.split("train"), made.scheme, made.modalities, config.train, config.compute, 1)
    train_generator(plan, root / "model")
    write_model_card(root / "model", plan, made.spacing_mm, made.shape)
    generator = load_generator(root / "model")
    generate_cohort(generator, made, made.split("train"), config.generate, config.compute, 1, root / "synthetic")
    return root
