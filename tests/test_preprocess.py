"""Preprocessing: intensities between percentiles, the brain from a mask that was given."""

import numpy as np
import pytest

from pipeline.errors import CaseError
from pipeline.ingest.discover import SourceCase
from pipeline.ingest.manifest import load_manifest
from pipeline.ingest.preprocess import find_brain, scale_intensity
from pipeline.volumes import Volume, save_volume


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


def mask_case(tmp_path, mask):
    path = tmp_path / "mask.nii.gz"
    save_volume(Volume(mask.astype(np.uint8), np.diag([-1.0, 1.0, 1.0, 1.0])), path)
    return SourceCase(1, "s", "s", {"brain_mask": (path,)})


def test_a_given_brain_mask_is_used_with_its_holes_filled_and_its_islands_dropped(tmp_path):
    mask = np.zeros((12, 12, 12), bool)
    mask[3:9, 3:9, 3:9] = True
    solid = mask.copy()
    mask[5, 5, 5] = False
    mask[0, 0, 0] = True
    head = Volume(np.ones((12, 12, 12), np.float32), np.diag([1.0, 1.0, 1.0, 1.0]))
    head.affine[0, 3] = -11.0
    found = find_brain(mask_case(tmp_path, mask), load_manifest("brats2021"), {"t1": head})
    np.testing.assert_array_equal(found.array, solid[::-1])


def test_a_brain_that_can_not_be_found_is_a_case_error(tmp_path):
    manifest = load_manifest("brats2021")
    head = Volume(np.ones((12, 12, 12), np.float32), np.eye(4))
    head.affine[0, 3] = -11.0
    with pytest.raises(CaseError, match="empty brain mask"):
        find_brain(mask_case(tmp_path, np.zeros((12, 12, 12))), manifest, {"t1": head})
    unprepared = manifest.model_copy(
        update={"prepared": manifest.prepared.model_copy(update={"skull_stripped": False})}
    )
    with pytest.raises(CaseError, match="skull and no brain mask"):
        find_brain(SourceCase(1, "s", "s", {}), unprepared, {"t1": head})
