"""DICOM in: the same cohort as from NIfTI, series known by what their headers say."""

import re
import subprocess
import sys
from dataclasses import replace
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
from pipeline.ingest.dicom import Series, assign_series, discover_dicom, read_series, refuse_image, rule_fits
from pipeline.ingest.dicom_convert import convert_series
from pipeline.ingest.dicom_labels import read_segmentation
from pipeline.ingest.load import check_image
from pipeline.ingest.manifest import Manifest, Prepared, SeriesRule, load_manifest
from pipeline.ingest.pseudonym import PHANTOM_KEY, pseudonym
from pipeline.phantom.cohort import make_subject, write_subject
from pipeline.resampling import place_on_grid
from pipeline.runner import run_stages
from pipeline.volumes import Volume, to_ras

SHARED = Path(__file__).parents[2] / "shared" / "data" / "dicom"
N_CASES = 5
DATASET = "synthcohort phantom"


def patient_id(number):
    return f"MRN{100000 + number * 37}"


def ingest(source, run_dir, manifest):
    key_file = run_dir.parent / "key"
    key_file.parent.mkdir(exist_ok=True)
    key_file.write_bytes(PHANTOM_KEY)
    section = {"source": str(source), "manifest": manifest, "min_cases": 5, "key_file": str(key_file)}
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
    nifti = {case.person: case for case in open_cohort(cohorts.nifti).cases}
    dicom = {case.person: case for case in open_cohort(cohorts.dicom).cases}
    assert len(nifti) == len(dicom) - 1 == N_CASES
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


def test_a_study_that_lacks_a_series_is_quarantined(cohorts):
    (row,) = read_tsv(cohorts.dicom / "quarantine.tsv")
    assert row["reason"].startswith("no series for tumor; expected one each")


def test_of_two_series_that_fit_one_is_chosen_and_the_runner_up_reported(cohorts):
    (case,) = [c for c in open_cohort(cohorts.dicom).cases if c.person == pseudonym(PHANTOM_KEY, DATASET, "TWOT1")]
    rows = [row for row in read_tsv(cohorts.dicom / "series.tsv") if row["pseudonym"] == case.subject]
    assert sorted(row["verdict"] for row in rows if row["modality"] == "t1") == ["chosen", "runner-up"]
    others = [row for row in rows if row["modality"] != "t1"]
    assert [row["verdict"] for row in others] == ["chosen"] * 4
    flair = next(row for row in others if row["modality"] == "flair")
    assert (flair["te_ms"], flair["tr_ms"], flair["ti_ms"], flair["contrast"]) == ("125", "9000", "2500", "no")
    assert float(flair["voxel_mm3"]) == pytest.approx(216.0, rel=1e-2)


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
    assert scattered.subject == whole.subject
    assert scattered.person == whole.person == patient_id(1)
    for name in ("t1", "t1ce", "t2", "flair", "tumor"):
        assert {p.resolve() for p in scattered.files[name]} == {p.resolve() for p in whole.files[name]}
    one, other = convert_series(scattered.files["t1ce"]), convert_series(whole.files["t1ce"])
    np.testing.assert_array_equal(one.array, other.array)


def test_a_series_and_its_segmentation_come_back_as_the_phantom_was_made(phantoms):
    manifest = load_manifest("phantom-dicom")
    case = next(c for c in discover_dicom(phantoms / "dicom", manifest) if c.person == patient_id(1))
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


def series_of(description, modality="MR", contrast=False, **more):
    times = more.pop("times_ms", {})
    series = Series("patient", "study", description, modality, description, 1, contrast, times, 1.0, "", [Path("file")])
    return replace(series, **more)


def test_a_rule_asks_for_all_that_it_says():
    rule = SeriesRule(description="^T1", exclude="GAD", contrast=False)
    assert rule_fits(rule, series_of("t1 ax"))
    assert not rule_fits(rule, series_of("AX T1"))
    assert not rule_fits(rule, series_of("T1 AX post gad"))
    assert not rule_fits(rule, series_of("T1 AX", contrast=True))
    assert rule_fits(SeriesRule(description="T1"), series_of("AX T1", contrast=True))


def test_a_rule_may_ask_for_times_alone():
    rule = SeriesRule(echo_time_ms=(80, 130), repetition_time_ms=(2000, 7000))
    assert rule_fits(rule, series_of("", times_ms={"EchoTime": 96.0, "RepetitionTime": 5200.0}))
    assert not rule_fits(rule, series_of("", times_ms={"EchoTime": 125.0, "RepetitionTime": 9000.0}))
    assert not rule_fits(rule, series_of("", times_ms={"EchoTime": 96.0}))


