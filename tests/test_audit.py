"""The audit stage: attacks do not learn who is a member, what is written of them, same bytes after a kill."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from audit_builders import config_of, reference_of, release_of
from numpy.typing import NDArray

from pipeline.audit import stage
from pipeline.audit.targets import Reference, Release, score_persons
from pipeline.cohort import Case, Cohort, digest_file, digest_of, digest_tree, open_cohort, read_tsv, write_tsv
from pipeline.errors import DataError
from pipeline.runner import StageContext
from pipeline.train.weights import WEIGHTS_FILE


def test_attacks_never_learn_who_is_a_member(cohort: Cohort, honest: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sequence[Case]] = []

    def spy(targets: Sequence[Case], release: Release, reference: Reference) -> NDArray[np.float64]:
        seen.append(targets)
        return np.array([float(int(case.subject, 16)) for case in targets])

    monkeypatch.setattr(stage, "ATTACKS", {"spy": spy})
    members, others = cohort.persons("train")[::-1], cohort.persons("test")
    outcome = stage.attack_target(members, others, release_of(honest), reference_of(cohort))[0]
    assert {(case.split, case.source, len(case.attributes)) for case in seen[0]} == {("n/a", "n/a", 0)}
    assert [case.subject for case in seen[0]] == sorted(cases[0].subject for cases in (*members, *others))
    # Scores find their way back to the persons in the callers' order.
    assert outcome.member.tolist() == [float(int(cases[0].subject, 16)) for cases in members]
    assert outcome.nonmember.tolist() == [float(int(cases[0].subject, 16)) for cases in others]


def test_a_person_is_scored_by_the_most_telling_of_his_scans(cohort: Cohort, honest: Cohort) -> None:
    def by_name(targets: Sequence[Case], release: Release, reference: Reference) -> NDArray[np.float64]:
        return np.array([float(int(case.subject, 16)) for case in targets])

    a, b, c, d = cohort.cases[:4]
    scores = score_persons(by_name, [(a, d), (c, b)], release_of(honest), reference_of(cohort))
    assert scores.tolist() == [float(int(case.subject, 16)) for case in (d, c)]


def test_a_person_on_both_sides_is_refused(cohort: Cohort, honest: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "ATTACKS", {"any": lambda targets, *_: np.zeros(len(targets))})
    members, others = cohort.persons("train"), cohort.persons("test")
    with pytest.raises(DataError, match="a person on both sides"):
        stage.attack_target(members, (*others, members[0]), release_of(honest), reference_of(cohort))


class RecordingTracker:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.tables: dict[str, list[dict[str, object]]] = {}
        self.pictures: list[str] = []
        self.tagged: dict[str, str] = {}

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        self.values.update(values)

    def table(self, name: str, rows: list[dict[str, object]]) -> None:
        self.tables[name] = rows

    def image(self, key: str, path: str, step: int = 0) -> None:
        self.pictures.append(path)

    def tags(self, values: dict[str, str]) -> None:
        self.tagged.update(values)


def audit(run_dir: Path, out: Path) -> tuple[dict[str, object], RecordingTracker]:
    tracker = RecordingTracker()
    out.mkdir(exist_ok=True)
    return stage.run(StageContext(config_of(), run_dir, out, 3, tracker)), tracker


@pytest.fixture(scope="module")
def audited(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RecordingTracker]:
    out = tmp_path_factory.mktemp("audited") / "audit"
    _, tracker = audit(run_dir, out)
    return out, tracker


def refuse_constant(name: str) -> None:
    raise AssertionError(name)


def test_audit_json_has_every_key_of_the_contract_and_no_nan(
    run_dir: Path, audited: tuple[Path, RecordingTracker]
) -> None:
    content = json.loads((audited[0] / "audit.json").read_text(), parse_constant=refuse_constant)
    assert content["verdict"] in ("pass", "fail", "unresolved", "invalid")
    assert content["unit"] == "patient"
    assert content["reasons"]
    assert content["policy"]["auc_limit"] == 0.6
    assert {attack["name"]: attack["threat_model"] for attack in content["attacks"]} == {
        "nearest-neighbour": "dataset",
        "reconstruction": "model",
    }
    for attack in content["attacks"]:
        assert (attack["n_members"], attack["n_nonmembers"]) == (6, 5)
        assert attack["auc_ci"][0] <= attack["auc"] <= attack["auc_ci"][1]
        assert attack["auc_either_sign"] == max(attack["auc"], 1 - attack["auc"])
        assert attack["reliable"] is False
        assert set(attack["tpr_at_fpr"]) == {"0.1", "0.01", "0.001"}
        for found in attack["tpr_at_fpr"].values():
            assert found["ci"][0] <= found["value"] <= found["ci"][1]
            assert found["resolved"] is False
        assert 0 <= attack["epsilon_lower"] <= attack["epsilon_resolvable"]
    for figure in content["paired"]:
        assert (figure["n_patients"], figure["n_references"]) == (11, 2)
        assert figure["auc_ci"][0] <= figure["auc"] <= figure["auc_ci"][1]
        assert figure["threat_model"] in ("dataset", "model")
    assert len(content["controls"]["negative"]) == 4
    assert len(content["controls"]["positive"]) == 2
    for control in (*content["controls"]["negative"], *content["controls"]["positive"]):
        assert {"name", "expected", "observed", "behaved"} <= set(control)
    assert {"n_near_duplicates", "excess_p", "recall", "false_alarms"} <= set(content["copies"])
    assert content["power"]["sentence"]
    assert content["patients_needed"]["fpr_0.01"] == 299
    assert content["bound_to"] == {
        "generator": digest_file(run_dir / "model" / WEIGHTS_FILE),
        "synthetic": digest_of(digest_tree(run_dir / "synthetic")),
    }


def test_eleven_patients_and_two_references_never_pass(audited: tuple[Path, RecordingTracker]) -> None:
    content = json.loads((audited[0] / "audit.json").read_text())
    assert content["verdict"] != "pass"
    if content["verdict"] == "unresolved":
        assert any("2 reference generators" in reason for reason in content["reasons"])


def test_audit_writes_scores_and_risks_of_every_patient(run_dir: Path, audited: tuple[Path, RecordingTracker]) -> None:
    out = audited[0]
    sides = {case.subject: case.split for case in open_cohort(run_dir / "cohort").split("train", "test")}
    with (out / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 11
    assert all(row["member"] == str(int(sides[row["patient"]] == "train")) for row in rows)
    with (out / "patients.csv").open(encoding="utf-8") as file:
        patients = list(csv.DictReader(file))
    assert {row["patient"]: row["split"] for row in patients} == sides
    exposure = [max(float(row["nearest-neighbour"]), float(row["reconstruction"])) for row in patients]
    assert exposure == sorted(exposure, reverse=True)
    assert (out / "figures" / "roc.png").read_bytes().startswith(b"\x89PNG")
    # References' scans and checkpoints are not kept: they are made of real patients.
    kept = {path.name for path in (out / "references" / "01").iterdir()}
    assert kept == {"scores.json", WEIGHTS_FILE}


def test_audit_records_its_figures_without_a_patient(audited: tuple[Path, RecordingTracker]) -> None:
    tracker = audited[1]
    assert set(tracker.values) == {
        f"{kind}/{name}" for kind in ("auc", "paired_auc") for name in ("nearest-neighbour", "reconstruction")
    }
    assert tracker.pictures == ["figures/roc.png"]
    assert set(tracker.tagged) == {"verdict"}
    assert [row["name"] for row in tracker.tables["attacks"]] == ["nearest-neighbour", "reconstruction"]


def test_audit_cut_off_and_resumed_ends_with_the_same_bytes(
    run_dir: Path, audited: tuple[Path, RecordingTracker], tmp_path: Path
) -> None:
    # The first reference is finished, the second was killed while its scores were written.
    shutil.copytree(audited[0] / "references", tmp_path / "audit" / "references")
    second = tmp_path / "audit" / "references" / "02"
    whole = (second / "scores.json").read_text()
    (second / "scores.json").unlink()
    (second / "writing.tmp").write_text(whole[: len(whole) // 2])
    audit(run_dir, tmp_path / "audit")
    assert digest_tree(tmp_path / "audit") == digest_tree(audited[0])


def test_audit_from_the_start_gives_the_same_bytes(
    run_dir: Path, audited: tuple[Path, RecordingTracker], tmp_path: Path
) -> None:
    summary, _ = audit(run_dir, tmp_path / "audit")
    assert digest_tree(tmp_path / "audit") == digest_tree(audited[0])
    assert set(summary) == {
        "verdict",
        "auc_nearest-neighbour",
        "auc_reconstruction",
        "paired_nearest-neighbour",
        "paired_reconstruction",
    }


def test_an_empty_side_of_the_split_is_refused(run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir / "cohort", tmp_path / "cohort")
    table = tmp_path / "cohort" / "participants.tsv"
    write_tsv(table, [{**row, "split": "train"} for row in read_tsv(table)])
    with pytest.raises(DataError, match="a side of the split is empty"):
        audit(tmp_path, tmp_path / "audit")
