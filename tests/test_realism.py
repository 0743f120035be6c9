"""Realism: figures that are 0 for like, known for shifted, and larger the more is wrong."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.generate.realism import (
    frechet_distance,
    histogram_distances,
    kernel_distance,
    power_spectrum,
    spectrum_distance,
    standardise,
    structural_likeness,
    to_components,
)


def normal(n, mean=0.0, sd=1.0, seed=0, features=3):
    return np.random.default_rng(seed).normal(mean, sd, (n, features))


def slices(n, seed=0, sigma=1.0, size=48):
    """Return n slices of smooth noise in a round brain."""
    stream = np.random.default_rng(seed)
    x, y = np.meshgrid(*[np.linspace(-1, 1, size)] * 2)
    brain = x**2 + y**2 < 0.8
    scans = ndimage.gaussian_filter(stream.normal(size=(n, 2, size, size)), (0, 0, sigma, sigma))
    scans = 500 + 150 * scans / scans.std()
    return np.where(brain, np.clip(scans, 1, 1000), 0).astype(np.float32)


def test_frechet_distance_of_normal_samples_is_the_formulas():
    assert frechet_distance(normal(50), normal(50)) == pytest.approx(0.0, abs=1e-9)
    shifted = normal(50) + np.array([3.0, 0.0, 4.0])
    assert frechet_distance(normal(50), shifted) == pytest.approx(25.0)
    # Of independent axes: the sum of squared differences of standard deviations, here 3 * (2 - 1)^2.
    assert frechet_distance(normal(40000), normal(40000, sd=2.0, seed=1)) == pytest.approx(3.0, rel=0.05)


def test_kernel_distance_is_unbiased_and_finds_a_shift():
    same = [kernel_distance(normal(40, seed=2 * s), normal(40, seed=2 * s + 1)) for s in range(200)]
    error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 4 * error
    assert min(same) < 0
    assert kernel_distance(normal(200), normal(200, mean=1.0, seed=1)) > 10 * np.std(same)
    # By hand: kernel (xy + 1)^3 of {1, -1} is 8 on the diagonal and 0 beside it; of {1, -1} to {0, 0} it is 1.
    assert kernel_distance(np.array([[1.0], [-1.0]]), np.zeros((2, 1))) == pytest.approx(0.0 + 1.0 - 2.0)


def test_features_are_measured_in_the_references_units():
    reference = normal(500, mean=7.0, sd=3.0)
    first, second = standardise(reference, reference * 2)
    np.testing.assert_allclose(first.std(axis=0), 1.0)
    np.testing.assert_allclose(second.std(axis=0), 2.0)


def test_components_are_the_references_main_axes_and_few_for_few_rows():
    stream = np.random.default_rng(0)
    reference = stream.normal(size=(200, 30)) * np.linspace(5, 0.1, 30)
    first, second = to_components(reference, reference + 1.0)
    assert first.shape == (200, 16)
    assert (np.diff(first.std(axis=0)) < 0).all()
    np.testing.assert_allclose(first.mean(axis=0), 0.0, atol=1e-9)
    # The shift of 1 in each of 30 features is of length sqrt(30); 16 axes see a part of it.
    assert 0 < np.linalg.norm((second - first)[0]) <= np.sqrt(30)
    assert to_components(reference, reference[:20])[0].shape == (200, 5)


def test_likeness_is_one_for_the_same_and_falls_with_noise():
    scan = slices(1)[0]
    assert structural_likeness(scan, scan) == pytest.approx(1.0)
    stream = np.random.default_rng(0)
    noisy = [structural_likeness(scan, scan + stream.normal(0, sd, scan.shape).astype(np.float32)) for sd in (20, 100)]
    assert 1 > noisy[0] > noisy[1] > 0
    assert structural_likeness(scan * 0, scan * 0) == 1.0


def test_histograms_differ_by_the_shift_of_the_tissue_that_is_shifted():
    tissue = np.zeros((48, 48), np.uint8)
    tissue[10:20], tissue[20:38] = 2, 3
    first = [(scan, tissue) for scan in slices(3)]
    second = [(np.where(tissue == 2, scan + 100, scan), tissue) for scan in slices(3)]
    found = histogram_distances(first, second, ("t1", "t2"))
    assert set(found) == {f"{m}/{t}" for m in ("t1", "t2") for t in ("grey_matter", "white_matter")}
    assert found["t1/grey_matter"] == pytest.approx(0.1, abs=1e-4)
    assert found["t2/white_matter"] == 0.0


def test_a_wave_has_its_power_at_its_frequency():
    x = np.arange(32)
    for cycles in (3, 9):
        wave = np.cos(2 * np.pi * cycles * x / 32)[None, :, None] * np.ones((1, 1, 32))
        assert power_spectrum(wave.astype(np.float32)).argmax() == cycles - 1


def test_spectra_tell_blur_and_checkerboards_from_another_sample():
    real, other = slices(20, 0), slices(20, 1)
    like = spectrum_distance(real, other)
    assert spectrum_distance(real, real) == 0.0
    blurred = [ndimage.gaussian_filter(scan, (0, 1, 1)) for scan in other]
    grid = 1 + 0.2 * (np.indices((48, 48)).sum(axis=0) % 2)
    assert spectrum_distance(real, blurred) > 5 * like
    assert spectrum_distance(real, [scan * grid for scan in other]) > 2 * like
