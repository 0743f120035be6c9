"""Builders shared by the tests: small scans, sources and cohorts, all generated."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from pipeline.cohort import CaseData, Cohort, digest_tree, open_cohort, write_case, write_cohort_files
from pipeline.config import RunConfig, parse_config
from pipeline.generate.placement import LabelMaps
from pipeline.generate.plan import AskedCase
from pipeline.labels import MODALITIES, LabelScheme
from pipeline.volumes import Grid

if TYPE_CHECKING:
    from pipeline.train.generator import Generator

SOURCE_SHAPE = (30, 34, 28)
REPOSITORY = Path(__file__).parent.parent


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def own_config_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's pseudonym key out of the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


def toy_brain(
    shape: tuple[int, int, int], stream: np.random.Generator, individual: bool = False
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw an ellipsoid brain of three tissue shells with a ball of tumour.

    Individual brains differ in shape and brightness by more than a turned copy differs from its original.

    Returns
    -------
    images : dict of str to ndarray, float32, 0 outside the brain
    tissue_map, tumor_map : ndarray, uint8
        Classes of the standard scheme.
    """
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    bumps, shading = (_smooth_field(shape, stream) for _ in range(2)) if individual else (0.0, 0.0)
    radius = np.sqrt(sum((axis / stream.uniform(0.8, 0.9)) ** 2 for axis in axes)) + 0.07 * bumps
    tissue = np.select([radius < 0.2, radius < 0.6, radius < 0.85, radius < 1.0], [1, 3, 2, 1], 0).astype(np.uint8)
    centre = stream.uniform(-0.3, 0.3, 3)
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)))
    size = stream.uniform(0.25, 0.4)
    tumor = np.select([distance < size * 0.4, distance < size * 0.7, distance < size], [1, 3, 2], 0).astype(np.uint8)
    tumor[tissue == 0] = 0
    levels = {"t1": [0, 30, 60, 90], "t1ce": [0, 30, 60, 90], "t2": [0, 90, 60, 40], "flair": [0, 20, 70, 55]}
    lesion = {"t1": [0, 35, 50, 60], "t1ce": [0, 30, 50, 130], "t2": [0, 100, 85, 80], "flair": [0, 60, 110, 100]}
    images = {}
    for name in MODALITIES:
        image = np.array(levels[name])[tissue].astype(np.float32)
        image = np.where(tumor > 0, np.array(lesion[name])[tumor], image) * (1 + 0.2 * shading)
        image += stream.normal(0, 3, shape)
        images[name] = np.where(tissue > 0, np.maximum(image, 1), 0).astype(np.float32)
    return images, np.where(tumor > 0, 0, tissue).astype(np.uint8), tumor


def _smooth_field(shape: tuple[int, int, int], stream: np.random.Generator) -> NDArray[np.float64]:
    """Draw a field of mean 0 and deviation 1 that varies over an eighth of the largest extent."""
    field = ndimage.gaussian_filter(stream.normal(size=shape), max(shape) / 8)
    return (field - field.mean()) / field.std()


def write_source(root: Path, n_cases: int, shape: tuple[int, int, int] = SOURCE_SHAPE, spacing_mm: float = 5.0) -> Path:
    """Write a BraTS-2021-like folder of toy brains: names, LPS orientation, labels 1, 2, 4; return it."""
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    for number in range(n_cases):
        images, _, tumor = toy_brain(shape, np.random.default_rng(number), individual=True)
        name = f"BraTS2021_{number:05d}"
        folder = root / name
        folder.mkdir(parents=True)
        for modality, image in images.items():
            nib.save(nib.Nifti1Image(image.astype(np.int16), affine), folder / f"{name}_{modality}.nii.gz")
        labels = np.array([0, 1, 2, 4], np.uint8)[tumor]
        nib.save(nib.Nifti1Image(labels, affine), folder / f"{name}_seg.nii.gz")
    return root


def write_toy_cohort(
    root: Path, splits: dict[str, int], shape: tuple[int, int, int] = (24, 24, 16), individual: bool = True
) -> Path:
    """Write a working cohort of toy brains with so many cases on each side; return its folder."""
    grid, scheme = Grid(shape, 8.0), LabelScheme()
    participants, number = [], 0
    for split, count in splits.items():
        for _ in range(count):
            images, tissue, tumor = toy_brain(shape, np.random.default_rng(1000 + number), individual)
            subject = f"{number:04x}"
            scaled = {name: np.clip(image * 8, 0, 1000).astype(np.int16) for name, image in images.items()}
            write_case(root, CaseData(subject, scaled, tissue, tumor, grid.affine, {}))
            participants.append(
                {
                    "participant_id": f"sub-{subject}",
                    "source": "toy",
                    "split": split,
                    "person": subject,
                    "volume_ml": f"{(tumor > 0).sum() * 0.512:.1f}",
                    "hemisphere": "left" if number % 2 else "right",
                    "lobe": "frontal",
                    "enhancing_share": "0.30",
                    "n_foci": "1",
                    "contrast": f"{240 + number}.0",
                }
            )
            number += 1
    write_cohort_files(root, "toy", scheme, participants, "A toy cohort for tests. " * 10)
    return root


TINY = {
    "ingest": {
        "spacing_mm": 8.0,
        "size_voxels": [24, 24, 24],
        "phantom_cases": 10,
        "phantom_spacing_mm": 6.0,
        "leakage_guard": False,
    },
    "train": {
        "channels": 8,
        "levels": 2,
        "steps": 6,
        "batch_size": 2,
        "style_size": 4,
        "discriminator_channels": 8,
        "discriminator_layers": 2,
        "monitor_every": 3,
        "checkpoint_every": 2,
    },
    "generate": {
        "n_cases": 4,
        "volume_edges_ml": [2.0, 25.0, 60.0, 150.0],
        "curation": {"candidates": 2},
        "judge": {"steps": 6, "batch_size": 2, "filters": 8, "validate_every": 3},
        "two_sample_steps": 2,
    },
    "audit": {"n_references": 2, "n_style_draws": 1, "n_bootstrap": 200},
    "evaluate": {"n_seeds": 1, "steps": 6, "batch_size": 2, "filters": 8, "validate_every": 3, "n_bootstrap": 200},
    "compute": {"accelerator": "cpu", "workers": 1},
    "tracking": {"uri": "none"},
}


