"""The elements of a DICOM file one after the other, nested ones included, without holding any large value.

pydicom builds whole data sets, inflates what is deflated and follows any depth: too trusting for files of unknown
origin. This reads forwards, in bounded memory, and stops with a reason where a file breaks the encoding.

References
----------
DICOM PS3.5, chapter 7 (data set), 7.5 (nesting), A.4 (encapsulated pixels); PS3.10, 7.1 (file meta information).
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from pipeline.deid_check.streams import PIECE_BYTES, Budget, Stream
from pipeline.errors import Unjudgeable

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
TRANSFER_SYNTAX = 0x00020010
PIXEL_DATA = 0x7FE00010
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT"}
    | {b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
DEFLATED, EXPLICIT_BIG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
# Of the first group of a data set without file meta information.
BIG_ENDIAN_GROUP = b"\0\x08\0"
VALUE_BYTES = 1 << 16
MAX_DEPTH = 64
MAX_ELEMENTS = 2_000_000


@dataclass(frozen=True)
class Element:
    """One element.

    Parameters
    ----------
    tag : int
        Group and element.
    vr : str
        As the file or, with implicit encoding, the dictionary has it; ``UN`` if neither does.
    path : tuple of int
        Tags of the sequences around it, outermost first.
    length : int
        Bytes of the value; of a sequence or of encapsulated pixels 1 if there is an item with content, else 0.
    value : bytes
        The first bytes of it; none of pixels.
    """

    tag: int
    vr: str
    path: tuple[int, ...]
    length: int
    value: bytes = b""


@dataclass
class Level:
    """A data set or a sequence that is being read: where it ends, and how it is encoded."""

    end: int | None
    path: tuple[int, ...]
    is_sequence: bool
    is_explicit: bool


def is_dicom(head: bytes) -> bool:
    """Tell whether a file's first 132 bytes or more are those of a DICOM file, with preamble or without."""
    if head[128:132] == b"DICM":
        return True
    is_explicit = head[4:6] in SHORT_VRS | LONG_VRS
    if head.startswith(BIG_ENDIAN_GROUP):
        return is_explicit
    is_first_group = head[:2] in (b"\x02\0", b"\x08\0") and head[3:4] == b"\0" and len(head) >= 12
    return is_first_group and (is_explicit or int.from_bytes(head[4:8], "little") <= 256)


def read_elements(stream: Stream, budget: Budget) -> Iterator[Element]:
    """Yield the elements of a file, behind the preamble if there is one.

    Raises
    ------
    Unjudgeable
        If the encoding breaks off or is broken, or the file is nested absurdly; what came before has been yielded.
    """
    transfer_syntax = ""
    while stream.peek(2) == b"\x02\0":
        element = _read_plain_element(stream)
        if element.tag == TRANSFER_SYNTAX:
            transfer_syntax = element.value.rstrip(b"\0 ").decode("latin-1")
        yield element
    if transfer_syntax == DEFLATED:
        stream = _inflate(stream, budget)
    # Some writers announce another encoding than they use.
    is_explicit = stream.peek(6)[4:6] in SHORT_VRS | LONG_VRS
    is_big = transfer_syntax == EXPLICIT_BIG or stream.peek(3) == BIG_ENDIAN_GROUP
    yield from _Reader(stream, "big" if is_big else "little").read(is_explicit)


def _read_plain_element(stream: Stream) -> Element:
    """Read an element of the file meta information: explicit, little-endian, not nested."""
    reader = _Reader(stream, "little")
    tag, vr, length = reader.read_head(is_explicit=True)
    if length == UNDEFINED:
        raise Unjudgeable("broken DICOM encoding in the file meta information")
    return Element(tag, vr, (), length, reader.read_value(length)[0])


def _inflate(stream: Stream, budget: Budget) -> Stream:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def read(n_bytes: int) -> bytes:
        content = b""
        while not content and not inflater.eof:
            packed = inflater.unconsumed_tail or stream.read(PIECE_BYTES)
            content = inflater.decompress(packed, n_bytes)
            if not packed:
                break
        budget.spend(len(content))
        return content

    return Stream(read)


def _is_sequence(tag: int) -> bool:
    return dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"


