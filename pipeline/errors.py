"""The error tree: every error that a user can cause, with the exit code that the command line returns.

A message says what is wrong; what was expected and what was got; what to do. It never carries a patient's
identifier: cases are named by pseudonym or by their running number in the source.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class SynthcohortError(Exception):
    """Base of all errors that synthcohort raises on purpose."""

    exit_code = 1


class ConfigError(SynthcohortError):
    """The configuration, or the way the command was called, is wrong."""

    exit_code = 2


class DataError(SynthcohortError):
    """The data as a whole cannot be used."""

    exit_code = 3


class CaseError(DataError):
    """One case cannot be used: it is quarantined with this message as the reason, the others go on."""


class Unjudgeable(DataError):
    """A file or a part of it cannot be judged by deid-check: it is counted with this message, the others go on."""


class GateRefused(SynthcohortError):
    """The privacy gate refused to write a release."""

    exit_code = 4


@contextmanager
def named_file(key: str) -> Iterator[None]:
    """Turn what the system says of a file that the user named into an error in words.

    Parameters
    ----------
    key : str
        What names it, for the error.

    Raises
    ------
    ConfigError
        If the file may not or cannot be read.
    """
    try:
        yield
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError(
            f"{key}: cannot be read ({reason}); expected a file of yours; check its permissions"
        ) from error
