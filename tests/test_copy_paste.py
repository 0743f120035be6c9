"""Copy and paste of tumours: where they go, how their edge is blended, when nothing is done."""

import numpy as np
import pytest

from pipeline.segmentation.copy_paste import MARGIN_VOXELS, paste_tumor


def brain_and_piece(spatial, side=3):
    """A brain of brightness 300 within a margin of 2, and a tumour of brightness 900 in a surrounding of 600."""
    image = np.zeros((2, *spatial), np.int16)
    image[(slice(None), *[slice(2, n - 2) for n in spatial])] = 300
    wide = side + 2 * MARGIN_VOXELS
    inner = (slice(MARGIN_VOXELS, MARGIN_VOXELS + side),) * len(spatial)
    piece_map = np.zeros((wide,) * len(spatial), np.uint8)
    piece_map[inner] = 2
    piece = np.where(piece_map > 0, 900, 600).astype(np.int16)[None].repeat(2, axis=0)
    return image, np.zeros(spatial, np.uint8), piece, piece_map


@pytest.mark.parametrize("spatial", [(20, 24), (16, 18, 14)])
def test_a_pasted_tumour_lies_within_the_brain_with_its_labels(spatial):
    image, tumor_map, piece, piece_map = brain_and_piece(spatial)
    for seed in range(20):
        pasted, pasted_map = paste_tumor(image, tumor_map, piece, piece_map, np.random.default_rng(seed))
        where = pasted_map > 0
        assert where.sum() == 3 ** len(spatial)
        assert set(np.unique(pasted_map)) == {0, 2}
        assert (image[0][where] == 300).all()
        assert (pasted[:, where] == 900).all()
        assert pasted.dtype == np.int16
    assert not tumor_map.any()


def test_the_edge_is_blended_by_even_steps():
    image, tumor_map, piece, piece_map = brain_and_piece((40, 40), side=1)
    pasted, pasted_map = paste_tumor(image, tumor_map, piece, piece_map, np.random.default_rng(1))
    (x,), (y,) = np.nonzero(pasted_map)
    # Two voxels fade: the piece's 600 counts 2/3, then 1/3, over the brain's 300; beyond them nothing has changed.
    assert pasted[0, x - 3 : x + 4, y].tolist() == [300, 400, 500, 900, 500, 400, 300]


def test_the_piece_brings_no_background_along():
    image, tumor_map, piece, piece_map = brain_and_piece((20, 20))
    piece[:, piece_map == 0] = 0
    pasted, pasted_map = paste_tumor(image, tumor_map, piece, piece_map, np.random.default_rng(2))
    assert pasted_map.any()
    assert np.array_equal(pasted[:, pasted_map == 0], image[:, pasted_map == 0])


def test_nothing_is_pasted_onto_a_tumour_that_is_there():
    image, tumor_map, piece, piece_map = brain_and_piece((12, 12), side=2)
    # All of the brain but a strip of 2 voxels, which the tumour just fits into, or one of 1, which it does not.
    tumor_map[4:10, 2:10] = 1
    found = [paste_tumor(image, tumor_map, piece, piece_map, np.random.default_rng(seed))[1] for seed in range(60)]
    assert any((one == 2).any() for one in found)
    for one in found:
        assert (one[tumor_map > 0] == 1).all()
    tumor_map[3, 2:10] = 1
    same, same_map = paste_tumor(image, tumor_map, piece, piece_map, np.random.default_rng(0))
    assert same is image
    assert same_map is tumor_map


def test_a_piece_that_is_larger_than_the_image_is_left_out():
    image, tumor_map, piece, piece_map = brain_and_piece((8, 8), side=9)
    same, _ = paste_tumor(image, tumor_map, piece, piece_map, np.random.default_rng(0))
    assert same is image


def test_half_of_the_tumours_are_mirrored():
    image, tumor_map, piece, piece_map = brain_and_piece((30, 30), side=2)
    piece_map[MARGIN_VOXELS, MARGIN_VOXELS : MARGIN_VOXELS + 2] = 1
    first_is_core = []
    for seed in range(60):
        _, pasted = paste_tumor(image, tumor_map, piece, piece_map, np.random.default_rng(seed))
        first_is_core.append(pasted[np.nonzero(pasted)][0] == 1)
    # 30 expected, SD 4
    assert 18 <= sum(first_is_core) <= 42
