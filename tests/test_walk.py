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
from pipeline.generate.walk import N_STEPS, evenness, mix_shapes, mix_styles, read_shape, walk
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.train.generator import Generator, GeneratorConfig

SCHEME = LabelScheme()


def test_styles_stay_on_the_sphere_between_their_ends() -> None:
    first, second = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mix_styles(first, second, 0.0), first, atol=1e-5)
    assert torch.allclose(mix_styles(first, second, 1.0), second, atol=1e-5)
    unit = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(mix_styles(*unit, 0.5), torch.full((1, 2), 2**-0.5))
    assert torch.equal(mix_styles(first, first, 0.3), first)


def _ball(centre: tuple[int, int, int], radius: float) -> UInt8Array:
    distance = np.linalg.norm(np.indices((32, 32, 32)).T - np.array(centre)[::-1], axis=-1)
    return (distance <= radius).astype(np.uint8)


def test_shapes_begin_and_end_as_they_are() -> None:
    maps = []
    for seed in (1, 2):
        _, tissue, tumor = toy_brain((24, 24, 16), rng(seed))
        maps.append(SCHEME.combine(tissue, tumor))
    ends = [read_shape(one, SCHEME) for one in maps]
    np.testing.assert_array_equal(mix_shapes(*ends, 0.0, SCHEME), maps[0])
    np.testing.assert_array_equal(mix_shapes(*ends, 1.0, SCHEME), maps[1])


def test_tumors_apart_travel_whole_and_grow_between() -> None:
    brain = 2 * _ball((16, 16, 16), 14)
    # Both tumours reach the brain's edge, where outside is nearer than any tissue.
    near, far = _ball((4, 16, 16), 2), _ball((26, 16, 16), 4) * (brain > 0)
    maps = [SCHEME.combine(brain, tumor.astype(np.uint8)) for tumor in (near, far)]
    ends = [read_shape(one, SCHEME) for one in maps]
    for share, one in enumerate(maps):
        np.testing.assert_array_equal(mix_shapes(*ends, share, SCHEME), one)
    map_between = mix_shapes(*ends, 0.5, SCHEME)
    tissue, tumor = SCHEME.split(map_between)
    middle = np.argwhere(tumor > 0)
    np.testing.assert_allclose(middle.mean(axis=0), (15, 16, 16), atol=0.5)
    radius = (len(middle) * 3 / (4 * np.pi)) ** (1 / 3)
    assert radius == pytest.approx(3, abs=0.5)
    np.testing.assert_array_equal((tissue == 2) | (tumor > 0), brain > 0)


def test_what_one_end_has_not_shrinks_towards_it() -> None:
    brain = 2 * _ball((16, 16, 16), 14)
    oedema, with_core = 2 * _ball((16, 16, 16), 6), 2 * _ball((16, 16, 16), 6)
    with_core[_ball((16, 16, 16), 3) > 0] = 1
    for first, second, value in ((np.zeros_like(oedema), oedema, 2), (oedema, with_core, 1)):
        ends = [read_shape(SCHEME.combine(brain, tumor), SCHEME) for tumor in (first, second)]
        counts = []
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            _, tumor = SCHEME.split(mix_shapes(*ends, share, SCHEME))
            counts.append(int((tumor == value).sum()))
        assert counts == sorted(counts)
        assert counts[0] == 0
        assert 0 < counts[3] < counts[4] == (second == value).sum()
    assert read_shape(brain, SCHEME).centre is None
    np.testing.assert_array_equal(mix_shapes(*[read_shape(brain, SCHEME)] * 2, 0.5, SCHEME), brain)


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
