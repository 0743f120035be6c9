"""Training: killed and resumed it ends with the same bytes, it learns, and what it draws is what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from conftest import TINY, write_toy_cohort
from numpy.typing import NDArray
from safetensors import safe_open

from pipeline.cohort import Case, Cohort, digest_file, open_cohort
from pipeline.config import RunConfig, TrainSection, load_config, parse_config
from pipeline.errors import DataError
from pipeline.labels import TISSUE_CLASSES, LabelScheme
from pipeline.layout import WEIGHTS_FILE
from pipeline.train.checkpoint import load_checkpoint, save_checkpoint
from pipeline.train.data import OpenCase, Sampler, one_hot, one_hot_slices, read_scan
from pipeline.train.generator import Generator
from pipeline.train.loop import train_generator
from pipeline.train.monitor import HeldOutMonitor
from pipeline.train.plan import TrainingPlan
from pipeline.train.style import PERSONS_PER_ENTRY
from pipeline.train.weights import load_generator

CONFIGS = Path(__file__).parents[1] / "configs"
MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(write_toy_cohort(tmp_path_factory.mktemp("train") / "cohort", {"train": 3, "val": 2}))


def plan_of(cohort: Cohort, config: RunConfig, seed: int = 1, n_cases: int = 3) -> TrainingPlan:
    cases = cohort.split("train")[:n_cases]
    return TrainingPlan(cases, cohort.scheme, cohort.modalities, config.train, config.compute, seed)


def digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): digest_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@dataclass
class Watcher:
    """A monitor made of two functions."""

    samples: Callable[[int, Generator], None] = lambda step, generator: None
    losses: Callable[[int, dict[str, float]], None] = lambda step, losses: None

    def record_losses(self, step: int, losses: dict[str, float]) -> None:
        self.losses(step, losses)

    def record_samples(self, step: int, generator: Generator) -> None:
        self.samples(step, generator)


class KilledError(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def straight(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an undisturbed training of six steps."""
    folder = tmp_path_factory.mktemp("straight")
    train_generator(plan_of(cohort, parse_config(TINY, "tests")), folder)
    return folder


