"""The files of a source folder, also of one that can be read in part only, or that goes away."""

import errno
import os
import stat
from collections.abc import Iterable
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
    files, closed = scan_files(root)
    return len(closed) + sum(not os.access(path, os.R_OK) for path in files)


def walk_files(root: Path) -> list[Path]:
    """Return all files below a folder, sorted; what may not be looked into is counted and said, not named.

    Raises
    ------
    DataError
        If the storage has gone away.
    """
    files, closed = scan_files(root)
    if closed:
        say(f"      {len(closed)} files or folders of the source could not be read and were passed over")
    return sorted(files)


def scan_files(root: Path) -> tuple[dict[Path, os.stat_result], list[OSError]]:
    """Find all files below a folder.

    Returns
    -------
    dict of Path to stat_result
        Links to nothing are no files.
    list of OSError
        What could not be looked into.

    Raises
    ------
    DataError
        If the storage has gone away: a shorter list would throw away what is done.
    """
    files: dict[Path, os.stat_result] = {}
    closed: list[OSError] = []
    for folder, _, names in os.walk(root, onerror=closed.append):
        for name in names:
            path = Path(folder) / name
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                # A link that leads to itself is none either.
                if error.errno != errno.ELOOP:
                    closed.append(error)
                continue
            if stat.S_ISREG(status.st_mode):
                files[path] = status
    for refused in closed:
        raise_if_lost(refused)
    return files, closed
