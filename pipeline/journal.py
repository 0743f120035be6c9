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
        ``journal.jsonl``; made on the first event. A last line torn by a kill is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_file():
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(path, whole)

    def append(self, event: str, stage: str, **fields: object) -> None:
        """Write one event with the current time in milliseconds."""
        line = json.dumps({"time": int(time.time() * 1000), "stage": stage, "event": event, **fields})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

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
