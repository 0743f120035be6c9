"""Temporary files of private data: kept within the stage's own folder.

A process that is killed leaves its temporary files behind. In the system's folder for them a patient's voxels would
lie open to other users and outlive the run; in the stage's folder they go with it.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRATCH = ".scratch"


@contextmanager
def temporary_files_in(stage_folder: Path) -> Iterator[None]:
    """Make temporary files below a stage's folder in the ``with`` block; the stage removes :data:`SCRATCH` later."""
    folder = stage_folder / SCRATCH
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
