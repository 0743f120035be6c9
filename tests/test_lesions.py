"""Lesion-wise scores of cases worked by hand, at 1 mm unless said otherwise: 50 voxels are too small, 51 are not."""

import math

import numpy as np
import pytest

from pipeline.segmentation.lesions import count_dilations, score_lesions

SHAPE = (40, 40, 40)
ONE_MM = (1.0, 1.0, 1.0)
# sqrt(3) * 40 mm
DIAGONAL_MM = math.sqrt(3) * 40


def boxes(*corners, shape=SHAPE):
    """Mask of boxes, each given by its first voxel and its size."""
    mask = np.zeros(shape, bool)
    for start, size in corners:
        mask[tuple(slice(first, first + n) for first, n in zip(start, size, strict=True))] = True
    return mask


LARGE = ((4, 4, 4), (6, 6, 6))
FAR = ((24, 24, 24), (4, 4, 4))


def test_lesions_count_alike_whatever_their_size():
    truth = boxes(LARGE, FAR)
    found = boxes(((4, 4, 4), (6, 6, 3)), FAR)
    scores = score_lesions(found, truth, ONE_MM)
    # The large one by half: 2 * 108 / (216 + 108) = 2 / 3; the far one wholly: 1. Whole-volume Dice would be
    # 2 * (108 + 64) / (280 + 172) = .76.
    assert scores.dice == pytest.approx((2 / 3 + 1) / 2)
    # Of the large one's 152 surface voxels 36, the face that was not reached, lie 3 mm off: more than 5%, so 3. The
    # other way it is 2 mm at most. The far one is 0 off.
    assert scores.hd95 == pytest.approx((3 + 0) / 2)
    assert (scores.n_lesions, scores.n_missed, scores.n_false) == (2, 0, 0)


def test_a_missed_lesion_has_dice_0_and_the_worst_distance():
    scores = score_lesions(boxes(LARGE), boxes(LARGE, FAR), ONE_MM)
    assert scores.dice == pytest.approx((1 + 0) / 2)
    assert scores.hd95 == pytest.approx((0 + DIAGONAL_MM) / 2)
    assert (scores.n_lesions, scores.n_missed, scores.n_false) == (2, 1, 0)


@pytest.mark.parametrize("size", [(1, 1, 1), (4, 4, 4)])
def test_a_false_part_counts_as_a_lesion_however_small(size):
    scores = score_lesions(boxes(LARGE, ((24, 24, 24), size)), boxes(LARGE), ONE_MM)
    assert scores.dice == pytest.approx(1 / 2)
    assert scores.hd95 == pytest.approx(DIAGONAL_MM / 2)
    assert (scores.n_lesions, scores.n_missed, scores.n_false) == (1, 0, 1)


def test_missed_and_false_add_up():
    scores = score_lesions(boxes(LARGE, ((34, 4, 4), (2, 2, 2))), boxes(LARGE, FAR), ONE_MM)
    # One found, one missed, one false.
    assert scores.dice == pytest.approx(1 / 3)
    assert scores.hd95 == pytest.approx(2 * DIAGONAL_MM / 3)


def test_lesions_whose_dilations_meet_are_one():
    # Six voxels apart: each dilation reaches three, so that they touch. Of the two only the first is found:
    # 2 * 64 / (128 + 64) = 2 / 3, and nothing is missed.
    truth = boxes(((4, 4, 4), (4, 4, 4)), ((14, 4, 4), (4, 4, 4)))
    scores = score_lesions(boxes(((4, 4, 4), (4, 4, 4))), truth, ONE_MM)
    assert (scores.n_lesions, scores.n_missed) == (1, 0)
    assert scores.dice == pytest.approx(2 / 3)


def test_lesions_whose_dilations_do_not_meet_are_two():
    # Seven voxels apart: one voxel stays between the dilations. One found, one missed.
    truth = boxes(((4, 4, 4), (4, 4, 4)), ((15, 4, 4), (4, 4, 4)))
    scores = score_lesions(boxes(((4, 4, 4), (4, 4, 4))), truth, ONE_MM)
    assert (scores.n_lesions, scores.n_missed) == (2, 1)
    assert scores.dice == pytest.approx(1 / 2)


def test_lesions_that_touch_at_a_corner_are_one():
    truth = boxes(((4, 4, 4), (4, 4, 4)), ((8, 8, 8), (4, 4, 4)))
    assert score_lesions(truth, truth, ONE_MM).n_lesions == 1


