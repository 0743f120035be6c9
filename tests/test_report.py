"""The report: what a clinician reads, at any state of a run."""

import json
import shutil
from pathlib import Path

from pipeline.report import write_report


def test_report_of_an_unfinished_run_says_so(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run / "cohort", tmp_path / "cohort")
    page = write_report(tmp_path).read_text()
    assert page.count("Not finished.") == 5
    assert "<b>Verdict: none yet</b>, as the audit has not been run.</p>" in page
    assert "Without an audit nothing may leave the building." in page


def test_the_headline_is_one_sentence_with_cautions_in_smaller_type(tmp_path: Path) -> None:
    for folder, name, content in (
        ("audit", "audit.json", {"verdict": "pass"}),
        ("evaluation", "gain.json", {"summary": "One arm was trained.", "cautions": ["Few < 20.", "No plateau."]}),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(json.dumps(content))
    page = write_report(tmp_path).read_text()
    assert (
        '<p class="verdict pass"><b>Verdict: pass</b>, as the audit found no leak above its limits; one arm was '
        'trained.</p><p class="note">Few &lt; 20. No plateau. No release was written.</p>'
    ) in page


def test_cheap_rivals_stand_in_the_headline(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    gain = {"summary": "It gains.", "rivals": "Beside cheap rivals, it ties.", "cautions": []}
    (tmp_path / "evaluation" / "gain.json").write_text(json.dumps(gain))
    assert "; it gains. Beside cheap rivals, it ties.</p>" in write_report(tmp_path).read_text()


def test_report_names_an_override_with_its_reason(finished_run: Path) -> None:
    page = write_report(finished_run).read_text()
    assert "Released by override" in page
    assert json.loads((finished_run / "release/manifest.json").read_text())["override"]["reason"] in page


def test_report_escapes_what_users_wrote(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    path = tmp_path / "run/release/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["override"] = {"reason": "<script>alert(1)</script>"}
    path.write_text(json.dumps(manifest))
    assert "<script>" not in write_report(tmp_path / "run").read_text()


def test_report_shows_unresolved_rates_as_unresolved(finished_run: Path) -> None:
    page = write_report(finished_run).read_text()
    assert "0.1%: unresolved" in page


def test_report_on_phantoms_says_that_it_is_about_no_patient(finished_run: Path) -> None:
    assert "no figure on this page says anything about patients" in write_report(finished_run).read_text()
