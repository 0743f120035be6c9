"""Preprocessing: intensities between percentiles, the brain from a mask that was given."""

import numpy as np
import pytest

from pipeline.config import IngestSection
from pipeline.errors import CaseError
from pipeline.ingest.load import LoadedCase, lift_background
from pipeline.ingest.manifest import Prepared, load_manifest
from pipeline.ingest.preprocess import Placement, brain_grid, find_brain, scale_intensity
from pipeline.resampling import find_on_grid
from pipeline.volumes import Volume


def test_intensities_are_scaled_between_percentiles_within_the_brain():
    array = np.arange(-50, 151, dtype=np.float32)
    brain = (array >= 0) & (array <= 100)
    # Within the brain 0 to 100: percentiles 10 and 90 are 10 and 90.
    scaled = scale_intensity(array, brain, "t1", (10.0, 90.0))
    assert scaled.dtype == np.int16
    assert not scaled[~brain].any()
    at = {value: int(scaled[array == value][0]) for value in (0, 10, 30, 50, 90, 100)}
    assert at == {0: 0, 10: 0, 30: 250, 50: 500, 90: 1000, 100: 1000}


def test_an_image_with_one_value_in_the_brain_cannot_be_scaled():
    with pytest.raises(CaseError, match="t2 has no contrast"):
        scale_intensity(np.ones((4, 4, 4), np.float32), np.ones((4, 4, 4), bool), "t2", (0.5, 99.8))


def loaded_head(mask=None):
    """Return a head of ones with a mask given in it, or none."""
    affine = np.diag([20.0, 20.0, 20.0, 1.0])
    head = Volume(np.ones((12, 12, 12), np.float32), affine)
    given = None if mask is None else Volume(mask, affine)
    tumor = Volume(np.zeros((12, 12, 12), np.uint8), affine)
    return LoadedCase({"t1": head}, tumor, "t1", given, "t1" if mask is not None else "")


PLACEMENT = Placement("t1", {"t1": np.eye(4)})


def test_a_given_brain_mask_is_used_with_its_holes_filled_and_its_islands_dropped():
    mask = np.zeros((12, 12, 12), bool)
    mask[3:9, 3:9, 3:9] = True
    solid = mask.copy()
    mask[5, 5, 5] = False
    mask[0, 0, 0] = True
    found = find_brain(loaded_head(mask), PLACEMENT, load_manifest("brats2021"), IngestSection())
    np.testing.assert_array_equal(found.array, solid)


@pytest.mark.parametrize("n", [3, 8])
def test_a_mask_with_the_volume_of_no_brain_is_a_case_error_whoever_made_it(n):
    mask = np.zeros((12, 12, 12), bool)
    mask[:n, :n, :n] = True
    with pytest.raises(CaseError, match=f"brain mask of {8 * n**3} ml; expected 300 to 2600 ml"):
        find_brain(loaded_head(mask), PLACEMENT, load_manifest("brats2021"), IngestSection())
    stripped = loaded_head()
    stripped.images["t1"].array[~mask] = 0
    with pytest.raises(CaseError, match="brain mask of"):
        find_brain(stripped, PLACEMENT, load_manifest("brats2021"), IngestSection())


def test_a_brain_that_can_not_be_found_is_a_case_error():
    manifest = load_manifest("brats2021")
    with pytest.raises(CaseError, match="empty brain mask"):
        find_brain(loaded_head(np.zeros((12, 12, 12), bool)), PLACEMENT, manifest, IngestSection())
    unprepared = manifest.model_copy(update={"prepared": Prepared()})
    with pytest.raises(CaseError, match="skull and no brain mask"):
        find_brain(loaded_head(), PLACEMENT, unprepared, IngestSection(brain_extraction="none"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # Ordinary: background 0, nothing below.
        ([0.0, 5.0, 9.0], [0.0, 5.0, 9.0]),
        # Z-scored over the whole image: the background is a constant below 0. Steps are a thousandth of the range.
        ([-1.5, -1.0, 1.0], [0.0, 0.002, 2.002]),
        # Z-scored within the brain: the background stays 0, values below it are brain.
        ([0.0, -2.0, 2.0], [0.0, 0.004, 4.004]),
    ],
)
def test_a_background_other_than_0_is_lifted_to_it_and_the_brain_above_it(values, expected):
    codes = np.zeros((8, 8, 8), int)
    codes[2:6, 2:6, 2:6] = 1
    codes[3:5, 3:5, 3:5] = 2
    lifted = lift_background(np.array(values, np.float32)[codes])
    np.testing.assert_allclose(lifted, np.array(expected)[codes], atol=1e-6)


def test_a_head_that_fills_its_image_has_no_background_to_lift():
    array = np.random.default_rng(0).normal(100, 20, (8, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(lift_background(array), array)


def square_brain(spacing_mm, affine=None):
    """Return a mask of an odd number of voxels, 5 x 9 x 5 on 20 mm, off its grid's centre."""
    mask = np.zeros((12, 12, 12), bool)
    mask[4:9, 2:11, 6:11] = True
    return Volume(mask, np.diag([spacing_mm] * 3 + [1.0]) if affine is None else affine)


def test_a_grid_of_the_scans_spacing_has_the_scans_voxels():
    config = IngestSection(spacing_mm=20.0, size_voxels=(8, 12, 8))
    brain = square_brain(20.0)
    grid = brain_grid(brain, config, np.eye(4))
    assert find_on_grid(brain, grid) is not None
    # An odd number of voxels cannot be centred on an even one: half a voxel off, the same way wherever the scan begins.
    np.testing.assert_array_equal(grid.centre_mm, [110.0, 110.0, 150.0])
    for n in (1, 2):
        affine = brain.affine.copy()
        affine[:3, 3] = 20.0 * n + 0.1
        cropped = brain_grid(Volume(brain.array[n:, n:, n:], affine), config, np.eye(4))
        np.testing.assert_allclose(cropped.centre_mm, np.array(grid.centre_mm) + 0.1)


@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_a_grid_of_another_spacing_is_centred_on_the_brain(turn):
    affine = np.diag([20.0, 20.0, 20.0, 1.0])
    affine[:2, :2] = 20 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    brain = square_brain(20.0, affine)
    grid = brain_grid(brain, IngestSection(spacing_mm=16.0, size_voxels=(20, 20, 20)), np.eye(4))
    points = affine[:3, :3] @ np.argwhere(brain.array).T
    np.testing.assert_allclose(grid.centre_mm, (points.min(axis=1) + points.max(axis=1)) / 2)


def test_a_brain_larger_than_the_grid_is_a_case_error():
    with pytest.raises(CaseError, match="of the brain outside the working grid"):
        brain_grid(square_brain(20.0), IngestSection(spacing_mm=10.0, size_voxels=(8, 12, 8)), np.eye(4))
