"""What a scanner is told besides the bytes, and how it has what is packed inside scanned in turn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.deid_check.findings import Hit
from pipeline.deid_check.streams import Budget, Stream

MAX_DEPTH = 4


@dataclass(frozen=True)
class Context:
    """Where a stream comes from.

    Parameters
    ----------
    name : str
        Name of the file or member, without folders.
    budget : Budget
        What may still be unpacked from the file on disk.
    scan : callable
        Scans a stream of any format.
    path : Path or None
        The file on disk that the stream reads; None inside an archive.
    depth : int
        Levels of packing around it.
    """

    name: str
    budget: Budget
    scan: Callable[[Stream, "Context"], Iterator[Hit]]
    path: Path | None = None
    depth: int = 0

    def scan_inside(self, stream: Stream, name: str, place: str) -> Iterator[Hit]:
        """Yield what is found in a packed part, under its place; parts that are packed too deep are a doubt."""
        if self.depth >= MAX_DEPTH:
            yield Hit(place, f"packed more than {MAX_DEPTH} times", is_doubt=True)
            return
        for hit in self.scan(stream, replace(self, name=name, path=None, depth=self.depth + 1)):
            yield replace(hit, place=f"{place} > {hit.place}" if hit.place and place else hit.place or place)
