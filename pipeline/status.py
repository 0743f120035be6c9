"""What is finished in a run folder, in words."""

from pathlib import Path

from pipeline.errors import DataError
from pipeline.journal import JOURNAL, Journal
from pipeline.layout import FOLDERS, STAGES, describe_summary, partial_folder, read_done


def describe_run(run_dir: Path) -> str:
    """Return one line per stage: finished when and with what, begun, or not begun.

    Raises
    ------
    DataError
        If ``run_dir`` is no run folder.
    """
    if not (run_dir / "config.yaml").is_file():
        raise DataError(f"{run_dir}: no run folder; expected config.yaml in it; name the folder given to --out")
    return "\n".join(f"{stage:<10}{_describe_stage(run_dir, stage)}" for stage in STAGES)


def _describe_stage(run_dir: Path, stage: str) -> str:
    done = read_done(run_dir / FOLDERS[stage])
    partial = partial_folder(run_dir, stage)
    how = "failed; what it found so far is in " + partial.name if _has_failed(run_dir, stage) else "cut off or running"
    begun = f"{how}{_training_progress(partial)}" if partial.is_dir() else ""
    if done is None:
        return begun or "not begun"
    finished = f"finished {done['finished']} in {done['seconds']:.0f} s: {describe_summary(done['summary'])}"
    return f"{finished}; again: {begun}" if begun else finished


def _has_failed(run_dir: Path, stage: str) -> bool:
    """Tell whether the last attempt at a stage ended in an error, by the journal."""
    latest = ""
    for _, event in Journal(run_dir / JOURNAL).events():
        if event.get("stage") == stage and event["event"] in ("stage_start", "stage_resumed", "stage_end"):
            latest = str(event.get("status", ""))
    return latest == "failed"


def _training_progress(folder: Path) -> str:
    """Return the step of the latest checkpoints below a stage's folder."""
    steps = sorted(
        path.stem.removeprefix("step-").lstrip("0") or "0" for path in folder.rglob("checkpoints/step-*.json")
    )
    return f", checkpoint at step {', '.join(steps)}" if steps else ""
