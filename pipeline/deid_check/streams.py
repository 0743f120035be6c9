"""Reading forwards only, in bounded pieces: files, and what is packed in them, however large they claim to be."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.errors import Unjudgeable

PIECE_BYTES = 1 << 20
# What has to be held in memory at once: an archive inside another one, a data base, a JSON document.
MAX_READ_BYTES = 128 << 20
MAX_UNPACKED_BYTES = 4 << 30
# A gap that is longer is a trick, or a file with holes: reading it would take minutes.
MAX_GAP_BYTES = 1 << 30


@dataclass
class Budget:
    """How many bytes may still be unpacked from one file on disk, all levels of packing together."""

    bytes_left: int = MAX_UNPACKED_BYTES

    def spend(self, n_bytes: int) -> None:
        """Count unpacked bytes.

        Raises
        ------
        Unjudgeable
            If the file unpacks to more than the limit.
        """
        self.bytes_left -= n_bytes
        if self.bytes_left < 0:
            raise Unjudgeable(f"unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB; the rest was not read")


class Stream:
    """A reader that goes forwards only.

    Parameters
    ----------
    read : callable
        Returns at most so many bytes, none at the end.
    skip : callable, optional
        Passes over so many bytes without reading them; returns how many there were.
    """

    def __init__(self, read: Callable[[int], bytes], skip: Callable[[int], int] | None = None) -> None:
        self._read, self._skip = read, skip
        self._ahead = b""
        self.position = 0

    def peek(self, n_bytes: int) -> bytes:
        """Return the next bytes without passing them; fewer at the end."""
        pieces, n_ahead = [self._ahead], len(self._ahead)
        while n_ahead < n_bytes:
            piece = self._read(min(n_bytes - n_ahead, PIECE_BYTES))
            if not piece:
                break
            pieces.append(piece)
            n_ahead += len(piece)
        self._ahead = b"".join(pieces)
        return self._ahead[:n_bytes]

    def read(self, n_bytes: int) -> bytes:
        """Return the next bytes; fewer at the end.

        Raises
        ------
        Unjudgeable
            If so many are asked for that they would fill the memory.
        """
        if n_bytes > MAX_READ_BYTES:
            raise Unjudgeable(f"a part of more than {MAX_READ_BYTES >> 20} MiB that has to be read at once")
        content = self.peek(n_bytes)
        self._ahead = self._ahead[len(content) :]
        self.position += len(content)
        return content

    def read_all(self) -> bytes:
        """Return all bytes that are left.

        Raises
        ------
        Unjudgeable
            If there are so many that they would fill the memory.
        """
        content = self.peek(MAX_READ_BYTES + 1)
        return self.read(len(content))

    def skip(self, n_bytes: int) -> int:
        """Pass over bytes; return how many there were."""
        n_bytes = max(n_bytes, 0)
        passed = min(n_bytes, len(self._ahead))
        self._ahead = self._ahead[passed:]
        if self._skip is not None:
            passed += self._skip(n_bytes - passed)
        else:
            while passed < n_bytes:
                piece = self._read(min(n_bytes - passed, PIECE_BYTES))
                if not piece:
                    break
                passed += len(piece)
        self.position += passed
        return passed

    def push_back(self, content: bytes) -> None:
        """Put bytes that were read too far in front again."""
        self._ahead = content + self._ahead
        self.position -= len(content)

    def pieces(self) -> Iterator[bytes]:
        """Yield what is left, a piece at a time."""
        while piece := self.read(PIECE_BYTES):
            yield piece


def stream_file(file: BinaryIO) -> Stream:
    """Return a stream over an open file; skipping reads nothing."""
    size = os.fstat(file.fileno()).st_size

    def skip(n_bytes: int) -> int:
        n_bytes = max(min(n_bytes, size - file.tell()), 0)
        file.seek(n_bytes, os.SEEK_CUR)
        return n_bytes

    return Stream(file.read, skip)


def stream_bytes(content: bytes) -> Stream:
    """Return a stream over bytes in memory."""
    start = 0

    def read(n_bytes: int) -> bytes:
        nonlocal start
        piece = content[start : start + n_bytes]
        start += len(piece)
        return piece

    return Stream(read)


def first_filled_byte(stream: Stream, n_bytes: int | None = None) -> int | None:
    """Return the offset of the first byte that is not 0 among the next ones (all that are left if not given).

    Raises
    ------
    Unjudgeable
        If so many bytes are 0 that they were not read to their end.
    """
    left = MAX_GAP_BYTES if n_bytes is None else min(n_bytes, MAX_GAP_BYTES)
    while left > 0:
        start = stream.position
        piece = stream.read(min(left, PIECE_BYTES))
        if not piece:
            return None
        if piece.count(0) != len(piece):
            return start + len(piece) - len(piece.lstrip(b"\0"))
        left -= len(piece)
    if (n_bytes is None or n_bytes > MAX_GAP_BYTES) and stream.peek(1):
        raise Unjudgeable(f"more than {MAX_GAP_BYTES >> 20} MiB of nothing; the rest was not read")
    return None