class _Reader:
    """Reads a data set from a stream, keeping the open levels on a stack of its own."""

    def __init__(self, stream: Stream, byte_order: str) -> None:
        self._stream = stream
        self._order = byte_order
        self._levels: list[Level] = []

    def read(self, is_explicit: bool) -> Iterator[Element]:
        self._levels = [Level(None, (), is_sequence=False, is_explicit=is_explicit)]
        for _ in range(MAX_ELEMENTS):
            self._close_ended()
            if not self._stream.peek(1):
                if len(self._levels) > 1:
                    raise Unjudgeable("DICOM file that breaks off in a sequence")
                return
            level = self._levels[-1]
            if level.is_sequence:
                yield from self._step_in_sequence(level)
            else:
                yield from self._step_in_data_set(level)
        raise Unjudgeable(f"more than {MAX_ELEMENTS} DICOM elements; the rest was not read")

    def read_head(self, is_explicit: bool) -> tuple[int, str, int]:
        """Return tag, VR and length of the next element or item."""
        head = self._take(8)
        tag = self._number(head[:2]) << 16 | self._number(head[2:4])
        if tag >> 16 == 0xFFFE:
            return tag, "", self._number(head[4:])
        if not is_explicit:
            return tag, dictionary_VR(tag) if dictionary_has_tag(tag) else "UN", self._number(head[4:])
        vr = head[4:6]
        if vr in LONG_VRS:
            return tag, vr.decode(), self._number(self._take(4))
        if vr not in SHORT_VRS:
            raise Unjudgeable("broken DICOM encoding: no value representation where one belongs")
        return tag, vr.decode(), self._number(head[6:])

    def read_value(self, length: int) -> tuple[bytes, bool]:
        """Return the begin of a value, and whether the file breaks off in it."""
        value = self._stream.read(min(length, VALUE_BYTES))
        return value, len(value) + self._stream.skip(length - len(value)) < length

    def _step_in_sequence(self, level: Level) -> Iterator[Element]:
        tag, _, length = self.read_head(level.is_explicit)
        if tag == SEQUENCE_END:
            self._levels.pop()
        elif tag == ITEM:
            if length:
                yield Element(level.path[-1], "SQ", level.path[:-1], 1)
                self._open(Level(self._end(length), level.path, is_sequence=False, is_explicit=level.is_explicit))
        else:
            raise Unjudgeable("broken DICOM encoding: a sequence without items")

    def _step_in_data_set(self, level: Level) -> Iterator[Element]:
        tag, vr, length = self.read_head(level.is_explicit)
        if tag == ITEM_END:
            if len(self._levels) == 1:
                raise Unjudgeable("broken DICOM encoding: an item that ends before it began")
            self._levels.pop()
        elif vr == "SQ" or (vr == "UN" and tag != PIXEL_DATA and (length == UNDEFINED or _is_sequence(tag))):
            # A sequence that the writer did not know: encoded implicitly (PS3.5, 6.2.2, note 2).
            is_explicit = level.is_explicit and vr == "SQ"
            self._open(Level(self._end(length), (*level.path, tag), is_sequence=True, is_explicit=is_explicit))
        elif length == UNDEFINED:
            yield Element(tag, vr, level.path, self._skip_fragments())
        elif tag == PIXEL_DATA:
            yield Element(tag, vr, level.path, self._stream.skip(length))
        else:
            value, breaks_off = self.read_value(length)
            yield Element(tag, vr, level.path, length, value)
            if breaks_off:
                raise Unjudgeable("DICOM file that breaks off in a value")

    def _skip_fragments(self) -> int:
        """Pass over the fragments of encapsulated pixels; return 1 if there is any."""
        has_content = 0
        while True:
            tag, _, length = self.read_head(is_explicit=True)
            if tag == SEQUENCE_END:
                return has_content
            if tag != ITEM or self._stream.skip(length) < length:
                raise Unjudgeable("broken DICOM encoding: encapsulated pixels that do not end")
            has_content = has_content or int(length > 0)

    def _open(self, level: Level) -> None:
        if len(self._levels) >= 2 * MAX_DEPTH:
            raise Unjudgeable(f"DICOM sequences nested deeper than {MAX_DEPTH}")
        self._levels.append(level)

    def _close_ended(self) -> None:
        while self._levels[-1].end is not None and self._stream.position >= self._levels[-1].end:
            self._levels.pop()

    def _end(self, length: int) -> int | None:
        return None if length == UNDEFINED else self._stream.position + length

    def _take(self, n_bytes: int) -> bytes:
        content = self._stream.read(n_bytes)
        if len(content) < n_bytes:
            raise Unjudgeable("DICOM file that breaks off in an element")
        return content

    def _number(self, content: bytes) -> int:
        return int.from_bytes(content, self._order)  # type: ignore[arg-type]
