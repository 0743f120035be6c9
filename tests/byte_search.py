"""Search for a word in every byte of a tree: plain, in other encodings, and in what is packed or embedded."""

import base64
import io
import re
import sqlite3
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

MAX_DEPTH = 5
BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{40,}")
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def encodings_of(word: str) -> dict[str, bytes]:
    """Return how a word stands in bytes, by name of the encoding; base64 without what depends on its neighbours."""
    found = {}
    for case, text in (("", word), (" lower", word.lower())):
        plain = text.encode()
        found |= {f"plain{case}": plain, f"hex{case}": plain.hex().encode(), f"HEX{case}": plain.hex().upper().encode()}
        found |= {f"UTF-16 LE{case}": text.encode("utf-16-le"), f"UTF-16 BE{case}": text.encode("utf-16-be")}
        for shift in range(3):
            coded = base64.b64encode(bytes(shift) + plain)
            first = -(-8 * shift // 6)
            last = 8 * (shift + len(plain)) // 6
            found[f"base64+{shift}{case}"] = coded[first:last]
    return found


def search_tree(word: str, *roots: Path) -> list[str]:
    """Return where a word stands in names and contents below some paths: ``path: how``."""
    patterns = encodings_of(word)
    found = []
    for root in roots:
        for path in sorted([root, *root.rglob("*")] if root.is_dir() else [root]):
            if word.lower() in path.relative_to(root.parent).as_posix().lower():
                found.append(f"{path}: name")
            if path.is_file():
                found += [f"{path}: {how}" for how in sorted(set(search_bytes(path.read_bytes(), patterns)))]
    return found


def search_bytes(content: bytes, patterns: dict[str, bytes], depth: int = 0) -> Iterator[str]:
    """Yield how the patterns stand in some bytes, and in what is packed in them."""
    for how, pattern in patterns.items():
        if pattern in content:
            yield how
    if depth < MAX_DEPTH:
        for kind, inner in unpack(content):
            for how in search_bytes(inner, patterns, depth + 1):
                yield f"{kind} > {how}"


def unpack(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what is packed or embedded in some bytes, by kind."""
    if content.startswith(b"\x1f\x8b"):
        # As much as there is: files are damaged on purpose.
        yield "gzip", zlib.decompressobj(31).decompress(content)
    elif content.startswith(b"PK\3\4"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                yield "zip", member.filename.encode() + b"\n" + archive.read(member)
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                yield "tar", archive.extractfile(member).read() if member.isfile() else member.name.encode()
    elif content.startswith(PNG_MAGIC):
        yield from (("PNG text", text) for text in texts_of_png(content))
    elif content.startswith(b"SQLite format 3\0"):
        yield from (("SQLite", cell) for cell in cells_of(content))
    else:
        # Pictures in pages; anything else that is long enough to hold a word.
        for run in BASE64_RUN.findall(content):
            plain = run.translate(bytes.maketrans(b"-_", b"+/"))
            yield "base64", base64.b64decode(plain[: len(plain) // 4 * 4])


def texts_of_png(content: bytes) -> Iterator[bytes]:
    place = len(PNG_MAGIC)
    while place < len(content):
        n_bytes, kind = struct.unpack(">I4s", content[place : place + 8])
        text = content[place + 8 : place + 8 + n_bytes].partition(b"\0")[2]
        place += 12 + n_bytes
        if kind == b"zTXt":
            yield zlib.decompress(text[1:])
        elif kind == b"iTXt" and text[:1] == b"\1":
            yield zlib.decompress(text.split(b"\0", 3)[3])


def cells_of(content: bytes) -> Iterator[bytes]:
    """Yield texts and blobs of a data base: a long one is torn apart by pages, so that raw bytes do not show it."""
    connection = sqlite3.connect(":memory:")
    connection.deserialize(content[:18] + b"\1\1" + content[20:])
    connection.text_factory = bytes
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in connection.execute(f'SELECT * FROM "{table.decode()}"'):  # noqa: S608
            yield from (cell for cell in row if isinstance(cell, bytes))
    connection.close()
