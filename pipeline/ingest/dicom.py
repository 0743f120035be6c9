"""DICOM: find series by what their headers say, convert images by dcm2niix, read segmentations by highdicom.

Only headers listed here are looked at, and none is passed on. dcm2niix is called with ``-p n``: its default scaling of
Philips scans differs from the stored values (measured by the project). Files are handed to it under neutral names.
"""

import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from pipeline.errors import CaseError, DataError
from pipeline.ingest.discover import SourceCase
from pipeline.ingest.manifest import Manifest, SeriesRule
from pipeline.volumes import Volume, load_volume, to_ras

HEADER_TAGS = [
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "Modality",
    "ContrastBolusAgent",
]
CONVERSION_TIMEOUT_S = 300


@dataclass
class Series:
    """One DICOM series as found: who, what, which files."""

    subject: str
    study: str
    modality: str
    description: str
    contrast: bool
    files: list[Path] = field(default_factory=list)


def discover_dicom(root: Path, manifest: Manifest) -> list[SourceCase]:
    """Find studies below a folder and the series that the manifest asks for; folder and file names mean nothing.

    Returns
    -------
    list of SourceCase
        One per patient and study, sorted; a case that lacks a series, or has two for one rule, says so.

    Raises
    ------
    DataError
        If there is no DICOM file.
    """
    studies: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for series in read_series(root):
        studies[(series.subject, series.study)].append(series)
    if not studies:
        raise DataError("no DICOM file below ingest.source; expected studies; correct ingest.source or ingest.manifest")
    n_studies: dict[str, int] = defaultdict(int)
    cases = []
    for number, (subject, study) in enumerate(sorted(studies), start=1):
        n_studies[subject] += 1
        name = subject if n_studies[subject] == 1 else f"{subject}/{study}"
        match = re.fullmatch(manifest.subject, subject)
        person = (match.groupdict().get("person") if match else None) or subject
        files, problem = assign_series(studies[(subject, study)], manifest)
        if not subject.strip():
            problem = "study without PatientID; expected one that tells persons apart; give each person an identifier"
        cases.append(SourceCase(number, name, person, files, problem))
    return cases


def read_series(root: Path) -> list[Series]:
    """Group all DICOM files below a folder by patient, study and series; other files are passed over."""
    series: dict[tuple[str, str, str], Series] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER_TAGS)
        except (InvalidDicomError, OSError, ValueError, KeyError, EOFError):
            continue
        uid = str(header.get("SeriesInstanceUID", ""))
        if not uid:
            continue
        subject, study = str(header.get("PatientID", "")), str(header.get("StudyInstanceUID", ""))
        # A UID that two patients share, by a tool's fault, must not mix them.
        key = (subject, study, uid)
        if key not in series:
            series[key] = Series(
                subject=subject,
                study=study,
                modality=str(header.get("Modality", "")),
                description=str(header.get("SeriesDescription", "")),
                contrast=bool(str(header.get("ContrastBolusAgent", "")).strip()),
            )
        series[key].files.append(path)
    return list(series.values())


def assign_series(study: Sequence[Series], manifest: Manifest) -> tuple[dict[str, tuple[Path, ...]], str]:
    """Choose the series of each modality and the segmentation.

    Returns
    -------
    files : dict of str to tuple of Path
    problem : str
        Which series are missing or ambiguous; empty if none.
    """
    files: dict[str, tuple[Path, ...]] = {}
    problems = []
    rules: dict[str, tuple[str, SeriesRule]] = {name: ("MR", rule) for name, rule in manifest.series.items()}
    if manifest.tumor_series is not None:
        rules["tumor"] = ("SEG", manifest.tumor_series)
    for name, (modality, rule) in rules.items():
        matches = [series for series in study if series.modality == modality and rule_fits(rule, series)]
        if len(matches) == 1:
            files[name] = tuple(matches[0].files)
        else:
            problems.append(f"{len(matches)} series for {name}")
    if problems:
        return files, f"{', '.join(problems)}; expected one each; correct the series rules in the data manifest"
    n_objects = len(files.get("tumor", ()))
    if n_objects > 1:
        return files, f"{n_objects} segmentation objects in one series; expected one; export all segments as one object"
    return files, ""