@pytest.mark.parametrize("kill_at", [2, 4, 5])
def test_training_killed_and_resumed_ends_with_the_same_bytes(
    cohort: Cohort, tiny_config: MakeConfig, straight: Path, tmp_path: Path, kill_at: int
) -> None:
    def look(step: int, generator: Generator) -> None:
        if step == kill_at:
            raise KilledError

    plan = plan_of(cohort, tiny_config(train={"monitor_every": 1}))
    with pytest.raises(KilledError):
        train_generator(plan, tmp_path, Watcher(look))
    # A checkpoint every second step, written after the monitor has looked.
    marks = [path.name for path in (tmp_path / "checkpoints").glob("*.json")]
    last = 2 * ((kill_at - 1) // 2)
    assert marks == ([f"step-{last:08d}.json"] if last else [])
    assert not (tmp_path / WEIGHTS_FILE).exists()
    train_generator(plan, tmp_path)
    assert digests(tmp_path) == digests(straight)
    assert set(digests(straight)) == {
        WEIGHTS_FILE,
        "checkpoints/step-00000006.json",
        "checkpoints/step-00000006.safetensors",
    }


@pytest.mark.parametrize("patch_voxels", [[16, 16, 12], None])
def test_training_in_3d_killed_and_resumed_ends_with_the_same_bytes(
    cohort: Cohort, tiny_config: MakeConfig, tmp_path: Path, patch_voxels: list[int] | None
) -> None:
    def look(step: int, generator: Generator) -> None:
        if step == 3:
            raise KilledError

    # The shipped preset of whole volumes, but for sizes; and on patches.
    shipped = load_config(CONFIGS / "brats-3d.yaml").train.model_dump(exclude_unset=True)
    assert shipped["gradient_checkpointing"]
    small = {"channels": 4, "discriminator_channels": 4, "levels": 1, "steps": 4, "monitor_every": 3}
    small |= {"checkpoint_every": 2, "discriminator_layers": 1, "patch_voxels": patch_voxels}
    plan = plan_of(cohort, tiny_config(train={**shipped, **small}))
    train_generator(plan, tmp_path / "straight")
    with pytest.raises(KilledError):
        train_generator(plan, tmp_path / "killed", Watcher(look))
    train_generator(plan, tmp_path / "killed")
    assert digests(tmp_path / "killed") == digests(tmp_path / "straight")


def test_another_seed_gives_another_generator_and_the_same_seed_the_same(
    cohort: Cohort, tiny_config: MakeConfig, straight: Path, tmp_path: Path
) -> None:
    for seed in (1, 2):
        # Monitoring and checkpoints more or less often change nothing.
        config = tiny_config(train={"checkpoint_every": 5, "monitor_every": 6})
        train_generator(plan_of(cohort, config, seed), tmp_path / str(seed), Watcher())
    assert digest_file(tmp_path / "1" / WEIGHTS_FILE) == digest_file(straight / WEIGHTS_FILE)
    assert digest_file(tmp_path / "2" / WEIGHTS_FILE) != digest_file(straight / WEIGHTS_FILE)


def test_a_finished_training_is_not_trained_further(cohort: Cohort, straight: Path, tiny_config: MakeConfig) -> None:
    before = digests(straight)
    train_generator(plan_of(cohort, tiny_config()), straight)
    assert digests(straight) == before


def test_reconstruction_error_falls_when_one_case_is_learnt_by_heart(
    cohort: Cohort, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    seen: list[float] = []
    config = tiny_config(
        train={
            "steps": 60,
            "monitor_every": 100,
            "checkpoint_every": 60,
            "reconstruction_weight": 50.0,
            "feature_matching_weight": 0.0,
            "learning_rate_generator": 2e-3,
            "augmentation": [],
        }
    )
    train_generator(
        plan_of(cohort, config, n_cases=1),
        tmp_path,
        Watcher(losses=lambda step, losses: seen.append(losses["loss/l1"])),
    )
    assert len(seen) == 6
    assert seen[-1] < 0.6 * seen[0]


def test_the_averaged_generator_is_what_is_written(cohort: Cohort, tiny_config: MakeConfig, tmp_path: Path) -> None:
    seen: dict[str, torch.Tensor] = {}

    def look(step: int, generator: Generator) -> None:
        seen.update({key: value.clone() for key, value in generator.state_dict().items()})

    train_generator(plan_of(cohort, tiny_config()), tmp_path, Watcher(look))
    written = load_generator(tmp_path).state_dict()
    assert all(torch.equal(written[key], seen[key]) for key in seen)
    with safe_open(tmp_path / "checkpoints" / "step-00000006.safetensors", framework="pt") as file:
        current = {key: file.get_tensor(f"network.generator.{key}") for key in seen}
    assert any(not torch.equal(current[key], seen[key]) for key in seen)


def sampler_of(
    cohort: Cohort, dimensions: Literal[2, 3] = 2, patch: tuple[int, int, int] | None = None, flips: bool = False
) -> Sampler:
    opened = [OpenCase.open(case, cohort.modalities) for case in cohort.split("train")]
    section = TrainSection(dimensions=dimensions, patch_voxels=patch, augmentation=("flip",) if flips else ())
    return Sampler(opened, cohort.scheme, section)


def test_sampler_draws_every_case_and_half_of_the_slices_for_their_tumour(cohort: Cohort) -> None:
    cases = cohort.split("train")
    scans = [read_scan(case, cohort.modalities, (slice(None),) * 3) for case in cases]
    batch = sampler_of(cohort).draw(300, np.random.default_rng(0))
    owners = [
        next((i, z) for i, scan in enumerate(scans) for z in range(16) if np.array_equal(scan[..., z], drawn))
        for drawn in batch.scan.numpy()
    ]
    counts = np.bincount([i for i, _ in owners], minlength=3)
    # Binomial(300, 1/3): mean 100, SD 8.2.
    assert counts.min() >= 70
    has_tumor = np.mean([bool((tumor_of(cases[i])[:, :, z] > 0).any()) for i, z in owners])
    # Half are drawn for their tumour, and of the other half the share that brain slices have anyway.
    n_tumor = [(tumor_of(case) > 0).any(axis=(0, 1)).sum() for case in cases]
    n_brain = [(case.condition(cohort.scheme) > 0).any(axis=(0, 1)).sum() for case in cases]
    share = np.mean(np.array(n_tumor) / n_brain)
    assert 0.2 < share < 0.8
    assert has_tumor == pytest.approx(0.5 + 0.5 * share, abs=0.08)
    assert batch.scan.dtype == batch.condition.dtype == torch.float32
    assert batch.scan.min() == -1
    assert batch.scan.max() <= 1


def tumor_of(case: Case) -> NDArray[np.uint8]:
    return np.asarray(case.tumor_map())


def test_condition_holds_the_slice_in_the_middle_of_its_neighbours(cohort: Cohort) -> None:
    case = cohort.split("train")[0]
    labels = case.condition(cohort.scheme)
    n = cohort.scheme.n_condition_classes
    batch = sampler_of(cohort).draw(20, np.random.default_rng(0))
    assert batch.condition.shape == (20, 3 * n, 24, 24)
    code = one_hot_slices(labels, n, 1)
    for z in range(14):
        for offset in range(3):
            found = code[z, offset * n : (offset + 1) * n].argmax(axis=0)
            np.testing.assert_array_equal(found, labels[:, :, z + offset])
    # Every voxel of every neighbour has exactly one class, beyond the volume background.
    assert (batch.condition.reshape(20, 3, n, 24, 24).sum(dim=2) == 1).all()


def test_flip_mirrors_scan_and_condition_of_about_half(cohort: Cohort) -> None:
    sampler, flipping, n_mirrored = sampler_of(cohort), sampler_of(cohort, flips=True), 0
    for seed in range(40):
        plain = sampler.draw(1, np.random.default_rng(seed))
        flipped = flipping.draw(1, np.random.default_rng(seed))
        mirrored = not torch.equal(plain.scan, flipped.scan)
        n_mirrored += mirrored
        assert torch.equal(flipped.scan, plain.scan.flip(2) if mirrored else plain.scan)
        assert torch.equal(flipped.condition, plain.condition.flip(2) if mirrored else plain.condition)
    # Binomial(40, 1/2): mean 20, SD 3.2.
    assert 10 <= n_mirrored <= 30


def test_patches_in_3d_lie_in_the_volume_and_show_scan_and_map_of_one_place(cohort: Cohort) -> None:
    batch = sampler_of(cohort, 3, (8, 12, 6), flips=True).draw(12, np.random.default_rng(0))
    n = cohort.scheme.n_condition_classes
    assert batch.scan.shape == (12, 4, 8, 12, 6)
    assert batch.condition.shape == (12, n, 8, 12, 6)
    # Toy scans are above -1 within the brain and -1 outside, so that each shows where the other is.
    assert torch.equal((batch.scan > -1).any(dim=1), batch.condition[:, 0] == 0)
    whole = sampler_of(cohort, 3).draw(1, np.random.default_rng(0))
    assert whole.scan.shape == (1, 4, 24, 24, 16)


def test_half_of_the_patches_are_cut_around_tumour_and_all_around_brain(cohort: Cohort) -> None:
    batch = sampler_of(cohort, 3, (3, 3, 3)).draw(300, np.random.default_rng(0))
    first_of_tumor = 1 + len(TISSUE_CLASSES)
    has_brain, has_tumor = (
        batch.condition[:, first:].flatten(1).any(dim=1).float().mean().item() for first in (1, first_of_tumor)
    )
    assert has_brain == 1.0
    # Some of the others meet tumour by chance. Were patches anywhere in the slice, a tenth would.
    assert 0.5 <= has_tumor <= 0.8


def test_one_hot_code_has_one_class_for_each_voxel() -> None:
    labels = np.arange(7, dtype=np.uint8).reshape(7, 1)
    np.testing.assert_array_equal(one_hot(labels, 7)[:, :, 0], np.eye(7))


class RecordingTracker:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[tuple[str, str, int]] = []

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        self.seen.append((step, dict(values)))

    def image(self, key: str, path: str, step: int = 0) -> None:
        self.pictures.append((key, path, step))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_monitor_writes_a_picture_and_held_out_figures(
    cohort: Cohort, tiny_config: MakeConfig, tmp_path: Path, dimensions: int
) -> None:
    tracker = RecordingTracker()
    monitor = HeldOutMonitor(cohort.split("val"), cohort.scheme, cohort.modalities, tmp_path, 1, tracker)
    plan = plan_of(
        cohort, tiny_config(train={"dimensions": dimensions, "channels": 4, "batch_size": 1, "discriminator_layers": 1})
    )
    train_generator(plan, tmp_path, monitor)
    assert tracker.pictures == [
        ("samples", "samples/step-000000.png", 0),
        ("samples", "samples/step-000003.png", 3),
        ("samples", "samples/step-000006.png", 6),
    ]
    assert all((tmp_path / path).read_bytes().startswith(b"\x89PNG") for _, path, _ in tracker.pictures)
    losses = [(step, figures) for step, figures in tracker.seen if "loss/l1" in figures]
    held_out = [(step, figures) for step, figures in tracker.seen if "held_out/l1_brain" in figures]
    # Ten times as often as samples, but not more often than each step.
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in held_out] == [0, 3, 6]
    for _, figures in held_out:
        assert {"held_out/l1_brain", "held_out/l1_tumor", "held_out/histogram_distance"} == set(figures)
        assert np.isfinite(list(figures.values())).all()
        # Two points in [-1, 1] are at most 2 apart.
        assert 0 < figures["held_out/l1_brain"] <= 2
        assert 0 < figures["held_out/histogram_distance"] <= 2


def test_held_out_error_of_a_perfect_generator_is_zero(cohort: Cohort, tiny_config: MakeConfig, tmp_path: Path) -> None:
    case = cohort.split("val")[0]
    tracker = RecordingTracker()
    monitor = HeldOutMonitor([case], cohort.scheme, cohort.modalities, tmp_path, 1, tracker)
    z = round(np.argwhere(tumor_of(case) > 0).mean(axis=0)[2])

    class Perfect(torch.nn.Module):
        config = plan_of(cohort, tiny_config()).generator_config

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def noise_shapes(self, spatial: tuple[int, ...]) -> list[tuple[int, ...]]:
            return [tuple(spatial)]

        def forward(self, condition: torch.Tensor, *_: object) -> torch.Tensor:
            labels = condition[0, 7:14].argmax(dim=0).numpy()
            where = [z for z in range(16) if np.array_equal(case.condition(cohort.scheme)[:, :, z], labels)]
            shown.append(where[0])
            scan = read_scan(case, cohort.modalities, (slice(None), slice(None), where[0]))
            return torch.from_numpy(scan)[None]

    shown: list[int] = []
    monitor.record_samples(1, Perfect())
    figures = tracker.seen[0][1]
    assert figures == {"held_out/l1_brain": 0.0, "held_out/l1_tumor": 0.0, "held_out/histogram_distance": 0.0}
    assert abs(shown[0] - z) <= 2


def test_checkpoint_is_tensors_and_json_only(straight: Path) -> None:
    files = sorted((straight / "checkpoints").iterdir())
    assert [file.suffix for file in files] == [".json", ".safetensors"]
    content = files[1].read_bytes()
    # A safetensors file opens with the length of its JSON header; a pickle or a zip of pickles opens with neither.
    assert content[8:9] == b"{"
    assert not content.startswith((b"PK", b"\x80"))
    with safe_open(files[1], framework="pt") as file:
        names = list(file.keys())
    kinds = {name.split(".")[0] + "." + name.split(".")[1] for name in names}
    assert kinds == {
        "network.generator",
        "network.discriminator",
        "network.averaged",
        "optimizer.generator",
        "optimizer.discriminator",
    }


def test_checkpoint_gives_back_networks_optimisers_and_step(tmp_path: Path) -> None:
    def make(seed: int) -> tuple[dict[str, torch.nn.Module], dict[str, torch.optim.Optimizer]]:
        torch.manual_seed(seed)
        network = torch.nn.Linear(3, 2)
        return {"net": network}, {"opt": torch.optim.Adam(network.parameters(), lr=0.1)}

    networks, optimizers = make(0)
    for _ in range(2):
        networks["net"](torch.ones(1, 3)).sum().backward()
        optimizers["opt"].step()
    assert load_checkpoint(tmp_path, networks, optimizers) == 0
    save_checkpoint(tmp_path, 1, networks, optimizers)
    save_checkpoint(tmp_path, 2, networks, optimizers)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002.json", "step-00000002.safetensors"]
    others, other_optimizers = make(1)
    assert load_checkpoint(tmp_path, others, other_optimizers) == 2
    assert torch.equal(others["net"].weight, networks["net"].weight)
    state = other_optimizers["opt"].state_dict()["state"]
    expected = optimizers["opt"].state_dict()["state"]
    assert all(torch.equal(state[i][key], expected[i][key]) for i in expected for key in expected[i])


def test_a_checkpoint_without_its_mark_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "step-00000004.safetensors").write_bytes(b"torn")
    assert load_checkpoint(tmp_path, {}, {}) == 0


