"""The phantom cohort: anatomy, tumours, images and files."""

import subprocess
import sys
from pathlib import Path

import dcm2niix
import highdicom as hd
import numpy as np
import pydicom
import pytest
from scipy import ndimage

from pipeline.errors import ConfigError
from pipeline.labels import MODALITIES, LabelScheme
from pipeline.phantom.anatomy import make_anatomy
from pipeline.phantom.cohort import PhantomSubject, make_subject, write_cohort, write_subject
from pipeline.resampling import RAS_TO_LPS
from pipeline.volumes import Volume, load_volume, to_ras

SPACING_MM = 4.0
SEED = 7
DESCRIPTIONS = {"T1 AX": "t1", "T1 AX POST GAD": "t1ce", "T2 AX": "t2", "FLAIR AX": "flair"}
NECROTIC, OEDEMA, ENHANCING = (LabelScheme().tumor_values[name] for name in LabelScheme().tumor)


@pytest.fixture(scope="module")
def subjects() -> list[PhantomSubject]:
    return [make_subject(index, SEED, SPACING_MM) for index in range(1, 7)]


@pytest.fixture(scope="module")
def study(subjects: list[PhantomSubject], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dicom")
    write_subject(subjects[0], 1, out, "dicom")
    return out / "study00001"


def volume_ml(mask: np.ndarray) -> float:
    return float(np.count_nonzero(mask)) * SPACING_MM**3 / 1000


def read_folder(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, pipeline.phantom.cohort; print(sorted({'nilearn', 'highdicom', 'joblib'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_background_is_zero_and_brain_is_not(subjects: list[PhantomSubject]) -> None:
    for subject in subjects:
        assert tuple(subject.images) == MODALITIES
        brain = (subject.tissue.array > 0) | (subject.tumor.array > 0)
        for image in subject.images.values():
            assert image.array.dtype == np.int16
            np.testing.assert_array_equal(image.array > 0, brain)
            assert image.same_grid(subject.tumor)
        assert not (brain[:1].any() or brain[-1:].any() or brain[:, :1].any() or brain[:, -1:].any())
        assert not (brain[..., :1].any() or brain[..., -1:].any())


def test_maps_hold_known_classes_and_do_not_overlap(subjects: list[PhantomSubject]) -> None:
    for subject in subjects:
        assert subject.tumor.array.dtype == subject.tissue.array.dtype == np.uint8
        assert set(np.unique(subject.tissue.array)) == {0, 1, 2, 3}
        assert set(np.unique(subject.tumor.array)) <= {0, NECROTIC, OEDEMA, ENHANCING}
        assert not ((subject.tissue.array > 0) & (subject.tumor.array > 0)).any()


def test_necrosis_lies_within_the_core_and_touches_the_enhancing_rim(subjects: list[PhantomSubject]) -> None:
    enhancing_subjects = [s for s in subjects if (s.tumor.array == ENHANCING).any()]
    assert len(enhancing_subjects) >= len(subjects) // 2
    n_necrotic = n_shell = n_rim = 0
    for subject in enhancing_subjects:
        necrotic, rim = subject.tumor.array == NECROTIC, subject.tumor.array == ENHANCING
        shell = ndimage.binary_dilation(necrotic) & ~necrotic
        n_necrotic += necrotic.any()
        n_shell, n_rim = n_shell + int(shell.sum()), n_rim + int((shell & rim).sum())
    assert n_necrotic > 0
    assert n_rim > 0.8 * n_shell


def test_tumors_differ_in_volume_and_place(subjects: list[PhantomSubject]) -> None:
    volumes = [volume_ml(subject.tumor.array > 0) for subject in subjects]
    assert 4 < min(volumes) < max(volumes) / 2 < 70
    centres = np.array([np.argwhere(subject.tumor.array > 0).mean(axis=0) * SPACING_MM for subject in subjects])
    assert centres.std(axis=0).max() > 10


def test_tumor_is_seen_where_it_is(subjects: list[PhantomSubject]) -> None:
    for subject in subjects:
        flair, t1ce = subject.images["flair"].array, subject.images["t1ce"].array
        white = subject.tissue.array == 3
        assert np.median(flair[subject.tumor.array == OEDEMA]) > 1.2 * np.median(flair[white])
        rim = subject.tumor.array == ENHANCING
        if rim.any():
            assert np.median(t1ce[rim]) > 1.1 * np.median(t1ce[white])


def test_ventricles_differ_between_subjects() -> None:
    volumes = [
        volume_ml(make_anatomy(SPACING_MM, None, np.random.default_rng(seed)).ventricles > 0.5) for seed in range(4)
    ]
    assert max(volumes) > 1.3 * min(volumes)
    assert min(volumes) > 5


def test_subject_depends_on_seed_and_number_alone(subjects: list[PhantomSubject]) -> None:
    again, other = make_subject(1, SEED, SPACING_MM), make_subject(1, SEED + 1, SPACING_MM)
    for modality in MODALITIES:
        np.testing.assert_array_equal(again.images[modality].array, subjects[0].images[modality].array)
    assert (other.tissue.array != subjects[0].tissue.array).any()
    assert (subjects[1].tissue.array != subjects[0].tissue.array).any()


@pytest.mark.parametrize("file_format", ["nifti", "dicom"])
def test_same_seed_gives_the_same_bytes(file_format: str, tmp_path: Path) -> None:
    seen: list[int] = []
    for name in ("once", "twice"):
        write_cohort(tmp_path / name, 1, file_format, SEED, 5.0, workers=1, on_case=seen.append)
    assert seen == [1, 1]
    assert read_folder(tmp_path / "once") == read_folder(tmp_path / "twice")


def test_nifti_is_laid_out_as_brats(subjects: list[PhantomSubject], tmp_path: Path) -> None:
    write_subject(subjects[0], 1, tmp_path, "nifti")
    names = {f"Phantom_00001/Phantom_00001_{kind}.nii.gz" for kind in (*MODALITIES, "seg")}
    assert {str(path) for path in read_folder(tmp_path)} == names
    seg = load_volume(tmp_path / "Phantom_00001" / "Phantom_00001_seg.nii.gz")
    np.testing.assert_array_equal(np.array([0, 1, 2, 4])[subjects[0].tumor.array], seg.array)
    np.testing.assert_array_equal(seg.affine, subjects[0].tumor.affine)


def test_dicom_images_convert_to_the_same_volumes(study: Path, subjects: list[PhantomSubject], tmp_path: Path) -> None:
    found = set()
    for folder in sorted(study.iterdir()):
        description = pydicom.dcmread(folder / "IM0001.dcm").SeriesDescription
        if description not in DESCRIPTIONS:
            continue
        out = tmp_path / folder.name
        out.mkdir()
        command = [dcm2niix.bin, "-p", "n", "-b", "n", "-z", "n", "-f", "image", "-o", str(out), str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        converted = to_ras(load_volume(out / "image.nii"))
        expected = to_ras(subjects[0].images[DESCRIPTIONS[description]])
        assert converted.same_grid(expected, tolerance_mm=1e-3)
        np.testing.assert_array_equal(converted.array, expected.array)
        found.add(DESCRIPTIONS[description])
    assert found == set(MODALITIES)


def test_dicom_segmentation_reads_back(study: Path, subjects: list[PhantomSubject]) -> None:
    headers = {folder: pydicom.dcmread(folder / "IM0001.dcm") for folder in study.iterdir()}
    (folder,) = [folder for folder, header in headers.items() if header.Modality == "SEG"]
    (source,) = [header for header in headers.values() if "ContrastBolusAgent" in header]
    segmentation = hd.seg.segread(folder / "IM0001.dcm")
    assert [s.SegmentLabel for s in segmentation.SegmentSequence] == ["necrotic core", "oedema", "enhancing tumor"]
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert {header.FrameOfReferenceUID for header in headers.values()} == {source.FrameOfReferenceUID}
    frames = segmentation.get_volume(combine_segments=True)
    cropped = to_ras(Volume(np.asarray(frames.array, np.uint8), RAS_TO_LPS @ frames.affine))
    expected = to_ras(subjects[0].tumor)
    first = np.rint(np.linalg.inv(expected.affine) @ cropped.affine[:, 3])[:3].astype(int)
    whole = np.zeros_like(expected.array)
    whole[tuple(slice(i, i + n) for i, n in zip(first, cropped.array.shape, strict=True))] = cropped.array
    np.testing.assert_array_equal(whole, expected.array)


def test_dicom_headers_carry_an_invented_person(study: Path) -> None:
    header = pydicom.dcmread(study / "series01" / "IM0001.dcm")
    assert header.PatientName and header.PatientID and header.PatientBirthDate


def test_wrong_arguments_are_refused(subjects: list[PhantomSubject], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="spacing"):
        make_subject(1, SEED, 0.5)
    with pytest.raises(ConfigError, match="format"):
        write_subject(subjects[0], 1, tmp_path, "png")
    with pytest.raises(ConfigError, match="format"):
        write_cohort(tmp_path, 1, "png", SEED, SPACING_MM, 1)
    with pytest.raises(ConfigError, match="at least 1"):
        write_cohort(tmp_path, 0, "nifti", SEED, SPACING_MM, 1)
