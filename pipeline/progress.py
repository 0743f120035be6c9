"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0
# Work that is over sooner than this is not worth a line.
SECONDS_WORTH_A_LINE = 3.0
console = Console(stderr=True, highlight=False, soft_wrap=True)

_PLAIN_LINES = threading.Event()


class Task:
    """A piece of work with a known number of units.

    Parameters
    ----------
    description : str
        What is being done.
    total : int
        Number of units.
    bar : Progress or None
        Bar to draw on; None writes a plain line now and then.
    """

    def __init__(self, description: str, total: int, bar: Progress | None) -> None:
        self._description, self._total, self._bar = description, total, bar
        self._done = 0
        self._started = self._last_line = time.monotonic()
        self._bar_task = bar.add_task(description, total=total, note="") if bar else None

    def advance(self, n_units: int = 1, note: str = "") -> None:
        """Count units as done; ``note`` is shown beside the count."""
        self._done += n_units
        if self._bar is not None and self._bar_task is not None:
            self._bar.update(self._bar_task, advance=n_units, note=note)
            return
        now = time.monotonic()
        elapsed_s = now - self._started
        is_over = self._done >= self._total and elapsed_s >= SECONDS_WORTH_A_LINE
        if is_over or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            left_s = elapsed_s / self._done * max(self._total - self._done, 0) if self._done else 0.0
            count = f"{self._done}/{self._total}, {elapsed_s:.0f} s, {left_s:.0f} s left"
            say(f"  {self._description}: {count} {note}".rstrip())


@contextmanager
def progress(description: str, total: int) -> Iterator[Task]:
    """Show progress of the work in the ``with`` block.

    Parameters
    ----------
    description : str
        What is being done, a few words.
    total : int
        Number of units.

    Yields
    ------
    Task
    """
    if _PLAIN_LINES.is_set() or not sys.stderr.isatty():
        yield Task(description, total, None)
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Task(description, total, bar)


def use_plain_lines() -> None:
    """Draw no bars in this process: for workers, whose lines share a terminal."""
    _PLAIN_LINES.set()


def say(line: str) -> None:
    """Print one line for the user to stderr."""
    console.print(line, markup=False)
