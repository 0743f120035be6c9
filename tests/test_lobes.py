"""Lobes: known places of the atlas lie where anatomy says, whatever the size of the brain."""

import numpy as np
import pytest

from pipeline.lobes import ATLAS_BOX_MM, LOBES, brain_box, find_lobes

# MNI coordinates of structures, from text books of stereotaxy; either side.
PLACES = {
    "frontal": [(-36, 50, 10), (44, 20, 30), (-4, 60, 0), (40, -5, 50)],
    "parietal": [(-30, -60, 55), (55, -35, 40), (-6, -60, 50)],
    "temporal": [(-55, -20, -20), (45, 10, -30), (-60, -40, 0), (30, -15, -25)],
    "occipital": [(-10, -95, 5), (30, -88, 5), (8, -78, 8)],
    "deep": [(-12, -18, 8), (25, 5, 0), (-36, 5, 0)],
    "infratentorial": [(-25, -65, -45), (0, -30, -40)],
}


@pytest.mark.parametrize("lobe", LOBES)
def test_known_places_lie_in_their_lobe(lobe):
    points = np.array(PLACES[lobe], float)
    assert [LOBES[number] for number in find_lobes(points, ATLAS_BOX_MM)] == [lobe] * len(points)


@pytest.mark.parametrize("lobe", LOBES)
def test_a_brain_of_another_size_elsewhere_has_its_lobes_in_the_same_proportion(lobe):
    stretch, shift = np.array([0.8, 1.1, 0.9]), np.array([5.0, -30.0, 12.0])
    points = np.array(PLACES[lobe], float) * stretch + shift
    found = find_lobes(points, ATLAS_BOX_MM * stretch + shift)
    assert {LOBES[number] for number in found} == {lobe}


def test_the_box_of_a_brain_is_that_of_its_outermost_voxels():
    brain = np.zeros((6, 7, 8), bool)
    brain[1:4, 2, 3:7] = True
    affine = np.diag([-2.0, 3.0, 1.0, 1.0])
    affine[:3, 3] = [10.0, 0.0, -5.0]
    np.testing.assert_array_equal(brain_box(brain, affine), [[4.0, 6.0, -2.0], [8.0, 6.0, 1.0]])
