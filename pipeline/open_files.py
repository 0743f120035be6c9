"""Open files: each memory-mapped image of a cohort is one, and systems allow few until they are asked for more."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import DataError

MANY_FILES = 10_240


def raise_file_limit() -> None:
    """Allow this process as many open files as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where there is said to be no limit, as on macOS, the system has one all the same.
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def enough_files(what: str) -> Iterator[None]:
    """Turn what the system says when no more files may be open into an error in words.

    Parameters
    ----------
    what : str
        What is being opened, for the error.

    Raises
    ------
    DataError
        If the process, or the system, has as many files open as it may.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise DataError(
            f"{what}: too many open files; expected room for all, got {allowed} that may be open; raise the limit "
            "(`ulimit -n`, on a cluster that of its workers), or use fewer scans"
        ) from error
