"""The release as BIDS derivatives: compressed, fresh headers and sidecars, only public columns.

Nothing is copied but voxels and the columns named here: headers, sidecars and descriptions are written anew, so that
no field that a stage added for its own use can leave with the release.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from numpy.typing import NDArray

from pipeline import __version__
from pipeline.attributes import COLUMN_DESCRIPTIONS, STRATA
from pipeline.cohort import (
    BIDS_VERSION,
    INTENSITY_MAX,
    MAP_NAMES,
    UNKNOWN,
    Case,
    Cohort,
    write_cohort_files,
    write_json,
)
from pipeline.config import ComputeSection, ExportSection, LabelSource
from pipeline.errors import DataError
from pipeline.parallel import map_cases
from pipeline.volumes import Volume, save_volume

DESCRIPTION = "SYNTHETIC - not a patient"
SUBJECT_PATTERN = re.compile(r"syn\d+")
PUBLIC_COLUMNS = {
    "source": "How the label map was made: recombine (the anatomy of one patient and the tumour of another, each "
    "deformed) or atlas (a tumour grown on an atlas)",
    **COLUMN_DESCRIPTIONS,
    **{f"asked_{name}": f"Stratum that was asked for: {', '.join(strata)}" for name, strata in STRATA.items()},
}
NEEDED_COLUMNS = frozenset({"volume_ml", "hemisphere"})
IMAGE_TITLES = {
    "t1": "T1-weighted image",
    "t1ce": "T1-weighted image as after gadolinium",
    "t2": "T2-weighted image",
    "flair": "FLAIR image",
}
MAP_TITLES = {"tumor": "Tumour class of each voxel", "tissue": "Healthy tissue class of each voxel, 0 under the tumour"}
README = """# {title}

SYNTHETIC: no scan here shows a patient. Every image was drawn by a generator from a label map, and is marked as
synthetic in its header and in its sidecar. {n_cases} cases at {spacing_mm:g} mm.

Images are int16 in [0, {intensity_max}], 0 outside the brain, skull-stripped, all modalities of a case on one grid.
The look-up tables `desc-tumor_dseg.tsv` and `desc-tissue_dseg.tsv` name the values of the two label maps of each case.
The card of the release, with the privacy audit and the intended use, is the README.md one folder up.
"""


@dataclass(frozen=True)
class ExportTask:
    """One synthetic case to compress, with all that its worker needs."""

    case: Case
    modalities: tuple[str, ...]
    out: Path


def write_bids(cohort: Cohort, config: ExportSection, compute: ComputeSection, out: Path) -> None:
    """Write the synthetic cohort as a BIDS derivative.

    Parameters
    ----------
    cohort : Cohort
    config : ExportSection
        Title, licence, contact.
    compute : ComputeSection
        Workers for the compression.
    out : Path
        The ``bids`` folder; made. The same cohort gives the same bytes.

    Raises
    ------
    DataError
        If a case is not a synthetic one.
    """
    rows = [public_row(case) for case in cohort.cases]
    common = [name for name in PUBLIC_COLUMNS if all(name in row for row in rows)]
    rows = [{name: row[name] for name in ("participant_id", *common)} for row in rows]
    readme = README.format(
        title=config.title, n_cases=len(rows), spacing_mm=cohort.spacing_mm, intensity_max=INTENSITY_MAX
    )
    write_cohort_files(out, config.title, cohort.scheme, rows, readme)
    write_json(out / "dataset_description.json", describe_dataset(config))
    columns = {name: {"Description": PUBLIC_COLUMNS[name]} for name in common}
    write_json(out / "participants.json", {"Description": "Synthetic cases, none of them a patient", **columns})
    for name, file_name in MAP_NAMES.items():
        write_json(out / f"{file_name}.json", build_sidecar(name))
    tasks = [ExportTask(case, cohort.modalities, out) for case in cohort.cases]
    map_cases(export_case, tasks, compute, "compress")


def public_row(case: Case) -> dict[str, str]:
    """Return the row of participants.tsv that receivers get: public columns only.

    Raises
    ------
    DataError
        If the case has not a synthetic case's name, source, split and attributes.
    """
    is_named_so = SUBJECT_PATTERN.fullmatch(case.subject) and case.split == UNKNOWN
    is_described = case.source in (*get_args(LabelSource), UNKNOWN) and case.attributes.keys() >= NEEDED_COLUMNS
    if not is_named_so or not is_described:
        raise DataError(
            "a case in the synthetic cohort does not look like one; expected a name such as sub-syn0001, no side of a "
            f"split, a source among {', '.join(get_args(LabelSource))}, and the columns "
            f"{', '.join(sorted(NEEDED_COLUMNS))}; run the stage generate again"
        )
    columns = {"source": case.source, **case.attributes}
    return {"participant_id": f"sub-{case.subject}"} | {k: v for k, v in columns.items() if k in PUBLIC_COLUMNS}


def export_case(task: ExportTask) -> None:
    """Write one case: compressed volumes with fresh headers, and their sidecars."""
    case, folder = task.case, task.out / f"sub-{task.case.subject}" / "anat"
    arrays: dict[str, NDArray[Any]] = {name: case.image(name) for name in task.modalities}
    arrays |= {"tumor": case.tumor_map(), "tissue": case.tissue_map()}
    for name, array in arrays.items():
        # nibabel's gzip holds no time and no name. Level 1: level 6 takes 1.8 times as long for 4 % fewer bytes.
        path = folder / f"{case.path(name).name}.gz"
        save_volume(Volume(array, case.affine), path, DESCRIPTION)
        write_json(path.with_suffix("").with_suffix(".json"), build_sidecar(name))


def build_sidecar(name: str) -> dict[str, Any]:
    """Return the JSON sidecar of a modality or map."""
    if name in MAP_NAMES:
        return {
            "Description": f"{MAP_TITLES[name]}; synthetic, not a patient",
            "Synthetic": True,
            "Manual": False,
            "SpatialReference": "orig",
        }
    return {
        "Description": f"{IMAGE_TITLES[name]}; synthetic, not a patient",
        "Synthetic": True,
        "SkullStripped": True,
        "IntensityRange": [0, INTENSITY_MAX],
    }


def describe_dataset(config: ExportSection) -> Mapping[str, Any]:
    """Return ``dataset_description.json``; it says how the data were made, not from whom."""
    return {
        "Name": config.title,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": config.license,
        "HowToAcknowledge": f"Say that the data are synthetic, and name synthcohort {__version__}.",
        "GeneratedBy": [
            {
                "Name": "synthcohort",
                "Version": __version__,
                "Description": "Conditional generative adversarial network; every image is synthetic.",
            }
        ],
    }