def test_parts_of_one_lesion_are_scored_together():
    truth = boxes(((4, 4, 4), (12, 4, 4)))
    found = boxes(((4, 4, 4), (4, 4, 4)), ((12, 4, 4), (4, 4, 4)))
    scores = score_lesions(found, truth, ONE_MM)
    # Two thirds of it are found, in two parts: 2 * 128 / (192 + 128)
    assert scores.dice == pytest.approx(0.8)
    assert scores.n_false == 0


def test_a_part_near_a_lesion_belongs_to_it_though_they_do_not_overlap():
    # Two voxels lie between: within three dilations. Found, with nothing in common.
    scores = score_lesions(boxes(((12, 4, 4), (2, 2, 2))), boxes(LARGE), ONE_MM)
    assert scores.dice == 0.0
    assert (scores.n_missed, scores.n_false) == (0, 0)
    assert scores.hd95 < DIAGONAL_MM / 2


def test_a_part_that_touches_two_lesions_counts_for_each():
    truth = boxes(((4, 4, 4), (4, 4, 4)), ((16, 4, 4), (4, 4, 4)))
    scores = score_lesions(boxes(((4, 4, 4), (16, 4, 4))), truth, ONE_MM)
    # A bridge of 256 voxels over two lesions of 64: each 2 * 64 / (64 + 256) = .4
    assert scores.n_lesions == 2
    assert scores.dice == pytest.approx(0.4)


def test_small_lesions_are_not_scored_found_or_missed():
    # 5 x 5 x 2 = 50 voxels of 1 mm3 are left out, whether found (and the part is not false) or not.
    small = ((24, 24, 24), (5, 5, 2))
    for found in (boxes(LARGE, small), boxes(LARGE)):
        scores = score_lesions(found, boxes(LARGE, small), ONE_MM)
        assert (scores.dice, scores.hd95) == (1.0, 0.0)
        assert (scores.n_lesions, scores.n_false) == (1, 0)
    # 17 x 3 x 1 = 51 are not.
    missed = score_lesions(boxes(LARGE), boxes(LARGE, ((20, 24, 24), (17, 3, 1))), ONE_MM)
    assert missed.dice == pytest.approx(1 / 2)


def test_the_size_of_a_lesion_is_taken_after_joining():
    # Two of 32 voxels, four apart: together 64.
    truth = boxes(((4, 4, 4), (4, 4, 2)), ((12, 4, 4), (4, 4, 2)))
    assert score_lesions(truth, truth, ONE_MM).n_lesions == 1


def test_sizes_and_dilations_are_in_millimetres():
    # At 2 mm 7 voxels are 56 mm3, and one dilation, 2 mm, is as near to 3 mm as two: the fewer are taken.
    assert count_dilations((2.0,) * 3) == 1
    assert count_dilations((1.2,) * 3) == 2
    assert count_dilations((2.4,) * 3) == 1
    assert count_dilations((3.0,) * 3) == 1
    assert count_dilations(ONE_MM) == 3
    assert count_dilations((4.0,) * 3) == 1
    assert count_dilations((10.0,) * 3) == 1
    row = boxes(((4, 4, 4), (7, 1, 1)))
    assert score_lesions(row, row, (2.0,) * 3).n_lesions == 1
    assert score_lesions(row, row, ONE_MM).n_lesions == 0
    pair = boxes(((4, 4, 4), (4, 4, 4)), ((13, 4, 4), (4, 4, 4)))
    assert score_lesions(pair, pair, ONE_MM).n_lesions == 1
    assert score_lesions(pair, pair, (2.0,) * 3).n_lesions == 2


def test_empty_sides():
    empty, one = boxes(), boxes(LARGE)
    both = score_lesions(empty, empty, ONE_MM)
    assert (both.dice, both.hd95, both.n_lesions, both.n_false) == (1.0, 0.0, 0, 0)
    missed = score_lesions(empty, one, ONE_MM)
    assert (missed.dice, missed.n_missed) == (0.0, 1)
    assert missed.hd95 == pytest.approx(DIAGONAL_MM)
    false = score_lesions(one, empty, ONE_MM)
    assert (false.dice, false.n_false) == (0.0, 1)
    assert false.hd95 == pytest.approx(DIAGONAL_MM)
    # Only a lesion too small to be scored, not found: nothing to score, nothing false.
    small = score_lesions(empty, boxes(((4, 4, 4), (2, 2, 2))), ONE_MM)
    assert (small.dice, small.hd95) == (1.0, 0.0)


def test_a_lesion_at_the_edge_of_the_image_is_scored_as_elsewhere():
    corner = boxes(((0, 0, 0), (6, 6, 6)))
    scores = score_lesions(corner, corner, ONE_MM)
    assert (scores.dice, scores.hd95, scores.n_lesions) == (1.0, 0.0, 1)
