"""DICOM: find studies and series by what their headers say, and choose the series of each modality.

Only the headers listed here are looked at, and none is passed on; folder and file names mean nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from pipeline.errors import DataError
from pipeline.ingest.dicom_labels import referenced_series
from pipeline.ingest.dicom_read import is_dicom, read_header
from pipeline.ingest.discover import SeriesChoice, SourceCase, compile_pattern
from pipeline.ingest.files import raise_if_lost, walk_files
from pipeline.ingest.manifest import Manifest, SeriesRule
from pipeline.progress import progress, say

SEQUENCE_TAGS = ("EchoTime", "RepetitionTime", "InversionTime")
HEADER_TAGS = [
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"),
    *("SeriesDescription", "SeriesNumber", "Modality", "ImageType", "BurnedInAnnotation"),
    *("ContrastBolusAgent", "ContrastBolusAgentSequence", *SEQUENCE_TAGS),
    *("SamplesPerPixel", "Rows", "Columns", "NumberOfFrames", "PixelSpacing", "SliceThickness"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SharedFunctionalGroupsSequence"),
]
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
LABEL_MODALITIES = ("SEG", "RTSTRUCT")
# Those of PS3.3, C.7.3.1.1.1 that turn up beside MR. Any other text in their place may be a name.
OTHER_MODALITIES = (
    "CT",
    "PT",
    "NM",
    "US",
    "XA",
    "RF",
    "CR",
    "DX",
    "MG",
    "OT",
    "SR",
    "PR",
    "KO",
    "REG",
    "RTDOSE",
    "RTPLAN",
)
ORIENTATION_DIGITS, POSITION_DIGITS_MM = 2, 2


@dataclass
class Series:
    """One DICOM series as found: who, what, which files. Holds identifiers: it is never logged or written.

    Parameters
    ----------
    subject, study, uid, modality, description : str
    number : int
        SeriesNumber; 0 where there is none.
    contrast : bool
    times_ms : dict of str to float
        Echo, repetition and inversion time, where stated.
    voxel_mm3 : float
        Volume of a voxel; infinite where it is not stated.
    refusal : str
        Why it is no scan that can be used, in words; empty if it may be.
    """

    subject: str
    study: str
    uid: str
    modality: str
    description: str
    number: int
    contrast: bool
    times_ms: dict[str, float]
    voxel_mm3: float
    refusal: str
    files: list[Path] = field(default_factory=list)
    n_frames: int = 0
    instances: set[str] = field(default_factory=set)
    positions: list[tuple[float, ...]] = field(default_factory=list)
    orientations: set[tuple[float, ...]] = field(default_factory=set)

    def why_not(self) -> str:
        """Return why it is no volume, from its files taken together; empty if it may be one."""
        if self.refusal:
            return self.refusal
        if len(self.orientations) > 1:
            return "a localiser (slices in several orientations)"
        if len(set(self.positions)) < len(self.positions):
            return "several images at one position (4D, or a repeated slice)"
        return ""


def discover_dicom(root: Path, manifest: Manifest) -> list[SourceCase]:
    """Find studies below a folder and the series that the manifest asks for.

    Returns
    -------
    list of SourceCase
        One per patient and study, sorted; a case that lacks a series says so. Its subject is
        ``PatientID/StudyInstanceUID``, its person the PatientID.

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
    drawn = _find_drawn_labels(root, manifest)
    n_studies = Counter(subject for subject, _ in studies)
    cases = []
    for number, (subject, study) in enumerate(sorted(studies), start=1):
        match = re.fullmatch(manifest.subject, subject)
        person = (match.groupdict().get("person") if match else None) or subject
        found = assign_series(studies[(subject, study)], manifest)
        problem, tumor_on = found.problem, found.tumor_on
        if manifest.tumor is not None:
            labels = drawn.get(subject, ())
            found.files["tumor"] = labels
            if n_studies[subject] > 1 and not problem:
                problem = (
                    f"labels named by the PatientID of a person with {n_studies[subject]} studies; expected to know "
                    "which study they belong to; use DICOM labels, or give each study a PatientID of its own"
                )
            elif len(labels) != 1 and not problem:
                problem = (
                    f"{len(labels)} label files; expected one named by the PatientID; see `tumor:` in the manifest"
                )
        if not subject.strip():
            problem = "study without PatientID; expected one that tells persons apart; give each person an identifier"
        cases.append(
            SourceCase(
                number,
                f"{subject}/{study}",
                person,
                found.files,
                problem,
                "" if problem else found.lacks,
                tumor_on,
                tuple(found.choices),
            )
        )
    return cases


