"""SQLite: each text and blob of each table, and names in pages that no table owns any more.

References
----------
"Database file format", https://www.sqlite.org/fileformat.html.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.deid_check.binary import search_binary, search_bytes
from pipeline.deid_check.context import Context
from pipeline.deid_check.documents import find_encoding
from pipeline.deid_check.findings import Hit
from pipeline.deid_check.keys import judge_entry, judge_text, show_key
from pipeline.deid_check.streams import Stream

SQLITE_MAGIC = b"SQLite format 3\0"
MAX_SECONDS = 300.0
OPERATIONS_BETWEEN_LOOKS = 1000
# Read and write version: a data base that keeps a write-ahead log cannot be opened from memory.
VERSION_BYTES = slice(18, 20)
MAX_CELL_BYTES = 64 << 20
KEY_COLUMNS, VALUE_COLUMNS = ("key", "name"), ("value", "val")


def scan_database(stream: Stream, context: Context) -> Iterator[Hit]:
    """Yield what a SQLite data base holds.

    Raises
    ------
    Unjudgeable
        If it lies in an archive and is too large for memory.
    """
    connection = _open(stream, context.path)
    deadline = time.monotonic() + MAX_SECONDS
    try:
        _make_harmless(connection, deadline)
        tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        yield from _scan_table(connection, "sqlite_master", 0)
        for number, (name, sql) in enumerate(tables, 1):
            if not bytes(sql or b"").upper().startswith(b"CREATE VIRTUAL"):
                yield from _scan_table(connection, name.decode("utf-8", "replace"), number)
    except (sqlite3.Error, OverflowError) as error:
        yield Hit("", f"data base that cannot be read ({type(error).__name__})", is_doubt=True)
    finally:
        connection.close()
    yield from search_binary(stream)


def _open(stream: Stream, path: Path | None) -> sqlite3.Connection:
    """Open a file on disk where there is one, without writing beside it; else a copy in memory."""
    if path is not None:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    content = bytearray(stream.read_all())
    stream.push_back(bytes(content))
    content[VERSION_BYTES] = b"\1\1"
    connection = sqlite3.connect(":memory:")
    connection.deserialize(bytes(content))
    return connection


def _make_harmless(connection: sqlite3.Connection, deadline: float) -> None:
    """Let a schema of unknown origin run nothing, and nothing take for ever."""
    connection.set_progress_handler(lambda: time.monotonic() > deadline, OPERATIONS_BETWEEN_LOOKS)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL_BYTES)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA query_only = ON")
    # Bytes: what is no UTF-8 must not stop the scan.
    connection.text_factory = bytes


def _scan_table(connection: sqlite3.Connection, table: str, number: int) -> Iterator[Hit]:
    quoted = table.replace('"', '""')
    cursor = connection.execute(f'SELECT * FROM "{quoted}"')  # noqa: S608 the name is quoted, there is no other way
    columns = [column[0] for column in cursor.description]
    shown = show_key(table, number)
    for column_number, column in enumerate(columns, 1):
        for kind in judge_text(column):
            yield Hit(f"{shown}, column {column_number}", kind)
    for row_number, row in enumerate(cursor, 1):
        cells = [cell.decode("utf-8", "replace") if _is_text(cell) else cell for cell in row]
        for place, what in _judge_row(columns, cells):
            yield Hit(f"{shown}.{place}, row {row_number}", what)


def _is_text(cell: object) -> bool:
    return isinstance(cell, bytes) and find_encoding(cell) != ""


def _judge_row(columns: Sequence[str], cells: Sequence[object]) -> Iterator[tuple[str, str]]:
    names = [column.lower() for column in columns]
    keys = {name: cell for name, cell in zip(names, cells, strict=True) if isinstance(cell, str)}
    row_key = next((keys[name] for name in KEY_COLUMNS if name in keys), "")
    for number, (column, cell) in enumerate(zip(columns, cells, strict=True), 1):
        shown = show_key(column, number)
        if isinstance(cell, bytes):
            for what, _ in search_bytes(cell):
                yield shown, what
        elif isinstance(cell, str):
            key = row_key if column.lower() in VALUE_COLUMNS else column
            what = judge_entry(key, cell)
            for kind in [what] if what else judge_text(cell, key):
                yield shown, kind