def rule_fits(rule: SeriesRule, series: Series) -> bool:
    """Tell whether a series is what a rule describes."""
    if not re.search(rule.description, series.description, re.IGNORECASE):
        return False
    if rule.exclude and re.search(rule.exclude, series.description, re.IGNORECASE):
        return False
    return rule.contrast is None or rule.contrast == series.contrast


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
    with tempfile.TemporaryDirectory(prefix="synthcohort-") as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
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
                f"DICOM series gives {len(volumes)} volumes (dcm2niix exit code {result.returncode}); expected one; "
                "check that the series is a whole, plain MR volume"
            )
        volume = load_volume(volumes[0])
        # The file goes with the folder: what was memory-mapped has to be read now.
        return Volume(np.array(volume.array), volume.affine)


def _read_rescale(path: Path) -> tuple[float, float]:
    """Return slope and intercept of a file; 1 and 0 where it has none."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["RescaleSlope", "RescaleIntercept"])
        return float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    except (InvalidDicomError, OSError, ValueError, TypeError):
        # dcm2niix judges whether the file is of use.
        return 1.0, 0.0


def _write_with_one_rescale(files: Sequence[Path], folder: Path) -> None:
    """Write copies of slices on one scale: dcm2niix applies the first slice's slope and intercept to all of them."""
    try:
        slices = [pydicom.dcmread(path) for path in files]
        values = [
            item.pixel_array * float(item.get("RescaleSlope", 1)) + float(item.get("RescaleIntercept", 0))
            for item in slices
        ]
    except Exception as error:  # pydicom and its decoders raise many types on damaged pixels
        raise CaseError(
            f"unreadable DICOM series ({type(error).__name__}); expected whole slices; export it anew"
        ) from error
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    slope = max(high - low, 1e-6) / np.iinfo(np.uint16).max
    for number, (item, value) in enumerate(zip(slices, values, strict=True)):
        item.RescaleSlope, item.RescaleIntercept = f"{slope:.10g}", f"{low:.10g}"
        stored = np.rint((value - low) / slope).clip(0, np.iinfo(np.uint16).max).astype(np.uint16)
        item.set_pixel_data(stored, str(item.PhotometricInterpretation), 16)
        item.save_as(folder / f"{number:06d}.dcm")


def read_segmentation(path: Path, manifest: Manifest) -> Volume:
    """Read a DICOM SEG.

    Parameters
    ----------
    path : Path
    manifest : Manifest
        ``segments`` tells which segment label means which tumour class.

    Returns
    -------
    Volume
        uint8 tumour map in RAS, over the slices that hold segments only.

    Raises
    ------
    CaseError
        If it is unreadable, has no segment that the manifest names, or segments overlap.
    """
    import highdicom

    try:
        segmentation = highdicom.seg.segread(path)
        descriptions = [segmentation.get_segment_description(n) for n in segmentation.segment_numbers]
        volume = segmentation.get_volume(combine_segments=True, dtype=np.uint8)
        image = volume.to_nibabel()
    except Exception as error:  # highdicom and pydicom raise many types on files that break the standard
        raise CaseError(
            f"unreadable DICOM SEG ({type(error).__name__}); expected segments that do not overlap; export it anew"
        ) from error
    numbers: dict[str, list[int]] = {
        name: [int(d.segment_number) for d in descriptions if re.search(rule, str(d.segment_label), re.IGNORECASE)]
        for name, rule in manifest.segments.items()
    }
    if not any(numbers.values()):
        raise CaseError("no segment that the manifest names; expected labels as in `segments:`; correct the manifest")
    values = np.asarray(image.dataobj)
    tumor = manifest.scheme.from_source(values, numbers)
    return to_ras(Volume(tumor, np.asarray(image.affine, np.float64)))


def _dcm2niix() -> str:
    from dcm2niix import bin as bundled

    return str(bundled) if Path(str(bundled)).is_file() else shutil.which("dcm2niix") or "dcm2niix"
