"""Labels of a DICOM study: as a SEG, as contours (RTSTRUCT), or as NIfTI beside it; on any scan's lattice."""

import nibabel as nib
import numpy as np
import pytest
from campaigns.fuzz_cases import AFFINE, SHAPE, make_manifests, write_good_case
from conftest import toy_brain

from pipeline.errors import CaseError
from pipeline.ingest.dicom import discover_dicom
from pipeline.ingest.dicom_labels import fill_contours
from pipeline.ingest.load import load_case
from pipeline.ingest.manifest import Manifest
from pipeline.volumes import Volume, to_ras


def truth():
    """Return the tumour map that the good cases are labelled with."""
    return to_ras(Volume(toy_brain(SHAPE, np.random.default_rng(5))[2], AFFINE))


def load_one(folder, manifest):
    (case,) = discover_dicom(folder, manifest)
    assert case.problem == ""
    return load_case(case, manifest, 16)


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize(("kind", "least"), [("dicom-seg", 1.0), ("dicom-rt", 0.97)])
def test_segments_and_contours_give_the_map_that_was_drawn(kind, least, tmp_path):
    write_good_case(tmp_path, kind)
    loaded = load_one(tmp_path, make_manifests()[kind])
    assert loaded.drawn_on == "t1ce"
    np.testing.assert_allclose(loaded.tumor.affine, truth().affine, atol=1e-3)
    for value in (1, 2, 3):
        assert dice(loaded.tumor.array == value, truth().array == value) >= least, value


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_nifti_labels_beside_a_dicom_study_may_lie_in_any_order_of_axes(axes, tmp_path):
    write_good_case(tmp_path, "dicom-seg")
    for path in tmp_path.rglob("*_SEG_*.dcm"):
        path.unlink()
    drawn = truth()
    # A permuted, partly flipped array that says the same of the world.
    array = np.array([0, 1, 2, 4], np.float32)[drawn.array].transpose(axes)[::-1]
    affine = drawn.affine[:, [*axes, 3]]
    affine[:, 3] += affine[:, 0] * (array.shape[0] - 1)
    affine[:, 0] *= -1
    nib.save(nib.Nifti1Image(array + 2e-4, affine), tmp_path / "ZQ77315_labels.nii.gz")
    content = make_manifests()["dicom-seg"].model_dump(exclude={"tumor_series", "segments"}, exclude_defaults=True)
    content |= {"tumor": "{subject}_labels.nii.gz", "labels": {"necrotic_core": 1, "oedema": 2, "enhancing": 4}}
    loaded = load_one(tmp_path, Manifest.model_validate(content))
    np.testing.assert_array_equal(loaded.tumor.array, drawn.array)
    np.testing.assert_allclose(loaded.tumor.affine, drawn.affine, atol=1e-3)


SEGMENTS = {"dicom-seg": "segment", "dicom-rt": "structure"}


@pytest.mark.parametrize(("kind", "called"), SEGMENTS.items())
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segments": {"oedema": "oedema"}}, "number .* fits no rule; expected a class for each"),
        ({"segments": {"oedema": "o", "necrotic_core": "necro", "enhancing": "enh"}}, "fits several rules"),
        ({"segments": {"oedema": "liver"}}, "that the manifest names"),
    ],
)
def test_segments_that_mean_no_class_or_several_are_not_guessed(kind, called, change, words, tmp_path):
    write_good_case(tmp_path, kind)
    manifest = make_manifests()[kind].model_copy(update=change)
    (case,) = discover_dicom(tmp_path, manifest)
    with pytest.raises(CaseError, match=f"{called}.* {words}") as caught:
        load_case(case, manifest, 16)
    assert "Quillfeather" not in str(caught.value)


@pytest.mark.parametrize("kind", SEGMENTS)
def test_segments_that_are_no_tumour_may_be_ignored_by_name(kind, tmp_path):
    write_good_case(tmp_path, kind)
    change = {"segments": {"oedema": "oedema"}, "ignore_segments": "(necro|enhanc)"}
    manifest = make_manifests()[kind].model_copy(update=change)
    assert set(np.unique(load_one(tmp_path, manifest).tumor.array)) == {0, 1}


def test_two_structures_of_one_class_add_up_where_they_overlap(tmp_path):
    write_good_case(tmp_path, "dicom-rt")
    manifest = make_manifests()["dicom-rt"]
    everything = {"oedema": "(oedema|necro|enhanc)"}
    found = load_one(tmp_path, manifest.model_copy(update={"segments": everything}))
    assert dice(found.tumor.array > 0, truth().array > 0) >= 0.97


def ring(radius_mm, z_mm, centre=(10.0, 10.0)):
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    flat = np.c_[centre[0] + radius_mm * np.cos(angles), centre[1] + radius_mm * np.sin(angles)]
    return np.c_[flat, np.full(60, z_mm)]


def test_a_contour_within_a_contour_is_a_hole_and_slices_may_be_counted_along_any_axis():
    scan = Volume(np.zeros((21, 21, 5), np.float32), np.diag([1.0, 1.0, 3.0, 1.0]))
    mask = fill_contours([ring(8, 6), ring(3, 6)], scan)
    assert not mask[:, :, [0, 1, 3, 4]].any()
    assert mask[:, :, 2].sum() == pytest.approx(np.pi * (8**2 - 3**2), rel=0.05)
    assert not mask[10, 10, 2]
    turned = Volume(scan.array.transpose(2, 0, 1), scan.affine[:, [2, 0, 1, 3]])
    np.testing.assert_array_equal(fill_contours([ring(8, 6), ring(3, 6)], turned), mask.transpose(2, 0, 1))


@pytest.mark.parametrize("contour", [ring(8, 7.4), ring(8, 99)])
def test_contours_between_or_beyond_the_slices_are_the_cases_problem(contour):
    scan = Volume(np.zeros((21, 21, 5), np.float32), np.diag([1.0, 1.0, 3.0, 1.0]))
    with pytest.raises(CaseError, match="contours in no slice of the scan"):
        fill_contours([contour], scan)
