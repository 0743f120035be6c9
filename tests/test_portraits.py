"""Portraits and gallery: pose, contrast and grid do not count, the person does."""

import numpy as np
import pytest
from audit_builders import setting_of
from conftest import rng
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.audit.constructions import KINDS, construct, move
from pipeline.audit.copies import LEVELS
from pipeline.audit.gallery import Gallery
from pipeline.audit.portraits import (
    SYMMETRIES,
    coarsen,
    draw_portrait,
    own_frame,
    read_scan_and_labels,
    turn_cube,
)
from pipeline.cohort import Cohort
from pipeline.labels import LabelScheme


@pytest.fixture(scope="module")
def scans(cohort: Cohort) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return scans of ten persons with room about them."""
    setting, pads = setting_of(cohort), [(4, 4), (4, 4), (8, 8)]
    read = [read_scan_and_labels(case, setting) for case in cohort.cases[:10]]
    return [(np.pad(images, [(0, 0), *pads]), np.pad(labels, pads)) for images, labels in read]


@pytest.fixture(scope="module")
def gallery(scans: list[tuple[np.ndarray, np.ndarray]]) -> Gallery:
    return Gallery([draw_portrait(*scan, LabelScheme()) for scan in scans])


def test_symmetries_are_the_48_of_a_cube() -> None:
    cube = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    turned = {turn_cube(cube, symmetry).tobytes() for symmetry in SYMMETRIES}
    assert len(turned) == len(SYMMETRIES) == 48
    assert turn_cube(np.stack([cube, cube]), SYMMETRIES[5])[1].tobytes() == turn_cube(cube, SYMMETRIES[5]).tobytes()


def test_the_frame_of_an_ellipsoid_is_its_own() -> None:
    turn = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    centred = np.indices((40, 40, 40)).reshape(3, -1).T - np.array([19.5, 22.5, 19.5])
    mask = (((centred @ turn) / [14, 10, 6]) ** 2).sum(axis=1).reshape(40, 40, 40) <= 1
    centre, axes, spread = own_frame(mask)
    np.testing.assert_allclose(centre, [19.5, 22.5, 19.5], atol=0.05)
    np.testing.assert_allclose(axes, turn, atol=0.03)
    # Variances of an ellipsoid are a fifth of the squared half axes.
    assert spread == pytest.approx(np.sqrt((14**2 + 10**2 + 6**2) / 15), rel=0.02)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rescaled"])
def test_a_copy_is_most_like_its_original_whatever_was_done_to_it(
    kind: str, scans: list[tuple[np.ndarray, np.ndarray]], gallery: Gallery
) -> None:
    assert len(gallery) == 10
    for index in (0, 3, 6):
        copy = construct(kind, *scans[index], 8.0, rng(index))
        likeness = gallery.likeness(draw_portrait(*copy, LabelScheme()))
        assert set(likeness) == set(LEVELS)
        for level in LEVELS:
            assert likeness[level].shape == (10,)
            assert likeness[level].argmax() == index, (kind, level)


def test_modalities_in_each_others_guise_and_one_alone_are_seen(
    scans: list[tuple[np.ndarray, np.ndarray]], gallery: Gallery
) -> None:
    images, labels = scans[2]
    exchanged = gallery.likeness(draw_portrait(images[[1, 2, 3, 0]], labels, LabelScheme()))
    assert exchanged["scan"][2] == pytest.approx(1, abs=0.01)
    mixed = np.where(labels > 0, scans[5][0], 0)
    mixed[3] = images[3]
    alone = gallery.likeness(draw_portrait(mixed, labels, LabelScheme()))
    assert alone["scan"].argmax() == 2
    assert alone["scan"][2] == pytest.approx(1, abs=0.01)


def test_a_tumour_in_another_brain_is_seen_by_its_own_texture(
    scans: list[tuple[np.ndarray, np.ndarray]], gallery: Gallery
) -> None:
    images, labels = scans[1]
    stranger = np.where(labels > 0, rng(4).normal(400, 100, images.shape), 0).astype(np.float32)
    pasted = np.where(labels > 3, images, ndimage.gaussian_filter(stranger, (0, 1, 1, 1))).astype(np.float32)
    likeness = gallery.likeness(draw_portrait(pasted, labels, LabelScheme()))
    assert likeness["tumor"].argmax() == 1
    assert likeness["tumor"][1] == pytest.approx(1, abs=0.01)
    assert likeness["scan"][1] < 0.8


def test_a_scan_without_a_tumour_is_like_no_tumour(
    scans: list[tuple[np.ndarray, np.ndarray]], gallery: Gallery
) -> None:
    images, labels = scans[0]
    healthy = np.where(labels > 3, 3, labels).astype(np.uint8)
    assert gallery.likeness(draw_portrait(images, healthy, LabelScheme()))["tumor"].max() == 0.0


def test_a_fine_grid_is_brought_to_four_millimetres() -> None:
    images = np.repeat(np.arange(8, dtype=np.float32)[None, :, None, None], 2, axis=0) * np.ones(
        (1, 1, 5, 4), np.float32
    )
    labels = np.ones((8, 5, 4), np.uint8)
    coarse, found, spacing_mm = coarsen(images, labels, 2.0)
    assert coarse.shape == (2, 4, 3, 2)
    assert found.shape == (4, 3, 2)
    assert spacing_mm == 4.0
    assert coarse[0, :, 0, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
    for one, other in zip(coarsen(images, labels, 4.0), (images, labels, 4.0), strict=True):
        assert one is other


def test_copies_lose_what_leaves_the_grid_and_are_nothing_outside_the_brain(
    scans: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    images, labels = scans[0]
    for kind in KINDS:
        changed, moved = construct(kind, images, labels, 8.0, rng(2))
        assert changed.shape == images.shape
        assert moved.shape == labels.shape
        assert (changed[:, moved == 0] == 0).all()
        assert changed.min() >= 0
        assert changed.dtype == np.float32
    shifted = move(images, labels, np.eye(3), np.array([3.0, 0.0, 0.0]))
    np.testing.assert_allclose(shifted[0][:, :-3], images[:, 3:], atol=1e-3)
    np.testing.assert_array_equal(shifted[1][:-3], labels[3:])
