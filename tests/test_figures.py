"""Pictures of cases: outlines where the masks are, the image elsewhere."""

import numpy as np
from conftest import rng, toy_brain

from pipeline.figures import BRAIN_COLOUR, GAP_PIXELS, OUTLINE_COLOURS, TILE_PIXELS, grey_tile, quality_picture


def matches(rgb: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return (rgb == colour).all(axis=-1)


def test_outline_of_the_brain_is_one_pixel_wide_and_inside_it() -> None:
    brain = np.zeros((TILE_PIXELS, TILE_PIXELS), bool)
    brain[40:120, 50:110] = True
    found = matches(grey_tile(np.zeros(brain.shape), brain=brain), BRAIN_COLOUR)
    expected = brain.copy()
    expected[41:119, 51:109] = False
    np.testing.assert_array_equal(found, expected)


def test_tumour_is_outlined_over_the_brain() -> None:
    tumor = np.zeros((TILE_PIXELS, TILE_PIXELS), np.uint8)
    tumor[40:60, 50:70] = 2
    tile = grey_tile(np.zeros(tumor.shape), tumor, tumor > 0)
    assert matches(tile, OUTLINE_COLOURS[1])[40, 50]
    assert not matches(tile, BRAIN_COLOUR).any()


def test_quality_picture_has_three_planes_and_a_column_for_each_modality() -> None:
    images, tissue, tumor = toy_brain((24, 28, 24), rng())
    shown = {name: np.clip(image * 8, 0, 1000).astype(np.int16) for name, image in list(images.items())[:2]}
    picture = quality_picture(shown, tumor, (tissue > 0) | (tumor > 0))
    side = TILE_PIXELS + GAP_PIXELS
    assert picture.shape == (3 * side, 2 * side, 3)
    for row in range(3):
        for column in range(2):
            tile = picture[row * side : (row + 1) * side, column * side : (column + 1) * side]
            for colour in (BRAIN_COLOUR, *OUTLINE_COLOURS):
                assert 0 < matches(tile, colour).mean() < 0.05


def test_outline_colours_differ_from_each_other_and_from_greys() -> None:
    colours = [*OUTLINE_COLOURS, BRAIN_COLOUR]
    assert len({tuple(colour) for colour in colours}) == len(colours)
    assert all(np.ptp(colour.astype(int)) > 60 for colour in colours)