def test_a_mark_without_its_tensors_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "step-00000004.json").write_text('{"step": 4}')
    assert load_checkpoint(tmp_path, {}, {}) == 0
    network = torch.nn.Linear(3, 2)
    save_checkpoint(tmp_path, 2, {"net": network}, {})
    (tmp_path / "step-00000004.json").write_text('{"step": 4}')
    other = torch.nn.Linear(3, 2)
    assert load_checkpoint(tmp_path, {"net": other}, {}) == 2
    assert torch.equal(other.weight, network.weight)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002.json", "step-00000002.safetensors"]


@pytest.mark.parametrize("older", [True, False], ids=["older one left", "none left"])
def test_training_goes_on_from_an_older_checkpoint_or_anew_where_the_tensors_are_gone(
    cohort: Cohort, tiny_config: MakeConfig, straight: Path, tmp_path: Path, older: bool
) -> None:
    def kill(step: int, generator: Generator) -> None:
        if step == 3:
            raise KilledError

    plan = plan_of(cohort, tiny_config(train={"monitor_every": 1}))
    with pytest.raises(KilledError):
        train_generator(plan, tmp_path, Watcher(kill))
    folder = tmp_path / "checkpoints"
    (folder / "step-00000004.json").write_text('{"step": 4}')
    if not older:
        (folder / "step-00000002.safetensors").unlink()
    seen: list[int] = []
    train_generator(plan, tmp_path, Watcher(lambda step, generator: seen.append(step)))
    assert seen == ([3, 4, 5, 6] if older else [0, 1, 2, 3, 4, 5, 6])
    assert digests(tmp_path) == digests(straight)


