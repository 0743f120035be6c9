"""Tracking: the journal first, MLflow second.

The journal (``journal.jsonl``) is the truth: one JSON object a line, in order, flushed before anything is sent. MLflow
is fed from it, in batches; a server that is away costs one short try, and ``synthcohort sync`` sends the rest later.
This module is the only importer of mlflow.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.config import TrackingSection
from pipeline.errors import ConfigError
from pipeline.journal import JOURNAL, Event, Journal
from pipeline.layout import FOLDERS, partial_folder
from pipeline.progress import say

SYNC_STATE = "mlflow-sync.json"
SECONDS_BETWEEN_SENDS = 5.0


class StageTracker:
    """What a stage uses to record parameters, metrics, pictures and tables.

    Parameters
    ----------
    tracking : Tracking
    stage : str
    folder : Path
        The stage's temporary folder; pictures are named relative to it.
    last_steps : mapping of str to int
        For each metric or picture the last step that a killed attempt has recorded: it is not recorded twice.
    """

    def __init__(self, tracking: "Tracking", stage: str, last_steps: Mapping[str, int]) -> None:
        self._tracking, self._stage = tracking, stage
        self._last_steps = dict(last_steps)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record figures at a step."""
        new = {key: float(value) for key, value in values.items() if step > self._last_steps.get(key, -1)}
        if new:
            self._last_steps.update(dict.fromkeys(new, step))
            self._tracking.append("metrics", self._stage, step=step, values=new)

    def image(self, key: str, path: str, step: int = 0) -> None:
        """Record a picture; ``path`` is relative to the stage's folder."""
        if step > self._last_steps.get(f"image:{key}", -1):
            self._last_steps[f"image:{key}"] = step
            self._tracking.append("image", self._stage, key=key, path=path, step=step)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record a table of rows with the same keys."""
        columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else {})}
        self._tracking.append("table", self._stage, name=name, columns=columns)

    def dataset(self, name: str, digest: str, profile: Mapping[str, Any]) -> None:
        """Record the data set that the run reads, by digest."""
        self._tracking.append("dataset", self._stage, name=name, digest=digest, profile=dict(profile))

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags of the stage; they show on the whole run too."""
        self._tracking.append("tags", self._stage, values=dict(values))


class Tracking:
    """The record of one invocation; use as a context manager.

    Parameters
    ----------
    run_dir : Path
    config : TrackingSection
    parameters : mapping of str to str
        The resolved config, flat.
    """

    def __init__(self, run_dir: Path, config: TrackingSection, parameters: Mapping[str, str]) -> None:
        self._journal = Journal(run_dir / JOURNAL)
        self._journal.cut_torn_line()
        self._sink = MlflowSink(run_dir, config) if config.uri != "none" else None
        self._parameters = dict(parameters)
        self._run_dir = run_dir
        self._last_sent = 0.0

    def __enter__(self) -> Self:
        self.append("run_start", "", name=self._run_dir.name, parameters=self._parameters)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.append("run_end", "", status="finished" if kind is None else "failed", error=kind.__name__ if kind else "")
        self._send()

    def start_stage(self, stage: str, fingerprint: str, code: str) -> StageTracker:
        """Begin a stage, or go on with an attempt at it that was killed."""
        last_steps: dict[str, int] = {}
        going_on = False
        for _, event in self._journal.events():
            if event["stage"] != stage:
                continue
            if event["event"] == "stage_start":
                going_on = event["fingerprint"] == fingerprint
                last_steps.clear()
            elif event["event"] == "stage_end":
                going_on = False
            elif event["event"] == "metrics":
                last_steps.update(dict.fromkeys(event["values"], event["step"]))
            elif event["event"] == "image":
                last_steps[f"image:{event['key']}"] = event["step"]
        parameters = {k: v for k, v in self._parameters.items() if k.startswith(f"{stage}.")}
        if not going_on:
            last_steps.clear()
        # One that goes on has its run already, unless a parameter that decides nothing has begun a new parent.
        kind = "stage_resumed" if going_on else "stage_start"
        self.append(kind, stage, fingerprint=fingerprint, code=code, parameters=parameters)
        return StageTracker(self, stage, last_steps)

    def end_stage(self, stage: str, status: str, summary: Mapping[str, Any]) -> None:
        """End a stage: ``finished``, ``failed`` or ``refused``."""
        self.append("stage_end", stage, status=status, summary=dict(summary))

    def stage_kept(self, stage: str, fingerprint: str, summary: Mapping[str, Any]) -> None:
        """Record that a stage's result holds and was not made again."""
        self.append("stage_kept", stage, fingerprint=fingerprint, summary=dict(summary))

    def report(self, path: Path) -> None:
        """Record the report as an artifact of the run."""
        self.append("report", "", path=path.name)

    def append(self, event: str, stage: str, **fields: object) -> None:
        """Write an event to the journal; send to MLflow now and then."""
        self._journal.append(event, stage, **fields)
        if time.monotonic() - self._last_sent > SECONDS_BETWEEN_SENDS:
            self._send()

    def _send(self) -> None:
        if self._sink is not None and not self._sink.send(self._journal):
            say("      MLflow is not reachable: the journal goes on; `synthcohort sync` sends it later")
            self._sink = None
        self._last_sent = time.monotonic()


