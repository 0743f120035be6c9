"""Rendering: noise of unit variance, slices that agree, the same in chunks, intensities as promised."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import write_toy_cohort
from numpy.typing import NDArray

from pipeline.cohort import Cohort, open_cohort
from pipeline.generate import sampling
from pipeline.generate.sampling import _slice_noise, render_volume, render_with_style, to_intensity
from pipeline.seeds import torch_stream
from pipeline.train.generator import Generator


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(write_toy_cohort(tmp_path_factory.mktemp("sampling") / "cohort", {"train": 4}))


@pytest.mark.parametrize("smoothness", [0.5, 1.5, 8.0])
@pytest.mark.parametrize("n_slices", [1, 4, 9, 16, 60])
def test_slice_noise_has_unit_variance_whatever_the_number_of_slices(n_slices: int, smoothness: float) -> None:
    noise = _slice_noise(n_slices, (120, 100), smoothness, torch_stream(0, "noise")).numpy()
    assert noise.shape == (n_slices, 1, 120, 100)
    # 12,000 independent columns: the relative error of a variance is about sqrt(2 / 12,000) = .013.
    np.testing.assert_allclose(noise.var(axis=(1, 2, 3)), 1.0, atol=0.06)


def test_noise_of_neighbouring_slices_correlates_and_of_distant_ones_does_not() -> None:
    noise = _slice_noise(40, (100, 100), 1.5, torch_stream(0, "noise")).numpy().reshape(40, -1)
    # White noise smoothed by a Gaussian of 1.5: correlation exp(-d^2 / (4 * 1.5^2)) at distance d.
    for distance in (1, 2, 4):
        expected = np.exp(-(distance**2) / (4 * 1.5**2))
        assert np.corrcoef(noise[10], noise[10 + distance])[0, 1] == pytest.approx(expected, abs=0.05)
    assert abs(np.corrcoef(noise[10], noise[25])[0, 1]) < 0.05


def test_noise_is_as_smooth_across_slices_as_a_voxel_of_its_level_is_wide(
    cohort: Cohort, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def record(n_slices: int, shape: tuple[int, ...], smoothness: float, stream: torch.Generator) -> torch.Tensor:
        asked.append((shape, smoothness))
        return torch.zeros(n_slices, 1, *shape)

    monkeypatch.setattr(sampling, "_slice_noise", record)
    render_volume(generator, cohort.cases[0].condition(cohort.scheme), torch_stream(1, "style"))
    assert asked == [((6, 6), 2.0), ((12, 12), 1.0), ((24, 24), 0.5)]


def test_neighbouring_rendered_slices_agree_as_independent_ones_do_not(cohort: Cohort, generator: Generator) -> None:
    # The same map in every slice: whatever differs between slices comes from style and noise.
    slab = np.repeat(cohort.cases[0].condition(cohort.scheme)[:, :, 8:9], 16, axis=2)
    brain = slab[:, :, 0] > 0
    generator = deepcopy(generator)
    with torch.no_grad():
        # Grain differs from slice to slice; the coarsest noise, over four slices here, does not.
        for block in generator.blocks:
            block.noise_strength.fill_(float(block is generator.blocks[0]))

    def roughness(scan: NDArray[np.float32]) -> float:
        return float(np.abs(np.diff(scan[:, brain], axis=2)).mean())

    whole = render_volume(generator, slab, torch_stream(1, "whole"))
    independent = np.concatenate(
        [render_volume(generator, slab[:, :, z : z + 1], torch_stream(1, "slice", z)) for z in range(16)], axis=3
    )
    one_style = torch.zeros(1, 4)
    without_smoothing = np.concatenate(
        [render_with_style(generator, slab[:, :, :1], one_style, torch_stream(1, "slice", z)) for z in range(16)],
        axis=3,
    )
    assert 0 < roughness(whole) < 0.6 * roughness(without_smoothing)
    assert roughness(without_smoothing) < roughness(independent)


def test_rendering_in_chunks_changes_nothing(
    cohort: Cohort, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    condition = cohort.cases[0].condition(cohort.scheme)
    whole = render_volume(generator, condition, torch_stream(1, "x"))
    assert whole.shape == (4, *condition.shape)
    assert (whole[:, condition == 0] == -1).all()
    monkeypatch.setattr("pipeline.generate.sampling.SLICES_AT_ONCE", 5)
    np.testing.assert_allclose(render_volume(generator, condition, torch_stream(1, "x")), whole, atol=1e-5)


def test_intensities_are_scaled_to_0_to_1000_and_0_outside() -> None:
    scan = np.array([-1.0, 0.0, 1.0, 1.5, 0.5], np.float32)
    brain = np.array([1, 1, 1, 1, 0], bool)
    assert to_intensity(scan, brain).tolist() == [0, 500, 1000, 1000, 0]
    assert to_intensity(scan, brain).dtype == np.int16
