"""Walks over styles and shapes: even where the generator is smooth, and their ends are what they start from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import rng, toy_brain, write_toy_cohort
from matplotlib.image import imread

from pipeline.cohort import open_cohort
from pipeline.figures import GAP_PIXELS, TILE_PIXELS
from pipeline.generate.pictures import save_plan, stratum_shares
from pipeline.generate.walk import N_STEPS, evenness, mix_labels, mix_styles, walk
from pipeline.labels import LabelScheme
from pipeline.train.generator import Generator, GeneratorConfig

SCHEME = LabelScheme()


def test_styles_stay_on_the_sphere_between_their_ends() -> None:
    first, second = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mix_styles(first, second, 0.0), first, atol=1e-5)
    assert torch.allclose(mix_styles(first, second, 1.0), second, atol=1e-5)
    unit = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(mix_styles(*unit, 0.5), torch.full((1, 2), 2**-0.5))
    assert torch.equal(mix_styles(first, first, 0.3), first)


def test_shapes_begin_and_end_as_they_are_and_grow_between() -> None:
    maps = []
    for seed in (1, 2):
        _, tissue, tumor = toy_brain((24, 24, 16), rng(seed))
        maps.append(SCHEME.combine(tissue, tumor))
    n_classes = SCHEME.n_condition_classes
    np.testing.assert_array_equal(mix_labels(*maps, 0.0, n_classes), maps[0])
    np.testing.assert_array_equal(mix_labels(*maps, 1.0, n_classes), maps[1])
    small, large = np.zeros((20, 20, 20), np.uint8), np.zeros((20, 20, 20), np.uint8)
    small[8:12, 8:12, 8:12], large[4:16, 4:16, 4:16] = 3, 3
    between = mix_labels(small, large, 0.5, n_classes) == 3
    # Half way between edges of 4 and 12 voxels.
    assert (between.any(axis=(1, 2)).sum(), between.any(axis=(0, 1)).sum()) == (8, 8)


def test_even_steps_count_one_and_a_single_jump_counts_all() -> None:
    ramp = [np.full((1, 4, 4), value, np.float32) for value in range(7)]
    assert evenness(ramp) == pytest.approx(1.0)
    jump = [np.full((1, 4, 4), float(value > 3), np.float32) for value in range(7)]
    assert evenness(jump) == pytest.approx(6.0)
    assert evenness(ramp[:1] * 3) == 1.0


@pytest.mark.parametrize("dimensions", [2, 3])
def test_picture_has_a_column_for_each_step_and_both_walks_are_measured(dimensions: int, tmp_path: Path) -> None:
    config = GeneratorConfig(
        dimensions=dimensions, n_classes=7, n_modalities=4, channels=4, levels=2, style_size=4, context_slices=1
    )
    torch.manual_seed(0)
    generator = Generator(config).requires_grad_(False)
    cohort = open_cohort(write_toy_cohort(tmp_path / "synthetic", {"n/a": 3}))
    found = walk(generator, cohort, 1, tmp_path / "walk.png")
    assert 1.0 < found["style"] < 6.0
    assert 1.0 < found["shape"] < 6.0
    side = TILE_PIXELS + GAP_PIXELS
    assert imread(tmp_path / "walk.png").shape[:2] == (5 * side, N_STEPS * side)
    assert walk(generator, cohort, 1, tmp_path / "again.png") == found
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "walk.png").read_bytes()


def test_a_walk_of_one_case_is_no_error(generator: Generator, tmp_path: Path) -> None:
    cohort = open_cohort(write_toy_cohort(tmp_path / "synthetic", {"n/a": 1}))
    assert walk(generator, cohort, 1, tmp_path / "walk.png")["shape"] == 1.0


def test_plan_is_drawn_as_shares_of_each_attribute(tmp_path: Path) -> None:
    table = [
        {"volume": "small", "hemisphere": "left", "asked": 3, "obtained": 2, "seen": 0, "source": 1},
        {"volume": "small", "hemisphere": "right", "asked": 1, "obtained": 1, "seen": 0, "source": 0},
        {"volume": "large", "hemisphere": "left", "asked": 4, "obtained": 1, "seen": 0, "source": 3},
    ]
    assert stratum_shares(table, "volume", "asked") == {"small": 0.5, "large": 0.5}
    assert stratum_shares(table, "hemisphere", "source") == {"left": 1.0, "right": 0.0}
    assert stratum_shares(table, "volume", "seen") == {"small": 0.0, "large": 0.0}
    save_plan(table, tmp_path / "figures" / "plan.png")
    drawn = imread(tmp_path / "figures" / "plan.png")
    assert (drawn[..., :3] != 1).any(axis=-1).mean() > 0.05
