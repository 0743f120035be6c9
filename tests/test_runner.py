"""The runner on stages that only count how often they run: skip, change, new source file, resume."""

import fcntl
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import TINY

from pipeline import runner
from pipeline.audit.policy import DEFAULT_FILE
from pipeline.cohort import digest_file, digest_tree
from pipeline.config import parse_config
from pipeline.errors import ConfigError, DataError, GateRefused
from pipeline.layout import FOLDERS, RECORD_KEYS, STAGES, partial_folder, read_done
from pipeline.runner import RESUMABLE, plan_stages, run_stages
from pipeline.status import describe_run


class FakeStages:
    """Six stages that write one file each and remember how often they ran; ``before`` is called in between."""

    def __init__(self):
        self.counts = Counter()
        self.found = {}
        self.before = {}

    def load(self, stage):
        def run(context):
            self.counts[stage] += 1
            self.found[stage] = sorted(path.name for path in context.out.iterdir())
            (context.out / "result.txt").write_text(f"{stage} {context.seed}")
            self.before.get(stage, lambda _: None)(context)
            context.tracker.metrics({"answer": 42.0})
            return {"answer": 42}

        return run

    def ran(self):
        """Return which stages ran since the last question, in order."""
        ran = [stage for stage in STAGES if self.counts[stage]]
        assert all(self.counts[stage] == 1 for stage in ran)
        self.counts.clear()
        return ran


@pytest.fixture
def stages(monkeypatch):
    fakes = FakeStages()
    monkeypatch.setattr(runner, "load_stage", fakes.load)
    monkeypatch.setattr("pipeline.report.write_report", write_fake_report)
    return fakes


def write_fake_report(run_dir, *_):
    path = run_dir / "report.html"
    path.write_text("report")
    return path


def config(**sections):
    content = {name: {**TINY.get(name, {}), **sections.get(name, {})} for name in {**TINY, **sections}}
    return parse_config(content, "tests")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "scans" / "BraTS2021_00000"
    folder.mkdir(parents=True)
    (folder / "BraTS2021_00000_t1.nii.gz").write_text("a scan")
    return tmp_path / "scans"


def from_folder(folder, **ingest):
    return {"ingest": {"source": str(folder), "manifest": "brats2021", **ingest}}


def test_every_stage_runs_once_and_a_second_call_skips_all(stages, tmp_path, capsys):
    run_stages(config(), tmp_path / "run")
    assert stages.ran() == list(STAGES)
    for stage, folder in FOLDERS.items():
        done = read_done(tmp_path / "run" / folder)
        assert done["summary"] == {"answer": 42}
        assert done["files"] == {"result.txt": digest_file(tmp_path / "run" / folder / "result.txt")}
        assert sorted(path.name for path in (tmp_path / "run" / folder).iterdir()) == ["done.json", "result.txt"]
        assert not partial_folder(tmp_path / "run", stage).exists()
    before = digest_tree(tmp_path / "run")
    capsys.readouterr()
    run_stages(config(), tmp_path / "run")
    assert stages.ran() == []
    assert digest_tree(tmp_path / "run") == before
    assert capsys.readouterr().err.count("holds, skipped") == 6


def test_each_stage_has_a_seed_of_its_own(stages, tmp_path):
    run_stages(config(), tmp_path / "run")
    texts = {(tmp_path / "run" / folder / "result.txt").read_text().split()[1] for folder in FOLDERS.values()}
    assert len(texts) == 6


# What each section of the config decides: the stage of that name and all that read it.
AFTER = {
    "ingest": ["ingest", "train", "generate", "audit", "evaluate", "export"],
    "train": ["train", "generate", "audit", "evaluate", "export"],
    "generate": ["generate", "audit", "evaluate", "export"],
    "audit": ["audit", "export"],
    "evaluate": ["evaluate", "export"],
    "export": ["export"],
}
CHANGES = {
    "ingest": {"phantom_cases": 11},
    "train": {"steps": 7},
    "generate": {"n_cases": 5},
    "audit": {"n_references": 4},
    "evaluate": {"n_seeds": 2},
    "export": {"title": "Another"},
}


@pytest.mark.parametrize("section", STAGES)
def test_a_changed_section_runs_its_stage_again_and_what_depends_on_it_and_nothing_else(stages, tmp_path, section):
    run_stages(config(), tmp_path / "run")
    stages.ran()
    run_stages(config(**{section: CHANGES[section]}), tmp_path / "run")
    assert stages.ran() == AFTER[section]


