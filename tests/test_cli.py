"""The command line: exit codes, one clear line for each mistake, nothing heavy before it is needed."""

import fcntl
import json
import re
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
import yaml
from conftest import TINY, write_source

from pipeline import cli
from pipeline.errors import CaseError, ConfigError, DataError, GateRefused, SynthcohortError
from pipeline.layout import RECORD_KEYS, STAGES

REPOSITORY = Path(__file__).parent.parent
HEAVY = ("torch", "monai", "mlflow", "lightning", "SimpleITK", "highdicom", "dipy", "nilearn", "matplotlib", "scipy")


def call(monkeypatch, capsys, *arguments):
    """Call the command in this process; return exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["synthcohort", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, err


@pytest.fixture
def synthcohort(monkeypatch, capsys):
    return lambda *arguments: call(monkeypatch, capsys, *arguments)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_importing_the_command_line_and_showing_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom pipeline import cli\nsys.argv = ['synthcohort', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert result.stdout.rstrip().endswith("heavy: []")
    for verb in ("run", *STAGES, "phantom", "status", "verify", "deid-check", "sync"):
        assert re.search(rf"\b{verb}\b", result.stdout), verb


@pytest.mark.parametrize("verb", ["run", *STAGES, "phantom", "status", "verify", "deid-check", "sync"])
def test_each_verb_explains_itself(synthcohort, verb):
    code, out, _ = synthcohort(verb, "--help")
    assert code == 0
    assert "--help" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "absent.yaml"], "config file absent.yaml not found"),
        (["run"], "CONFIG"),
        (["run", "{config}", "--colour", "red"], "--colour"),
        (["fly"], "fly"),
        (["run", "{config}", "--set", "train.stpes=3"], "did you mean `steps`?"),
        (["run", "{config}", "--set", "train.steps"], "expected section.key=value"),
        (["run", "{config}", "--from", "nowhere"], "nowhere: no stage; expected one of ingest, train"),
        (["run", "{config}", "--from", "audit", "--until", "train"], "comes after"),
        (["train", "{config}"], "stage ingest has no finished result"),
        (["ingest", "{config}", "--set", "ingest.source=nowhere"], "nowhere is no folder"),
        (["ingest", "{config}", "--set", "ingest.manifest=bratz"], "bratz not found"),
        (["phantom", "out", "--format", "bmp"], "expected nifti or dicom"),
        (["phantom", "out", "--cases", "0"], "--cases"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_the_command_or_the_config_is_one_clear_line_and_exit_code_2(
    synthcohort, config_file, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    code, _, err = synthcohort(*[text.format(config=config_file) for text in arguments])
    assert code == 2
    assert "error: " in err
    assert words in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_too_few_cases_are_exit_code_3(synthcohort, config_file, tmp_path):
    source = write_source(tmp_path / "scans", 3)
    code, _, err = synthcohort(
        *("ingest", config_file, "--out", tmp_path / "run"),
        *("--set", f"ingest.source={source}", "--set", "ingest.manifest=brats2021"),
    )
    assert code == 3
    assert "3 persons with a usable scan, of 3 cases; expected at least 6" in err


def test_a_source_in_which_nothing_fits_is_exit_code_3(synthcohort, config_file, tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "notes.txt").write_text("no scan")
    code, _, err = synthcohort(
        *("ingest", config_file, "--out", tmp_path / "run"),
        *("--set", f"ingest.source={tmp_path / 'scans'}", "--set", "ingest.manifest=brats2021"),
    )
    assert code == 3
    assert "no file fits the manifest" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SynthcohortError("a"), 1),
        (ConfigError("b"), 2),
        (DataError("c"), 3),
        (CaseError("d"), 3),
        (GateRefused("e"), 4),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_has_its_exit_code(synthcohort, config_file, monkeypatch, error, code):
    def fail(*_):
        raise error

    monkeypatch.setattr("pipeline.runner.run_stages", fail)
    got, _, err = synthcohort("run", config_file)
    assert got == code
    assert "Traceback" not in err
    if isinstance(error, SynthcohortError):
        assert err == f"error: {error}\n"


def test_a_bug_shows_its_traceback_when_asked_to(config_file, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("pipeline.runner.run_stages", fail)
    monkeypatch.setattr(sys, "argv", ["synthcohort", "run", str(config_file)])
    monkeypatch.setenv("SYNTHCOHORT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_the_run_folder_is_named_after_the_config(synthcohort, config_file, monkeypatch):
    asked = []
    monkeypatch.setattr("pipeline.runner.run_stages", lambda *arguments: asked.append(arguments))
    assert synthcohort("run", config_file, "--until", "train")[0] == 0
    assert synthcohort("audit", config_file, "--out", "there", "--set", "train.steps=9")[0] == 0
    assert asked[0][1:] == (Path("runs/mine"), "ingest", "train")
    assert asked[1][1:] == (Path("there"), "audit", "audit")
    assert (asked[0][0].train.steps, asked[1][0].train.steps) == (6, 9)


def test_a_dry_run_shows_the_six_stages_and_writes_nothing(synthcohort, config_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = synthcohort("run", config_file, "--dry-run")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:6]] == list(STAGES)
    assert all("would run" in line for line in lines[:6])
    assert "10 cases to 24x24x24 voxels" in lines[0]
    assert sorted(tmp_path.rglob("*")) == before
    code, out, _ = synthcohort("run", config_file, "--dry-run", "--until", "train")
    assert [line.split(maxsplit=1)[1] for line in out.splitlines()[2:6]] == ["not asked for"] * 4


def test_a_dry_run_of_a_folder_makes_no_pseudonym_key_but_a_run_does(synthcohort, config_file, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    source = write_source(tmp_path / "scans", 3)
    options = ("--set", f"ingest.source={source}", "--set", "ingest.manifest=brats2021", "--out", tmp_path / "run")
    code, out, _ = synthcohort("run", config_file, "--dry-run", *options)
    assert (code, "would run: 3 cases to" in out) == (0, True)
    assert not (tmp_path / "home").exists()
    # What the manifest does not find is better known now than at night.
    mixed_up = synthcohort("run", config_file, "--dry-run", *options, "--set", "ingest.manifest=dicom")
    assert (mixed_up[0], "no DICOM file" in mixed_up[2]) == (3, True)
    synthcohort("ingest", config_file, *options)
    assert (tmp_path / "home" / "synthcohort" / "pseudonym.key").stat().st_size == 32


def test_the_status_of_a_folder_that_is_no_run_is_exit_code_3(synthcohort, tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        code, _, err = synthcohort("status", folder)
        assert code == 3
        assert "no run folder" in err


def test_the_status_of_a_run_tells_finished_begun_and_not_begun(synthcohort, tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    done = dict.fromkeys(RECORD_KEYS, "") | {"summary": {"cases": 12, "share": 0.123456}}
    done |= {"finished": "2024-05-01", "seconds": 12.3}
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "done.json").write_text(json.dumps(done))
    checkpoints = tmp_path / ".model.partial" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "step-000200.json").touch()
    code, out, _ = synthcohort("status", tmp_path)
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert list(lines) == list(STAGES)
    assert lines["ingest"] == "finished 2024-05-01 in 12 s: cases 12, share 0.123"
    assert lines["train"] == "cut off or running, checkpoint at step 200"
    assert lines["generate"] == "not begun"
    journal = tmp_path / "journal.jsonl"
    events = [{"event": "stage_start"}, {"event": "stage_end", "status": "failed"}]
    journal.write_text("".join(json.dumps({"time": 1, "stage": "train", **event}) + "\n" for event in events))
    found = synthcohort("status", tmp_path)[1]
    assert "failed; what it found so far is in .model.partial, checkpoint at step 200" in found
    with journal.open("a") as file:
        file.write(json.dumps({"time": 2, "stage": "train", "event": "stage_resumed"}) + "\n")
    assert "cut off or running" in synthcohort("status", tmp_path)[1]


def test_verify_of_a_folder_that_is_no_release_is_exit_code_3(synthcohort, tmp_path):
    assert synthcohort("verify", tmp_path)[0] == 3


def test_sync_of_a_folder_that_is_no_run_is_exit_code_2_or_3(synthcohort, tmp_path):
    code, _, err = synthcohort("sync", tmp_path)
    assert code in (2, 3)
    assert "Traceback" not in err


def test_sync_while_a_run_holds_the_folder_is_refused_and_leaves_the_journal_as_it_is(
    synthcohort, config_file, tmp_path
):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(config_file.read_text().replace("uri: none", "uri: ''"))
    # What looks torn is a line that the run is just writing.
    journal = b'{"time": 1, "stage": "", "event": "run_start", "name": "run", "parameters": {}}\n{"time": 2, "sta'
    (run_dir / "journal.jsonl").write_bytes(journal)
    with (run_dir / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        code, _, err = synthcohort("sync", run_dir)
    assert code == 2
    assert err == f"error: {run_dir} is in use by another run; wait for it or name another --out\n"
    assert (run_dir / "journal.jsonl").read_bytes() == journal
    assert sorted(path.name for path in run_dir.iterdir()) == [".lock", "config.yaml", "journal.jsonl"]
    assert not (tmp_path / "mlflow.db").exists()


def test_a_file_as_run_folder_is_refused_and_left_as_it_is(synthcohort, config_file, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    code, _, err = synthcohort("run", config_file, "--out", path)
    assert code == 2
    assert err == f"error: --out {path} is a file, or in one; expected a run folder; name another one\n"
    code, _, err = synthcohort("run", config_file, "--out", path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert path.read_text() == "mine"


def test_an_unforeseen_error_is_told_without_its_text(synthcohort, config_file, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("/hospital/Doe_Jane/scan.nii")

    monkeypatch.setattr("pipeline.runner.run_stages", fail)
    code, _, err = synthcohort("run", config_file, "--out", tmp_path / "run")
    assert code == 1
    assert re.match(r"error: unforeseen RuntimeError at cli\.py:\d+.*please report", err)
    assert "Doe" not in err


def test_phantom_refuses_a_folder_that_is_not_empty(synthcohort, tmp_path):
    (tmp_path / "something").touch()
    for out in (tmp_path, tmp_path / "something"):
        code, _, err = synthcohort("phantom", out, "--cases", "1")
        assert code == 2
        assert "not an empty folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def test_phantom_refuses_a_spacing_that_it_cannot_make_and_leaves_nothing(synthcohort, tmp_path):
    code, _, err = synthcohort("phantom", tmp_path / "out", "--cases", "1", "--spacing-mm", "9")
    assert code == 2
    assert "'--spacing-mm': Input should be less than or equal to 6" in err
    assert not (tmp_path / "out").exists()


def test_phantom_writes_dicom_that_ingest_is_told_how_to_read(synthcohort, tmp_path):
    code, _, err = synthcohort(
        "phantom", tmp_path / "out", "--cases", "1", "--format", "dicom", "--spacing-mm", "6", "--seed", "3"
    )
    assert code == 0
    assert "manifest phantom-dicom" in err
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in (tmp_path / "out").rglob("*.dcm")]
    assert {header.Modality for header in headers} == {"MR", "SEG"}
    descriptions = {header.SeriesDescription for header in headers}
    assert descriptions == {"T1 AX", "T1 AX POST GAD", "T2 AX", "FLAIR AX", "TUMOR SEG"}