def test_the_finest_then_the_longest_then_the_last_series_is_preferred():
    manifest = load_manifest("phantom-dicom")
    labels = series_of("TUMOR SEG", "SEG")
    others = [series_of("T1 AX GAD", contrast=True), series_of("FLAIR AX"), series_of("T2 AX"), labels]
    coarse = series_of("T1 AX", uid="a", voxel_mm3=5.0, n_frames=40, number=9)
    short = series_of("T1 AX", uid="b", n_frames=20, number=8)
    first = series_of("T1 AX", uid="c", n_frames=30, number=3)
    repeated = series_of("T1 AX", uid="d", n_frames=30, number=7, files=[Path("repeated")])
    found = assign_series([coarse, short, first, repeated, *others], manifest)
    assert found.problem == ""
    assert found.files["t1"] == (Path("repeated"),)
    verdicts = [(c.series_number, c.verdict) for c in found.choices if c.modality == "t1"]
    assert verdicts == [(7, "chosen"), (3, "runner-up"), (8, "runner-up"), (9, "runner-up")]


def choose(monkeypatch, study, drawn_on, prepared=None):
    monkeypatch.setattr("pipeline.ingest.dicom.referenced_series", lambda path: drawn_on)
    others = [series_of("T1 AX GAD", contrast=True), series_of("FLAIR AX"), series_of("T2 AX")]
    manifest = load_manifest("phantom-dicom").model_copy(update={"prepared": prepared or Prepared()})
    return assign_series([*study, *others, series_of("TUMOR SEG", "SEG")], manifest)


def test_the_series_that_the_labels_were_drawn_on_is_preferred_to_a_finer_one(monkeypatch):
    study = [series_of("T1 AX", uid="coarse", voxel_mm3=5.0, files=[Path("coarse")]), series_of("T1 AX", uid="fine")]
    found = choose(monkeypatch, study, "coarse")
    assert (found.problem, found.tumor_on, found.files["t1"]) == ("", "t1", (Path("coarse"),))


def test_labels_on_a_series_that_no_rule_takes_are_not_guessed_onto_another_scan(monkeypatch):
    study = [series_of("T1 AX", uid="fine"), series_of("T1 SUBTRACTED", uid="other")]
    assert "labels drawn on a series that no rule takes" in choose(monkeypatch, study, "other").problem
    # Scans that share one world may be labelled on any of them.
    assert choose(monkeypatch, study, "other", Prepared(coregistered=True)).problem == ""


def test_one_series_is_not_two_modalities():
    content = load_manifest("phantom-dicom").model_dump()
    content["series"]["t2"] = content["series"]["flair"]
    study = [series_of("T1 AX"), series_of("T1 AX GAD", contrast=True), series_of("FLAIR AX")]
    found = assign_series([*study, series_of("TUMOR SEG", "SEG")], Manifest.model_validate(content))
    assert found.problem.startswith("one series for t2 and flair; expected one each")


def test_a_series_is_refused_if_any_of_its_files_is_and_odd_descriptions_lose_no_file(phantoms, tmp_path):
    paths = sorted((phantoms / "dicom" / "study00001").rglob("*.dcm"))
    chosen = [path for path in paths if pydicom.dcmread(path).SeriesDescription == "T2 AX"]
    for number, path in enumerate(chosen):
        dataset = pydicom.dcmread(path)
        dataset.EchoTime = [10, 20] if number == 1 else dataset.EchoTime
        dataset.add_new("SpecificCharacterSet", "CS", "DOE JANE X" if number == 2 else "ISO_IR 100")
        if number == len(chosen) - 1:
            dataset.BurnedInAnnotation = "YES"
        dataset.save_as(tmp_path / f"{number}.dcm")
    (series,) = read_series(tmp_path)
    assert len(series.files) == len(chosen)
    assert series.why_not() == "with text burned in"


