"""The generator in a release: only where the audit was asked to gate it (``audit.release: generator``)."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.cohort import write_json
from pipeline.errors import DataError
from pipeline.layout import MODEL_FILE, WEIGHTS_FILE

GENERATOR_FOLDER = "generator"
# Of model.json: what a receiver needs to use the generator, and what it promises.
PUBLIC_MODEL = ("generator", "condition_classes", "modalities", "spacing_mm", "shape", "steps", "privacy")


def is_planned(audit: Mapping[str, Any]) -> bool:
    """Tell whether an audit gated a release of the generator beside the data set."""
    return audit.get("release") == "generator"


def write_generator(model: Path, out: Path) -> None:
    """Copy the generator and what a receiver needs to use it; checkpoints and discriminator stay.

    Parameters
    ----------
    model : Path
        Folder of the stage train.
    out : Path
        The release; gets ``generator/``.

    Raises
    ------
    DataError
        If the generator's description is missing or no JSON object.
    """
    try:
        described = json.loads((model / MODEL_FILE).read_text(encoding="utf-8"))
        public = {key: described[key] for key in PUBLIC_MODEL}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{MODEL_FILE} is missing or damaged; expected what the stage train writes; run it again"
        ) from error
    folder = out / GENERATOR_FOLDER
    folder.mkdir()
    shutil.copyfile(model / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    write_json(folder / MODEL_FILE, {**public, "synthetic": True})
