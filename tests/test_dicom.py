"""DICOM in: the same cohort as from NIfTI, series known by what their headers say."""

import re
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pydicom
import pytest
from conftest import TINY

from pipeline.cohort import open_cohort, read_tsv
from pipeline.config import parse_config
from pipeline.errors import CaseError, DataError
from pipeline.ingest.dicom import (
    Series,
    assign_series,
    convert_series,
    discover_dicom,
    read_segmentation,
    read_series,
    rule_fits,
)
from pipeline.ingest.manifest import Manifest, SeriesRule, load_manifest
from pipeline.ingest.pseudonym import PHANTOM_KEY, pseudonym
from pipeline.phantom.cohort import make_subject, write_subject
from pipeline.runner import run_stages
from pipeline.volumes import Volume, place_on_grid, to_ras

SHARED = Path(__file__).parents[2] / "shared" / "data" / "dicom"
N_CASES = 5
DATASET = "synthcohort phantom"


def patient_id(number):
    return f"MRN{100000 + number * 37}"


def ingest(source, run_dir, manifest):
    key_file = run_dir.parent / "key"
    key_file.parent.mkdir(exist_ok=True)
    key_file.write_bytes(PHANTOM_KEY)
    section = {"source": str(source), "manifest": manifest, "min_cases": 4, "key_file": str(key_file)}
    run_stages(parse_config({**TINY, "ingest": {**TINY["ingest"], **section}}, "tests"), run_dir, last="ingest")
    return run_dir / "cohort"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Make five phantoms and write each in both formats."""
    root = tmp_path_factory.mktemp("phantoms")
    for number in range(1, N_CASES + 1):
        subject = make_subject(number, 0, 6.0)
        for file_format in ("nifti", "dicom"):
            write_subject(subject, number, root / file_format, file_format)
    return root


@pytest.fixture(scope="module")
def cohorts(phantoms):
    """Ingest both, the DICOM one with two more studies that cannot be used and files that are none."""
    first, second = (sorted((phantoms / "dicom").iterdir())[n] for n in (0, 1))
    no_seg, two_t1 = phantoms / "dicom" / "no_seg", phantoms / "dicom" / "two_t1"
    copy_study(first, no_seg, "NOSEG", lambda header: header.Modality != "SEG")
    copy_study(second, two_t1, "TWOT1", lambda header: True)
    copy_study(second, two_t1 / "more", "TWOT1", lambda header: header.SeriesDescription == "T1 AX", "2.25.1")
    (phantoms / "dicom" / "DICOMDIR.txt").write_text("not an image")
    (phantoms / "dicom" / "empty.dcm").touch()
    (phantoms / "dicom" / "junk.dcm").write_bytes(bytes(128) + b"DICM" + b"junk" * 3)
    nifti = ingest(phantoms / "nifti", phantoms / "nifti-run" / "run", "phantom")
    dicom = ingest(phantoms / "dicom", phantoms / "dicom-run" / "run", "phantom-dicom")
    return SimpleNamespace(nifti=nifti, dicom=dicom)


def copy_study(source, target, patient, wanted, series_suffix=""):
    """Copy the files of a study under another patient, and perhaps as another series."""
    for path in sorted(source.rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        if not wanted(dataset):
            continue
        dataset.PatientID = patient
        if series_suffix:
            dataset.SeriesInstanceUID = series_suffix
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.9{dataset.InstanceNumber}"
        out = target / path.relative_to(source)
        out.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(out)


def test_dicom_and_nifti_of_the_same_phantoms_give_the_same_cohort(cohorts):
    nifti = {case.subject: case for case in open_cohort(cohorts.nifti).cases}
    dicom = {case.subject: case for case in open_cohort(cohorts.dicom).cases}
    assert len(nifti) == len(dicom) == N_CASES
    assert {1, 2, 3} <= {value for case in nifti.values() for value in np.unique(case.tumor_map()).tolist()}
    scheme = open_cohort(cohorts.nifti).scheme
    assert open_cohort(cohorts.dicom).scheme == scheme
    for number in range(1, N_CASES + 1):
        ours = dicom[pseudonym(PHANTOM_KEY, DATASET, patient_id(number))]
        theirs = nifti[pseudonym(PHANTOM_KEY, DATASET, f"Phantom_{number:05d}")]
        np.testing.assert_allclose(ours.affine, theirs.affine)
        for modality in ("t1", "t1ce", "t2", "flair"):
            difference = np.abs(ours.image(modality).astype(int) - theirs.image(modality))
            # Positions in DICOM are decimal text: a micrometre off, a step of rounding or two.
            assert np.percentile(difference, 99.9) <= 2
            assert difference.max() <= 20
        for value in range(1, 4):
            mine, other = ours.tumor_map() == value, theirs.tumor_map() == value
            # A class may be below the resolution of the working grid, then in both.
            assert 2 * (mine & other).sum() >= 0.99 * (mine.sum() + other.sum())
        assert (ours.tissue_map() == theirs.tissue_map()).mean() > 0.99
        assert ours.attributes["hemisphere"] == theirs.attributes["hemisphere"]


def test_studies_that_lack_a_series_or_have_two_are_quarantined(cohorts):
    reasons = {row["pseudonym"]: row["reason"] for row in read_tsv(cohorts.dicom / "quarantine.tsv")}
    assert set(reasons) == {pseudonym(PHANTOM_KEY, DATASET, name) for name in ("NOSEG", "TWOT1")}
    assert reasons[pseudonym(PHANTOM_KEY, DATASET, "NOSEG")].startswith("0 series for tumor; expected one each")
    assert reasons[pseudonym(PHANTOM_KEY, DATASET, "TWOT1")].startswith("2 series for t1; expected one each")


def test_nothing_of_the_headers_is_passed_on(cohorts):
    files = [path for path in cohorts.dicom.rglob("*") if path.is_file()]
    files.append(cohorts.dicom.parent / "journal.jsonl")
    assert len(files) > 40
    for secret in (b"MRN100", b"Invented", b"PHANTOM WORKSTATION", b"20190314", b"2.25.", b"NOSEG"):
        assert [path.name for path in files if secret in path.read_bytes()] == []


def test_folder_and_file_names_mean_nothing(phantoms, tmp_path):
    study = phantoms / "dicom" / "study00001"
    whole = discover_dicom(study, load_manifest("phantom-dicom"))[0]
    for number, path in enumerate(sorted(study.rglob("*.dcm"), key=lambda p: p.name + str(p))):
        (tmp_path / f"{(number * 37) % 1009:04d}").symlink_to(path)
    (scattered,) = discover_dicom(tmp_path, load_manifest("phantom-dicom"))
    assert scattered.problem == whole.problem == ""
    assert scattered.subject == whole.subject == patient_id(1)
    for name in ("t1", "t1ce", "t2", "flair", "tumor"):
        assert {p.resolve() for p in scattered.files[name]} == {p.resolve() for p in whole.files[name]}
    one, other = convert_series(scattered.files["t1ce"]), convert_series(whole.files["t1ce"])
    np.testing.assert_array_equal(one.array, other.array)


def test_a_series_and_its_segmentation_come_back_as_the_phantom_was_made(phantoms):
    manifest = load_manifest("phantom-dicom")
    case = next(c for c in discover_dicom(phantoms / "dicom", manifest) if c.subject == patient_id(1))
    subject = make_subject(1, 0, 6.0)
    for modality, volume in subject.images.items():
        found, expected = to_ras(convert_series(case.files[modality])), to_ras(volume)
        np.testing.assert_array_equal(found.array, expected.array)
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
    expected = to_ras(subject.tumor)
    found = place_on_grid(read_segmentation(case.files["tumor"][0], manifest), expected)
    np.testing.assert_array_equal(found.array, expected.array)


def test_a_second_study_of_a_patient_is_a_case_of_its_own_and_of_the_same_person(phantoms, tmp_path):
    study = phantoms / "dicom" / "study00001"
    (tmp_path / "first").symlink_to(study)
    for path in study.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = "2.25.7"
        dataset.SeriesInstanceUID += "1"
        out = tmp_path / "source" / "second" / path.relative_to(study)
        out.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(out)
        again = tmp_path / "source" / "first" / path.relative_to(study)
        again.parent.mkdir(parents=True, exist_ok=True)
        again.symlink_to(path)
    one, two = discover_dicom(tmp_path / "source", load_manifest("phantom-dicom"))
    assert one.person == two.person == patient_id(1)
    assert one.subject != two.subject
    assert one.problem == two.problem == ""


def test_files_that_are_no_dicom_are_passed_over_and_a_folder_of_them_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "IM0001.dcm").write_bytes(b"")
    assert read_series(tmp_path) == []
    with pytest.raises(DataError, match="no DICOM file below"):
        discover_dicom(tmp_path, load_manifest("phantom-dicom"))


def series_of(description, modality="MR", contrast=False):
    return Series("patient", "study", modality, description, contrast, [Path("file")])


def test_a_rule_asks_for_all_that_it_says():
    rule = SeriesRule(description="^T1", exclude="GAD", contrast=False)
    assert rule_fits(rule, series_of("t1 ax"))
    assert not rule_fits(rule, series_of("AX T1"))
    assert not rule_fits(rule, series_of("T1 AX post gad"))
    assert not rule_fits(rule, series_of("T1 AX", contrast=True))
    assert rule_fits(SeriesRule(description="T1"), series_of("AX T1", contrast=True))


@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [
        (("AX T1", "AX T1 POST", "AX T2", "AX T2 FLAIR"), ("AX T1", "AX T1 POST", "AX T2", "AX T2 FLAIR")),
        (("T1_MPR", "T1_MPR+C", "T2_TSE", "FLAIR"), ("T1_MPR", "T1_MPR+C", "T2_TSE", "FLAIR")),
        (("t1 se", "t1 se gad", "t2 tse", "t2 flair"), ("t1 se", "t1 se gad", "t2 tse", "t2 flair")),
        (("SAG T1 CE", "SAG T1", "FLAIR COR", "T2"), ("SAG T1", "SAG T1 CE", "T2", "FLAIR COR")),
    ],
)
def test_the_generic_manifest_knows_usual_series_descriptions(descriptions, expected):
    manifest = load_manifest("dicom")
    study = [series_of(text) for text in (*descriptions, "LOCALIZER", "DWI")]
    for series in study:
        series.files = [Path(series.description)]
    study.append(series_of("anything", "SEG"))
    files, problem = assign_series(study, manifest)
    assert problem == ""
    assert tuple(files[name][0].name for name in ("t1", "t1ce", "t2", "flair")) == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Necrotic core", "necrotic_core"),
        ("non-enhancing tumour", "necrotic_core"),
        ("Edema", "oedema"),
        ("peritumoral oedema", "oedema"),
        ("Enhancing tumor", "enhancing"),
        ("liver", None),
    ],
)
def test_the_generic_manifest_knows_usual_segment_labels(label, expected):
    segments = load_manifest("dicom").segments
    found = [name for name, rule in segments.items() if re.search(rule, label, re.IGNORECASE)]
    assert found == ([expected] if expected else [])


def segmentation_of(phantoms):
    (study,) = [phantoms / "dicom" / "study00001"]
    return next(s.files[0] for s in read_series(study) if s.modality == "SEG")


def test_a_segmentation_without_a_segment_that_is_named_is_a_case_error(phantoms):
    content = load_manifest("phantom-dicom").model_dump()
    content["segments"] = {"oedema": "liver"}
    with pytest.raises(CaseError, match="no segment that the manifest names"):
        read_segmentation(segmentation_of(phantoms), Manifest.model_validate(content))


def test_a_damaged_segmentation_is_a_case_error(phantoms, tmp_path):
    content = segmentation_of(phantoms).read_bytes()
    path = tmp_path / "MRN_Secret.dcm"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CaseError, match="unreadable DICOM SEG") as caught:
        read_segmentation(path, load_manifest("phantom-dicom"))
    assert "Secret" not in str(caught.value)


def test_a_series_that_gives_no_volume_is_a_case_error(tmp_path):
    path = tmp_path / "MRN_Secret.dcm"
    path.write_bytes(b"no image at all")
    with pytest.raises(CaseError, match="gives 0 volumes") as caught:
        convert_series([path])
    assert "Secret" not in str(caught.value)


def real_series():
    truths = sorted(SHARED.rglob("*_ground_truth.nii.gz")) if SHARED.is_dir() else []
    return [pytest.param(path, id=path.relative_to(SHARED).as_posix().split("_ground")[0]) for path in truths]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data are not here")
@pytest.mark.parametrize("truth_path", real_series())
def test_a_real_series_becomes_the_volume_that_it_must_become(truth_path):
    folder = truth_path.with_name(truth_path.name.replace("_ground_truth.nii.gz", ""))
    found = to_ras(convert_series(sorted(path for path in folder.rglob("*") if path.is_file())))
    image = nib.Nifti1Image.from_filename(truth_path)
    # A fourth axis of one volume is a converter's habit.
    expected = to_ras(Volume(np.asarray(image.dataobj).reshape(image.shape[:3]), image.affine))
    assert found.same_grid(expected, tolerance_mm=0.01)
    difference = np.abs(found.array.astype(np.float64) - expected.array)
    assert difference.max() <= 1e-3 * np.ptp(expected.array.astype(np.float64))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data are not here")
def test_a_real_series_that_is_no_volume_is_a_case_error():
    with pytest.raises(CaseError, match="expected"):
        convert_series(sorted((SHARED / "failing" / "notavolume" / "001").iterdir()))
