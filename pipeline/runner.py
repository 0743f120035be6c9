"""Runner: the stages in order, each skipped while its fingerprint holds, each written aside and renamed when whole."""

import fcntl
import hashlib
import importlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.cohort import digest_file, digest_of, digest_tree, write_json
from pipeline.config import RunConfig, dump_config
from pipeline.config_params import flatten_config
from pipeline.errors import ConfigError, GateRefused
from pipeline.layout import DONE_FILE, FINGERPRINT_FILE, FOLDERS, STAGES, describe_summary, partial_folder, read_done
from pipeline.open_files import raise_file_limit
from pipeline.progress import say
from pipeline.seeds import derive_seed
from pipeline.tracking import StageTracker, Tracking

UPSTREAM = {
    "ingest": (),
    "train": ("ingest",),
    "generate": ("ingest", "train"),
    "audit": ("ingest", "train", "generate"),
    "evaluate": ("ingest", "generate"),
    "export": ("ingest", "train", "generate", "audit", "evaluate"),
}
# What else of the config decides a stage's outputs, beside its own section.
EXTRA_SECTIONS = {"audit": ("train", "generate")}
# Stages that go on from what a killed attempt left; the others start anew.
RESUMABLE = frozenset({"ingest", "train", "audit", "evaluate"})
# Whose code a stage runs, beside the modules that all share: a change in one stage does not make the others run again.
STAGE_CODE = {
    "ingest": ("ingest", "phantom"),
    "train": ("train",),
    "generate": ("generate", "segmentation", "train"),
    "audit": ("audit", "generate", "segmentation", "train"),
    "evaluate": ("evaluate", "generate", "segmentation", "train"),
    "export": ("export",),
}
SHOWN_ONLY = frozenset({"cli.py", "report.py", "progress.py", "status.py", "estimate.py", "tracking.py", "journal.py"})
Summary = dict[str, Any]


@dataclass(frozen=True)
class StageContext:
    """What a stage is given.

    Parameters
    ----------
    config : RunConfig
    run_dir : Path
        The run folder; finished stages are read through :meth:`folder`.
    out : Path
        Where the stage writes: a sibling that is renamed at the end. What an earlier, killed attempt with the same
        fingerprint left there is still there.
    seed : int
        Root of the stage's random streams.
    tracker : StageTracker
    """

    config: RunConfig
    run_dir: Path
    out: Path
    seed: int
    tracker: StageTracker

    def folder(self, stage: str) -> Path:
        """Return the folder of a finished stage."""
        return self.run_dir / FOLDERS[stage]

    def done(self, stage: str) -> dict[str, Any]:
        """Return the record of a finished stage: fingerprint, summary, files with checksums."""
        return read_done(self.folder(stage)) or {}


def run_stages(config: RunConfig, run_dir: Path, first: str = STAGES[0], last: str = STAGES[-1]) -> None:
    """Run the stages from ``first`` to ``last``; what holds is skipped.

    Parameters
    ----------
    config : RunConfig
    run_dir : Path
        Made if it does not exist.
    first, last : str
        Stage names.

    Raises
    ------
    ConfigError
        If a name is no stage, ``first`` comes after ``last``, or a stage that they read has not been run.
    GateRefused
        If the gate refuses; the report is written all the same.
    SynthcohortError
        Whatever a stage raises.
    """
    selected = select_stages(first, last)
    _make_key(config)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"--out {run_dir} is a file, or in one; expected a run folder; name another one") from error
    except PermissionError as error:
        raise ConfigError(f"--out {run_dir} may not be written to; name a folder of yours") from error
    raise_file_limit()
    with lock_run(run_dir):
        fingerprints = {stage: item.fingerprint for stage, item in plan_stages(config, run_dir).items()}
        for stage, value in fingerprints.items():
            _finish_renaming(run_dir, stage, value)
        plan = _compare(config, run_dir, fingerprints)
        for stage in _list_needed(selected, config):
            if not plan[stage].holds:
                raise ConfigError(
                    f"--from {first}: stage {stage} has no finished result for this config; leave out --from"
                )
        # Written though nothing may run: where the tracking goes is no part of any fingerprint.
        is_new = _write_config(config, run_dir)
        if not is_new and all(plan[stage].holds for stage in selected) and (run_dir / "report.html").is_file():
            for stage in selected:
                _say_skipped(stage)
            say(f"Nothing to do: {run_dir / 'report.html'}")
            return
        with Tracking(run_dir, config.tracking, flatten_config(config)) as tracking:
            try:
                _withdraw_stale_release(run_dir, plan)
                for stage in selected:
                    _run_or_keep(plan[stage], config, run_dir, tracking)
            finally:
                _write_report(config, run_dir, fingerprints, tracking)


