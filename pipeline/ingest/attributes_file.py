"""What a user's table tells of patients, such as site or sex: groups in which the evaluation shows the gain."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.attributes import COLUMN_DESCRIPTIONS
from pipeline.cohort import UNKNOWN, read_tsv
from pipeline.errors import ConfigError

KEY = "ingest.attributes_file"
# Columns of participants.tsv that ingest fills itself.
OWN_COLUMNS = frozenset({"participant_id", "person", "split", "missing", *COLUMN_DESCRIPTIONS})
COLUMN_PATTERN, VALUE_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,30}"), re.compile(r"[\w .+<>=/()-]{1,40}")
# More values than these are names, dates or numbers: no groups, and perhaps somebody's identifiers.
MAX_VALUES = 8
MIN_SUBJECTS_OF_A_VALUE = 2


def read_attributes_file(path: Path, subjects: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read a table of attributes.

    Parameters
    ----------
    path : Path
        TSV with a column ``subject`` (as found in the source), and others: ``source``, in place of the data set's name,
        or any name of lower-case letters, digits and underscores.
    subjects : sequence of str
        Of the source.

    Returns
    -------
    dict of str to dict of str to str
        Column to value, of each subject; ``n/a`` where the table says nothing.

    Raises
    ------
    ConfigError
        If the file is missing or malformed, names no subject of the source, or has a column that is no group.
    """
    if not path.is_file():
        raise ConfigError(f"{KEY}: no such file; expected a TSV with a column subject and others, such as site or sex")
    try:
        rows = read_tsv(path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{KEY}: not UTF-8; expected a table as text; save it anew") from error
    columns = [name for name in (rows[0] if rows else ()) if name != "subject"]
    if not rows or "subject" not in rows[0] or not columns:
        raise ConfigError(f"{KEY}: expected a column subject and others, separated by tabs; correct the file")
    for problem in _column_problems(columns):
        raise ConfigError(f"{KEY}: {problem}")
    wanted, found = set(subjects), dict[str, dict[str, str]]()
    for number, row in enumerate(rows, start=2):
        if row["subject"] in found:
            raise ConfigError(f"{KEY}: line {number}: a subject for the second time; expected each once")
        values = {name: (row[name] or "").strip() or UNKNOWN for name in columns}
        if None in row or any(not VALUE_PATTERN.fullmatch(value) for value in values.values()):
            raise ConfigError(
                f"{KEY}: line {number}: expected {len(columns) + 1} values of up to 40 letters, digits and signs; "
                "correct the line"
            )
        if row["subject"] in wanted:
            found[row["subject"]] = values
    if not found:
        raise ConfigError(f"{KEY}: no line is of a subject of the source; expected its identifiers in column subject")
    for name in columns:
        _check_groups(name, [values[name] for values in found.values()])
    return {subject: found.get(subject, dict.fromkeys(columns, UNKNOWN)) for subject in subjects}


def _column_problems(columns: Sequence[str]) -> Iterator[str]:
    for number, name in enumerate(columns, start=1):
        if not COLUMN_PATTERN.fullmatch(name or ""):
            yield (
                f"column {number} beside subject; expected a name of up to 31 lower-case letters, digits and "
                "underscores; rename it"
            )
        elif name in OWN_COLUMNS:
            yield f"column {name} is ingest's own; rename it or leave it out"


def _check_groups(name: str, values: Sequence[str]) -> None:
    """Refuse what tells single patients: it helps no comparison, and may be an identifier."""
    kinds = set(values) - {UNKNOWN}
    limit = min(MAX_VALUES, max(2, len(values) // MIN_SUBJECTS_OF_A_VALUE))
    if len(kinds) > limit:
        raise ConfigError(
            f"{KEY}: column {name} has {len(kinds)} values for {len(values)} subjects; expected at most {limit}: "
            "groups, no names, dates or numbers; put it into bands, or leave it out"
        )


def add_attributes(row: Mapping[str, str], attributes: Mapping[str, str]) -> dict[str, str]:
    """Return a row of participants.tsv with what the table tells; a known source replaces the data set's name."""
    known = {name: value for name, value in attributes.items() if name != "source" or value != UNKNOWN}
    return {**row, **known}
