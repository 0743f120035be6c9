"""Quality figures of one scan: each reacts to what it is for, and to nothing else."""

from typing import NamedTuple

import numpy as np
import pytest
from conftest import rng, toy_brain
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.ingest.scan_quality import find_filling, measure_scan, noise_sd, slice_jumps

SHAPE, SPACING_MM = (40, 48, 40), 4.0


class Toy(NamedTuple):
    scan: NDArray[np.float32]
    brain: NDArray[np.bool_]

    def measure(self, scan: NDArray[np.floating] | None = None) -> dict[str, float]:
        shown = self.scan if scan is None else scan
        return measure_scan(shown.astype(np.float32), np.ones(SHAPE, bool), self.brain, SPACING_MM)


@pytest.fixture(scope="module", params=["t1", "flair"])
def toy(request: pytest.FixtureRequest) -> Toy:
    images, tissue, tumor = toy_brain(SHAPE, rng(3))
    return Toy(images[request.param], (tissue > 0) | (tumor > 0))


def ghost(scan: NDArray[np.floating], axis: int, shift_voxels: float = 1.0) -> NDArray[np.floating]:
    """Move the head to and fro along an axis while its k-space is filled: ghosts 8 voxels away."""
    n = scan.shape[axis]
    place = shift_voxels * np.sin(2 * np.pi * 8 * np.arange(n) / n)
    phase = np.exp(-2j * np.pi * np.fft.fftfreq(n) * np.fft.ifftshift(place))
    lines = np.fft.fft(np.moveaxis(scan, axis, -1), axis=-1) * phase
    return np.moveaxis(np.abs(np.fft.ifft(lines, axis=-1)), -1, axis)


def interior(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.pad(np.ones([n - 6 for n in shape], bool), 3)


def test_white_noise_is_measured_as_large_as_it_is() -> None:
    noise = rng().normal(10, 2, (30, 30, 30)).astype(np.float32)
    assert noise_sd(noise, interior(noise.shape)) == pytest.approx(2, rel=0.05)


def test_noise_does_not_hide_where_slices_were_interpolated() -> None:
    thick = np.repeat(rng().normal(0, 2, (30, 30, 10)), 3, axis=2).astype(np.float32)
    assert noise_sd(thick, interior(thick.shape)) == pytest.approx(2, rel=0.05)


def test_more_noise_lowers_the_signal_to_noise(toy: Toy) -> None:
    ratios = [toy.measure(toy.scan + rng().normal(0, sd, SHAPE))["snr"] for sd in (0, 4, 8, 16)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 3 * ratios[-1]


@pytest.mark.parametrize(("factor", "offset"), [(0.01, 0), (300, 0), (1, -60), (0.05, -3)])
def test_unit_and_zero_of_the_brightness_do_not_matter(toy: Toy, factor: float, offset: float) -> None:
    before, after = toy.measure(), toy.measure(toy.scan * factor + offset)
    for name in ("low", "high"):
        assert after.pop(name) == pytest.approx(before.pop(name) * factor + offset, rel=1e-3)
    assert after == pytest.approx(before, rel=0.01)


def test_what_lies_outside_the_brain_does_not_matter(toy: Toy) -> None:
    skull = np.where(toy.brain, toy.scan, rng().uniform(0, 1000, SHAPE))
    assert toy.measure(skull) == pytest.approx(toy.measure(), rel=1e-6)


def test_darkest_and_brightest_are_percentiles_in_the_scans_unit(toy: Toy) -> None:
    figures = toy.measure()
    np.testing.assert_allclose([figures["low"], figures["high"]], np.percentile(toy.scan[toy.brain], [0.5, 99.8]))


@pytest.mark.parametrize("filling", [0.0, 7.5, 55.0, -3.0])
def test_a_slab_filled_by_others_covers_its_share_of_the_brain(toy: Toy, filling: float) -> None:
    slab = np.s_[:, :, 24:]
    scan = toy.scan.copy()
    scan[slab] = filling
    resampled = ndimage.gaussian_filter(scan, 0.5)
    missing = toy.brain[slab].sum() / toy.brain.sum()
    assert toy.measure(resampled)["coverage"] == pytest.approx(1 - missing, abs=0.04)
    assert toy.measure()["coverage"] == 1


def test_a_slab_by_its_field_of_view_covers_its_share_of_the_brain(toy: Toy) -> None:
    reached = np.ones(SHAPE, bool)
    reached[:, :, 24:] = False
    figures = measure_scan(toy.scan, reached, toy.brain, SPACING_MM)
    assert figures["coverage"] == pytest.approx((toy.brain & reached).sum() / toy.brain.sum())


def test_the_part_of_a_slab_that_is_there_is_measured_as_ever(toy: Toy) -> None:
    scan = toy.scan.copy()
    scan[:, :, 24:] = 0
    before, after = toy.measure(), toy.measure(scan)
    assert after["snr"] == pytest.approx(before["snr"], rel=0.15)
    assert after["low"] == pytest.approx(before["low"], rel=0.1)


def test_equal_values_here_and_there_are_no_filling() -> None:
    coarse = rng().integers(0, 8, (20, 20, 20)).astype(np.float32)
    assert not find_filling(coarse, np.ones(coarse.shape, bool)).any()


def test_a_scan_that_shows_nothing_has_a_coverage_and_no_more(toy: Toy) -> None:
    assert toy.measure(np.full(SHAPE, 5.0)) == {"coverage": 0.0}
    assert measure_scan(toy.scan, np.zeros(SHAPE, bool), toy.brain, SPACING_MM) == {"coverage": 0.0}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ghosts_raise_the_figure_of_motion(toy: Toy, axis: int) -> None:
    assert toy.measure(ghost(toy.scan, axis))["motion"] > 1.3 * toy.measure()["motion"]


def test_noise_and_blur_are_not_taken_for_motion(toy: Toy) -> None:
    for scan in (toy.scan + rng().normal(0, 8, SHAPE), ndimage.gaussian_filter(toy.scan, 0.7)):
        assert toy.measure(scan)["motion"] < 1.3 * toy.measure()["motion"]


def test_smoothing_raises_the_blur_along_any_axis(toy: Toy) -> None:
    for axis in range(3):
        blurred = ndimage.gaussian_filter1d(toy.scan, 1.5, axis=axis)
        assert toy.measure(blurred)["blur"] > 1.05 * toy.measure()["blur"]


def test_shading_lowers_the_local_contrast(toy: Toy) -> None:
    shading = np.linspace(0.3, 1.7, SHAPE[0])[:, None, None]
    assert toy.measure(toy.scan * shading)["contrast"] < toy.measure()["contrast"] - 0.05


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slices", [slice(14, 15), slice(None, None, 2)])
def test_slices_that_are_too_bright_raise_the_slice_jumps(toy: Toy, axis: int, slices: slice) -> None:
    scan = toy.scan.copy()
    np.moveaxis(scan, axis, 0)[slices] *= 1.15
    assert toy.measure(scan)["slice_jumps"] > 1.5 * toy.measure()["slice_jumps"]


def test_slice_jumps_of_a_hand_made_scan() -> None:
    # Every slice differs by 1 from both neighbours; along the other axes nothing changes.
    scan = np.zeros((6, 6, 12), np.float32)
    scan[:, :, ::2] = 1
    assert slice_jumps(scan, np.ones(scan.shape, bool), 4.0) == pytest.approx(1.0)
