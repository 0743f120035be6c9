"""PNG and JPEG: texts, EXIF, times, comments, and what comes behind the picture.

References
----------
W3C, "Portable Network Graphics", third edition, 11.3 (ancillary chunks). ITU-T T.81, annex B (markers).
"""

import re
import struct
from collections.abc import Iterator

from pipeline.deid_check.findings import Hit
from pipeline.deid_check.keys import judge_text
from pipeline.deid_check.streams import Stream, first_filled_byte
from pipeline.errors import Unjudgeable

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
PNG_HARMLESS = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV"}
    | {b"cLLI", b"bKGD", b"hIST", b"pHYs", b"sPLT", b"acTL", b"fcTL", b"fdAT"}
)  # fmt: skip
PNG_FINDINGS = {b"eXIf": "EXIF", b"tIME": "date or time"}
JPEG_FINDINGS = {0xE1: "EXIF or XMP", 0xED: "IPTC", 0xFE: "comment"}
# JFIF, colour profile, Adobe's colour transform.
JPEG_HARMLESS = frozenset({0xE0, 0xE2, 0xEE})
MAX_TEXT_BYTES = 1 << 16
SCAN_START, IMAGE_END = 0xDA, 0xD9


def scan_png(stream: Stream) -> Iterator[Hit]:
    """Yield the chunks of a PNG that are no part of the picture."""
    stream.read(len(PNG_MAGIC))
    while True:
        head = stream.read(8)
        if len(head) < 8:
            raise Unjudgeable("PNG that breaks off")
        n_bytes, kind = struct.unpack(">I4s", head)
        start = stream.position
        yield from _judge_chunk(kind, stream.peek(min(n_bytes, MAX_TEXT_BYTES)))
        if stream.skip(n_bytes + 4) < n_bytes + 4:
            raise Unjudgeable("PNG that breaks off")
        if kind == b"IEND":
            if n_bytes:
                yield Hit(f"offset {start}", "bytes behind the picture")
            break
    yield from _scan_rest(stream)


def _judge_chunk(kind: bytes, content: bytes) -> Iterator[Hit]:
    if kind in PNG_HARMLESS:
        return
    name = kind.decode("latin-1") if re.fullmatch(rb"[A-Za-z]{4}", kind) else "chunk"
    if kind not in PNG_TEXTS:
        yield Hit(name, PNG_FINDINGS.get(kind, "chunk of unknown kind"))
        return
    keyword, _, text = content.partition(b"\0")
    if keyword == b"Software" and kind == b"tEXt":
        kinds = judge_text(text.decode("latin-1"))
        if kinds:
            yield Hit(f"{name} Software", kinds[0])
    elif text.strip(b"\0"):
        yield Hit(name, "text in a picture")


def scan_jpeg(stream: Stream) -> Iterator[Hit]:
    """Yield the segments of a JPEG that are no part of the picture."""
    stream.read(2)
    while True:
        head = stream.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            raise Unjudgeable("JPEG that breaks off, or is broken")
        marker, n_bytes = head[1], int.from_bytes(head[2:], "big")
        if marker in JPEG_FINDINGS:
            yield Hit(f"segment {marker:02X}", JPEG_FINDINGS[marker])
        elif 0xE0 <= marker <= 0xEF and marker not in JPEG_HARMLESS:
            yield Hit(f"segment {marker:02X}", "segment of unknown kind")
        if stream.skip(n_bytes - 2) < n_bytes - 2:
            raise Unjudgeable("JPEG that breaks off")
        if marker == SCAN_START and _skip_scan(stream):
            break
    yield from _scan_rest(stream)


def _skip_scan(stream: Stream) -> bool:
    """Pass over coded pixels; return whether the picture ends behind them, else another segment follows."""
    while window := stream.peek(1 << 16):
        match = re.search(rb"\xff[^\x00\xd0-\xd7\xff]", window)
        if match is None:
            stream.skip(max(len(window) - 1, 1))
        elif window[match.start() + 1] == IMAGE_END:
            stream.skip(match.end())
            return True
        else:
            stream.skip(match.start())
            return False
    raise Unjudgeable("JPEG that breaks off")


def _scan_rest(stream: Stream) -> Iterator[Hit]:
    place = first_filled_byte(stream)
    if place is not None:
        yield Hit(f"offset {place}", "bytes behind the picture")
