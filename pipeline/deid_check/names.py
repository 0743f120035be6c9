"""Names of files, folders and archive members: whether they identify, and how to show them if they do."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence, Set

from pipeline.deid_check.person_names import looks_like_person
from pipeline.deid_check.text_rules import PERSON_NAME, kinds_in_text

# Version numbers and counters look like these.
NOT_IN_NAMES = frozenset({"telephone number", "address of a machine", "name of a machine"})
MIN_IDENTIFIER = 4


def judge_name(name: str) -> list[str]:
    """Return the kinds of identifiers in one name, each once."""
    kinds = {kind for kind in kinds_in_text(name.replace("_", " ")) if kind not in NOT_IN_NAMES}
    if looks_like_person(name):
        kinds.add(PERSON_NAME)
    return sorted(kinds)


def show_parts(parts: Sequence[str], numbers: Sequence[int], identifiers: Set[str] = frozenset()) -> str:
    """Return a relative path for display; a name that identifies is shown as its number in its folder, by name.

    Parameters
    ----------
    parts : sequence of str
        Names of the folders and the file.
    numbers : sequence of int
        Place of each among its sorted siblings, from 1.
    identifiers : set of str
        Identifiers found elsewhere, as :func:`identifiers_of` gives them.
    """
    shown = [
        f"[entry {number}]" if judge_name(part) or repeats(part, identifiers) else _printable(part)
        for part, number in zip(parts, numbers, strict=True)
    ]
    return "/".join(shown)


def show_member(name: str, number: int) -> str:
    """Return the name of an archive's member for display."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return show_parts(parts, [number] * len(parts)) or f"[entry {number}]"


def judge_parts(name: str) -> list[str]:
    """Return the kinds of identifiers in the names that a path is made of."""
    return sorted({kind for part in name.replace("\\", "/").split("/") for kind in judge_name(part)})


def identifiers_of(values: Iterable[str]) -> Iterator[str]:
    """Yield identifiers in the form in which names are compared with them: letters and digits, lower case."""
    for value in values:
        words = re.findall(r"[^\W_]+", value.lower())
        for candidate in {"".join(words), "".join(reversed(words))}:
            if len(candidate) >= MIN_IDENTIFIER:
                yield candidate


def repeats(name: str, identifiers: Set[str]) -> bool:
    """Tell whether a name holds one of the identifiers, alone or between signs."""
    if not identifiers:
        return False
    words = re.findall(r"[^\W_]+", name.lower())
    pairs = (first + second for first, second in itertools.pairwise(words))
    return not identifiers.isdisjoint([*words, *pairs, "".join(words)])


def _printable(part: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in part.encode("utf-8", "replace").decode())
