"""Read DICOM files quietly: what pydicom and highdicom warn of, they quote, and it may be a person's name."""

import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)(\.|$)")
for _name in ("pydicom", "highdicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class _WithinFile(io.BufferedReader):
    """A file that asks for no more memory than it has bytes left, whatever length a damaged element claims."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._n_bytes = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._n_bytes - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def open_dicom(path: Path) -> io.BufferedReader:
    """Open a file for pydicom and highdicom to read."""
    return _WithinFile(path)


def is_dicom(path: Path) -> bool:
    """Tell whether a file begins as DICOM files do: a preamble of 128 bytes and the letters DICM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: Path, tags: Sequence[str]) -> FileDataset:
    """Read the elements of a header that are named by keyword, and no pixels."""
    with open_dicom(path) as file:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(tags))


def read_dataset(path: Path) -> FileDataset:
    """Read a whole file."""
    with open_dicom(path) as file:
        return pydicom.dcmread(file)
