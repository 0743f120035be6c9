"""The command line: verbs; a stage is imported only when its verb runs, so that ``--help`` answers at once."""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pipeline.errors import ConfigError, SynthcohortError

app = typer.Typer(
    name="synthcohort",
    help="Synthetic brain-tumour MRI cohorts that can be shared: train, generate, audit, evaluate, release.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML config, such as configs/demo.yaml.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Run folder; default: runs/<config's name>.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="section.key=value; wins over the config file.")]


@app.command()
def run(
    config: ConfigArgument,
    out: OutOption = None,
    first: Annotated[str, typer.Option("--from", help="First stage to run; those that it reads must hold.")] = "ingest",
    last: Annotated[str, typer.Option("--until", help="Last stage to run.")] = "export",
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, with sizes and times.")] = False,
) -> None:
    """Run the pipeline; stages whose inputs have not changed are skipped, a killed run goes on."""
    from pipeline.config import load_config

    loaded = load_config(config, overrides or ())
    folder = out or Path("runs") / config.stem
    if dry_run:
        from pipeline.estimate import describe_plan

        typer.echo(describe_plan(loaded, folder, first, last))
        return
    from pipeline.runner import run_stages

    run_stages(loaded, folder, first, last)


def _add_stage_verb(stage: str, help_text: str) -> None:
    def verb(config: ConfigArgument, out: OutOption = None, overrides: SetOption = None) -> None:
        run(config, out, stage, stage, overrides)

    app.command(name=stage, help=f"{help_text} The stages that it reads must have been run.")(verb)


_add_stage_verb("ingest", "Read scans, de-identify and harmonise them, split by person.")
_add_stage_verb("train", "Train the conditional GAN.")
_add_stage_verb("generate", "Make the synthetic cohort with its label maps.")
_add_stage_verb("audit", "Attack it: membership inference with controls.")
_add_stage_verb("evaluate", "Train segmenters with and without synthetic scans.")
_add_stage_verb("export", "Write the release if the audit passed.")


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")],
    cases: Annotated[int, typer.Option("--cases", min=1, help="Number of subjects.")] = 10,
    file_format: Annotated[str, typer.Option("--format", help="nifti or dicom.")] = "nifti",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same bytes.")] = 0,
    spacing_mm: Annotated[float, typer.Option("--spacing-mm", min=1.0, max=6.0, help="Isotropic spacing.")] = 2.0,
) -> None:
    """Write a cohort of phantoms: brains with tumours, no patient's."""
    if file_format not in ("nifti", "dicom"):
        raise ConfigError(f"--format {file_format}: expected nifti or dicom")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not an empty folder; name another one")
    from joblib import cpu_count

    from pipeline.phantom.cohort import write_cohort
    from pipeline.progress import progress, say

    with progress("phantoms", cases) as task:
        # Resolved: a worker that is used again may have been started in another folder.
        write_cohort(out.resolve(), cases, file_format, seed, spacing_mm, cpu_count(), lambda _: task.advance())
    manifest = "phantom" if file_format == "nifti" else "phantom-dicom"
    say(f"{cases} phantoms in {out}; ingest them with manifest {manifest}")


@app.command()
def status(folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]) -> None:
    """Show what is finished in a run folder."""
    from pipeline.status import describe_run

    typer.echo(describe_run(folder))


@app.command()
def verify(release: Annotated[Path, typer.Argument(metavar="RELEASE", help="Release folder.")]) -> None:
    """Check a release: every file whole, nothing added, marked synthetic; exit code 3 if not."""
    from pipeline.export.verify import verify_release

    result = verify_release(release)
    for line in result.warnings:
        typer.echo(f"warning: {line}")
    for line in result.problems:
        typer.echo(f"problem: {line}")
    if result.problems:
        typer.echo(f"{release}: {len(result.problems)} problems in {result.n_files} files")
        raise typer.Exit(3)
    typer.echo(f"{release}: {result.n_files} files verified; verdict of the audit: {result.verdict}")


@app.command(name="deid-check")
def deid_check(path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder or file of any kind.")]) -> None:
    """Look for what identifies a person, place or machine; says kind and place, never the value; exit code 3 if any."""
    from pipeline.deid_check.scan import check_path

    result = check_path(path)
    for doubt in result.doubts:
        typer.echo(f"not judged: {doubt.where}: {doubt.what}")
    for finding in result.findings:
        typer.echo(f"finding: {finding.where}: {finding.what}")
    if result.n_findings > len(result.findings):
        typer.echo(f"and {result.n_findings - len(result.findings)} more of the same kinds")
    typer.echo(f"{result.n_findings} findings in {result.n_files} files; {result.not_judged} not judged")
    if result.n_findings:
        raise typer.Exit(3)


@app.command()
def sync(folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]) -> None:
    """Send to MLflow what it has not got yet."""
    from pipeline.config import load_config
    from pipeline.runner import lock_run
    from pipeline.tracking import sync_journal

    config = load_config(folder / "config.yaml")
    with lock_run(folder):
        if not sync_journal(folder, config.tracking):
            raise SynthcohortError(
                "MLflow did not take all of it; expected the server of tracking.uri; start it and sync again"
            )
    typer.echo(f"{folder}: MLflow has everything")


def main() -> NoReturn:
    """Run the command line and exit with the code of the error tree."""
    code = 0
    try:
        # Without standalone mode the exit code of `typer.Exit` is returned.
        code = app(standalone_mode=False) or 0
    except SynthcohortError as error:
        _fail(str(error), error.exit_code)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            _fail(error.format_message(), 2)
        if os.environ.get("SYNTHCOHORT_DEBUG"):
            raise
        _fail(_describe_unforeseen(error), 1)
    if code == INTERRUPTED:
        _fail("interrupted; a run goes on from here with the same command", code)
    sys.exit(code)


def _describe_unforeseen(error: Exception) -> str:
    """Say what happened and where, but not the error's own text: it may quote a path or a header of the source."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}pipeline{os.sep}" in frame.filename
    ]
    where = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-3:])
    return (
        f"unforeseen {type(error).__name__} at {where}; please report that. SYNTHCOHORT_DEBUG=1 shows the whole "
        "traceback, which may quote file names and headers of your source"
    )


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(code)
