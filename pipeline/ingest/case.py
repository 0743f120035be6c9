"""One case of an ingest: preprocess, write, measure, draw; done once, also by an ingest that was cut off."""

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from pipeline.attributes import describe_tumor, tissue_contrast
from pipeline.cohort import write_case, write_whole
from pipeline.config import IngestSection
from pipeline.errors import CaseError, SynthcohortError
from pipeline.figures import quality_picture, save_picture
from pipeline.ingest.discover import SourceCase
from pipeline.ingest.files import check_readable
from pipeline.ingest.leakage import describe_anatomy
from pipeline.ingest.manifest import Manifest
from pipeline.ingest.preprocess import PreprocessedCase, preprocess_case
from pipeline.ingest.quality import measure_quality
from pipeline.scratch import temporary_files_in

# Both folders go when the stage is whole: what a killed ingest needs to go on, and what the guard compares.
OUTCOMES, ANATOMIES = ".outcomes", ".anatomies"


@dataclass(frozen=True)
class IngestTask:
    """One case to ingest, with all that its worker needs."""

    case: SourceCase
    subject: str
    manifest: Manifest
    config: IngestSection
    out: Path


@dataclass(frozen=True)
class IngestOutcome:
    """What became of a case.

    Parameters
    ----------
    row : dict of str to str
        Its row of participants.tsv; empty if it cannot be used.
    reason : str
        Why it cannot be used.
    quality : dict of str to float
        See :func:`pipeline.ingest.quality.measure_quality`.
    reference : str
        Modality that its anatomy was described by.
    """

    row: dict[str, str]
    reason: str = ""
    quality: dict[str, float] = field(default_factory=dict)
    reference: str = ""


def ingest_case(task: IngestTask) -> IngestOutcome:
    """Ingest one case; one that cannot be used is an outcome, not an error, and one that is done is only read.

    Raises
    ------
    DataError
        If the storage that holds the source has gone away.
    OSError, MemoryError
        If the machine has no room.
    """
    mark = task.out / OUTCOMES / f"{task.subject}.json"
    if mark.is_file():
        return IngestOutcome(**json.loads(mark.read_text(encoding="utf-8")))
    try:
        with temporary_files_in(task.out):
            outcome = _write(preprocess_case(task.case, task.subject, task.manifest, task.config), task)
    except CaseError as error:
        if not task.case.problem:
            check_readable(path for files in task.case.files.values() for path in files)
        outcome = IngestOutcome({}, str(error))
    except (SynthcohortError, OSError, MemoryError):
        # Not this case's fault: the config, or a machine without room.
        raise
    except Exception as error:
        if os.environ.get("SYNTHCOHORT_DEBUG"):
            raise
        # Its text may quote the source.
        outcome = IngestOutcome(
            {}, f"unforeseen {type(error).__name__}; expected a case that can be preprocessed; please report it"
        )
    if outcome.reason:
        _remove(task)
    mark.parent.mkdir(parents=True, exist_ok=True)
    write_whole(mark, asdict(outcome))
    return outcome


def _remove(task: IngestTask) -> None:
    """Remove what has been written of a case that failed after all."""
    shutil.rmtree(task.out / f"sub-{task.subject}", ignore_errors=True)
    (task.out / "figures" / f"sub-{task.subject}.png").unlink(missing_ok=True)


def _write(found: PreprocessedCase, task: IngestTask) -> IngestOutcome:
    data, scheme = found.data, task.manifest.scheme
    write_case(task.out, data)
    picture = quality_picture(data.images, data.tumor_map, found.brain)
    save_picture(picture, task.out / "figures" / f"sub-{task.subject}.png")
    quality = measure_quality(found.scans, found.reached, found.brain, data.tumor_map, task.config.spacing_mm)
    if task.config.leakage_guard:
        path = task.out / ANATOMIES / f"{task.subject}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, describe_anatomy(data.images[found.reference], found.brain, data.affine))
    tumor = describe_tumor(data.tumor_map, found.brain | (data.tumor_map > 0), data.affine, scheme)
    first = data.images.get(task.manifest.modalities[0])
    contrast = math.nan if first is None else tissue_contrast(first, data.tissue_map)
    attributes = replace(tumor, contrast=contrast)
    missing = [name for name in task.manifest.modalities if name not in data.images]
    head = {"participant_id": f"sub-{task.subject}", "source": task.manifest.name, "missing": ",".join(missing)}
    row = {**head, **attributes.columns()}
    return IngestOutcome(row, quality=quality, reference=found.reference)
