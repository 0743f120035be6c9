"""Read DICOM files quietly: what pydicom and highdicom warn of, they quote, and it may be a person's name."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
for _name in ("pydicom", "highdicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def read_header(path: Path, tags: Sequence[str]) -> FileDataset:
    """Read the elements of a header that are named by keyword, and no pixels."""
    return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