def sync_journal(run_dir: Path, config: TrackingSection) -> bool:
    """Send what MLflow has not got yet, all of it where it does not know the run; tell whether it took it.

    Raises
    ------
    ConfigError
        If the run keeps its journal only.
    """
    if config.uri == "none":
        raise ConfigError("tracking.uri: none, so this run keeps its journal only; name a server or leave it empty")
    return MlflowSink(run_dir, config).send(Journal(run_dir / JOURNAL), always_look=True)


class MlflowSink:
    """Feeds MLflow from the journal, from where it stopped last time.

    Parameters
    ----------
    run_dir : Path
        Holds the state of the feeding (``mlflow-sync.json``).
    config : TrackingSection
    """

    def __init__(self, run_dir: Path, config: TrackingSection) -> None:
        self._run_dir, self._config = run_dir, config
        self._state_path = run_dir / SYNC_STATE
        self._client: Any = None
        self._experiment_id = ""
        self._uri = config.uri or f"sqlite:///{(run_dir.parent / 'mlflow.db').resolve()}"

    def send(self, journal: Journal, *, always_look: bool = False) -> bool:
        """Send every new event; return False if MLflow could not be reached (the state stays where it was).

        Where nothing is new, MLflow is only asked whether it still knows the run if told to ``always_look``.
        """
        state = self._load_state()
        if not always_look and not any(True for _ in journal.events(state["offset"])):
            return True
        try:
            self._connect()
            if state["parent"] and not self._knows(state["parent"]):
                # The store was deleted, or this is a copy of a run: everything is sent anew.
                state = self._new_state()
            self._send_events(list(journal.events(state["offset"])), state)
        except (
            Exception
        ) as error:  # MLflow, its HTTP client and its data base raise a hundred types; none may stop a run
            if os.environ.get("SYNTHCOHORT_DEBUG"):
                raise
            say(f"      MLflow: {type(error).__name__}")
            return False
        return True

    def _load_state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state_path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            state = {}
        if state.get("experiment") != self._config.experiment or state.get("uri") != self._config.uri:
            return self._new_state()
        return {**self._new_state(), **state}

    def _new_state(self) -> dict[str, Any]:
        place = {"experiment": self._config.experiment, "uri": self._config.uri}
        return {**place, "offset": 0, "parent": "", "parameters": {}, "children": {}}

    def _knows(self, run_id: str) -> bool:
        """Tell whether the server has a run, raise if the server is not there."""
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return False
            raise
        return True

    def _save_state(self, state: dict[str, Any]) -> None:
        temporary = self._state_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(state, indent=1), encoding="utf-8")
        temporary.replace(self._state_path)

    def _connect(self) -> None:
        if self._client is not None:
            return
        for name, value in MLFLOW_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import logging

        from mlflow import MlflowClient

        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)

        self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        experiment = self._client.get_experiment_by_name(self._config.experiment)
        if experiment is not None:
            self._experiment_id = experiment.experiment_id
            return
        local = self._uri.startswith("sqlite:")
        location = (self._run_dir.parent / "mlartifacts").resolve().as_uri() if local else None
        # The tag opens the pages for trainings rather than those for language models.
        self._experiment_id = self._client.create_experiment(
            self._config.experiment,
            artifact_location=location,
            tags={"mlflow.experimentKind": "custom_model_development"},
        )

    def _send_events(self, pending: Sequence[tuple[int, Event]], state: dict[str, Any]) -> None:
        """Send events in order; runs of metrics go as one batch; the state is saved behind each event sent."""
        from mlflow.entities import Metric

        batch: list[Metric] = []
        batch_run = ""
        for offset, event in pending:
            if event["event"] == "metrics":
                run_id = state["children"][event["stage"]]
                if run_id != batch_run or len(batch) >= 800:
                    self._flush(batch_run, batch)
                    batch_run = run_id
                batch += [Metric(k, v, event["time"], event["step"]) for k, v in event["values"].items()]
                state["offset"] = offset
                continue
            self._flush(batch_run, batch)
            self._send_event(event, state)
            state["offset"] = offset
            self._save_state(state)
        self._flush(batch_run, batch)
        self._save_state(state)

    def _flush(self, run_id: str, batch: list[Any]) -> None:
        if batch:
            self._client.log_batch(run_id, metrics=batch)
            batch.clear()

    def _send_event(self, event: Event, state: dict[str, Any]) -> None:
        kind, stage = event["event"], event["stage"]
        if kind == "run_start":
            self._start_parent(event, state)
        elif kind in ("stage_start", "stage_resumed", "stage_kept"):
            self._start_child(event, state)
        elif kind == "stage_end":
            self._end_child(state, event)
        elif kind == "run_end":
            status = "FINISHED" if event["status"] == "finished" else "FAILED"
            self._client.set_terminated(state["parent"], status, end_time=event["time"])
        elif kind == "tags":
            for run_id in (state["children"][stage], state["parent"]):
                for key, value in event["values"].items():
                    self._client.set_tag(run_id, key, value)
        elif kind == "table":
            self._client.log_table(state["children"][stage], event["columns"], f"tables/{event['name']}.json")
        elif kind == "image":
            self._log_image(state["children"][stage], event)
        elif kind == "dataset":
            self._log_dataset((state["children"][stage], state["parent"]), event)
        elif kind == "report" and (self._run_dir / event["path"]).is_file():
            # A report that was removed is written anew by the next run.
            self._client.log_artifact(state["parent"], str(self._run_dir / event["path"]))

    def _start_parent(self, event: Event, state: dict[str, Any]) -> None:
        """Go on with the parent run, or begin a new one where a parameter that it has logged has changed."""
        logged: dict[str, str] = state["parameters"]
        new = {key: value for key, value in event["parameters"].items() if key not in logged}
        changed = [key for key, value in event["parameters"].items() if logged.get(key, value) != value]
        if not state["parent"] or changed:
            for run_id in (*state["children"].values(), state["parent"]):
                self._end_if_running(run_id, event["time"])
            state["parent"] = self._create_run(state, event["name"], event["time"], {})
            state["children"] = {}
            logged.clear()
            new = event["parameters"]
        else:
            self._client.update_run(state["parent"], status="RUNNING")
        self._log_parameters(state["parent"], new)
        logged.update(new)

    def _start_child(self, event: Event, state: dict[str, Any]) -> None:
        stage = event["stage"]
        if event["event"] == "stage_resumed" and stage in state["children"]:
            return
        if event["event"] == "stage_kept" and stage in state["children"]:
            # A kill may have come between the stage's end and its record.
            if self._client.get_run(state["children"][stage]).info.status == "RUNNING":
                self._end_child(state, {**event, "status": "finished"})
            return
        tags = {"mlflow.parentRunId": state["parent"], "stage": stage, "fingerprint": event["fingerprint"][:12]}
        if "code" in event:
            tags["code_version"] = event["code"]
        self._end_if_running(state["children"].get(stage, ""), event["time"])
        run_id = self._create_run(state, stage, event["time"], tags)
        state["children"][stage] = run_id
        if event["event"] != "stage_kept":
            self._log_parameters(run_id, event["parameters"])
            return
        self._client.set_tag(run_id, "kept", "true")
        self._end_child(state, {**event, "status": "finished"})

    def _end_if_running(self, run_id: str, time_ms: int) -> None:
        """Mark a run as killed that never got to say how it ended."""
        if run_id and self._client.get_run(run_id).info.status == "RUNNING":
            self._client.set_terminated(run_id, "KILLED", end_time=time_ms)

    def _end_child(self, state: dict[str, Any], event: Event) -> None:
        """Log the summary, on the whole run too, and end the child."""
        run_id = state["children"][event["stage"]]
        for key, value in event["summary"].items():
            if isinstance(value, int | float):
                self._client.log_metric(run_id, f"summary/{key}", value, timestamp=event["time"])
                name = f"{event['stage']}/{key}"
                self._client.log_metric(state["parent"], name, value, timestamp=event["time"])
            else:
                self._client.set_tag(run_id, key, str(value))
        self._client.set_tag(run_id, "status", event["status"])
        status = "FINISHED" if event["status"] == "finished" else "FAILED"
        self._client.set_terminated(run_id, status, end_time=event["time"])

    def _create_run(self, state: dict[str, Any], name: str, time_ms: int, tags: Mapping[str, str]) -> str:
        """Create a run, once for an event: a server that goes away right behind it does not get a second one."""
        created = state.get("created", {})
        if created.get("offset") == state["offset"]:
            return str(created["run"])
        # Through the client, not the fluent API: that one adds the user's name and the script's path.
        run = self._client.create_run(self._experiment_id, start_time=time_ms, run_name=name, tags=dict(tags))
        run_id: str = run.info.run_id
        state["created"] = {"offset": state["offset"], "run": run_id}
        self._save_state(state)
        return run_id

    def _log_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(run_id, params=[Param(key, value) for key, value in parameters.items()])

    def _log_image(self, run_id: str, event: Event) -> None:
        import matplotlib.image

        path = self._find_file(event["stage"], event["path"])
        if path is not None:
            pixels = (matplotlib.image.imread(path)[..., :3] * 255).astype("uint8")
            self._client.log_image(run_id, pixels, key=event["key"], step=event["step"], timestamp=event["time"])

    def _find_file(self, stage: str, path: str) -> Path | None:
        """Return a stage's file wherever it is by now: still aside, or in its final folder."""
        for folder in (partial_folder(self._run_dir, stage), self._run_dir / FOLDERS[stage]):
            if (folder / path).is_file():
                return folder / path
        return None

    def _log_dataset(self, run_ids: Sequence[str], event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(
            name=event["name"],
            digest=event["digest"][:36],
            source_type="local",
            source=json.dumps({"name": event["name"]}),
            profile=json.dumps(event["profile"]),
        )
        for run_id in run_ids:
            self._client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
