"""Placing a tumour: its size, its side, the room it needs, the tissue it pushes."""

import numpy as np
import pytest
from conftest import rng
from numpy.typing import NDArray

from pipeline.attributes import HEMISPHERES
from pipeline.errors import CaseError
from pipeline.generate.placement import fill_holes, list_places, place_tumor, push_tissue, rescale_tumor
from pipeline.generate.recombine import random_turn
from pipeline.lobes import LOBES, brain_box, find_lobes


def ball(shape: tuple[int, int, int], centre: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    return np.linalg.norm((np.indices(shape).T - np.array(centre)).T, axis=0) <= radius


def test_holes_are_filled_from_the_nearest_tissue_within_the_region_only() -> None:
    tissue = np.array([1, 0, 0, 0, 3], np.uint8).reshape(5, 1, 1)
    region = np.array([1, 1, 0, 1, 1], bool).reshape(5, 1, 1)
    assert fill_holes(tissue, region).ravel().tolist() == [1, 1, 0, 3, 3]
    assert fill_holes(np.zeros_like(tissue), region).ravel().tolist() == [0] * 5


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4])
def test_rescaling_changes_the_volume_by_the_cube_and_centres(scale: float) -> None:
    core, whole = (ball((32, 32, 32), (10, 12, 14), radius) for radius in (3, 7))
    tumor = np.where(core, 3, np.where(whole, 2, 0)).astype(np.uint8)
    turned = rescale_tumor(tumor, scale, random_turn(rng()))
    assert (turned > 0).sum() == pytest.approx((tumor > 0).sum() * scale**3, rel=0.1)
    np.testing.assert_allclose(np.argwhere(turned > 0).mean(axis=0), 15.5, atol=0.3)
    assert (turned == 3).sum() == pytest.approx((tumor == 3).sum() * scale**3, rel=0.25)


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
def test_a_tumour_is_placed_whole_within_the_brain_on_its_side(hemisphere: str) -> None:
    tissue = np.where(ball((32, 32, 32), (15.5, 15.5, 15.5), 14), 3, 0).astype(np.uint8)
    tumor = np.where(ball((32, 32, 32), (16, 16, 16), 4), 2, 0).astype(np.uint8)
    placed = place_tumor(tissue, tumor, hemisphere, None, rng())
    assert (placed > 0).sum() >= 0.98 * (tumor > 0).sum()
    assert (tissue[placed > 0] > 0).all()
    centre_x = np.argwhere(placed > 0).mean(axis=0)[0]
    assert (centre_x < 15.5) == (hemisphere == "left")


def test_a_tumour_is_placed_in_the_lobe_asked_for_where_the_brain_has_it() -> None:
    tissue = np.where(ball((32, 32, 32), (15.5, 15.5, 15.5), 14), 3, 0).astype(np.uint8)
    tumor = np.where(ball((32, 32, 32), (16, 16, 16), 2), 2, 0).astype(np.uint8)
    box = brain_box(tissue > 0, np.eye(4))
    for lobe in ("frontal", "occipital", "deep"):
        placed = place_tumor(tissue, tumor, "right", lobe, rng())
        centre = np.argwhere(placed > 0).mean(axis=0)
        assert LOBES[find_lobes(centre[None], box)[0]] == lobe
    back = list_places(tissue > 0, tissue > 0, "right", "occipital")
    without = (tissue > 0).copy()
    without[tuple(back.T)] = False
    assert len(list_places(without, tissue > 0, "right", "occipital")) == (without[16:]).sum()


def test_a_tumour_without_room_is_refused() -> None:
    tissue = np.where(ball((32, 32, 32), (15.5, 15.5, 15.5), 5), 3, 0).astype(np.uint8)
    tumor = np.where(ball((32, 32, 32), (16, 16, 16), 7), 2, 0).astype(np.uint8)
    with pytest.raises(CaseError, match="no place in the brain"):
        place_tumor(tissue, tumor, "left", None, rng())


def test_a_hemisphere_without_grey_or_white_matter_is_refused() -> None:
    tissue = np.where(ball((32, 32, 32), (15.5, 15.5, 15.5), 12), 3, 0).astype(np.uint8)
    tissue[:16][tissue[:16] > 0] = 1
    tumor = np.where(ball((32, 32, 32), (16, 16, 16), 2), 2, 0).astype(np.uint8)
    assert place_tumor(tissue, tumor, "right", None, rng()).any()
    with pytest.raises(CaseError, match="no place in the brain"):
        place_tumor(tissue, tumor, "left", None, rng())


def test_tissue_is_pushed_outwards_and_the_outline_stays() -> None:
    tissue = np.where(ball((40, 40, 40), (20, 20, 20), 17), 3, 0).astype(np.uint8)
    tissue[ball((40, 40, 40), (20, 20, 20), 5)] = 1
    tumor = np.where(ball((40, 40, 40), (20, 20, 20), 6), 1, 0).astype(np.uint8)
    pushed = push_tissue(tissue, tumor, 4.0, 0.3)
    np.testing.assert_array_equal(pushed > 0, tissue > 0)
    assert (pushed == 1).sum() > 1.2 * (tissue == 1).sum()
