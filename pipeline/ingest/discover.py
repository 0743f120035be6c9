"""Find the cases of a NIfTI data set: which files belong to which subject."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError
from pipeline.ingest.files import walk_files
from pipeline.ingest.manifest import Manifest, NiftiFile


@dataclass(frozen=True)
class SeriesChoice:
    """One series that fits a manifest's rule: what it is, and whether it was taken. Holds no identifier.

    Parameters
    ----------
    modality : str
    series_number, n_images : int
    voxel_mm3 : float
    times_ms : mapping of str to float
        Echo, repetition and inversion time, where stated.
    contrast : bool
    verdict : str
        ``chosen``, ``runner-up``, or why it was refused.
    """

    modality: str
    series_number: int
    n_images: int
    voxel_mm3: float
    times_ms: Mapping[str, float]
    contrast: bool
    verdict: str

    def columns(self) -> dict[str, str]:
        """Return a row of ``series.tsv``."""
        return {
            "modality": self.modality,
            "series_number": str(self.series_number),
            "n_images": str(self.n_images),
            "voxel_mm3": f"{self.voxel_mm3:.3g}",
            **{key: f"{self.times_ms[tag]:g}" if tag in self.times_ms else "n/a" for key, tag in TIME_COLUMNS.items()},
            "contrast": "yes" if self.contrast else "no",
            "verdict": self.verdict,
        }


TIME_COLUMNS = {"te_ms": "EchoTime", "tr_ms": "RepetitionTime", "ti_ms": "InversionTime"}


@dataclass(frozen=True)
class SourceCase:
    """One case as found in the source. Holds identifiers: it is never logged or written.

    Parameters
    ----------
    number : int
        Running number in the source, from 1, in the order of subjects: names the case in messages.
    subject, person : str
        As found in the source.
    files : mapping of str to tuple of Path
        Modality, ``tumor`` or ``brain_mask`` to its file (NIfTI) or the files of its series (DICOM).
    problem : str
        Why it cannot be used, if that is known already.
    lacks : str
        Which modalities it lacks, in words, if it does; there is one at least.
    tumor_on : str
        Modality that the label map was drawn on, if that is known.
    choices : tuple of SeriesChoice
        DICOM: what was chosen among which series.
    """

    number: int
    subject: str
    person: str
    files: Mapping[str, tuple[Path, ...]]
    problem: str = ""
    lacks: str = ""
    tumor_on: str = ""
    choices: tuple[SeriesChoice, ...] = ()


def discover_nifti(root: Path, manifest: Manifest) -> list[SourceCase]:
    """Find the subjects below a folder by the manifest's file patterns.

    Returns
    -------
    list of SourceCase
        Sorted by subject; a case that lacks files says so in ``problem``.

    Raises
    ------
    DataError
        If no file fits any pattern.
    """
    rules: dict[str, NiftiFile] = dict(manifest.images)
    if manifest.tumor is not None:
        rules["tumor"] = manifest.tumor
    if manifest.brain_mask is not None:
        rules["brain_mask"] = manifest.brain_mask
    patterns = {name: compile_pattern(rule.file, manifest.subject) for name, rule in rules.items()}
    found: dict[str, dict[str, tuple[Path, ...]]] = {}
    persons: dict[str, str] = {}
    for path in walk_files(root):
        relative = path.relative_to(root).as_posix()
        for name, pattern in patterns.items():
            match = pattern.fullmatch(relative)
            if match:
                subject = match["subject"]
                persons[subject] = match.groupdict().get("person") or subject
                files = found.setdefault(subject, {})
                files[name] = (*files.get(name, ()), path)
    if not found:
        raise DataError(
            f"no file fits the manifest `{manifest.name}`; expected names such as "
            f"{next(iter(rules.values())).file}; correct ingest.source or ingest.manifest"
        )
    cases = []
    for number, subject in enumerate(sorted(found), start=1):
        files = found[subject]
        problem, lacks = _problem(files, rules), _missing(files, list(manifest.images))
        if lacks and not any(name in files for name in manifest.images):
            problem = problem or lacks
        cases.append(SourceCase(number, subject, persons[subject], files, problem, "" if problem else lacks))
    return cases


def compile_pattern(pattern: str, subject: str) -> re.Pattern[str]:
    """Turn a manifest's file pattern into a regular expression over relative POSIX paths.

    Parameters
    ----------
    pattern : str
        ``{subject}`` stands for the subject (the same at each place), ``*`` for anything but ``/``, ``**/`` for any
        folders.
    subject : str
        Regular expression of a subject.
    """
    expression = ""
    seen_subject = False
    for part in re.split(r"(\{subject\}|\*\*/|\*)", pattern):
        if part == "{subject}":
            expression += "(?P=subject)" if seen_subject else f"(?P<subject>{subject})"
            seen_subject = True
        else:
            expression += {"**/": "(?:.*/)?", "*": "[^/]*"}.get(part, re.escape(part))
    return re.compile(expression)


def _missing(files: Mapping[str, tuple[Path, ...]], required: list[str]) -> str:
    missing = [name for name in required if name not in files]
    if not missing:
        return ""
    return f"no file for {', '.join(missing)}; expected one for each of {', '.join(required)}; add it"


def _problem(files: Mapping[str, tuple[Path, ...]], rules: Mapping[str, NiftiFile]) -> str:
    if "tumor" in rules and "tumor" not in files:
        return _missing(files, [name for name in rules if name != "brain_mask"])
    double = [name for name, paths in files.items() if len(paths) > 1]
    if double:
        return f"several files for {', '.join(double)}; expected one; narrow the pattern in the data manifest"
    return ""
