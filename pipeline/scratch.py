"""Temporary files of private data: kept within the stage's own folder.

A process that is killed leaves its temporary files behind. In the system's folder for them a patient's voxels would
lie open to other users and outlive the run; in the stage's folder they go with it. Each thread has its own setting:
workers of a cluster run several cases in one process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory

SCRATCH = ".scratch"
_folder: ContextVar[Path | None] = ContextVar("scratch", default=None)


@contextmanager
def temporary_files_in(stage_folder: Path) -> Iterator[None]:
    """Let :func:`temporary_folder` work below a stage's folder; the stage removes :data:`SCRATCH` at its end."""
    folder = stage_folder / SCRATCH
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that goes at the end of the ``with`` block; the system's place for it where no stage is running."""
    with TemporaryDirectory(prefix="synthcohort-", dir=_folder.get()) as folder:
        yield Path(folder)
