"""JSON: sidecars, records, notebooks; each value by its key and by the rules for text."""

import json
import re
from collections.abc import Iterator
from typing import Any

from pipeline.deid_check.findings import Hit
from pipeline.deid_check.keys import TAG_KEY, judge_entry, judge_text, show_key
from pipeline.layout import DONE_FILE

# Above this, a document is searched as text: in memory it would take a hundred times its size.
MAX_JSON_CHARACTERS = 4 << 20
# Processing records of ours: when a stage was finished says nothing about a patient.
RECORD_ENTRIES = {DONE_FILE: ("finished", re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?[+-]\d\d:\d\d"))}
# Of an attribute in the DICOM JSON model (PS3.18, F.2).
DICOM_JSON_KEYS = frozenset({"Value", "InlineBinary", "BulkDataURI", "Alphabetic", "Ideographic", "Phonetic"})


def judge_json(text: str, file_name: str = "") -> Iterator[Hit]:
    """Yield what a JSON document holds.

    Parameters
    ----------
    text : str
    file_name : str
        Tells records of our own.

    Raises
    ------
    ValueError
        If it is no JSON.
    RecursionError
        If it is nested absurdly.
    """
    # As pairs: of keys that occur twice none is lost.
    content = json.loads(text, object_pairs_hook=tuple)
    waiting: list[tuple[str, str, str, Any]] = [("", "", "", content)]
    while waiting:
        place, parent, key, value = waiting.pop()
        if isinstance(value, tuple):
            yield from _judge_keys(place, value)
            waiting.extend(_children(place, key, value))
        elif isinstance(value, list):
            waiting.extend((f"{place}[{n}]", parent, key, item) for n, item in reversed(list(enumerate(value, 1))))
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            yield from _judge_value(place, parent, key, value, file_name)


def _children(place: str, key: str, pairs: tuple[tuple[str, Any], ...]) -> Iterator[tuple[str, str, str, Any]]:
    is_attribute = TAG_KEY.fullmatch(key) is not None
    for number, (name, value) in reversed(list(enumerate(pairs, 1))):
        if is_attribute and name == "vr":
            continue
        shown = f"{place}.{show_key(name, number)}".lstrip(".")
        yield (shown, "", key, value) if is_attribute and name in DICOM_JSON_KEYS else (shown, key, name, value)


def _judge_keys(place: str, pairs: tuple[tuple[str, Any], ...]) -> Iterator[Hit]:
    for number, (name, _) in enumerate(pairs, 1):
        for kind in judge_text(name):
            yield Hit(f"{place}.#{number}".lstrip("."), f"{kind}, in a key")


def _judge_value(place: str, parent: str, key: str, value: str | float, file_name: str) -> Iterator[Hit]:
    text = str(value)
    # "patient": {"name": ...} is a patient's name.
    kind = judge_entry(key, text) or (judge_entry(f"{parent} {key}", text) if parent else "")
    if kind:
        yield Hit(place, kind)
    elif isinstance(value, str) and not _is_record(file_name, key, text):
        for found in judge_text(text, key):
            yield Hit(place, found)


def _is_record(file_name: str, key: str, text: str) -> bool:
    record_key, pattern = RECORD_ENTRIES.get(file_name, ("", None))
    return pattern is not None and key == record_key and pattern.fullmatch(text) is not None
