"""The files of a source folder, also of one that can be read in part only, or that goes away."""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.errors import DataError
from pipeline.progress import say

# Of a disk or network share that has gone away: no fault of the file that was being read.
LOST = (
    *("EIO", "ENODEV", "ENXIO", "ESTALE", "EREMOTEIO"),
    *("ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN", "ECONNRESET"),
)


def raise_if_lost(error: OSError) -> None:
    """Raise DataError if an error tells that the source's storage has gone away, and not that one file is bad."""
    name = errno.errorcode.get(error.errno or 0, "")
    if name in LOST:
        raise DataError(
            f"ingest.source: the storage does not answer ({name}); expected files that can be "
            "read; once it does, type the same command again: finished cases are kept"
        ) from error


def check_readable(files: Iterable[Path]) -> None:
    """Look whether files that were there can still be read.

    Raises
    ------
    DataError
        If the storage has gone away, or a file with it. One that is there and may not be read is no such thing.
    """
    for path in files:
        try:
            with path.open("rb") as file:
                file.read(1)
        except FileNotFoundError as error:
            raise DataError(
                "ingest.source: a file that was there is gone; expected a source that stays; mount it again, or start "
                "anew without the case"
            ) from error
        except OSError as error:
            raise_if_lost(error)


def count_unreadable(root: Path) -> int:
    """Return how many files and folders below a folder may not be read."""
    closed: list[OSError] = []
    n_closed = 0
    for folder, _, names in os.walk(root, onerror=closed.append):
        n_closed += sum(not os.access(Path(folder) / name, os.R_OK) for name in names if (Path(folder) / name).exists())
    return n_closed + len(closed)


def walk_files(root: Path) -> list[Path]:
    """Return all files below a folder, sorted; what may not be looked into is counted and said, not named.

    Raises
    ------
    DataError
        If the storage has gone away.
    """
    unreadable: list[OSError] = []
    files = list(_walk(root, unreadable))
    for error in unreadable:
        raise_if_lost(error)
    if unreadable:
        say(f"      {len(unreadable)} files or folders of the source could not be read and were passed over")
    return sorted(files)


def _walk(root: Path, unreadable: list[OSError]) -> Iterator[Path]:
    for folder, _, names in os.walk(root, onerror=unreadable.append):
        for name in names:
            path = Path(folder) / name
            try:
                # A link to nothing is no file; a folder that may not be entered raises.
                if path.is_file():
                    yield path
            except OSError as error:
                unreadable.append(error)
