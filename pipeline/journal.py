"""The journal of a run: one JSON object a line, in order; the truth that MLflow is fed from."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JOURNAL = "journal.jsonl"
Event = dict[str, Any]


class Journal:
    """The append-only record of a run.

    Parameters
    ----------
    path : Path
        ``journal.jsonl``; made on the first event.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_torn_line(self) -> None:
        """Cut off a last line that a kill has torn; only who holds the run folder may."""
        if self.path.is_file():
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(self.path, whole)

    def append(self, event: str, stage: str, **fields: object) -> None:
        """Write one event with the current time in milliseconds."""
        line = json.dumps({"time": int(time.time() * 1000), "stage": stage, "event": event, **fields})
        # In one piece: who reads meanwhile must not see half a line.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"{line}\n".encode())
        finally:
            os.close(file)

    def events(self, offset: int = 0) -> Iterator[tuple[int, Event]]:
        """Yield each whole event from a byte offset on, with the offset behind it."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield offset, json.loads(line)
