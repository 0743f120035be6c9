"""A phantom as a DICOM study: one classic MR series per modality and one segmentation object.

The headers carry an invented person, hospital and staff, in the places where real ones sit (nested sequences and a
private block included), so that de-identification has something to remove. Identifiers and dates derive from the
subject's number alone: the same subject gives the same bytes.

References
----------
DICOM PS3.3, A.4 (MR Image), A.51 (Segmentation). Herz et al. 2017, "dcmqi", doi:10.1158/0008-5472.CAN-17-0336.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from pipeline.labels import LabelScheme
from pipeline.resampling import RAS_TO_LPS
from pipeline.volumes import Volume

STUDY_DATE = "20190314"
# Echo, repetition, inversion time in ms, flip angle in degrees, scanning sequence, description.
SEQUENCES: dict[str, tuple[float, float, float | None, float, str, str]] = {
    "t1": (2.98, 1900.0, 900.0, 9.0, "GR", "T1 AX"),
    "t1ce": (2.98, 1900.0, 900.0, 9.0, "GR", "T1 AX POST GAD"),
    "t2": (96.0, 5200.0, None, 120.0, "SE", "T2 AX"),
    "flair": (125.0, 9000.0, 2500.0, 150.0, "SE", "FLAIR AX"),
}
SEGMENT_NAMES = {"necrotic_core": "necrotic core", "oedema": "oedema", "enhancing": "enhancing tumor"}
SURNAMES = ("Abbott", "Benitez", "Chowdhury", "Dvorak", "Eriksen", "Fontaine", "Grabowski", "Haddad", "Ito", "Jansen")
GIVEN_NAMES = ("Alex", "Bao", "Carmen", "Dana", "Emil", "Farah", "Gita", "Hugo", "Ines", "Jan")
PRIVATE_GROUP, PRIVATE_CREATOR = 0x0029, "PHANTOM WORKSTATION"


def write_study(images: Mapping[str, Volume], tumor: Volume, index: int, folder: Path) -> None:
    """Write a study: ``series01`` to ``series05`` in an order that differs between subjects, ``IM0001.dcm`` and on.

    Parameters
    ----------
    images : mapping of str to Volume
        int16, one grid, axes along L, P, S.
    tumor : Volume
        uint8 on the same grid, values of :class:`pipeline.labels.LabelScheme`.
    index : int
        Running number of the subject.
    folder : Path
        Made if missing.
    """
    digest = hashlib.sha256(images["t1"].array.tobytes()).hexdigest()
    identity = f"{index}/{digest}"
    order = np.random.default_rng(int(digest[:8], 16)).permutation(len(images) + 1) + 1
    numbers = dict(zip([*images, "seg"], (int(number) for number in order), strict=True))
    series: dict[str, list[FileDataset]] = {}
    for modality, volume in images.items():
        series[modality] = _make_series(volume, modality, identity, index, numbers[modality])
        _write(series[modality], folder / f"series{numbers[modality]:02d}")
    segmentation = _make_segmentation(series["t1ce"], tumor, identity, numbers["seg"])
    _write([segmentation], folder / f"series{numbers['seg']:02d}")


def derive_uid(*parts: object) -> UID:
    """Return a UID under the root 2.25 that depends on the parts alone (PS3.5, B.2)."""
    text = "/".join(str(part) for part in ("phantom", *parts))
    return UID(f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}")


def _write(datasets: Sequence[Dataset], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(datasets, start=1):
        dataset.save_as(folder / f"IM{number:04d}.dcm", enforce_file_format=True)


def _make_series(volume: Volume, modality: str, identity: str, index: int, number: int) -> list[FileDataset]:
    """Return one dataset per axial slice, from the feet up."""
    template = Dataset()
    _add_person(template, identity, index)
    _add_study(template, identity, index)
    _add_sequence(template, modality, identity, number)
    spacing_mm = volume.spacing_mm
    affine = RAS_TO_LPS @ volume.affine
    template.PixelSpacing = [_decimal(spacing_mm[1]), _decimal(spacing_mm[0])]
    template.SliceThickness = _decimal(spacing_mm[2])
    template.SpacingBetweenSlices = _decimal(spacing_mm[2])
    template.ImageOrientationPatient = [
        _decimal(float(value)) for axis in (0, 1) for value in affine[:3, axis] / spacing_mm[axis]
    ]
    datasets = []
    for k in range(volume.array.shape[2]):
        position = affine @ np.array([0, 0, k, 1.0])
        datasets.append(_make_slice(template, volume.array[:, :, k], position, k, (identity, modality)))
    return datasets


def _make_slice(
    template: Dataset,
    pixels: NDArray[np.int16],
    position: NDArray[np.float64],
    k: int,
    series_key: tuple[str, str],
) -> FileDataset:
    """Return one image; pixels, (x, y), position in LPS+ of the centre of the first."""
    uid = derive_uid(*series_key, k)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = derive_uid("implementation")
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.update(template)
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = uid
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = [_decimal(float(value)) for value in position[:3]]
    dataset.SliceLocation = _decimal(float(position[2]))
    dataset.Rows, dataset.Columns = pixels.shape[1], pixels.shape[0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.PixelData = np.ascontiguousarray(pixels.T).astype("<i2").tobytes()
    return dataset


def _decimal(value: float) -> str:
    """Return a decimal string of at most 16 characters, without a minus zero."""
    return f"{round(value, 6) + 0.0:.10g}"


def _add_person(dataset: Dataset, identity: str, index: int) -> None:
    """Invent a person; every value is made up."""
    draw = hashlib.sha256(identity.encode()).digest()
    name = f"{SURNAMES[draw[0] % len(SURNAMES)]}^{GIVEN_NAMES[draw[1] % len(GIVEN_NAMES)]}"
    age = 25 + draw[2] % 60
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = name
    dataset.PatientID = f"MRN{100000 + index * 37}"
    dataset.PatientBirthDate = f"{2019 - age}{1 + draw[3] % 12:02d}{1 + draw[4] % 28:02d}"
    dataset.PatientSex = "FM"[draw[5] % 2]
    dataset.PatientAge = f"{age:03d}Y"
    dataset.PatientWeight = f"{50 + draw[6] % 50}"
    dataset.PatientAddress = f"{1 + draw[7] % 90} Invented Street, Nowhere"
    dataset.OtherPatientIDs = f"ALT-{index:06d}"
    dataset.PatientComments = f"Seen with spouse of {name.replace('^', ' ')}"


def _add_study(dataset: Dataset, identity: str, index: int) -> None:
    """Invent hospital, staff and request."""
    dataset.StudyInstanceUID = derive_uid(identity, "study")
    dataset.StudyID = f"{index}"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = STUDY_DATE
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "101500"
    dataset.StudyDescription = "MR BRAIN W WO CONTRAST"
    dataset.AccessionNumber = f"ACC{500000 + index}"
    dataset.InstitutionName = "Invented General Hospital"
    dataset.InstitutionAddress = "1 Invented Square, Nowhere"
    dataset.ReferringPhysicianName = "Referrer^Robin"
    dataset.OperatorsName = "Operator^Olga"
    dataset.StationName = "MRINVENT1"
    dataset.DeviceSerialNumber = "SN-0042"
    request = Dataset()
    request.RequestedProcedureID = f"RP{index}"
    request.RequestedProcedureDescription = f"Brain tumour follow-up of {str(dataset.PatientName).replace('^', ' ')}"
    request.RequestingPhysician = "Requester^Rita"
    dataset.RequestAttributesSequence = [request]
    block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(0x10, "LO", f"exported for {dataset.PatientID}")


def _add_sequence(dataset: Dataset, modality: str, identity: str, number: int) -> None:
    """Add series, equipment and MR parameters; frame of reference and patient position are the study's."""
    echo_ms, repetition_ms, inversion_ms, flip_degrees, scanning, description = SEQUENCES[modality]
    dataset.Modality = "MR"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.SeriesInstanceUID = derive_uid(identity, modality, "series")
    dataset.SeriesNumber = dataset.AcquisitionNumber = number
    dataset.SeriesDescription = description
    dataset.ProtocolName = f"{description} {dataset.PatientName}".replace("^", " ")
    dataset.FrameOfReferenceUID = derive_uid(identity, "frame")
    dataset.PositionReferenceIndicator = "NASION"
    dataset.PatientPosition = "HFS"
    dataset.BodyPartExamined = "BRAIN"
    dataset.Laterality = ""
    dataset.Manufacturer = "Invented Imaging"
    dataset.ManufacturerModelName = "Invented 3T"
    dataset.SoftwareVersions = "1.0"
    dataset.MagneticFieldStrength = "3"
    dataset.ImagingFrequency = "123.2"
    dataset.ImagedNucleus = "1H"
    dataset.MRAcquisitionType = "3D" if scanning == "GR" else "2D"
    dataset.ScanningSequence = [scanning, "IR"] if inversion_ms is not None else scanning
    dataset.SequenceVariant = "SP" if scanning == "GR" else "SK"
    dataset.ScanOptions = ""
    dataset.EchoTime = _decimal(echo_ms)
    dataset.RepetitionTime = _decimal(repetition_ms)
    if inversion_ms is not None:
        dataset.InversionTime = _decimal(inversion_ms)
    dataset.FlipAngle = _decimal(flip_degrees)
    dataset.EchoTrainLength = "1" if scanning == "GR" else "16"
    dataset.NumberOfAverages = "1"
    if modality == "t1ce":
        dataset.ContrastBolusAgent = "Gadolinium"