@pytest.mark.parametrize(
    "change", [{"run": {"seed": 1}}, {"compute": {"precision": "bf16-mixed"}}], ids=["seed", "precision"]
)
def test_another_seed_or_precision_runs_everything_again(stages, tmp_path, change):
    run_stages(config(), tmp_path / "run")
    stages.ran()
    run_stages(config(**change), tmp_path / "run")
    assert stages.ran() == list(STAGES)


def test_what_does_not_change_results_runs_nothing_again(stages, tmp_path, source):
    run_stages(config(**from_folder(source)), tmp_path / "run")
    assert stages.ran() == list(STAGES)
    moved = source.rename(tmp_path / "moved")
    changes = {"compute": {"workers": 5}, "tracking": {"experiment": "another"}}
    run_stages(config(**from_folder(moved), **changes), tmp_path / "run")
    assert stages.ran() == []


def test_a_new_changed_or_missing_source_file_runs_everything_again(stages, tmp_path, source):
    run_stages(config(**from_folder(source)), tmp_path / "run")
    stages.ran()
    (source / "new.nii.gz").write_text("another scan")
    run_stages(config(**from_folder(source)), tmp_path / "run")
    assert stages.ran() == list(STAGES)
    (source / "new.nii.gz").write_text("another size")
    run_stages(config(**from_folder(source)), tmp_path / "run")
    assert stages.ran() == list(STAGES)
    (source / "new.nii.gz").unlink()
    run_stages(config(**from_folder(source)), tmp_path / "run")
    assert stages.ran() == list(STAGES)


def test_a_changed_key_table_or_manifest_runs_everything_again(stages, tmp_path, source):
    shipped = Path(__file__).parent.parent / "data_manifests" / "brats2021.yaml"
    key, table, manifest = tmp_path / "key", tmp_path / "split.tsv", tmp_path / "mine.yaml"
    attributes = tmp_path / "attributes.tsv"
    key.write_bytes(bytes(16))
    table.write_text("subject\tsplit\n")
    attributes.write_text("subject\tsite\n")
    manifest.write_text(shipped.read_text())
    files = {"key_file": key, "split_file": table, "attributes_file": attributes, "manifest": manifest}
    settings = from_folder(source, **{name: str(path) for name, path in files.items()})
    run_stages(config(**settings), tmp_path / "run")
    stages.ran()
    for path in files.values():
        run_stages(config(**settings), tmp_path / "run")
        assert stages.ran() == []
        path.write_bytes(path.read_bytes() + b"\n")
        run_stages(config(**settings), tmp_path / "run")
        assert stages.ran() == list(STAGES)