def _write_config(config: RunConfig, run_dir: Path) -> bool:
    """Write the config and tell whether it differs from that of the last run: the report is then of that one."""
    path, text = run_dir / "config.yaml", dump_config(config)
    is_new = not path.is_file() or path.read_text(encoding="utf-8") != text
    path.write_text(text, encoding="utf-8")
    return is_new


def _make_key(config: RunConfig) -> None:
    """Make the default pseudonym key if there is none: later, it would change the fingerprint it is part of."""
    from pipeline.ingest.pseudonym import load_key

    load_key(config.ingest)


@contextmanager
def lock_run(run_dir: Path) -> Iterator[None]:
    """Hold the run folder against a second run in it; the system lets go when the process ends, however it ends."""
    with (run_dir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{run_dir} is in use by another run; wait for it or name another --out") from error
        yield


def select_stages(first: str, last: str) -> tuple[str, ...]:
    """Return the stages from ``first`` to ``last``; raise ConfigError if there is none such."""
    for name in (first, last):
        if name not in STAGES:
            raise ConfigError(f"{name}: no stage; expected one of {', '.join(STAGES)}")
    selected = STAGES[STAGES.index(first) : STAGES.index(last) + 1]
    if not selected:
        raise ConfigError(f"--from {first} comes after --until {last}; swap them")
    return selected


@dataclass(frozen=True)
class StagePlan:
    """Whether a stage's result on disk holds for a config, and what it is made from."""

    stage: str
    fingerprint: str
    holds: bool
    upstream: tuple[str, ...]


def upstream_of(stage: str, config: RunConfig) -> tuple[str, ...]:
    """Return the stages whose folders a stage reads."""
    if stage == "evaluate" and config.evaluate.received_release is not None:
        return ("ingest",)
    return UPSTREAM[stage]


def _list_needed(selected: Sequence[str], config: RunConfig) -> tuple[str, ...]:
    """Return the stages that must hold before these run: what they read, and what that was made from, in order."""
    needed: set[str] = set()
    for stage in reversed(STAGES):
        if stage in selected or stage in needed:
            needed |= set(upstream_of(stage, config))
    return tuple(stage for stage in STAGES if stage in needed and stage not in selected)


def plan_stages(config: RunConfig, run_dir: Path) -> dict[str, StagePlan]:
    """Compute the fingerprint of each stage and compare it with what is on disk."""
    fingerprints: dict[str, str] = {}
    for stage in STAGES:
        upstream = {name: fingerprints[name] for name in upstream_of(stage, config)}
        fingerprints[stage] = fingerprint(stage, config, upstream)
    return _compare(config, run_dir, fingerprints)


def _compare(config: RunConfig, run_dir: Path, fingerprints: Mapping[str, str]) -> dict[str, StagePlan]:
    """Tell which stages hold: their own fingerprint, and made from just the folders upstream that are there now."""
    plans: dict[str, StagePlan] = {}
    for stage, value in fingerprints.items():
        done, upstream = read_done(run_dir / FOLDERS[stage]), upstream_of(stage, config)
        holds = (
            done is not None
            and done["fingerprint"] == value
            and all(plans[name].holds for name in upstream)
            and done["upstream"] == _digests_upstream(run_dir, upstream)
        )
        plans[stage] = StagePlan(stage, value, holds, upstream)
    return plans


def _digests_upstream(run_dir: Path, upstream: Sequence[str]) -> dict[str, str]:
    """Return the digests of the folders that a stage reads: on a GPU a training done again gives other bytes."""
    records = {name: read_done(run_dir / FOLDERS[name]) for name in upstream}
    return {name: record["digest"] for name, record in records.items() if record is not None}


def fingerprint(stage: str, config: RunConfig, upstream: Mapping[str, str]) -> str:
    """Return the fingerprint of a stage: all that decides its outputs, and nothing else.

    Its config section (and those of stages that it repeats), the seed, the precision, the fingerprints upstream, the
    code; for ingest what it reads. Not the number of workers, nor where files lie.
    """
    extra = EXTRA_SECTIONS.get(stage, ())
    # Under differential privacy the generator learns on label maps that the code of generate makes.
    makes_labels = stage == "train" and config.train.privacy is not None
    if makes_labels:
        extra = (*extra, "generate")
    sections = {name: getattr(config, name).model_dump(mode="json") for name in (stage, *extra)}
    content: dict[str, Any] = {
        "sections": sections,
        "seed": config.run.seed,
        "precision": config.compute.precision,
        "upstream": dict(upstream),
        "code": [code_version(stage), *([code_version("generate")] if makes_labels else [])],
    }
    if stage == "ingest":
        from pipeline.ingest.fingerprint import source_fingerprint

        for key in ("source", "manifest", "key_file", "split_file", "attributes_file", "brain_weights"):
            sections["ingest"].pop(key)
        content["source"] = source_fingerprint(config.ingest)
    if "audit" in sections:
        from pipeline.audit.policy import policy_file

        content["policy"] = _digest_named(str(policy_file(sections["audit"].pop("policy"))))
    if "train" in sections:
        content["perceptual_weights"] = _digest_named(sections["train"].pop("perceptual_weights"))
    if "evaluate" in sections:
        release = sections["evaluate"].pop("received_release")
        content["received_release"] = _digest_named(None if release is None else str(Path(release) / "manifest.json"))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest_named(path: str | None) -> str:
    """Return the digest of a file that the config names; empty if there is none: the stage says so."""
    return digest_file(Path(path)) if path is not None and Path(path).is_file() else ""


@cache
def code_version(stage: str) -> str:
    """Return the package version with a digest of the sources that decide a stage's outputs.

    That is the stage's own folder, those whose functions it calls, and the shared modules but for those that only show;
    data files, such as the shipped policy of the audit, as much as code.
    """
    root = Path(__file__).parent
    shared = [path for path in root.glob("*") if path.name not in SHOWN_ONLY]
    own = [path for folder in STAGE_CODE[stage] for path in (root / folder).rglob("*")]
    digest = hashlib.sha256()
    for path in sorted(filter(_is_source, [*shared, *own])):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


def _is_source(path: Path) -> bool:
    """Tell whether a path is a file of the package, and none that the interpreter or an editor left beside it."""
    return path.is_file() and path.parent.name != "__pycache__" and not path.name.startswith(".")


def load_stage(stage: str) -> Callable[[StageContext], Summary]:
    """Import a stage and return its function; imports are heavy, so only when its turn comes."""
    run: Callable[[StageContext], Summary] = importlib.import_module(f"pipeline.{stage}.stage").run
    return run


def _run_or_keep(plan: StagePlan, config: RunConfig, run_dir: Path, tracking: Tracking) -> None:
    """Run a stage unless its result holds; the stages before it do."""
    done = read_done(run_dir / FOLDERS[plan.stage])
    upstream = _digests_upstream(run_dir, plan.upstream)
    if done is None or done["fingerprint"] != plan.fingerprint or done["upstream"] != upstream:
        _run_stage(plan, config, run_dir, tracking)
        return
    _say_skipped(plan.stage)
    tracking.stage_kept(plan.stage, plan.fingerprint, done["summary"])


def _run_stage(plan: StagePlan, config: RunConfig, run_dir: Path, tracking: Tracking) -> None:
    stage = plan.stage
    say(f"[{STAGES.index(stage) + 1}/{len(STAGES)}] {stage}")
    out = _prepare_partial(run_dir, plan)
    tracker = tracking.start_stage(stage, plan.fingerprint, code_version(stage))
    started = time.monotonic()
    # Resolved: a worker that is used again may have been started in another folder.
    context = StageContext(config, run_dir.resolve(), out.resolve(), derive_seed(config.run.seed, stage), tracker)
    try:
        summary = load_stage(stage)(context)
    except BaseException as error:
        status = "refused" if isinstance(error, GateRefused) else "failed"
        if status == "refused":
            _withdraw_release(run_dir)
        if status == "refused" or [path.name for path in out.iterdir()] == [FINGERPRINT_FILE]:
            shutil.rmtree(out)
        tracking.end_stage(stage, status, {})
        raise
    _finish(plan, out, run_dir / FOLDERS[stage], summary, time.monotonic() - started)
    tracking.end_stage(stage, "finished", summary)
    say(f"      done in {time.monotonic() - started:.0f} s: {describe_summary(summary)}")


def _withdraw_stale_release(run_dir: Path, plan: Mapping[str, StagePlan]) -> None:
    """Withdraw a release that was not made from what this config asks for."""
    released = read_done(run_dir / FOLDERS["export"])
    if released is not None and released["fingerprint"] != plan["export"].fingerprint:
        _withdraw_release(run_dir)


def _withdraw_release(run_dir: Path) -> None:
    """Rename a release that an earlier config or audit allowed: it is not what the gate says now."""
    release, withdrawn = run_dir / FOLDERS["export"], run_dir / f"{FOLDERS['export']}.withdrawn"
    if release.exists():
        shutil.rmtree(withdrawn, ignore_errors=True)
        release.replace(withdrawn)
        say(f"      an earlier release is now in {withdrawn.name}/")


def _prepare_partial(run_dir: Path, plan: StagePlan) -> Path:
    """Return the sibling to write to, emptied unless it holds a cut-off attempt that the stage can go on from."""
    out = partial_folder(run_dir, plan.stage)
    marker = out / FINGERPRINT_FILE
    # What lies upstream too: a training done again gives other bytes on a GPU, and this may be half of the old ones.
    attempt = digest_of({plan.stage: plan.fingerprint, **_digests_upstream(run_dir, plan.upstream)})
    resumes = plan.stage in RESUMABLE and marker.is_file() and marker.read_text(encoding="utf-8") == attempt
    if out.exists() and not resumes:
        shutil.rmtree(out)
    out.mkdir(exist_ok=True)
    marker.write_text(attempt, encoding="utf-8")
    return out


def _finish(plan: StagePlan, out: Path, target: Path, summary: Summary, seconds: float) -> None:
    (out / FINGERPRINT_FILE).unlink()
    checksums = digest_tree(out)
    record = {
        "fingerprint": plan.fingerprint,
        "upstream": _digests_upstream(target.parent, plan.upstream),
        "summary": summary,
        "digest": digest_of(checksums),
        "files": checksums,
        "code": code_version(plan.stage),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }
    write_json(out / DONE_FILE, record)
    _rename(out, target)


def _finish_renaming(run_dir: Path, stage: str, value: str) -> None:
    """Rename a whole result that a kill left under its temporary name."""
    out = partial_folder(run_dir, stage)
    done = read_done(out)
    if done is not None and done["fingerprint"] == value:
        _rename(out, run_dir / FOLDERS[stage])


def _rename(out: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)
    out.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def _write_report(config: RunConfig, run_dir: Path, fingerprints: Mapping[str, str], tracking: Tracking) -> None:
    """Write the report of what holds."""
    from pipeline.report import write_report

    try:
        plans = _compare(config, run_dir, fingerprints)
        path = write_report(run_dir, {stage for stage, plan in plans.items() if plan.holds})
    except Exception as error:  # whatever a damaged file brings about: it must not hide why a stage stopped
        say(f"      no report: a stage's files are damaged ({type(error).__name__}); run that stage again")
        return
    tracking.report(path)
    say(f"Report: {path}")


def _say_skipped(stage: str) -> None:
    say(f"[{STAGES.index(stage) + 1}/{len(STAGES)}] {stage}: holds, skipped")
