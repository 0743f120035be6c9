"""What a user's table tells of patients, such as site, scanner or sex: groups in which the evaluation shows the gain.

What few persons share is no group, and may tell who somebody is: it does not get into the cohort.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.attributes import COLUMN_DESCRIPTIONS, STRATA
from pipeline.cohort import UNKNOWN
from pipeline.errors import ConfigError

KEY = "ingest.attributes_file"
# Columns of participants.tsv that ingest fills itself, and groups that the evaluation makes itself.
OWN_COLUMNS = frozenset(
    {"participant_id", "person", "split", "source", "missing", "size", *COLUMN_DESCRIPTIONS, *STRATA}
)
COLUMN_PATTERN, VALUE_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,30}"), re.compile(r"[\w .+<>=/()-]{1,40}")
# A value that fewer persons share becomes OTHER, or is left out where these are too few together.
MIN_PERSONS, OTHER = 5, "other"
MAX_VALUES = 8


@dataclass(frozen=True)
class AttributesTable:
    """What a table tells, as it stands there.

    Parameters
    ----------
    columns : tuple of str
        Beside ``subject``.
    rows : mapping of str to mapping of str to str
        Column to value, of each subject or person of the table; ``n/a`` where nothing stands.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]

    def find(self, persons: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
        """Return the values of each subject of whom, or of whose person, the table tells."""
        found = {subject: self.rows.get(subject, self.rows.get(person)) for subject, person in persons.items()}
        return {subject: values for subject, values in found.items() if values is not None}


def read_attributes_file(path: Path) -> AttributesTable:
    """Read a table of attributes.

    Parameters
    ----------
    path : Path
        TSV with a column ``subject`` (a subject or a person, as found in the source), and others, whose names are of
        lower-case letters, digits and underscores.

    Raises
    ------
    ConfigError
        If the file is missing or malformed.
    """
    if not path.is_file():
        raise ConfigError(f"{KEY}: no such file; expected a TSV with a column subject and others, such as site or sex")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head, *lines = list(csv.reader(file, delimiter="\t")) or [[]]
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{KEY}: not UTF-8; expected text in UTF-8, separated by tabs; save it with that encoding (Excel's "
            "`Unicode text` has another)"
        ) from error
    columns = [name for name in head if name != "subject"]
    if len(columns) != len(head) - 1 or not columns:
        raise ConfigError(
            f"{KEY}: expected a column subject and others, separated by tabs; got {_describe_head(head)}; correct the "
            "first line"
        )
    for problem in _column_problems(columns):
        raise ConfigError(f"{KEY}: {problem}")
    rows: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines, start=2):
        cells = [cell.strip() or UNKNOWN for cell in line]
        if not cells:
            continue
        values = dict(zip(head, cells, strict=True)) if len(cells) == len(head) else {"subject": UNKNOWN}
        subject = values.pop("subject")
        if subject == UNKNOWN or any(not VALUE_PATTERN.fullmatch(value) for value in values.values()):
            raise ConfigError(
                f"{KEY}: line {number}: expected {len(head)} values of up to 40 letters, digits and signs, separated "
                "by tabs; correct the line"
            )
        if subject in rows:
            raise ConfigError(f"{KEY}: line {number}: a subject for the second time; expected each once")
        rows[subject] = values
    return AttributesTable(tuple(columns), rows)


def group_attributes(table: AttributesTable, persons: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return what of a table gets into the cohort.

    Parameters
    ----------
    table : AttributesTable
    persons : mapping of str to str
        Person of each subject of the source.

    Returns
    -------
    dict of str to dict of str to str
        Column to value, of each subject: values that five persons or more share; ``other``, where five or more have
        none of these; ``n/a``.

    Raises
    ------
    ConfigError
        If the table names nobody of the source, or has a column that tells of no group.
    """
    told = table.find(persons)
    if not told:
        raise ConfigError(f"{KEY}: no line is of a subject of the source; expected its identifiers in column subject")
    groups = {
        name: _group({subject: values[name] for subject, values in told.items()}, persons) for name in table.columns
    }
    for name in table.columns:
        kinds = {value for value in groups[name].values() if value not in (UNKNOWN, OTHER)}
        if not 1 <= len(kinds) <= MAX_VALUES:
            raise ConfigError(
                f"{KEY}: column {name} has {len(kinds)} values that {MIN_PERSONS} persons or more share; expected 1 to "
                f"{MAX_VALUES}: groups, no names, dates or numbers; put them into wider bands, or leave the column out"
            )
    return {subject: {name: groups[name].get(subject, UNKNOWN) for name in table.columns} for subject in persons}


def _describe_head(head: Sequence[str]) -> str:
    """Say what is wrong with a head, without a cell of it: it may be a line of data."""
    if len(head) == 1 and any(sign in head[0] for sign in ",;"):
        return "one column, with commas or semicolons in it"
    return f"{len(head)} columns, {head.count('subject')} of them called subject"


def _column_problems(columns: Sequence[str]) -> Iterator[str]:
    for number, name in enumerate(columns, start=1):
        if not COLUMN_PATTERN.fullmatch(name):
            yield (
                f"column {number} beside subject; expected a name of up to 31 lower-case letters, digits and "
                "underscores; rename it"
            )
        elif name in OWN_COLUMNS:
            yield f"column {name} is made by ingest or evaluate itself; rename it or leave it out"
        elif name in columns[: number - 1]:
            yield f"column {name} is there twice; expected each once"


def describe_attributes(
    table: AttributesTable, persons: Mapping[str, str], grouped: Mapping[str, Mapping[str, str]]
) -> str:
    """Say what became of a table, in counts: values that are kept in each column, lines of nobody in the source."""
    n_strange = len(table.rows.keys() - persons.keys() - set(persons.values()))
    told = table.find(persons).values()
    parts = []
    for name in table.columns:
        n_given = sum(values[name] != UNKNOWN for values in told)
        n_other, n_left = (sum(values[name] == kind for values in grouped.values()) for kind in (OTHER, UNKNOWN))
        n_dropped = n_left - (len(persons) - n_given)
        few = f", of which {n_other} joined as {OTHER} and {n_dropped} left out (shared by fewer than {MIN_PERSONS})"
        parts.append(f"{name} of {n_given} of {len(persons)} scans{few if n_other or n_dropped else ''}")
    strange = [f"{n_strange} lines of nobody in the source"] if n_strange else []
    return f"`{KEY}`: {'; '.join([*parts, *strange])}"


def _group(values: Mapping[str, str], persons: Mapping[str, str]) -> dict[str, str]:
    """Return each subject's value, those that few persons share joined or left out."""
    holders: dict[str, set[str]] = {}
    for subject, value in values.items():
        holders.setdefault(value, set()).add(persons[subject])
    few = {value for value, who in holders.items() if value != UNKNOWN and len(who) < MIN_PERSONS}
    n_few = len(set().union(*(holders[value] for value in few)))
    joined = OTHER if n_few >= MIN_PERSONS else UNKNOWN
    return {subject: joined if value in few else value for subject, value in values.items()}
