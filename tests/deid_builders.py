"""Files with something to find, and the same without: small, of each format that the check reads."""

import gzip
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from pipeline.deid_check.scan import check_path

NAME = "Muster^Erika"
TIFF_PREAMBLE = b"II*\0" + bytes(124)


def found(path: Path) -> list[tuple[str, str]]:
    """Return where and what of each finding; no value that was planted may be shown."""
    result = check_path(path)
    assert result.n_findings >= len(result.findings)
    shown = " ".join(f"{item.where} {item.what}" for item in (*result.findings, *result.doubts))
    for secret in ("Muster", "Erika", "1961", "555-0", "@"):
        assert secret not in shown
    return [(item.where, item.what) for item in result.findings]


def clean_dicom() -> FileDataset:
    """Return an image as a careful exporter leaves it: geometry, parameters, pixels, and what says that it is clean."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = "2.25.1234567"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = "1.2.826.0.1.3680043.8.498.1"
    meta.ImplementationVersionName = "PYDICOM 3.0.2"
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, "2.25.1234567"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "2.25.1", "2.25.2", "2.25.3"
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.StudyID = data.PatientBirthDate = ""
    data.PatientSex = data.ReferringPhysicianName = ""
    data.PatientName = data.PatientID = "sub-syn0001"
    data.PatientIdentityRemoved, data.DeidentificationMethod = "YES", "drawn by a generator"
    data.BurnedInAnnotation = "NO"
    data.SyntheticData = "YES"
    data.SeriesDescription = "SYNTHETIC T1w"
    data.Modality, data.Manufacturer, data.ManufacturerModelName = "MR", "synthcohort", "generator"
    data.ImageType = ["DERIVED", "PRIMARY"]
    data.SoftwareVersions, data.BodyPartExamined, data.PositionReferenceIndicator = "0.1.0", "BRAIN", ""
    data.ContributingEquipmentSequence = [equipment("109100", "Synthesizing Equipment")]
    data.ScanningSequence, data.SequenceVariant, data.MRAcquisitionType = "GR", ["SP", "MP"], "3D"
    data.EchoTime, data.RepetitionTime, data.FlipAngle, data.MagneticFieldStrength = "2.98", "1900", "9", "3"
    data.ImagePositionPatient, data.ImageOrientationPatient = ["-7.5", "1e-3", "0"], ["1", "0", "0", "0", "1", "0"]
    data.PixelSpacing, data.SliceThickness, data.PatientPosition = ["1", "1"], "1", "HFS"
    data.SeriesNumber = data.AcquisitionNumber = data.InstanceNumber = 1
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 4, 3, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = bytes(24)
    return data


def equipment(code: str, meaning: str) -> Dataset:
    """Return an item of Contributing Equipment."""
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code, "DCM", meaning
    item = Dataset()
    item.Manufacturer, item.PurposeOfReferenceCodeSequence = "synthcohort", [purpose]
    return item


def save_dicom(data: FileDataset, path: Path, **options: object) -> Path:
    data.save_as(path, enforce_file_format=True, **options)
    return path


def save_nifti(path: Path, version: int = 1, **fields: bytes) -> Path:
    """Write a NIfTI file of nothing but geometry, with text fields as given."""
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    image = kind(np.ones((5, 4, 3), np.int16), np.eye(4))
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def gzipped(content: bytes, name: str = "", comment: bytes = b"", extra: bytes = b"") -> bytes:
    """Return a gzip file with header fields of choice."""
    flags = (8 if name else 0) | (16 if comment else 0) | (4 if extra else 0)
    body = gzip.compress(content, mtime=0)[10:]
    header = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    header += struct.pack("<H", len(extra)) + extra if extra else b""
    header += name.encode("latin-1") + b"\0" if name else b""
    header += comment + b"\0" if comment else b""
    return header + body


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes, behind: bytes = b"") -> bytes:
    """Return a PNG of one pixel with more chunks."""
    head = chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0\0"))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + data + chunk(b"IEND", b"") + behind


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg(*segments: bytes, behind: bytes = b"") -> bytes:
    """Return the bones of a JPEG: enough for who reads markers."""
    start, scan = segment(0xE0, b"JFIF\0\1\2\0\0\1\0\1\0\0"), segment(0xDA, b"\1\1\0\0\x3f\0")
    return b"\xff\xd8" + start + b"".join(segments) + scan + b"\x12\xff\x00\x34\xff\xd9" + behind
