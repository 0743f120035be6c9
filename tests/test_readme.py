"""README's commands run, word by word, in a folder where the presets are of the smallest size."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import OVERRIDE_REASON, REPOSITORY, TINY, write_source
from typer.testing import CliRunner

from pipeline.cli import app

README = (REPOSITORY / "README.md").read_text()
COMMANDS = [line.strip() for line in README.splitlines() if line.startswith("    synthcohort ")]
INLINE = re.findall(r"`(synthcohort run [^`]*/data/[^`]*)`", README)


@pytest.fixture(scope="module")
def workplace(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with tiny presets under README's names, and a finished demo."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "configs").mkdir()
    demo = {**TINY, "export": {"override_reason": OVERRIDE_REASON}}
    demo["train"] = {**TINY["train"], "checkpoint_every": 400, "monitor_every": 400}
    (folder / "configs/demo.yaml").write_text(yaml.safe_dump(demo))
    brats = {**TINY, "ingest": {"manifest": "brats2021", "spacing_mm": 8.0, "size_voxels": [24, 24, 24]}}
    (folder / "configs/brats-quick.yaml").write_text(yaml.safe_dump(brats))
    shutil.copytree(finished_run, folder / "runs/demo")
    return folder


def test_readme_names_commands() -> None:
    assert len(COMMANDS) >= 5
    assert INLINE


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_readme_runs(command: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    result = CliRunner().invoke(app, shlex.split(command)[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    if "phantom" in command.split()[1]:
        # Written here, not where a worker that other tests have used was started.
        assert len(list((workplace / "phantoms").iterdir())) == 4


@pytest.mark.parametrize("command", INLINE)
def test_real_data_command_of_readme_runs(
    command: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    source = write_source(tmp_path / "source", 6)
    words = shlex.split(command.replace("/data/brats2021", str(source)))
    result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "would run" in result.output


def test_readme_is_short_and_its_links_exist() -> None:
    assert len(README.splitlines()) <= 150
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_makefile_has_the_two_commands_of_readme() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for command in ("demo", "test"):
        assert f"    make {command}" in README
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
