"""What a scan found: kinds and places, never values; and the count that keeps memory bounded."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.deid_check.names import identifiers_of, show_parts

# A tree of a hundred thousand DICOM files finds the same thing a million times: places above this are counted only.
PLACES_PER_KIND = 50
PLACES_PER_KIND_AND_FILE = 3
KINDS_LISTED = 2000
MAX_IDENTIFIERS = 1_000_000


@dataclass(frozen=True)
class Hit:
    """One thing seen inside a file.

    Parameters
    ----------
    place : str
        Where in the file: a tag, key, column, line or offset; empty for the whole file.
    what : str
        Kind of thing, never its value.
    is_doubt : bool
        Not a finding, but a part that could not be judged.
    values : tuple of str
        Identifiers of a patient, to look for in names and to keep out of what is shown.
    """

    place: str
    what: str
    is_doubt: bool = False
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One line of the result: where (relative path and place in the file) and what kind of thing."""

    where: str
    what: str


@dataclass(frozen=True)
class CheckResult:
    """What a scan found.

    Parameters
    ----------
    findings : list of Finding
        Things that should not be there; many of one kind are listed for the first places only.
    n_findings : int
        All of them, listed or not.
    n_files : int
        Files that were looked at.
    not_judged : int
        Files, or parts of them, that could not be judged.
    doubts : list of Finding
        Where and why, for the first of each reason.
    """

    findings: list[Finding]
    n_findings: int
    n_files: int
    not_judged: int
    doubts: list[Finding]


@dataclass
class Tally:
    """Collects hits file by file; keeps the first places of each kind, counts the rest."""

    n_findings: int = 0
    n_doubts: int = 0
    identifiers: set[str] = field(default_factory=set)
    _kept: list[tuple[tuple[str, ...], tuple[int, ...], Hit]] = field(default_factory=list)
    _seen: Counter[tuple[str, str, bool]] = field(default_factory=Counter)

    def add(self, parts: tuple[str, ...], numbers: tuple[int, ...], hits: Iterable[Hit]) -> None:
        """Count the hits of one file, whose path has these names and numbers (see :func:`show_parts`)."""
        in_file: Counter[tuple[str, str, bool]] = Counter()
        for hit in hits:
            if len(self.identifiers) < MAX_IDENTIFIERS:
                self.identifiers.update(identifiers_of(hit.values))
            if hit.is_doubt:
                self.n_doubts += 1
            else:
                self.n_findings += 1
            # Items, rows and lines of one place are one kind: numbers do not tell places apart.
            kind = (re.sub(r"\d+", "#", hit.place), hit.what, hit.is_doubt)
            in_file[kind] += 1
            is_listed = len(self._seen) < KINDS_LISTED or kind in self._seen
            if is_listed and in_file[kind] <= PLACES_PER_KIND_AND_FILE and self._seen[kind] < PLACES_PER_KIND:
                self._seen[kind] += 1
                self._kept.append((parts, numbers, hit))

    def result(self, n_files: int) -> CheckResult:
        """Return what was collected; no name that repeats an identifier is shown."""
        lists: tuple[list[Finding], list[Finding]] = ([], [])
        for parts, numbers, hit in self._kept:
            path = show_parts(parts, numbers, self.identifiers)
            where = f"{path}: {hit.place}" if hit.place and path else path or hit.place or "."
            lists[hit.is_doubt].append(Finding(where, hit.what))
        return CheckResult(lists[0], self.n_findings, n_files, self.n_doubts, lists[1])