def test_a_changed_policy_runs_the_audit_and_the_export_again_and_a_moved_one_nothing(stages, tmp_path):
    policy = tmp_path / "house.yaml"
    policy.write_text(DEFAULT_FILE.read_text())
    run_stages(config(audit={"policy": str(policy)}), tmp_path / "run")
    stages.ran()
    policy.write_text(policy.read_text().replace("value: 0.6\n", "value: 0.95\n"))
    run_stages(config(audit={"policy": str(policy)}), tmp_path / "run")
    assert stages.ran() == ["audit", "export"]
    moved = policy.rename(tmp_path / "moved.yaml")
    run_stages(config(audit={"policy": str(moved)}), tmp_path / "run")
    assert stages.ran() == []
    # A copy of the shipped one, byte by byte, is the shipped one.
    moved.write_text(DEFAULT_FILE.read_text())
    run_stages(config(audit={"policy": str(moved)}), tmp_path / "run")
    assert stages.ran() == ["audit", "export"]
    run_stages(config(), tmp_path / "run")
    assert stages.ran() == []


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Let the runner find the package in a copy, for tests that change it; forget what it computed before and after."""
    folder = tmp_path / "copy" / "pipeline"
    shutil.copytree(Path(runner.__file__).parent, folder)
    monkeypatch.setattr(runner, "__file__", str(folder / "runner.py"))
    runner.code_version.cache_clear()
    yield folder
    runner.code_version.cache_clear()


def test_a_data_file_of_a_stage_counts_as_its_code(package):
    before = {stage: runner.code_version(stage) for stage in STAGES}
    policy = package / "audit" / "policy.yaml"
    policy.write_text(policy.read_text().replace("value: 0.6\n", "value: 0.95\n"))
    runner.code_version.cache_clear()
    assert [stage for stage in STAGES if runner.code_version(stage) != before[stage]] == ["audit"]


def test_what_the_interpreter_or_an_editor_leaves_in_the_package_is_no_code(package):
    before = runner.code_version("audit")
    (package / "audit" / "__pycache__").mkdir(exist_ok=True)
    for name in ("audit/__pycache__/policy.cpython-311.pyc.140", "audit/.policy.yaml.swp", "audit/.DS_Store"):
        (package / name).write_bytes(b"leftover")
    runner.code_version.cache_clear()
    assert runner.code_version("audit") == before


def test_changed_code_runs_the_stages_that_use_it_again(stages, tmp_path, monkeypatch):
    run_stages(config(), tmp_path / "run")
    stages.ran()
    real = runner.code_version
    monkeypatch.setattr(runner, "code_version", lambda stage: real(stage) + "+new" * (stage == "evaluate"))
    run_stages(config(), tmp_path / "run")
    assert stages.ran() == ["evaluate", "export"]


def test_the_code_of_a_stage_does_not_count_for_stages_that_do_not_use_it():
    assert len({runner.code_version(stage) for stage in STAGES}) == len(STAGES)


def test_until_stops_and_from_goes_on(stages, tmp_path):
    run_stages(config(), tmp_path / "run", last="train")
    assert stages.ran() == ["ingest", "train"]
    run_stages(config(), tmp_path / "run", first="generate", last="generate")
    assert stages.ran() == ["generate"]
    run_stages(config(), tmp_path / "run", first="audit")
    assert stages.ran() == ["audit", "evaluate", "export"]


def test_from_needs_the_stages_before_it_for_this_very_config(stages, tmp_path):
    with pytest.raises(ConfigError, match="--from train: stage ingest has no finished result"):
        run_stages(config(), tmp_path / "run", first="train")
    run_stages(config(), tmp_path / "run", last="train")
    stages.ran()
    with pytest.raises(ConfigError, match="--from generate: stage train has no finished result"):
        run_stages(config(train={"steps": 9}), tmp_path / "run", first="generate")
    assert stages.ran() == []


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("audit", "train", "--from audit comes after --until train"),
        ("tain", "export", "tain: no stage; expected one of"),
    ],
)
def test_stages_that_make_no_order_are_refused_before_anything_is_written(stages, tmp_path, first, last, words):
    with pytest.raises(ConfigError, match=words):
        run_stages(config(), tmp_path / "run", first=first, last=last)
    assert not (tmp_path / "run").exists()


def fail(error):
    def raise_error(_):
        raise error

    return raise_error


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_fails_leaves_no_result_and_the_same_command_goes_on(stages, tmp_path, stage):
    stages.before[stage] = fail(DataError("broken"))
    with pytest.raises(DataError, match="broken"):
        run_stages(config(), tmp_path / "run")
    position = STAGES.index(stage)
    assert stages.ran() == list(STAGES[: position + 1])
    assert not (tmp_path / "run" / FOLDERS[stage]).exists()
    assert (tmp_path / "run" / "report.html").is_file()
    stages.before.clear()
    run_stages(config(), tmp_path / "run")
    assert stages.ran() == list(STAGES[position:])
    # Only some stages go on from what a cut-off attempt left.
    assert stages.found[stage] == ["fingerprint.txt", *(["result.txt"] if stage in RESUMABLE else [])]


def test_what_another_config_left_behind_is_not_gone_on_from(stages, tmp_path):
    stages.before["train"] = fail(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_stages(config(), tmp_path / "run")
    stages.before.clear()
    run_stages(config(train={"steps": 8}), tmp_path / "run", last="train")
    assert stages.found["train"] == ["fingerprint.txt"]


def test_what_was_begun_on_another_result_upstream_is_not_gone_on_from(stages, tmp_path):
    """On a GPU the same training done again gives other bytes."""
    stages.before["evaluate"] = fail(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_stages(config(), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / FOLDERS["generate"])
    stages.before = {"generate": lambda context: (context.out / "result.txt").write_text("other bytes")}
    run_stages(config(), tmp_path / "run", last="evaluate")
    assert stages.found["evaluate"] == ["fingerprint.txt"]


def test_a_result_that_fails_to_be_made_again_leaves_the_old_one(stages, tmp_path):
    run_stages(config(), tmp_path / "run")
    stages.ran()
    before = (tmp_path / "run" / "model" / "done.json").read_text()
    stages.before["train"] = fail(DataError("broken"))
    with pytest.raises(DataError):
        run_stages(config(train={"steps": 8}), tmp_path / "run")
    assert (tmp_path / "run" / "model" / "done.json").read_text() == before
    stages.ran()
    stages.before.clear()
    # The first config's results still hold, but for the release: another config's run has withdrawn it.
    assert (tmp_path / "run" / "release.withdrawn" / "done.json").is_file()
    run_stages(config(), tmp_path / "run")
    assert stages.ran() == ["export"]


def test_after_a_config_that_failed_the_report_is_again_of_the_one_that_holds(stages, tmp_path):
    run_dir = tmp_path / "run"
    run_stages(config(), run_dir, last="train")
    stages.before["train"] = lambda context: (context.out / "result.txt").unlink() or fail(DataError("broken"))(context)
    with pytest.raises(DataError):
        run_stages(config(train={"steps": 8}), run_dir, last="train")
    # It found nothing, and nothing is kept of it.
    assert not partial_folder(run_dir, "train").exists()
    stages.counts.clear()
    (run_dir / "report.html").write_text("of the config that failed")
    run_stages(config(), run_dir, last="train")
    assert stages.ran() == []
    assert (run_dir / "report.html").read_text() == "report"


@pytest.mark.parametrize("stage", ["ingest", "train", "export"])
def test_a_kill_between_the_record_and_the_renaming_is_healed(stages, tmp_path, stage):
    run_stages(config(), tmp_path / "run", last=stage)
    stages.ran()
    final, partial = tmp_path / "run" / FOLDERS[stage], partial_folder(tmp_path / "run", stage)
    record = (final / "done.json").read_text()
    final.rename(partial)
    run_stages(config(), tmp_path / "run", last=stage)
    assert stages.ran() == []
    assert (final / "done.json").read_text() == record
    assert not partial.exists()


def test_a_kill_between_the_two_renamings_is_healed(stages, tmp_path):
    run_stages(config(), tmp_path / "run", last="train")
    stages.ran()
    run_stages(config(train={"steps": 8}), tmp_path / "run", last="train")
    stages.ran()
    run_dir = tmp_path / "run"
    record = (run_dir / "model" / "done.json").read_text()
    (run_dir / "model").rename(partial_folder(run_dir, "train"))
    (run_dir / ".model.old").mkdir()
    (run_dir / ".model.old" / "result.txt").write_text("what was there before")
    run_stages(config(train={"steps": 8}), run_dir, last="train")
    assert stages.ran() == []
    assert (run_dir / "model" / "done.json").read_text() == record
    assert not (run_dir / ".model.old").exists()


@pytest.mark.parametrize("stage", ["generate", "evaluate"])
def test_from_finds_a_result_that_was_killed_before_its_renaming(stages, tmp_path, stage):
    run_dir = tmp_path / "run"
    before = STAGES[STAGES.index(stage) - 1]
    run_stages(config(), run_dir, last=before)
    stages.ran()
    (run_dir / FOLDERS[before]).rename(partial_folder(run_dir, before))
    run_stages(config(), run_dir, first=stage, last=stage)
    assert stages.ran() == [stage]
    assert read_done(run_dir / FOLDERS[before])["summary"] == {"answer": 42}
    assert not partial_folder(run_dir, before).exists()


def without(key):
    def drop(record):
        content = json.loads(record)
        del content[key]
        return json.dumps(content).encode()

    return drop


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record[:50],
        lambda _: b"",
        lambda _: b"[]",
        lambda _: b"{}",
        lambda _: b"\xff\xfe",
        *[without(key) for key in sorted(RECORD_KEYS)],
    ],
    ids=["torn", "empty", "list", "no keys", "no text", *[f"without {key}" for key in sorted(RECORD_KEYS)]],
)
def test_a_damaged_record_counts_as_unfinished(stages, tmp_path, damage):
    run_dir = tmp_path / "run"
    run_stages(config(), run_dir, last="train")
    stages.ran()
    path = run_dir / "model" / "done.json"
    path.write_bytes(damage(path.read_bytes()))
    assert describe_run(run_dir).splitlines()[1].split(maxsplit=1) == ["train", "not begun"]
    run_stages(config(), run_dir, last="train")
    assert stages.ran() == ["train"]
    assert read_done(run_dir / "model")["summary"] == {"answer": 42}


def test_without_an_upstream_result_nothing_after_it_holds_until_it_is_made_again(stages, tmp_path):
    run_stages(config(), tmp_path / "run")
    stages.ran()
    shutil.rmtree(tmp_path / "run" / "model")
    holding = [stage for stage, plan in plan_stages(config(), tmp_path / "run").items() if plan.holds]
    assert holding == ["ingest"]
    with pytest.raises(ConfigError, match="stage train has no finished result"):
        run_stages(config(), tmp_path / "run", first="evaluate")
    # Made again from the same inputs it is the same, and so what came after it holds.
    run_stages(config(), tmp_path / "run")
    assert stages.ran() == ["train"]


def test_a_result_made_again_with_other_bytes_is_read_by_all_that_use_it(stages, tmp_path):
    """As on a GPU, where the same training ends with other bytes."""
    run_stages(config(), tmp_path / "run")
    stages.ran()
    before = read_done(tmp_path / "run" / "model")
    shutil.rmtree(tmp_path / "run" / "model")
    stages.before["train"] = lambda context: (context.out / "result.txt").write_text("other weights")
    run_stages(config(), tmp_path / "run", last="train")
    assert stages.ran() == ["train"]
    after = read_done(tmp_path / "run" / "model")
    assert after["fingerprint"] == before["fingerprint"]
    assert after["digest"] != before["digest"]
    holding = [stage for stage, plan in plan_stages(config(), tmp_path / "run").items() if plan.holds]
    assert holding == ["ingest", "train"]
    with pytest.raises(ConfigError, match="stage generate has no finished result"):
        run_stages(config(), tmp_path / "run", first="audit")
    run_stages(config(), tmp_path / "run")
    # The synthetic cohort came out the same, and the evaluation reads nothing else.
    assert stages.ran() == ["generate", "audit", "export"]
    run_stages(config(), tmp_path / "run")
    assert stages.ran() == []


def test_a_second_run_in_the_same_folder_is_refused_and_the_lock_goes_with_the_first(stages, tmp_path):
    run_dir = tmp_path / "run"

    def run_a_second(_):
        with pytest.raises(ConfigError, match="in use by another run"):
            run_stages(config(run={"seed": 9}), run_dir)

    stages.before["train"] = run_a_second
    run_stages(config(), run_dir)
    assert stages.ran() == list(STAGES)
    stages.before.clear()
    with (run_dir / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(ConfigError, match="in use"):
            run_stages(config(run={"seed": 9}), run_dir)
    run_stages(config(run={"seed": 9}), run_dir)
    assert stages.ran() == list(STAGES)


def test_a_refusal_of_the_gate_leaves_the_report_and_is_recorded(stages, tmp_path):
    stages.before["export"] = fail(GateRefused("verdict fail"))
    with pytest.raises(GateRefused, match="verdict fail"):
        run_stages(config(), tmp_path / "run")
    run_dir = tmp_path / "run"
    assert (run_dir / "report.html").is_file()
    assert not (run_dir / "release").exists()
    events = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    last_end = [event for event in events if event["event"] == "stage_end"][-1]
    assert (last_end["stage"], last_end["status"]) == ("export", "refused")


def test_after_a_refusal_by_the_gate_the_release_is_not_shown_as_begun(stages, tmp_path):
    stages.before["export"] = fail(GateRefused("verdict fail"))
    with pytest.raises(GateRefused):
        run_stages(config(), tmp_path / "run")
    lines = dict(line.split(maxsplit=1) for line in describe_run(tmp_path / "run").splitlines())
    assert lines["export"] == "not begun"
    assert all(lines[stage].startswith("finished ") for stage in STAGES if stage != "export")
    assert not partial_folder(tmp_path / "run", "export").exists()


@pytest.mark.parametrize("error", [DataError("broken"), GateRefused("verdict fail"), KeyboardInterrupt()])
def test_a_source_that_vanishes_meanwhile_does_not_hide_why_a_stage_stopped(stages, tmp_path, source, error):
    def lose_the_source_and_fail(_):
        shutil.rmtree(source)
        raise error

    stages.before["audit"] = lose_the_source_and_fail
    with pytest.raises(type(error)) as caught:
        run_stages(config(**from_folder(source)), tmp_path / "run")
    assert caught.value is error
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("error", [TypeError("NoneType"), IndexError("0"), OSError("full")])
def test_a_report_that_cannot_be_written_does_not_hide_the_refusal_of_the_gate(
    stages, tmp_path, monkeypatch, capsys, error
):
    monkeypatch.setattr("pipeline.report.write_report", fail_to_report(error))
    stages.before["export"] = fail(GateRefused("verdict fail"))
    with pytest.raises(GateRefused, match="verdict fail"):
        run_stages(config(), tmp_path / "run")
    assert f"no report: a stage's files are damaged ({type(error).__name__})" in capsys.readouterr().err


def fail_to_report(error):
    def write_no_report(*_):
        raise error

    return write_no_report


def test_the_resolved_config_lies_beside_the_results(stages, tmp_path):
    from pipeline.config import load_config

    run_stages(config(train={"steps": 8}), tmp_path / "run", last="ingest")
    assert load_config(tmp_path / "run" / "config.yaml") == config(train={"steps": 8})


def test_a_plan_writes_nothing(stages, tmp_path):
    plans = plan_stages(config(), tmp_path / "run")
    assert [plan.holds for plan in plans.values()] == [False] * 6
    assert not (tmp_path / "run").exists()
