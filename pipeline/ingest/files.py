"""The files of a source folder, also of one that can be read in part only."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.progress import say


def walk_files(root: Path) -> list[Path]:
    """Return all files below a folder, sorted; what may not be looked into is counted and said, not named."""
    unreadable: list[OSError] = []
    files = list(_walk(root, unreadable))
    if unreadable:
        say(f"      {len(unreadable)} files or folders of the source could not be read and were passed over")
    return sorted(files)


def _walk(root: Path, unreadable: list[OSError]) -> Iterator[Path]:
    for folder, _, names in os.walk(root, onerror=unreadable.append):
        for name in names:
            path = Path(folder) / name
            try:
                # A link to nothing is no file; a folder that may not be entered raises.
                if path.is_file():
                    yield path
            except OSError as error:
                unreadable.append(error)
