"""Cohort and Case: the BIDS-derivatives folder that stages read and write.

Working images are ``int16`` in [0, 1000] (0 outside the brain), maps are ``uint8``; both uncompressed, so that a
training memory-maps them. Brain is where the tissue or the tumour map is not 0.

References
----------
Gorgolewski et al. 2016, "The brain imaging data structure", doi:10.1038/sdata.2016.44.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline import __version__, attributes
from pipeline.errors import DataError
from pipeline.labels import MODALITIES, TISSUE_CLASSES, LabelScheme, UInt8Array
from pipeline.volumes import FloatArray, Volume, map_volume, save_volume

Int16Array = NDArray[np.int16]

INTENSITY_MAX = 1000
SPLITS = ("train", "val", "test")
SUFFIXES = {"t1": "T1w", "t1ce": "ce-gadolinium_T1w", "t2": "T2w", "flair": "FLAIR"}
MAP_NAMES = {"tumor": "desc-tumor_dseg", "tissue": "desc-tissue_dseg"}
BIDS_VERSION = "1.10.0"
UNKNOWN = "n/a"


@dataclass(frozen=True)
class Case:
    """One subject of a cohort on disk.

    Parameters
    ----------
    subject : str
        Pseudonym, without ``sub-``.
    folder : Path
        Its ``anat`` folder.
    source : str
        Data set or label source that it came from.
    split : str
        ``train``, ``val``, ``test``, or ``n/a`` in a synthetic cohort.
    attributes : mapping of str to str
        The other columns of participants.tsv.
    """

    subject: str
    folder: Path
    source: str = UNKNOWN
    split: str = UNKNOWN
    attributes: Mapping[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Return the file of a modality (``t1`` ...) or of a map (``tumor``, ``tissue``)."""
        return self.folder / f"sub-{self.subject}_{SUFFIXES.get(name) or MAP_NAMES[name]}.nii"

    @property
    def person(self) -> str:
        """Pseudonym of the person: one person may have several cases."""
        return self.attributes.get("person", self.subject)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that are present."""
        return tuple(name for name in MODALITIES if self.path(name).is_file())

    def image(self, modality: str) -> Int16Array:
        """Memory-map a modality: (x, y, z), int16 in [0, 1000]."""
        return map_volume(self.path(modality))

    def tumor_map(self) -> UInt8Array:
        """Memory-map the tumour map: (x, y, z), uint8."""
        return map_volume(self.path("tumor"))

    def tissue_map(self) -> UInt8Array:
        """Memory-map the tissue map: (x, y, z), uint8 in [0, 3], 0 under the tumour."""
        return map_volume(self.path("tissue"))

    def brain(self) -> NDArray[np.bool_]:
        """Return where the case has tissue or tumour: (x, y, z), bool."""
        brain: NDArray[np.bool_] = (np.asarray(self.tissue_map()) > 0) | (np.asarray(self.tumor_map()) > 0)
        return brain

    def condition(self, scheme: LabelScheme) -> UInt8Array:
        """Return tissue and tumour joined: (x, y, z), uint8; see :meth:`LabelScheme.combine`."""
        return scheme.combine(self.tissue_map(), self.tumor_map())

    @cached_property
    def affine(self) -> FloatArray:
        """From voxel index to world millimetres, RAS+: (4, 4)."""
        return np.asarray(nib.Nifti1Image.from_filename(self.path("tumor")).affine, np.float64)


@dataclass(frozen=True)
class Cohort:
    """A cohort on disk; open with :func:`open_cohort`.

    Parameters
    ----------
    root : Path
        The BIDS folder.
    scheme : LabelScheme
        Its tumour classes.
    modalities : tuple of str
        Modalities that any case has; only persons who train may lack one.
    cases : tuple of Case
        Sorted by pseudonym.
    """

    root: Path
    scheme: LabelScheme
    modalities: tuple[str, ...]
    cases: tuple[Case, ...]

    def split(self, *names: str) -> tuple[Case, ...]:
        """Return the cases on the named sides of the split."""
        return tuple(case for case in self.cases if case.split in names)

    def patients(self, *names: str) -> tuple[Case, ...]:
        """Return one case of each person on the named sides, the first: for figures whose unit is the patient."""
        first: dict[str, Case] = {}
        for case in self.split(*names):
            first.setdefault(case.person, case)
        return tuple(first.values())

    def persons(self, *names: str) -> tuple[tuple[Case, ...], ...]:
        """Return all cases of each person on the named sides: for attacks, which may use any scan of a person."""
        cases: dict[str, list[Case]] = {}
        for case in self.split(*names):
            cases.setdefault(case.person, []).append(case)
        return tuple(tuple(scans) for scans in cases.values())

    def complete(self, cases: Iterable[Case]) -> tuple[Case, ...]:
        """Return the cases that lack no modality."""
        return tuple(case for case in cases if set(case.modalities) >= set(self.modalities))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the working grid."""
        x, y, z = self.cases[0].tumor_map().shape
        return x, y, z

    @property
    def spacing_mm(self) -> float:
        """Isotropic spacing of the working grid."""
        return float(abs(self.cases[0].affine[0, 0]))


@dataclass(frozen=True)
class CaseData:
    """One subject in memory, on its way to disk.

    Parameters
    ----------
    subject : str
        Pseudonym, without ``sub-``.
    images : mapping of str to ndarray
        Modality to (x, y, z), int16 in [0, 1000].
    tissue_map, tumor_map : ndarray, (x, y, z), uint8
    affine : ndarray, (4, 4)
    sidecars : mapping of str to mapping
        Modality or map name to its JSON content.
    """

    subject: str
    images: Mapping[str, Int16Array]
    tissue_map: UInt8Array
    tumor_map: UInt8Array
    affine: FloatArray
    sidecars: Mapping[str, Mapping[str, Any]]


