"""TSV and CSV: each cell by its column and by the rules for text."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator

from pipeline.deid_check.findings import Hit
from pipeline.deid_check.keys import EMPTY, judge_entry, judge_text, show_key
from pipeline.deid_check.text_rules import DATE, kinds_in_text

DELIMITERS = "\t;,|"


def find_delimiter(name: str, first_lines: list[str]) -> str:
    """Return what separates the cells of a table, empty if the lines are none.

    Parameters
    ----------
    name : str
        File name: ``.tsv`` and ``.csv`` are tables whatever they hold.
    first_lines : list of str
        The first few.
    """
    counts = {sign: {line.count(sign) for line in first_lines} for sign in DELIMITERS}
    for sign, found in counts.items():
        # In running text commas come in any number.
        if len(first_lines) > 1 and len(found) == 1 and min(found) >= (1 if sign == "\t" else 2):
            return sign
    if name.lower().endswith((".tsv", ".csv")) and first_lines:
        return max(DELIMITERS, key=first_lines[0].count)
    return ""


def judge_table(lines: Iterable[str], delimiter: str) -> Iterator[Hit]:
    """Yield what a table holds, by column and row.

    Raises
    ------
    csv.Error
        If it is no table.
    """
    reader = csv.reader(lines, delimiter=delimiter)
    header = next(reader, [])
    # A cell of many digits may be a date or any number: the column as a whole tells.
    n_filled: Counter[int] = Counter()
    n_dates: Counter[int] = Counter()
    for number, name in enumerate(header, 1):
        for kind in judge_text(name):
            yield Hit(f"column {number}, row 1", kind)
    for row_number, row in enumerate(reader, 2):
        for number, cell in enumerate(row, 1):
            text = cell.strip()
            if text.lower() in EMPTY:
                continue
            n_filled[number] += 1
            key = header[number - 1].strip() if number <= len(header) else ""
            if text.isdigit() and not judge_entry(key, text):
                n_dates[number] += len(text) in (8, 14) and DATE in kinds_in_text(text)
                continue
            for kind in [judge_entry(key, text)] if judge_entry(key, text) else judge_text(text, key):
                yield Hit(f"column {show_key(key, number)}, row {row_number}", kind)
    for number, count in n_dates.items():
        if count and 2 * count >= n_filled[number]:
            key = header[number - 1].strip() if number <= len(header) else ""
            yield Hit(f"column {show_key(key, number)}", DATE)
