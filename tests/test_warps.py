"""Warps: identity, diffeomorphism, composition, labels."""

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.warps import (
    compose,
    mass_effect,
    random_field,
    random_warp,
    warp_image,
    warp_labels,
)

SHAPE = (40, 44, 36)
SPACING = (4.0, 4.0, 4.0)


def jacobian_determinant(displacement, spacing_mm):
    """Return the local change of volume, by central differences."""
    rows = [np.stack(np.gradient(component, *spacing_mm)) for component in displacement]
    for axis, row in enumerate(rows):
        row[axis] += 1.0
    a, b, c = rows
    return (a * np.cross(b, c, axis=0)).sum(axis=0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_zero_amplitude_is_the_identity(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 5, SHAPE).astype(np.uint8)
    displacement = random_warp(SHAPE, SPACING, 0.0, 20.0, rng)
    assert not displacement.any()
    np.testing.assert_array_equal(warp_labels(labels, displacement, SPACING, 5), labels)
    np.testing.assert_array_equal(warp_image(labels, displacement, SPACING), labels)


@pytest.mark.parametrize("smoothness_mm", [8.0, 20.0])
@pytest.mark.parametrize("spacing", [SPACING, (2.0, 3.0, 4.0)])
def test_strongest_allowed_warp_folds_nowhere_and_keeps_the_border(
    smoothness_mm: float, spacing: tuple[float, float, float], rng: np.random.Generator
) -> None:
    amplitude_mm = 0.34 * min(smoothness_mm, *(n * s / 6 for n, s in zip(SHAPE, spacing, strict=True)))
    displacement = random_warp(SHAPE, spacing, amplitude_mm, smoothness_mm, rng)
    assert jacobian_determinant(displacement, spacing).min() > 0
    assert np.sqrt((displacement**2).sum(axis=0).mean()) == pytest.approx(amplitude_mm, rel=0.1)
    for axis in range(3):
        for end in (0, -1):
            assert not np.take(displacement, end, axis=axis + 1).any()


def test_same_seed_gives_the_same_warp() -> None:
    first, second = (random_warp(SHAPE, SPACING, 3.0, 15.0, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_shift_moves_an_image_by_the_displacement_in_millimetres() -> None:
    image = np.zeros((8, 8, 8), np.float32)
    image[5, 4, 3] = 1.0
    displacement = np.zeros((3, 8, 8, 8), np.float32)
    displacement[0] = 6.0
    warped = warp_image(image, displacement, (3.0, 1.0, 1.0))
    assert warped[3, 4, 3] == 1.0
    assert warped.sum() == 1.0


def test_composed_shifts_add_up() -> None:
    one, two = np.zeros((2, 3, 6, 6, 6), np.float32)
    one[1], two[1] = 2.0, 3.0
    np.testing.assert_allclose(compose(one, two, SPACING)[1], 5.0)


def test_composed_warp_equals_warping_twice(rng: np.random.Generator) -> None:
    first, second = (random_warp(SHAPE, SPACING, 4.0, 16.0, rng) for _ in range(2))
    image = random_field(SHAPE, SPACING, 24.0, rng)
    twice = warp_image(warp_image(image, first, SPACING), second, SPACING)
    at_once = warp_image(image, compose(first, second, SPACING), SPACING)
    assert np.abs(twice - at_once).mean() < 0.02


def test_mass_effect_pushes_outwards_without_folding() -> None:
    centre = (80.0, 88.0, 72.0)
    displacement = mass_effect(SHAPE, SPACING, centre, radius_mm=20.0, push_mm=10.0)
    assert jacobian_determinant(displacement, SPACING).min() > 0
    ball = np.zeros(SHAPE, np.float32)
    ball[18:23, 20:25, 16:21] = 1.0
    assert warp_image(ball, displacement, SPACING).sum() > 2 * ball.sum()
    # Pulled back: on the far side of the centre (at larger x) tissue comes from smaller x.
    assert displacement[0, 26, 22, 18] < -4
    assert displacement[0, 14, 22, 18] > 4


def test_mass_effect_leaves_alone_what_cannot_move() -> None:
    mobility = np.ones(SHAPE, np.float32)
    mobility[24:] = 0.0
    displacement = mass_effect(SHAPE, SPACING, (80.0, 88.0, 72.0), 12.0, 6.0, mobility)
    assert np.abs(displacement[:, 28:]).max() < 0.1


def test_warped_labels_are_the_argmax_of_warped_shares(rng: np.random.Generator) -> None:
    labels = np.clip(random_field(SHAPE, SPACING, 9.0, rng) + 2, 0, 4).astype(np.uint8)
    displacement = random_warp(SHAPE, SPACING, 4.0, 16.0, rng)
    shares = [warp_image(labels == value, displacement, SPACING) for value in range(5)]
    warped = warp_labels(labels, displacement, SPACING, 5)
    assert warped.dtype == np.uint8
    assert set(np.unique(warped)) <= set(np.unique(labels))
    assert (warped != np.argmax(shares, axis=0)).mean() < 1e-4


def test_lengths_out_of_range_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ConfigError, match="smoothness_mm"):
        random_field(SHAPE, SPACING, 0.0, rng)
    with pytest.raises(ConfigError, match="smoothness_mm"):
        random_warp(SHAPE, SPACING, 1.0, -1.0, rng)
    with pytest.raises(ConfigError, match="amplitude_mm"):
        random_warp(SHAPE, SPACING, 9.0, 10.0, rng)
    with pytest.raises(ConfigError, match="amplitude_mm"):
        random_warp(SHAPE, SPACING, -1.0, 10.0, rng)
    with pytest.raises(ConfigError, match="radius_mm"):
        mass_effect(SHAPE, SPACING, (0.0, 0.0, 0.0), 0.0, 1.0)