def _find_drawn_labels(root: Path, manifest: Manifest) -> dict[str, tuple[Path, ...]]:
    """Return NIfTI label files by PatientID, where the manifest has labels beside DICOM scans."""
    if manifest.tumor is None:
        return {}
    pattern = compile_pattern(manifest.tumor.file, manifest.subject)
    found: dict[str, tuple[Path, ...]] = {}
    for path in walk_files(root):
        match = pattern.fullmatch(path.relative_to(root).as_posix())
        if match:
            found[match["subject"]] = (*found.get(match["subject"], ()), path)
    return found


def read_series(root: Path) -> list[Series]:
    """Group all DICOM files below a folder by patient, study and series; other files are passed over.

    Raises
    ------
    DataError
        If the storage has gone away: a series would silently lose slices.
    """
    series: dict[tuple[str, str, str], Series] = {}
    paths = walk_files(root)
    n_damaged = 0
    with progress("DICOM headers", len(paths)) as task:
        for path in paths:
            task.advance()
            try:
                header = read_header(path, HEADER_TAGS)
                found = _describe(header)
                if found.uid:
                    # A UID that two patients share, by a tool's fault, must not mix them.
                    key = found.subject, found.study, found.uid
                    kept = series.get(key, found)
                    _add_file(kept, found.refusal, header, path)
                    series[key] = kept
            except Exception as error:  # no DICOM, or so damaged that pydicom raises any of its many types
                if isinstance(error, OSError):
                    raise_if_lost(error)
                n_damaged += is_dicom(path)
    if n_damaged:
        say(f"      {n_damaged} damaged DICOM files were passed over")
    return list(series.values())


def _describe(header: Dataset) -> Series:
    shared = _shared_groups(header)
    times = {name: shared.get(name, header.get(name)) for name in SEQUENCE_TAGS}
    spacing = header.get("PixelSpacing") or shared.get("PixelSpacing") or [np.inf, np.inf]
    thickness = header.get("SliceThickness") or shared.get("SliceThickness") or np.inf
    agent = str(header.get("ContrastBolusAgent", "")).strip() or header.get("ContrastBolusAgentSequence")
    return Series(
        subject=str(header.get("PatientID", "")),
        study=str(header.get("StudyInstanceUID", "")),
        uid=str(header.get("SeriesInstanceUID", "")),
        modality=str(header.get("Modality", "")),
        description=str(header.get("SeriesDescription", "")),
        number=int(_number(header.get("SeriesNumber")) or 0),
        contrast=bool(agent),
        times_ms={name: number for name, value in times.items() if (number := _number(value)) is not None},
        voxel_mm3=_product(*(spacing if isinstance(spacing, Sequence) else [spacing]), thickness),
        refusal=refuse_image(header),
    )


