"""The good cases that a fuzzing campaign damages: a toy brain of two modalities as NIfTI, DICOM with SEG and RTSTRUCT.

Identifiers are planted wherever real ones sit; no message may carry one.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import yaml
from conftest import toy_brain
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage
from skimage.measure import find_contours

from pipeline.config import IngestSection
from pipeline.ingest.manifest import Manifest
from pipeline.phantom.dicom import write_study
from pipeline.volumes import Volume

PLANTED = ("quillfeather", "vosk", "zq77315")
SUBJECT = "Vosk_Quillfeather_ZQ77315"
SHAPE, SPACING_MM = (26, 28, 22), 6.0
AFFINE = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])
AFFINE[:3, 3] = [70.0, 80.0, -60.0]
CONFIG = IngestSection(spacing_mm=8.0, size_voxels=(24, 24, 24), leakage_guard=False)

# What is damaged in which format: the manifest that reads it, and the folder of the good case.
NIFTI = """
name: fuzzed
license: none
citation: none
format: nifti
images: {t1ce: "{subject}/t1ce_{subject}.nii.gz", flair: "{subject}/flair_{subject}.nii"}
tumor: "{subject}/seg_{subject}.nii.gz"
labels: {necrotic_core: 1, oedema: 2, enhancing: 4}
"""
DICOM = """
name: fuzzed
license: none
citation: none
format: dicom
series: {t1ce: {description: '^T1 AX.*GAD', contrast: true}, flair: {description: '^FLAIR AX'}}
segments: {necrotic_core: 'necro', oedema: 'oedema', enhancing: 'enhanc'}
prepared: {skull_stripped: true, coregistered: true, resampled: true}
"""


def make_manifests() -> dict[str, Manifest]:
    """Return the manifest of each kind of good case."""
    nifti, dicom = yaml.safe_load(NIFTI), yaml.safe_load(DICOM)
    whole = {"skull_stripped": True, "coregistered": True, "resampled": True}
    contents = {
        "nifti": {**nifti, "prepared": whole},
        # Registers, and takes the brain from a mask.
        "nifti-raw": {**nifti, "brain_mask": "{subject}/mask_{subject}.nii.gz"},
        "dicom-seg": {**dicom, "tumor_series": {"description": "TUMOR SEG"}},
        "dicom-rt": {**dicom, "tumor_series": {"description": "TUMOR RT"}},
    }
    return {kind: Manifest.model_validate(content) for kind, content in contents.items()}


def write_good_case(folder: Path, kind: str) -> None:
    """Write the good case of a kind below a folder."""
    images, _, tumor = toy_brain(SHAPE, np.random.default_rng(5))
    if kind.startswith("nifti"):
        arrays = {
            "t1ce": images["t1ce"].astype(np.int16),
            "flair": images["flair"],
            "seg": np.array([0, 1, 2, 4], np.uint8)[tumor],
        }
        if kind == "nifti-raw":
            arrays["mask"] = (images["t1ce"] > 0).astype(np.uint8)
        for role, array in arrays.items():
            _write_nifti(array, AFFINE, folder / SUBJECT / f"{role}_{SUBJECT}.nii{'' if role == 'flair' else '.gz'}")
        return
    volumes = {name: Volume(images[name].astype(np.int16), AFFINE) for name in ("t1ce", "flair")}
    write_study({**volumes, "t1": volumes["t1ce"]}, Volume(tumor, AFFINE), 1, folder / SUBJECT)
    for path in sorted(folder.rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        path.unlink()
        if dataset.get("SeriesDescription") == "T1 AX" or (kind == "dicom-rt" and dataset.Modality == "SEG"):
            continue
        _plant(dataset)
        dataset.save_as(path.with_name(f"{SUBJECT}_{dataset.Modality}_{dataset.SOPInstanceUID[-8:]}.dcm"))
    if kind == "dicom-rt":
        template = pydicom.dcmread(next(folder.rglob("*.dcm")))
        _make_contours(template, tumor, AFFINE).save_as(folder / SUBJECT / f"{SUBJECT}_RTSTRUCT.dcm")


def _write_nifti(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header["descrip"] = b"Vosk^Quillfeather ZQ77315"
    image.header["db_name"] = image.header["intent_name"] = b"Quillfeather"
    image.header["aux_file"] = b"ZQ77315"
    nib.save(image, path)


def _plant(dataset: Dataset) -> None:
    dataset.PatientName = "Quillfeather^Vosk"
    dataset.PatientID = "ZQ77315"
    # Short and of letters alone, as a code of the standard is.
    dataset.ReferringPhysicianName = "Vosk"
    dataset.StudyID = "ZQ77315"
    dataset.PatientComments = "Vosk Quillfeather ZQ77315"


def _make_contours(template: Dataset, tumor: np.ndarray, affine: np.ndarray) -> Dataset:
    """Return an RTSTRUCT of the tumour map, a contour around each class in each axial slice."""
    dataset = template
    for name in ("PixelData", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del dataset[name]
    dataset.Modality, dataset.SeriesDescription = "RTSTRUCT", "TUMOR RT"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.4711"
    dataset.SeriesInstanceUID = "2.25.4712"
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    # Oedema surrounds the other classes: they are drawn over it.
    for number, (name, values) in enumerate({"necrotic": [1], "oedema": [1, 2, 3], "enhancing": [3]}.items(), start=1):
        roi, item = Dataset(), Dataset()
        roi.ROINumber = item.ReferencedROINumber = number
        roi.ROIName = f"{name} Quillfeather"
        item.ContourSequence = []
        for k in range(tumor.shape[2]):
            for outline in find_contours(np.isin(tumor[:, :, k], values).astype(float), 0.5):
                points = np.c_[outline[:-1], np.full(len(outline) - 1, k), np.ones(len(outline) - 1)] @ affine.T
                contour = Dataset()
                contour.ContourGeometricType = "CLOSED_PLANAR"
                contour.ContourData = [f"{v:.6g}" for v in (points[:, :3] * [-1, -1, 1]).ravel()]
                contour.NumberOfContourPoints = len(points)
                item.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(item)
    return dataset
