"""Files of unknown format: not judged, but for names and addresses that stand in them readably."""

import re
from collections.abc import Iterator

from pipeline.deid_check.findings import Hit
from pipeline.deid_check.streams import PIECE_BYTES, Stream
from pipeline.deid_check.text_rules import find_strictly

MAX_SEARCHED_BYTES = 1 << 30
OVERLAP_BYTES = 512
# Far enough for a name or an address in sixteen bits a letter.
REACH_BYTES = 160
SIGN = re.compile(
    rb"[\^@](?:(?<=[A-Za-z0-9].)(?=[A-Za-z0-9])|(?<=[A-Za-z0-9]\0.)(?=\0[A-Za-z0-9]))",
    re.DOTALL,
)


def search_binary(stream: Stream) -> Iterator[Hit]:
    """Yield the names and e-mail addresses in what is left of a stream, as UTF-8, Latin-1 or UTF-16."""
    tail, start = b"", stream.position
    found: set[tuple[str, int]] = set()
    while stream.position - start < MAX_SEARCHED_BYTES:
        piece = stream.read(PIECE_BYTES)
        if not piece:
            return
        window, offset = tail + piece, stream.position - len(piece) - len(tail)
        for what, place in search_bytes(window):
            # What lies in the overlap is seen twice.
            if (what, offset + place) not in found:
                found.add((what, offset + place))
                yield Hit(f"offset {offset + place}", what)
        found = {(what, place) for what, place in found if place >= offset}
        tail = window[-OVERLAP_BYTES:]
    if stream.peek(1):
        yield Hit("", f"more than {MAX_SEARCHED_BYTES >> 30} GiB; the rest was not searched", is_doubt=True)


def search_bytes(content: bytes) -> Iterator[tuple[str, int]]:
    """Yield kind and offset of names and e-mail addresses in bytes; the offset is that of ``^`` or ``@`` in them.

    The rules want ASCII letters, so that Latin-1 finds UTF-8 too.
    """
    for sign in SIGN.finditer(content):
        place = sign.start()
        first, last = max(place - REACH_BYTES, 0), place + REACH_BYTES
        near = content[first:last]
        if content[place - 1] == 0:
            # Of the two ways to pair the bytes one gives letters, whatever their order.
            texts = [near.decode("utf-16-le", "replace"), near[1:].decode("utf-16-le", "replace")]
        else:
            texts = [near.decode("latin-1")]
        for what in {what for text in texts for what, _ in find_strictly(text)}:
            yield what, place


def scan_unknown(stream: Stream) -> Iterator[Hit]:
    """Search a file of unknown format, and say that it was not judged."""
    yield Hit("", "unknown format", is_doubt=True)
    yield from search_binary(stream)
