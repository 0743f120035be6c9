"""The whole pipeline at the smallest size: what a run folder holds, that a killed run ends with the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import OVERRIDE_REASON, REPOSITORY, TINY

from pipeline.cohort import digest_tree, open_cohort
from pipeline.layout import FOLDERS, STAGES

RUN_TIMEOUT_S = 300


def test_run_folder_holds_what_the_design_lists(finished_run: Path) -> None:
    for name in ("config.yaml", "journal.jsonl", "report.html"):
        assert (finished_run / name).stat().st_size > 0, name
    for stage, folder in FOLDERS.items():
        done = json.loads((finished_run / folder / "done.json").read_text())
        assert done["fingerprint"], stage
        assert done["files"] == digest_tree(finished_run / folder), stage
    for name in ("model/generator.safetensors", "model/model.json", "audit/audit.json", "audit/scores.csv"):
        assert (finished_run / name).is_file(), name
    for name in ("audit/patients.csv", "evaluation/gain.json", "evaluation/scores.csv", "release/manifest.json"):
        assert (finished_run / name).is_file(), name


def test_synthetic_cohort_has_as_many_cases_as_asked(finished_run: Path) -> None:
    synthetic = open_cohort(finished_run / "synthetic")
    assert len(synthetic.cases) == TINY["generate"]["n_cases"]
    assert synthetic.modalities == ("t1", "t1ce", "t2", "flair")


@pytest.mark.parametrize("folder", ["cohort", "synthetic", "release/bids"])
def test_bids_validator_accepts(finished_run: Path, folder: str) -> None:
    validator = Path(sys.executable).parent / "bids-validator-deno"
    result = subprocess.run([validator, finished_run / folder], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_report_is_self_contained_and_says_the_verdict(finished_run: Path) -> None:
    page = (finished_run / "report.html").read_text()
    verdict = json.loads((finished_run / "audit/audit.json").read_text())["verdict"]
    assert f"<b>Verdict: {verdict}</b>, as " in page
    assert page.count("data:image/png;base64,") >= 6
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_stage_folders_hold_no_path_of_this_machine(finished_run: Path) -> None:
    needles = [str(finished_run.parent).encode(), str(REPOSITORY).encode()]
    for folder in FOLDERS.values():
        for path in (finished_run / folder).rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not any(needle in content for needle in needles), path


@pytest.fixture(scope="module")
def tiny_config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    # The undisturbed run has one worker: neither their number nor a kill may change a byte.
    compute = {**TINY["compute"], "workers": 2}
    path.write_text(yaml.safe_dump({**TINY, "compute": compute, "export": {"override_reason": OVERRIDE_REASON}}))
    return path


@pytest.mark.parametrize(
    ("stage", "moment"),
    [
        ("train", lambda out: any((out / "checkpoints").glob("step-*.json"))),
        ("audit", lambda out: any((out / "references/02").glob("*"))),
        ("evaluate", lambda out: any(out.rglob("*.json")) or any(out.rglob("*.safetensors"))),
    ],
)
def test_killed_run_ends_with_the_same_bytes(
    finished_run: Path, tiny_config_file: Path, tmp_path: Path, stage: str, moment: Callable[[Path], bool]
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    # What comes before is the same bytes by the same test for the earlier stage: copying it saves making it again.
    for earlier in STAGES[: STAGES.index(stage)]:
        shutil.copytree(finished_run / FOLDERS[earlier], run_dir / FOLDERS[earlier])
    command = [sys.executable, "-m", "pipeline", "run", str(tiny_config_file), "--out", str(run_dir)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    partial = run_dir / f".{FOLDERS[stage]}.partial"
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while not (partial.is_dir() and moment(partial)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run_dir / FOLDERS[stage] / "done.json").exists(), "killed too late to test anything"
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
    )
    assert result.returncode == 0, result.stderr
    for folder in FOLDERS.values():
        assert digest_tree(run_dir / folder) == digest_tree(finished_run / folder), folder