def _make_segmentation(sources: list[FileDataset], tumor: Volume, identity: str, number: int) -> Dataset:
    """Return the tumour map as a binary segmentation that refers to the slices of one series."""
    segmentation = Segmentation(
        source_images=sources,
        pixel_array=np.ascontiguousarray(tumor.array.transpose(2, 1, 0)),
        segmentation_type="BINARY",
        segment_descriptions=_describe_segments(),
        series_instance_uid=derive_uid(identity, "seg", "series"),
        series_number=number,
        sop_instance_uid=derive_uid(identity, "seg"),
        instance_number=1,
        manufacturer="Invented Imaging",
        manufacturer_model_name="Invented Segmenter",
        software_versions="1.0",
        device_serial_number="SN-0043",
        content_label="TUMOR",
        content_creator_name="Reader^Renee",
        omit_empty_frames=True,
        series_description="TUMOR SEG",
    )
    _fix_times(segmentation, derive_uid(identity, "seg", "dimensions"))
    dataset: Dataset = segmentation
    return dataset


def _describe_segments() -> list[SegmentDescription]:
    """Return one description per tumour class, in the order of the label scheme, coded as in dcmqi's tables."""
    category = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
    codes = {
        "necrotic_core": CodedConcept("6574001", "SCT", "Necrosis"),
        "oedema": CodedConcept("79654002", "SCT", "Edema"),
        "enhancing": CodedConcept("86049000", "SCT", "Neoplasm, Primary"),
    }
    return [
        SegmentDescription(value, SEGMENT_NAMES[name], category, codes[name], "MANUAL")
        for name, value in LabelScheme().tumor_values.items()
    ]


def _fix_times(segmentation: Dataset, dimension_uid: str) -> None:
    """Replace what highdicom takes from the clock or draws at random, so that the bytes can be repeated."""
    for keyword in ("ContentDate", "InstanceCreationDate", "SeriesDate"):
        if keyword in segmentation:
            segmentation[keyword].value = STUDY_DATE
    for keyword in ("ContentTime", "InstanceCreationTime", "SeriesTime"):
        if keyword in segmentation:
            segmentation[keyword].value = "113000"
    for equipment in segmentation.ContributingEquipmentSequence:
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = f"{STUDY_DATE}113000"
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = dimension_uid
    for item in segmentation.DimensionIndexSequence:
        item.DimensionOrganizationUID = dimension_uid