def test_what_pydicom_warns_of_is_not_printed(phantoms, tmp_path):
    path = next((phantoms / "dicom" / "study00001").rglob("*.dcm"))
    dataset = pydicom.dcmread(path)
    dataset.add_new("SpecificCharacterSet", "CS", "DOE JANE X")
    dataset.save_as(tmp_path / "odd.dcm")
    program = "import pathlib, sys; from pipeline.ingest.dicom import read_series; "
    program += "print(len(read_series(pathlib.Path(sys.argv[1]))))"
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert "DOE" not in done.stderr


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"Modality": "CT"}, "CT, not MR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"SamplesPerPixel": 3}, "in colours"),
        ({"BurnedInAnnotation": "YES"}, "text burned in"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "a mosaic"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localiser"),
        ({"Modality": "Doe^Jane"}, "no modality, not MR"),
    ],
)
def test_images_that_are_no_plain_mr_are_refused_with_the_reason(header, reason):
    dataset = pydicom.Dataset()
    dataset.Modality = "MR"
    for name, value in header.items():
        setattr(dataset, name, value)
    assert reason in refuse_image(dataset)
    assert "Doe" not in refuse_image(dataset)


def test_repeated_positions_and_several_orientations_are_no_volume():
    positions = [(0.0, 0.0, float(z)) for z in range(4)]
    assert series_of("T1", positions=positions, orientations={(1, 0, 0, 0, 1, 0)}).why_not() == ""
    assert "one position" in series_of("T1", positions=[*positions, positions[0]]).why_not()
    assert "localiser" in series_of("T1", orientations={(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)}).why_not()


def test_an_image_stored_twice_counts_once(phantoms, tmp_path):
    path = next((phantoms / "dicom" / "study00001").rglob("*.dcm"))
    for name in ("one", "copy"):
        (tmp_path / name).symlink_to(path)
    (series,) = read_series(tmp_path)
    assert len(series.files) == series.n_frames == 1


@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [
        (("AX T1", "AX T1 POST", "AX T2", "AX T2 FLAIR"), ("AX T1", "AX T1 POST", "AX T2", "AX T2 FLAIR")),
        (("T1_MPR", "T1_MPR+C", "T2_TSE", "FLAIR"), ("T1_MPR", "T1_MPR+C", "T2_TSE", "FLAIR")),
        (("t1 se", "t1 se gad", "t2 tse", "t2 flair"), ("t1 se", "t1 se gad", "t2 tse", "t2 flair")),
        (("SAG T1 CE", "SAG T1", "FLAIR COR", "T2"), ("SAG T1", "SAG T1 CE", "T2", "FLAIR COR")),
        (("T1 SPACE SAG 1mm", "T1W_TSE_Gd", "T2W", "FLAIR"), ("T1 SPACE SAG 1mm", "T1W_TSE_Gd", "T2W", "FLAIR")),
        (("Ax T1 FLAIR", "AX T1 C+", "Ax T2", "Ax T2 FLAIR"), ("Ax T1 FLAIR", "AX T1 C+", "Ax T2", "Ax T2 FLAIR")),
        (("AX_T1", "AX_T1_POST", "AX_T2", "AX_FLAIR"), ("AX_T1", "AX_T1_POST", "AX_T2", "AX_FLAIR")),
        (
            ("t1 tra", "t1 tra KM", "t2 tra", "t2_space_dark-fluid"),
            ("t1 tra", "t1 tra KM", "t2 tra", "t2_space_dark-fluid"),
        ),
        (("T1 PRE CONTRAST", "POST T1", "T2", "FLAIR"), ("T1 PRE CONTRAST", "POST T1", "T2", "FLAIR")),
    ],
)
def test_the_generic_manifest_knows_usual_series_descriptions(descriptions, expected):
    manifest = load_manifest("dicom")
    study = [series_of(text) for text in (*descriptions, "LOCALIZER", "DWI", "T2* GRE", "T1 MAP")]
    for series in study:
        series.files = [Path(series.description)]
    study.append(series_of("anything", "SEG"))
    found = assign_series(study, manifest)
    assert found.problem == ""
    assert tuple(found.files[name][0].name for name in ("t1", "t1ce", "t2", "flair")) == expected


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
def test_real_series_that_are_no_scan_are_refused_with_the_reason():
    (repeated,) = read_series(SHARED / "failing" / "notavolume")
    assert repeated.why_not() == "CT, not MR"
    assert "one position" in replace(repeated, refusal="").why_not()
    (short,) = read_series(SHARED / "failing" / "slicecount")
    with pytest.raises(CaseError, match="has 2 slices; expected at least 16"):
        check_image(to_ras(convert_series(short.files)), "t1", 16)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data are not here")
def test_a_real_series_that_is_no_volume_is_a_case_error():
    with pytest.raises(CaseError, match="expected"):
        convert_series(sorted((SHARED / "failing" / "notavolume" / "001").iterdir()))
