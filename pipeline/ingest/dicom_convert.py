"""Convert a DICOM series to a volume by dcm2niix.

It is called with ``-p n``: its default scaling of Philips scans differs from the stored values (measured by the
project). Files are handed to it under neutral names, and no header comes back.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from pipeline.errors import CaseError
from pipeline.ingest.dicom_read import read_dataset, read_header
from pipeline.scratch import temporary_folder
from pipeline.volumes import MAX_INTENSITY, Volume, load_volume

CONVERSION_TIMEOUT_S = 300
GEOMETRY_TAGS = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "SliceLocation",
    # dcm2niix reads some makers' files in ways of their own.
    "Manufacturer",
)
FRESH_ROOT = "2.25.1"


def convert_series(files: Sequence[Path]) -> Volume:
    """Convert one MR series to a volume by dcm2niix.

    Parameters
    ----------
    files : sequence of Path
        All files of the series.

    Returns
    -------
    Volume
        World space RAS+, values as stored, rescale slope and intercept applied.

    Raises
    ------
    CaseError
        If dcm2niix fails or does not make exactly one volume.
    """
    with temporary_folder() as folder:
        source, target = folder / "in", folder / "out"
        source.mkdir()
        target.mkdir()
        if len({_read_rescale(path) for path in files}) > 1:
            _write_with_one_rescale(files, source)
        else:
            for number, path in enumerate(files):
                (source / f"{number:06d}.dcm").symlink_to(path.resolve())
        command = [_dcm2niix(), "-b", "n", "-z", "n", "-p", "n", "-f", "volume", "-o", str(target), str(source)]
        try:
            result = subprocess.run(command, capture_output=True, timeout=CONVERSION_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise CaseError("DICOM conversion did not end; expected one volume; check the series") from error
        volumes = sorted(target.glob("*.nii"))
        if result.returncode not in (0, 8) or len(volumes) != 1:
            raise CaseError(
                f"DICOM series of {len(files)} files gives {len(volumes)} volumes (dcm2niix exit code "
                f"{result.returncode}); expected one; an image may be damaged or missing: export the series anew"
            )
        return load_volume(volumes[0])


def _read_rescale(path: Path) -> tuple[float, float]:
    """Return slope and intercept of a file; 1 and 0 where it has none."""
    try:
        header = read_header(path, ["RescaleSlope", "RescaleIntercept"])
        return float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    except (InvalidDicomError, OSError, ValueError, TypeError):
        # dcm2niix judges whether the file is of use.
        return 1.0, 0.0


def _write_with_one_rescale(files: Sequence[Path], folder: Path) -> None:
    """Write slices anew on one scale: dcm2niix applies the first slice's slope and intercept to all of them.

    The new headers hold geometry and pixel description, and nothing of a person.
    """
    try:
        slices = [read_dataset(path) for path in files]
        values = [
            item.pixel_array * float(item.get("RescaleSlope", 1)) + float(item.get("RescaleIntercept", 0))
            for item in slices
        ]
    except Exception as error:  # pydicom and its decoders raise many types on damaged pixels
        raise CaseError(
            f"unreadable DICOM series ({type(error).__name__}); expected whole slices; export it anew"
        ) from error
    lows, highs = [float(v.min()) for v in values], [float(v.max()) for v in values]
    if not all(abs(value) < MAX_INTENSITY for value in (*lows, *highs)):
        raise CaseError("DICOM series with an absurd rescale slope or intercept; expected numbers; export it anew")
    low, high = min(lows), max(highs)
    slope = max(high - low, 1e-6) / np.iinfo(np.uint16).max
    for number, (item, value) in enumerate(zip(slices, values, strict=True), start=1):
        fresh = Dataset()
        for name in GEOMETRY_TAGS:
            # Text beyond ASCII would need the source's character set.
            if name in item and str(item[name].value).isascii():
                fresh[name] = item[name]
        fresh.SOPClassUID, fresh.SOPInstanceUID = MRImageStorage, f"{FRESH_ROOT}.{number}"
        fresh.StudyInstanceUID = fresh.SeriesInstanceUID = fresh.FrameOfReferenceUID = FRESH_ROOT
        fresh.Modality, fresh.SeriesNumber, fresh.InstanceNumber = "MR", 1, number
        fresh.RescaleSlope, fresh.RescaleIntercept = f"{slope:.10g}", f"{low:.10g}"
        fresh.file_meta = FileMetaDataset()
        fresh.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        stored = np.rint((value - low) / slope).clip(0, np.iinfo(np.uint16).max).astype(np.uint16)
        fresh.set_pixel_data(stored, "MONOCHROME2", 16)
        fresh.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)


def _dcm2niix() -> str:
    from dcm2niix import bin as bundled

    return str(bundled) if Path(str(bundled)).is_file() else shutil.which("dcm2niix") or "dcm2niix"