def _number(value: object) -> float | None:
    """Return a value as a number; None where it is none, or several: what only describes a series may be odd."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _product(*values: object) -> float:
    """Return the product of three sides; infinite where they are not three numbers."""
    numbers = [_number(value) for value in values]
    known = [number for number in numbers if number is not None]
    return float(np.prod(known)) if len(known) == len(numbers) == 3 else float("inf")


def _shared_groups(header: Dataset) -> dict[str, Any]:
    """Return what an enhanced multi-frame image states once for all frames."""
    found: dict[str, Any] = {}
    for group in header.get("SharedFunctionalGroupsSequence", []):
        for name, sequence in (
            ("EchoTime", "MREchoSequence"),
            ("RepetitionTime", "MRTimingAndRelatedParametersSequence"),
            ("PixelSpacing", "PixelMeasuresSequence"),
            ("SliceThickness", "PixelMeasuresSequence"),
        ):
            for item in group.get(sequence, []):
                value = item.get("EffectiveEchoTime" if name == "EchoTime" else name)
                if value is not None:
                    found[name] = value
    return found


def _add_file(series: Series, refusal: str, header: Dataset, path: Path) -> None:
    # All is read before anything is noted: reading a damaged header raises anywhere.
    instance = str(header.get("SOPInstanceUID", ""))
    n_frames = int(_number(header.get("NumberOfFrames")) or 1)
    position = tuple(round(float(v), POSITION_DIGITS_MM) for v in header.get("ImagePositionPatient") or ())
    orientation = tuple(round(float(v), ORIENTATION_DIGITS) + 0.0 for v in header.get("ImageOrientationPatient") or ())
    if instance and instance in series.instances:
        # The same image stored twice.
        return
    series.instances.add(instance)
    series.refusal = series.refusal or refusal
    series.files.append(path)
    series.n_frames += n_frames
    if position:
        series.positions.append(position)
    if orientation:
        series.orientations.add(orientation)


def refuse_image(header: Dataset) -> str:
    """Return why an image is no plain MR slice or volume; empty if it is, or holds labels."""
    modality = str(header.get("Modality", ""))
    if modality in LABEL_MODALITIES:
        return ""
    kinds = [str(value).upper() for value in (header.get("ImageType") or [])]
    reasons = [
        (modality != "MR", f"{modality if modality in OTHER_MODALITIES else 'no modality'}, not MR"),
        (str(header.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE), "a secondary capture"),
        ((_number(header.get("SamplesPerPixel")) or 1) > 1, "in colours"),
        (str(header.get("BurnedInAnnotation", "")).upper() == "YES", "with text burned in"),
        (any("MOSAIC" in kind for kind in kinds), "a mosaic"),
        (any("LOCALIZER" in kind for kind in kinds), "a localiser"),
    ]
    return ", ".join(reason for applies, reason in reasons if applies)


@dataclass
class Assignment:
    """The series of a study that are used, what is wrong, what is missing, and what was chosen among which."""

    files: dict[str, tuple[Path, ...]]
    problem: str
    lacks: str
    tumor_on: str
    choices: list[SeriesChoice]


def assign_series(study: Sequence[Series], manifest: Manifest) -> Assignment:
    """Choose the series of each modality and of the labels.

    Of several that fit a rule, the one is taken that the labels were drawn on; else the one with the smallest voxels;
    of those, the one with most slices; of those, the last: whoever repeats a scan does so because the first was bad.
    """
    files: dict[str, tuple[Path, ...]] = {}
    problems: list[str] = []
    lacking: list[str] = []
    choices: list[SeriesChoice] = []
    uids: dict[str, str] = {}
    drawn_on = ""
    rules: dict[str, SeriesRule] = {"tumor": manifest.tumor_series} if manifest.tumor_series is not None else {}
    for name, rule in {**rules, **manifest.series}.items():
        fitting = [s for s in study if (s.modality in LABEL_MODALITIES) == (name == "tumor") and rule_fits(rule, s)]
        usable = sorted((s for s in fitting if not s.why_not()), key=lambda s: (s.uid != drawn_on, *_preference(s)))
        if usable:
            if name == "tumor":
                drawn_on = referenced_series(usable[0].files[0])
            if usable[0].uid in uids:
                problems.append(f"one series for {uids[usable[0].uid]} and {name}")
            files[name], uids[usable[0].uid] = tuple(usable[0].files), name
        else:
            reasons = "; ".join(sorted({s.why_not() for s in fitting}))
            of_scans = lacking if name in manifest.series else problems
            of_scans.append(f"no series for {name}" + (f" ({len(fitting)} fit, but: {reasons})" if fitting else ""))
        choices += [_report(name, series, series in usable[:1]) for series in (*usable, *_refused(fitting))]
    labels = files.get("tumor", ())
    tumor_on = manifest.tumor_on or uids.get(drawn_on, "")
    advice = "expected one each; correct the series rules in the data manifest, or leave the study out if it has none"
    lacks = f"{', '.join(lacking)}; {advice}" if lacking else ""
    if problems or not any(name in files for name in manifest.series):
        problem = f"{', '.join([*problems, *lacking])}; {advice}"
    elif drawn_on and not tumor_on and not manifest.prepared.coregistered:
        problem = (
            "labels drawn on a series that no rule takes; expected one of the modalities; correct the series rules, or "
            "name the modality that they fit under `tumor_on:`"
        )
    elif len(labels) > 1:
        problem = f"{len(labels)} label objects in one series; expected one; export all segments as one object"
    else:
        problem = ""
    return Assignment(files, problem, "" if problem else lacks, tumor_on, choices)


def _preference(series: Series) -> tuple[float, int, int, str]:
    return round(series.voxel_mm3, 3), -series.n_frames, -series.number, series.uid


def _refused(fitting: Sequence[Series]) -> list[Series]:
    return [series for series in fitting if series.why_not()]


def _report(name: str, series: Series, is_chosen: bool) -> SeriesChoice:
    """Say what is known of a series without its free text, which may name a person."""
    return SeriesChoice(
        modality=name,
        series_number=series.number,
        n_images=series.n_frames,
        voxel_mm3=series.voxel_mm3,
        times_ms=dict(series.times_ms),
        contrast=series.contrast,
        verdict="chosen" if is_chosen else series.why_not() or "runner-up",
    )


def rule_fits(rule: SeriesRule, series: Series) -> bool:
    """Tell whether a series is what a rule describes."""
    if not re.search(rule.description, series.description, re.IGNORECASE):
        return False
    if rule.exclude and re.search(rule.exclude, series.description, re.IGNORECASE):
        return False
    if rule.contrast is not None and rule.contrast != series.contrast:
        return False
    for tag, limits in rule.times_ms.items():
        value = series.times_ms.get(tag)
        if value is None or not limits[0] <= value <= limits[1]:
            return False
    return True