def open_cohort(root: Path) -> Cohort:
    """Open a cohort folder.

    Raises
    ------
    DataError
        If the folder is no cohort or has no cases.
    """
    table, lut = root / "participants.tsv", root / f"{MAP_NAMES['tumor']}.tsv"
    if not table.is_file() or not lut.is_file():
        raise DataError(f"{root.name}: no cohort; expected participants.tsv and {lut.name}; run the stage before")
    scheme = LabelScheme(tuple(row["name"] for row in read_tsv(lut) if row["index"] != "0"))
    cases = []
    for row in read_tsv(table):
        subject = row["participant_id"].removeprefix("sub-")
        attributes = {k: v for k, v in row.items() if k not in ("participant_id", "source", "split")}
        folder = root / f"sub-{subject}" / "anat"
        cases.append(Case(subject, folder, row.get("source", UNKNOWN), row.get("split", UNKNOWN), attributes))
    if not cases:
        raise DataError(f"{root.name}: a cohort without cases; expected at least one; see quarantine.tsv for reasons")
    known = {name for case in cases for name in case.modalities}
    return Cohort(
        root,
        scheme,
        tuple(name for name in MODALITIES if name in known),
        tuple(sorted(cases, key=lambda case: case.subject)),
    )


def write_case(root: Path, data: CaseData) -> None:
    """Write the images, maps and sidecars of one subject below ``root``; files get fresh headers."""
    case = Case(data.subject, root / f"sub-{data.subject}" / "anat")
    arrays: dict[str, NDArray[Any]] = {**data.images, "tissue": data.tissue_map, "tumor": data.tumor_map}
    for name, array in arrays.items():
        save_volume(Volume(array, data.affine), case.path(name))
        write_json(case.path(name).with_suffix(".json"), data.sidecars.get(name, {}))


def move_case(case: Case, root: Path, subject: str) -> Case:
    """Move a case's files below another folder, under another subject's name."""
    moved = replace(case, subject=subject, folder=root / f"sub-{subject}" / "anat")
    moved.folder.mkdir(parents=True)
    for path in sorted(case.folder.iterdir()):
        path.rename(moved.folder / path.name.replace(f"sub-{case.subject}_", f"sub-{subject}_", 1))
    return moved


def write_cohort_files(
    root: Path, name: str, scheme: LabelScheme, participants: Sequence[Mapping[str, str]], readme: str
) -> None:
    """Write what a cohort has beside its cases: description, participants, look-up tables, README.

    Parameters
    ----------
    root : Path
        Cohort folder.
    name : str
        Title of the data set.
    scheme : LabelScheme
    participants : sequence of mapping
        Rows of participants.tsv, all with the same keys, ``participant_id`` first.
    readme : str
        What the folder is, for who opens it.
    """
    root.mkdir(parents=True, exist_ok=True)
    write_json(
        root / "dataset_description.json",
        {
            "Name": name,
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "synthcohort", "Version": __version__}],
        },
    )
    (root / "README.md").write_text(readme, encoding="utf-8")
    rows = sorted(participants, key=lambda row: row["participant_id"])
    write_tsv(root / "participants.tsv", rows)
    columns = {key: {"Description": COLUMN_DESCRIPTIONS.get(key, key.replace("_", " "))} for key in rows[0]}
    columns.pop("participant_id", None)
    write_json(root / "participants.json", {"Description": "One row for each subject", **columns})
    for map_name, classes in (("tumor", scheme.tumor), ("tissue", TISSUE_CLASSES)):
        table = [{"index": str(value), "name": label} for value, label in enumerate(("background", *classes))]
        write_tsv(root / f"{MAP_NAMES[map_name]}.tsv", table)
        sidecar = {"Description": f"Map of {map_name} classes; see the table beside", "SpatialReference": "orig"}
        write_json(root / f"{MAP_NAMES[map_name]}.json", sidecar)


COLUMN_DESCRIPTIONS = {
    "person": "Pseudonym of the person; the same for all scans of one",
    "source": "Data set that the scan came from, or source of the label map of a synthetic case",
    "split": "Side of the split by person: train, val or test",
    "missing": "Modalities that the case lacks",
    **attributes.COLUMN_DESCRIPTIONS,
}


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Read a tab-separated table with a header line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def write_tsv(path: Path, rows: Sequence[Mapping[str, object]], columns: Iterable[str] | None = None) -> None:
    """Write a tab-separated table; columns are those of the first row where not given."""
    names = list(columns if columns is not None else rows[0])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, content: object) -> None:
    """Write JSON, indented, keys in the order given, newline at the end; NaN is refused."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_whole(path: Path, content: object) -> None:
    """Write JSON that is there whole or not at all: it marks work as done, and a kill must not tear it."""
    # A name of its own: several workers may write to one folder.
    temporary = path.with_name(f"{path.name}.tmp")
    write_json(temporary, content)
    temporary.replace(path)


def digest_file(path: Path) -> str:
    """Return the sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tree(root: Path) -> dict[str, str]:
    """Return the sha256 of each file below a folder, by relative POSIX path, sorted; a stage's record is left out."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path != root / "done.json")
    return {path.relative_to(root).as_posix(): digest_file(path) for path in files}


def digest_of(checksums: Mapping[str, str]) -> str:
    """Return one sha256 for a folder whose files have these checksums (see :func:`digest_tree`)."""
    lines = "".join(f"{checksums[name]}  {name}\n" for name in sorted(checksums))
    return hashlib.sha256(lines.encode()).hexdigest()
