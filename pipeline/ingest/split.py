"""The split by person into train, val and test; made once, here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.cohort import SPLITS, read_tsv
from pipeline.config import SplitShares
from pipeline.errors import ConfigError, DataError

# Label maps are recombined from two persons; val chooses, test judges.
MIN_PERSONS = {"train": 2, "val": 1, "test": 1}
# The audit's reference generators are trained on halves of train and test, and recombine two persons each.
MIN_AUDITED = 4


def split_persons(persons: Sequence[str], shares: SplitShares, stream: np.random.Generator) -> dict[str, str]:
    """Assign each person to a side at random.

    Parameters
    ----------
    persons : sequence of str
        Pseudonyms, repeated where a person has several cases.
    shares : SplitShares
    stream : numpy.random.Generator

    Returns
    -------
    dict of str to str
        Person to side. No side that has a share is left empty.

    Raises
    ------
    DataError
        If there are fewer persons than sides.
    """
    unique = sorted(set(persons))
    wanted = [side for side in SPLITS if getattr(shares, side) > 0]
    if len(unique) < len(wanted):
        raise DataError(f"{len(unique)} persons; expected at least one for each of {', '.join(wanted)}; add scans")
    counts = {side: max(1, round(getattr(shares, side) * len(unique))) for side in wanted}
    largest = max(wanted, key=lambda side: counts[side])
    counts[largest] += len(unique) - sum(counts.values())
    order = stream.permutation(len(unique))
    sides = [side for side in wanted for _ in range(counts[side])]
    return {unique[int(i)]: side for i, side in zip(order, sides, strict=True)}


def check_sides(sides: Sequence[str]) -> None:
    """Check that the stages to come can work with a split.

    Parameters
    ----------
    sides : sequence of str
        Side of each person with a usable scan.

    Raises
    ------
    DataError
        If a side has too few persons.
    """
    counts = {side: sides.count(side) for side in SPLITS}
    short = [side for side in SPLITS if counts[side] < MIN_PERSONS[side]]
    if short or counts["train"] + counts["test"] < MIN_AUDITED:
        got = ", ".join(f"{counts[side]} in {side}" for side in SPLITS)
        expected = ", ".join(f"{MIN_PERSONS[side]} in {side}" for side in SPLITS)
        raise DataError(
            f"too few persons with a usable scan: {got}; expected at least {expected}, and {MIN_AUDITED} in train and "
            "test together; add scans, or change ingest.split or ingest.split_file"
        )


def read_split_file(path: Path, person_of: Mapping[str, str]) -> dict[str, str]:
    """Read the split from a user's table.

    Parameters
    ----------
    path : Path
        TSV with columns ``subject`` (as found in the source) and ``split``.
    person_of : mapping of str to str
        For each subject in the source, the person's pseudonym.

    Returns
    -------
    dict of str to str
        Person to side.

    Raises
    ------
    ConfigError
        If the file is missing or malformed, names an unknown side, leaves a subject out, or puts one person on two
        sides.
    """
    if not path.is_file():
        raise ConfigError("ingest.split_file: no such file; expected a TSV with columns subject and split")
    try:
        rows = read_tsv(path)
    except UnicodeDecodeError as error:
        raise ConfigError("ingest.split_file: not UTF-8; expected a table as text; save it anew") from error
    if not rows or not {"subject", "split"} <= set(rows[0]):
        raise ConfigError("ingest.split_file: expected columns subject and split, separated by tabs; correct the file")
    sides: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            raise ConfigError(
                f"ingest.split_file: line {number}: expected one of {', '.join(SPLITS)}; correct the line"
            )
        person = person_of.get(row["subject"])
        if person is not None and sides.setdefault(person, row["split"]) != row["split"]:
            raise ConfigError(f"ingest.split_file: line {number}: a person on two sides; put all its subjects on one")
    n_missing = sum(person not in sides for person in set(person_of.values()))
    if n_missing:
        raise ConfigError(f"ingest.split_file: {n_missing} persons of the source are not listed; add them")
    return sides