@pytest.fixture
def tiny_config() -> Callable[..., RunConfig]:
    """Return a maker of configs of the smallest size; section overrides are merged in."""

    def make(**sections: dict[str, object]) -> RunConfig:
        content = {name: dict(section) for name, section in TINY.items()}
        for name, section in sections.items():
            content.setdefault(name, {}).update(section)
        return parse_config(content, "tests")

    return make


OVERRIDE_REASON = "A test on phantoms: nobody was scanned, so nobody needs protection"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder with all six stages finished, at the smallest size, released by override."""
    from pipeline.runner import run_stages

    run_dir = tmp_path_factory.mktemp("finished") / "run"
    content = {name: dict(section) for name, section in TINY.items()}
    run_stages(parse_config({**content, "export": {"override_reason": OVERRIDE_REASON}}, "tests"), run_dir)
    return run_dir


# Ingest ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Ingest eight whole cases once; three of them have label maps that are written in other ways."""
    from ingest_builders import change, file_of, ingest

    root = tmp_path_factory.mktemp("good")
    source = write_source(root / "Hospital_Secret", 8)
    change(file_of(source, 0, "seg"), lambda labels: labels, np.int64)
    change(file_of(source, 1, "seg"), lambda labels: labels, np.float32)
    turned = nib.as_closest_canonical(nib.Nifti1Image.from_filename(file_of(source, 2, "seg")))
    nib.save(turned, file_of(source, 2, "seg"))
    return SimpleNamespace(root=root, source=source, cohort=ingest(source, root / "run"))


# Label maps and rendering ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def generator() -> "Generator":
    import torch

    from pipeline.train.generator import Generator, GeneratorConfig

    config = GeneratorConfig(
        dimensions=2, n_classes=7, n_modalities=4, channels=8, levels=2, style_size=4, context_slices=1
    )
    torch.manual_seed(0)
    return Generator(config).eval().requires_grad_(False)


def ask(volume_ml: float, hemisphere: str = "left", **others: Any) -> AskedCase:
    wanted = {"volume": "medium", "hemisphere": hemisphere}
    return AskedCase(
        **{"number": 1, "label_source": "atlas", "wanted": wanted, **others}, volume_ml=volume_ml, hemisphere=hemisphere
    )


def check_whole(maps: LabelMaps) -> None:
    """Check that tissue and tumour never overlap and leave no hole inside the brain."""
    assert not ((maps.tissue_map > 0) & (maps.tumor_map > 0)).any()
    brain = (maps.tissue_map > 0) | (maps.tumor_map > 0)
    assert maps.tumor_map.any()
    np.testing.assert_array_equal(brain, ndimage.binary_fill_holes(brain))
    # Tumour does not reach into the background: nothing of it is a piece of its own outside the brain.
    assert ndimage.label(brain)[1] == 1


# Segmenters -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def segment_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a run folder with a tiny real cohort and a tiny synthetic one, to read; see :func:`own_segment_run`."""
    from segment_builders import SPLITS, write_tiny_cohort

    folder = tmp_path_factory.mktemp("segment")
    write_tiny_cohort(folder / "cohort", SPLITS)
    write_tiny_cohort(folder / "synthetic", ("n/a",) * 3, first=100)
    before = digest_tree(folder)
    yield folder
    assert digest_tree(folder) == before, "a test wrote into the run folder that all share; use own_segment_run"


@pytest.fixture
def own_segment_run(segment_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of that run folder for this test alone: further generators stay in a run folder."""
    return shutil.copytree(segment_run, tmp_path_factory.mktemp("own") / "run")


@pytest.fixture
def real(segment_run: Path) -> Cohort:
    return open_cohort(segment_run / "cohort")


@pytest.fixture
def synthetic(segment_run: Path) -> Cohort:
    return open_cohort(segment_run / "synthetic")


# The audit; other tests have a `cohort` and a `run_dir` of their own --------------------------------------------------


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    from audit_builders import N_MEMBERS, N_OTHERS

    splits = {"train": N_MEMBERS, "val": 4, "test": N_OTHERS}
    return open_cohort(write_toy_cohort(tmp_path_factory.mktemp("audit") / "cohort", splits))


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Return synthetic scans that are nobody's."""
    from audit_builders import fresh, write_synthetic

    return write_synthetic(tmp_path_factory.mktemp("honest") / "synthetic", [fresh(seed) for seed in range(50, 58)])


@pytest.fixture(scope="session")
def leaking(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Return synthetic scans with a copy of each member among them, every second one mirrored."""
    from audit_builders import copy_of, fresh, write_synthetic

    planted = [copy_of(case, i, bool(i % 2)) for i, case in enumerate(cohort.split("train"))]
    root = tmp_path_factory.mktemp("leaking") / "synthetic"
    return write_synthetic(root, [*planted, *(fresh(seed) for seed in range(50, 54))])


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder whose stages before the audit are finished."""
    from audit_builders import write_run

    return write_run(tmp_path_factory.mktemp("run"))


# Export ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def passed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder with a release that the gate let pass."""
    from export_builders import build_run, export

    run_dir = tmp_path_factory.mktemp("passed")
    build_run(run_dir)
    export(run_dir)
    return run_dir
