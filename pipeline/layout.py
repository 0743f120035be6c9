"""Layout of a run folder: the stages in order, the folder of each, and the record of a finished one."""

import json
from pathlib import Path
from typing import Any

FOLDERS = {
    "ingest": "cohort",
    "train": "model",
    "generate": "synthetic",
    "audit": "audit",
    "evaluate": "evaluation",
    "export": "release",
}
STAGES = tuple(FOLDERS)
DONE_FILE = "done.json"
RECORD_KEYS = frozenset({"fingerprint", "upstream", "summary", "digest", "files", "code", "finished", "seconds"})
# What a stage folder under its temporary name is being made for.
FINGERPRINT_FILE = "fingerprint.txt"
# What the stage train leaves: the generator, and what it is.
WEIGHTS_FILE, MODEL_FILE = "generator.safetensors", "model.json"


def partial_folder(run_dir: Path, stage: str) -> Path:
    """Return the sibling that a stage writes to until it is whole."""
    return run_dir / f".{FOLDERS[stage]}.partial"


def read_done(folder: Path) -> dict[str, Any] | None:
    """Return the content of a stage folder's ``done.json``, or None if the stage is not finished."""
    try:
        done = json.loads((folder / DONE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return done if isinstance(done, dict) and done.keys() >= RECORD_KEYS else None


def describe_summary(summary: dict[str, Any]) -> str:
    """Return a stage's summary in one line."""
    return ", ".join(
        f"{key.replace('_', ' ')} {f'{value:.3g}' if isinstance(value, float) else value}"
        for key, value in summary.items()
    )
