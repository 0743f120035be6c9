"""Tracking: the journal is the truth, MLflow is fed from it exactly once."""

import getpass
import json
import re
import shutil
import socket
import time

import numpy as np
import pytest

from pipeline.config import TrackingSection
from pipeline.figures import save_picture
from pipeline.layout import FOLDERS, partial_folder
from pipeline.tracking import Journal, MlflowSink, Tracking, sync_journal

PARAMETERS = {"run.seed": "1", "train.steps": "6", "generate.n_cases": "4"}
DEAD_SERVER = "http://127.0.0.1:9"
JOURNAL_ONLY = TrackingSection(uri="none")


def events_of(run_dir, kind=None):
    events = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    return [event for event in events if kind in (None, event["event"])]


# The journal ----------------------------------------------------------------------------------------------------------


def test_events_come_back_in_order_with_offsets_to_go_on_from(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(3):
        journal.append("metrics", "train", step=number)
    whole = list(journal.events())
    assert [event["step"] for _, event in whole] == [0, 1, 2]
    assert whole[-1][0] == journal.path.stat().st_size
    assert [event["step"] for _, event in journal.events(whole[0][0])] == [1, 2]


@pytest.mark.parametrize("torn", [b'{"time": 1, "sta', b"\xff\xfe", b"{"])
def test_a_line_torn_by_a_kill_is_cut_off_and_the_journal_goes_on(tmp_path, torn):
    path = tmp_path / "journal.jsonl"
    Journal(path).append("metrics", "train", step=1)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    # Another process may read while this one writes: a line without its end is not yet there.
    journal = Journal(path)
    assert len(list(journal.events())) == 1
    assert path.read_bytes() == whole + torn
    journal.cut_torn_line()
    assert path.read_bytes() == whole
    journal.append("metrics", "train", step=2)
    assert [event["step"] for _, event in journal.events()] == [1, 2]


def test_a_journal_that_is_not_there_has_no_events(tmp_path):
    assert list(Journal(tmp_path / "journal.jsonl").events()) == []


# What a stage records -------------------------------------------------------------------------------------------------


def record_training(run_dir, fingerprint, steps):
    with Tracking(run_dir, JOURNAL_ONLY, PARAMETERS) as tracking:
        tracker = tracking.start_stage("train", fingerprint, "code")
        for step in steps:
            tracker.metrics({"loss": step / 10}, step)
            if step % 2 == 0:
                tracker.image("grid", f"grid-{step}.png", step)


def test_metrics_and_pictures_of_steps_already_journalled_are_not_repeated_on_resume(tmp_path):
    record_training(tmp_path, "same", [1, 2, 3])
    # Killed after step 3; the last checkpoint is that of step 1.
    record_training(tmp_path, "same", [2, 3, 4, 5])
    assert [event["step"] for event in events_of(tmp_path, "metrics")] == [1, 2, 3, 4, 5]
    assert [event["step"] for event in events_of(tmp_path, "image")] == [2, 4]
    assert len(events_of(tmp_path, "stage_start")) == 1


def test_a_new_metric_at_a_step_that_is_known_is_recorded(tmp_path):
    record_training(tmp_path, "same", [1, 2])
    with Tracking(tmp_path, JOURNAL_ONLY, PARAMETERS) as tracking:
        tracking.start_stage("train", "same", "code").metrics({"loss": 7, "kid": 3}, 2)
    assert events_of(tmp_path, "metrics")[-1]["values"] == {"kid": 3.0}


def test_another_fingerprint_starts_anew(tmp_path):
    record_training(tmp_path, "one", [1, 2])
    record_training(tmp_path, "other", [1, 2])
    assert [event["step"] for event in events_of(tmp_path, "metrics")] == [1, 2, 1, 2]
    assert [event["fingerprint"] for event in events_of(tmp_path, "stage_start")] == ["one", "other"]


def test_a_stage_that_ended_starts_anew(tmp_path):
    for _ in range(2):
        with Tracking(tmp_path, JOURNAL_ONLY, PARAMETERS) as tracking:
            tracking.start_stage("train", "same", "code").metrics({"loss": 1}, 1)
            tracking.end_stage("train", "failed", {})
    assert len(events_of(tmp_path, "metrics")) == len(events_of(tmp_path, "stage_start")) == 2


def test_an_error_is_recorded_by_its_kind_and_not_by_its_words(tmp_path):
    with pytest.raises(ValueError, match="Smith"), Tracking(tmp_path, JOURNAL_ONLY, PARAMETERS):
        raise ValueError("patient Smith")
    (end,) = events_of(tmp_path, "run_end")
    assert (end["status"], end["error"]) == ("failed", "ValueError")
    assert "Smith" not in (tmp_path / "journal.jsonl").read_text()


# MLflow ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """Make the tables of a store once: that takes seconds."""
    run_dir = tmp_path_factory.mktemp("store") / "run"
    run_dir.mkdir()
    sink = MlflowSink(run_dir, TrackingSection())
    sink._connect()
    sink._client._tracking_client.store.engine.dispose()
    return run_dir.parent / "mlflow.db"


@pytest.fixture
def run_dir(tmp_path, empty_store):
    """Return a run folder with an empty store beside it; its experiment is made anew, its artifacts lie here."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


OURS = "tests"


def section(uri=""):
    return TrackingSection(uri=uri, experiment=OURS)


def client_of(run_dir):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{run_dir.parent / 'mlflow.db'}")


def runs_of(run_dir):
    """Return the parents, oldest first, and for each its children by name."""
    client = client_of(run_dir)
    experiment = client.get_experiment_by_name(OURS)
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {parent.info.run_id: {} for parent in parents}
    for run in runs:
        if run not in parents:
            siblings = children[run.data.tags["mlflow.parentRunId"]]
            assert run.info.run_name not in siblings
            siblings[run.info.run_name] = run
    return [(parent, children[parent.info.run_id]) for parent in parents]


def record_run(run_dir, config, parameters=PARAMETERS):
    """Record a run of two stages with one of everything."""
    with Tracking(run_dir, config, parameters) as tracking:
        tracker = tracking.start_stage("ingest", "fingerprint-of-ingest", "1.0+abc")
        tracker.dataset("toy", "d" * 64, {"n_cases": 3})
        tracker.metrics({"cases": 3})
        tracking.end_stage("ingest", "finished", {"cases": 3, "note": "whole"})
        tracker = tracking.start_stage("train", "fingerprint-of-train", "1.0+def")
        for step in (1, 2, 3):
            tracker.metrics({"loss": 1 / step, "kid": step}, step)
        pixels = np.zeros((20, 30, 3), np.uint8)
        pixels[5:10] = 200
        save_picture(pixels, partial_folder(run_dir, "train") / "grids" / "grid.png")
        tracker.image("samples", "grids/grid.png", 3)
        tracker.table("patients", [{"patient": "ab12", "risk": 0.5}, {"patient": "cd34", "risk": 0.25}])
        tracker.tags({"verdict": "unresolved"})
        tracking.end_stage("train", "finished", {"steps": 3})
        (run_dir / "report.html").write_text("<html>report</html>")
        tracking.report(run_dir / "report.html")


def assert_store_has_the_run(run_dir):
    ((parent, children),) = runs_of(run_dir)
    client = client_of(run_dir)
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "run"
    assert parent.data.params == PARAMETERS
    assert parent.data.tags["verdict"] == "unresolved"
    assert set(children) == {"ingest", "train"}
    ingest, train = children["ingest"], children["train"]
    assert train.data.params == {"train.steps": "6"}
    assert (train.data.tags["stage"], train.data.tags["code_version"]) == ("train", "1.0+def")
    assert (train.data.tags["status"], train.info.status) == ("finished", "FINISHED")
    assert ingest.data.metrics["summary/cases"] == 3
    assert ingest.data.tags["note"] == "whole"
    losses = client.get_metric_history(train.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [metric.step for metric in client.get_metric_history(train.info.run_id, "kid")] == [1, 2, 3]
    for run in (parent, ingest):
        (data,) = client.get_run(run.info.run_id).inputs.dataset_inputs
        assert (data.dataset.name, data.dataset.digest) == ("toy", "d" * 36)
        assert json.loads(data.dataset.profile) == {"n_cases": 3}
    images = [item.path for item in client.list_artifacts(train.info.run_id, "images")]
    assert len([path for path in images if path.endswith(".png")]) == 1
    folder = run_dir.parent / "mlartifacts" / train.info.run_id / "artifacts"
    assert json.loads((folder / "tables" / "patients.json").read_text())["data"] == [["ab12", 0.5], ["cd34", 0.25]]
    report = run_dir.parent / "mlartifacts" / parent.info.run_id / "artifacts" / "report.html"
    assert report.read_text() == "<html>report</html>"


def test_a_store_beside_the_run_gets_parent_children_and_all_that_they_recorded(run_dir):
    record_run(run_dir, section())
    assert_store_has_the_run(run_dir)


def test_tags_and_parameters_name_no_user_no_host_and_no_path(run_dir):
    record_run(run_dir, section())
    texts = []
    for parent, children in runs_of(run_dir):
        for run in (parent, *children.values()):
            texts += [*run.data.params.values(), *run.data.tags.values(), run.info.run_name, run.info.user_id or ""]
            assert not {"mlflow.user", "mlflow.source.name", "mlflow.source.git.commit"} & set(run.data.tags)
    assert len(texts) > 10
    # Relative paths of artifacts are MLflow's own business; a path from the root of the file system is not.
    assert not [text for text in texts if re.search(r"(^|[\s\"'(:=])/\w", text)]
    assert not [text for text in texts if str(run_dir.parent) in text]
    names = {getpass.getuser(), socket.gethostname()}
    assert not [text for text in texts if text in names]


def test_a_second_sync_sends_nothing(run_dir, monkeypatch):
    record_run(run_dir, section())
    before = (run_dir / "mlflow-sync.json").read_bytes()
    monkeypatch.setattr(MlflowSink, "_send_event", lambda *_: pytest.fail("there is nothing to send"))
    monkeypatch.setenv("SYNTHCOHORT_DEBUG", "1")
    assert sync_journal(run_dir, section())
    assert (run_dir / "mlflow-sync.json").read_bytes() == before
    assert_store_has_the_run(run_dir)


def test_a_dead_server_neither_blocks_nor_fails_the_run_and_a_later_sync_brings_everything_once(run_dir, capsys):
    started = time.monotonic()
    record_run(run_dir, section(DEAD_SERVER))
    assert time.monotonic() - started < 20
    assert "MLflow is not reachable" in capsys.readouterr().err
    assert not sync_journal(run_dir, section(DEAD_SERVER))
    # By now the stage has its final name.
    partial_folder(run_dir, "train").rename(run_dir / FOLDERS["train"])
    for _ in range(2):
        assert sync_journal(run_dir, section())
        assert_store_has_the_run(run_dir)


@pytest.mark.parametrize("n_answered", range(5))
def test_a_server_that_goes_away_in_between_gets_the_rest_later_and_nothing_twice(run_dir, monkeypatch, n_answered):
    from mlflow import MlflowClient

    with monkeypatch.context() as patch:
        calls = []

        def answer_some(self, *args, **kwargs):
            calls.append(1)
            if len(calls) > n_answered:
                raise ConnectionError("gone")
            return real(self, *args, **kwargs)

        real = MlflowClient.log_batch
        patch.setattr(MlflowClient, "log_batch", answer_some)
        record_run(run_dir, section())
    assert len(calls) == n_answered + 1
    assert sync_journal(run_dir, section())
    assert_store_has_the_run(run_dir)


def test_a_changed_parameter_begins_a_new_parent_and_a_new_key_does_not(run_dir):
    def invoke(parameters):
        with Tracking(run_dir, section(), parameters) as tracking:
            tracking.start_stage("ingest", "same", "code").metrics({"cases": 3})
            tracking.end_stage("ingest", "finished", {})

    invoke(PARAMETERS)
    with Tracking(run_dir, section(), {**PARAMETERS, "export.override_reason": "a reason"}) as tracking:
        tracking.stage_kept("ingest", "same", {})
    ((parent, children),) = runs_of(run_dir)
    assert parent.data.params["export.override_reason"] == "a reason"
    assert set(children) == {"ingest"}
    with Tracking(run_dir, section(), {**PARAMETERS, "train.steps": "7"}) as tracking:
        tracking.stage_kept("ingest", "same", {"cases": 3})
    (first, _), (second, children) = runs_of(run_dir)
    assert first.info.run_id == parent.info.run_id
    assert (first.data.params["train.steps"], second.data.params["train.steps"]) == ("6", "7")
    assert children["ingest"].data.tags["kept"] == "true"
    assert children["ingest"].data.metrics["summary/cases"] == 3


def record_killed_training(run_dir, parameters):
    """Record three steps of a training as a process does that is killed: nothing says how it ended."""
    tracking = Tracking(run_dir, section(), parameters).__enter__()
    tracker = tracking.start_stage("train", "same", "1.0+def")
    for step in (1, 2, 3):
        tracker.metrics({"loss": step / 10}, step)


def resume_training(run_dir, parameters):
    """Go on from the checkpoint of step 2, to the end."""
    with Tracking(run_dir, section(), parameters) as tracking:
        tracker = tracking.start_stage("train", "same", "1.0+def")
        for step in (3, 4, 5):
            tracker.metrics({"loss": step / 10}, step)
        tracking.end_stage("train", "finished", {"steps": 5})


def losses_of(run_dir, run):
    history = client_of(run_dir).get_metric_history(run.info.run_id, "loss")
    return [(metric.step, metric.value) for metric in history]


@pytest.mark.parametrize("sent_before_the_kill", [True, False])
def test_a_stage_resumed_with_another_parameter_goes_on_under_a_new_parent(run_dir, sent_before_the_kill):
    record_killed_training(run_dir, {**PARAMETERS, "compute.workers": "1"})
    if sent_before_the_kill:
        assert sync_journal(run_dir, section())
    resume_training(run_dir, {**PARAMETERS, "compute.workers": "2"})
    assert sync_journal(run_dir, section())
    (first, first_children), (second, second_children) = runs_of(run_dir)
    assert [parent.data.params["compute.workers"] for parent in (first, second)] == ["1", "2"]
    assert [parent.info.status for parent in (first, second)] == ["KILLED", "FINISHED"]
    assert losses_of(run_dir, first_children["train"]) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert first_children["train"].info.status == "KILLED"
    train = second_children["train"]
    assert losses_of(run_dir, train) == [(4, 0.4), (5, 0.5)]
    assert (train.info.status, train.data.metrics["summary/steps"]) == ("FINISHED", 5)
    assert train.data.params == {"train.steps": "6"}
    assert (train.data.tags["stage"], train.data.tags["code_version"]) == ("train", "1.0+def")


def test_a_stage_resumed_with_the_same_parameters_goes_on_in_its_own_run(run_dir):
    record_killed_training(run_dir, PARAMETERS)
    assert sync_journal(run_dir, section())
    resume_training(run_dir, PARAMETERS)
    assert sync_journal(run_dir, section())
    ((parent, children),) = runs_of(run_dir)
    assert losses_of(run_dir, children["train"]) == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4), (5, 0.5)]
    assert (parent.info.status, children["train"].info.status) == ("FINISHED", "FINISHED")


def put_empty_store(run_dir, empty_store):
    """Replace the store beside the run as if it had been deleted and made anew; this process has the old one open."""
    sink = MlflowSink(run_dir, section())
    sink._connect()
    sink._client._tracking_client.store.engine.dispose()
    (run_dir.parent / "mlflow.db").unlink()
    shutil.copy(empty_store, run_dir.parent / "mlflow.db")


def copy_run(run_dir, folder, empty_store):
    """Copy the run folder, and nothing beside it."""
    shutil.copytree(run_dir, folder / "run")
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder / "run"


@pytest.mark.parametrize("has_news", [True, False])
@pytest.mark.parametrize("is_copied", [True, False], ids=["copied run", "deleted store"])
def test_a_store_that_does_not_know_the_run_gets_all_of_it_again(run_dir, tmp_path, empty_store, is_copied, has_news):
    record_run(run_dir, section())
    if is_copied:
        run_dir = copy_run(run_dir, tmp_path / "elsewhere", empty_store)
    else:
        put_empty_store(run_dir, empty_store)
    assert client_of(run_dir).get_experiment_by_name(OURS) is None
    if has_news:
        with Tracking(run_dir, section(), PARAMETERS) as tracking:
            tracking.stage_kept("ingest", "fingerprint-of-ingest", {"cases": 3, "note": "whole"})
    assert sync_journal(run_dir, section())
    assert_store_has_the_run(run_dir)


def test_a_failed_run_is_shown_as_failed(run_dir):
    with pytest.raises(KeyError), Tracking(run_dir, section(), PARAMETERS) as tracking:
        tracking.start_stage("train", "same", "code")
        tracking.end_stage("train", "refused", {})
        raise KeyError("Smith")
    ((parent, children),) = runs_of(run_dir)
    assert (parent.info.status, children["train"].info.status) == ("FAILED", "FAILED")
    assert children["train"].data.tags["status"] == "refused"


def test_without_a_uri_of_a_server_nothing_is_sent(tmp_path):
    record_run(tmp_path, JOURNAL_ONLY)
    assert not (tmp_path / "mlflow-sync.json").exists()
    assert not (tmp_path.parent / "mlflow.db").exists()