def test_a_missing_or_damaged_generator_is_refused_with_what_to_do(straight: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not found.*run the stage train"):
        load_generator(tmp_path)
    content = (straight / WEIGHTS_FILE).read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"PK" + content):
        (tmp_path / WEIGHTS_FILE).write_bytes(damaged)
        with pytest.raises(DataError, match=r"is damaged.*run the stage train again"):
            load_generator(tmp_path)


def test_a_loaded_generator_renders_and_asks_for_no_gradient(straight: Path) -> None:
    generator = load_generator(straight)
    assert not generator.training
    assert not any(p.requires_grad for p in generator.parameters())
    assert generator.config.n_classes == LabelScheme().n_condition_classes


def test_a_batch_has_the_style_of_the_person_whose_scan_it_shows(cohort: Cohort) -> None:
    cases = cohort.split("train")
    styles = np.arange(len(cases) * 2, dtype=np.float32).reshape(-1, 2)
    opened = [OpenCase.open(case, cohort.modalities) for case in cases]
    sampler = Sampler(opened, cohort.scheme, TrainSection(augmentation=()), styles)
    batch = sampler.draw(30, np.random.default_rng(0))
    for scan, style in zip(batch.scan.numpy(), batch.style.numpy(), strict=True):
        case = cases[int(style[0]) // 2]
        volume = read_scan(case, cohort.modalities, (slice(None), slice(None), slice(None)))
        assert (volume == scan[..., None]).all(axis=(0, 1, 2)).any()


def test_measured_styles_steer_the_training_where_there_are_persons_enough(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    cohort = open_cohort(write_toy_cohort(tmp_path / "cohort", {"train": 4}))
    for n_cases in (3, 4):
        found = {}
        for style in ("measured", "random"):
            plan = plan_of(cohort, tiny_config(train={"style": style, "steps": 2}), n_cases=n_cases)
            train_generator(plan, tmp_path / f"{style}-{n_cases}")
            found[style] = digest_file(tmp_path / f"{style}-{n_cases}" / WEIGHTS_FILE)
        assert (found["measured"] != found["random"]) == (n_cases >= PERSONS_PER_ENTRY)


def test_the_balance_of_classes_changes_what_is_learned(tiny_config: MakeConfig, tmp_path: Path) -> None:
    cohort = open_cohort(write_toy_cohort(tmp_path / "cohort", {"train": 3}))
    found = set()
    for balance in (0.0, 0.5, 0.5):
        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        train_generator(plan_of(cohort, tiny_config(train={"class_balance": balance, "steps": 2})), folder)
        found.add(digest_file(folder / WEIGHTS_FILE))
    # Two with the same balance are the same.
    assert len(found) == 2
