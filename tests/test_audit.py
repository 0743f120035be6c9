"""The audit stage: attacks do not learn who is a member, what is written of them, same bytes after a kill."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audit_builders import config_of, setting_of

from pipeline.audit import stage
from pipeline.audit.asked import ask_about
from pipeline.audit.attacks.registry import ATTACKS
from pipeline.audit.page import audit_section
from pipeline.audit.policy import DEFAULT_FILE
from pipeline.cohort import Cohort, digest_file, digest_of, digest_tree, open_cohort, read_tsv, write_tsv
from pipeline.errors import DataError
from pipeline.layout import MODEL_FILE, WEIGHTS_FILE
from pipeline.runner import StageContext


def test_attacks_never_learn_who_is_a_member(cohort: Cohort) -> None:
    asked, n_left_out = ask_about(cohort, setting_of(cohort))
    assert {(case.split, case.source, len(case.attributes)) for case in asked.targets.cases} == {("n/a", "n/a", 0)}
    assert list(asked.targets.subjects) == sorted(asked.targets.subjects)
    # Scores find their way back to the persons.
    by_name = {"nearest-neighbour": np.array([float(int(subject, 16)) for subject in asked.targets.subjects])}
    expected = [float(int(cases[0].subject, 16)) for cases in asked.persons]
    assert asked.per_person(by_name)["nearest-neighbour"].tolist() == expected
    assert [cases[0].split for cases in asked.persons] == ["train"] * 12 + ["test"] * 12
    assert asked.is_member.tolist() == [True] * 12 + [False] * 12
    assert n_left_out == 0


def test_a_person_on_both_sides_is_refused(cohort: Cohort) -> None:
    one = cohort.split("train")[0]
    twice = replace(
        cohort,
        cases=tuple(
            replace(case, attributes={**case.attributes, "person": one.person}) if case.split == "test" else case
            for case in cohort.cases
        ),
    )
    with pytest.raises(DataError, match="a person on both sides"):
        ask_about(twice, setting_of(cohort))


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
    return stage.run(StageContext(config_of(4), run_dir, out, 3, tracker)), tracker


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
    assert content["release"] == "dataset"
    assert content["verdicts"]["dataset"]["verdict"] == content["verdict"]
    assert set(content["verdicts"]) == {"dataset", "generator"}
    assert content["policy"]["auc_limit"]["dataset"]["value"] == 0.6
    found = {attack["name"]: attack["threat_model"] for attack in content["attacks"]}
    assert found == {attack.name: attack.threat_model for attack in ATTACKS}
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
        assert (figure["n_patients"], figure["n_references"]) == (11, 4)
        assert figure["auc_ci"][0] <= figure["auc"] <= figure["auc_ci"][1]
        assert figure["threat_model"] in ("dataset", "model")
    # Memberships dealt out anew for every paired figure, and the sides by those without shadows.
    assert len(content["controls"]["negative"]) == 12 + 9
    # Copies at two shares seen by five attacks, a memory, and the whole way of ten attacks.
    assert len(content["controls"]["positive"]) == 2 * 5 + 1 + 10
    assert set(content["sensitivity"]) == {figure["attack"] for figure in content["paired"]}
    assert {figure["attack"] for figure in content["paired"]} == {a.name for a in ATTACKS} - {"discriminator"}
    for control in (*content["controls"]["negative"], *content["controls"]["positive"]):
        assert {"name", "expected", "observed", "behaved"} <= set(control)
    assert {"n_near_duplicates", "excess_p", "recall", "false_alarms"} <= set(content["copies"])
    assert set(content["copies"]["levels"]) == {"scan", "tumor", "labels"}
    for found in content["copies"]["levels"].values():
        assert (found["n_persons"], found["n_copies"] <= found["n_near_duplicates"]) == (11, True)
        assert found["recall_ci"][0] <= found["recall"] <= found["recall_ci"][1]
        assert sum(one["n"] for one in found["by_transformation"].values()) == 11
    assert {row["group"] for row in content["subgroups"]} == {
        f"{size} third of tumours" for size in ("smallest", "middle", "largest")
    }
    assert content["power"]["sentence"]
    assert content["patients_needed"]["fpr_0.01"] == 299
    assert content["bound_to"] == {
        "generator": digest_file(run_dir / "model" / WEIGHTS_FILE),
        "synthetic": digest_of(digest_tree(run_dir / "synthetic")),
        "policy": digest_file(DEFAULT_FILE),
    }


def test_the_page_names_the_policy_and_where_it_is_weaker_than_the_shipped_one(
    audited: tuple[Path, RecordingTracker], tmp_path: Path
) -> None:
    assert "Limits: those of policy &#x27;default&#x27;, the shipped one." in audit_section(audited[0])
    folder = shutil.copytree(audited[0], tmp_path / "audit")
    content = json.loads((folder / "audit.json").read_text())
    content["policy"]["name"] = "house"
    content["policy"]["auc_limit"]["dataset"]["value"] = 0.95
    (folder / "audit.json").write_text(json.dumps(content))
    words = "policy &#x27;house&#x27;, weaker than the shipped one in: AUC limit of attacks on the data set 0.95"
    assert words in audit_section(folder)


def test_eleven_patients_and_four_references_never_pass(audited: tuple[Path, RecordingTracker]) -> None:
    content = json.loads((audited[0] / "audit.json").read_text())
    assert content["verdict"] != "pass"
    if content["verdict"] == "unresolved":
        assert any("4 reference generators" in reason for reason in content["reasons"])


def test_audit_writes_scores_and_risks_of_every_patient(run_dir: Path, audited: tuple[Path, RecordingTracker]) -> None:
    out = audited[0]
    sides = {case.subject: case.split for case in open_cohort(run_dir / "cohort").split("train", "test")}
    with (out / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ATTACKS) * 11
    assert all(row["member"] == str(int(sides[row["patient"]] == "train")) for row in rows)
    with (out / "patients.csv").open(encoding="utf-8") as file:
        patients = list(csv.DictReader(file))
    assert {row["patient"]: row["split"] for row in patients} == sides
    names = [name.removesuffix("_ci") for name in patients[0] if name.endswith("_ci")]
    assert set(names) == {a.name for a in ATTACKS if not a.needs_shadows} - {"discriminator"}
    p_values = [float(row["p"]) for row in patients]
    assert p_values == sorted(p_values)
    assert all(0 < p <= 1 for p in p_values)
    for name in ("roc", "nearest_pairs"):
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    # References' scans and checkpoints are not kept: they are made of real patients.
    kept = {path.name for path in (out / "references" / "01").iterdir()}
    assert kept == {"scores.json", MODEL_FILE, WEIGHTS_FILE}


def test_audit_records_its_figures_without_a_patient(audited: tuple[Path, RecordingTracker]) -> None:
    tracker = audited[1]
    names = [attack.name for attack in ATTACKS]
    paired = [f"paired_auc/{name}" for name in names if name != "discriminator"]
    assert set(tracker.values) == {*(f"auc/{name}" for name in names), *paired}
    assert tracker.pictures == ["figures/roc.png"]
    assert set(tracker.tagged) == {"verdict"}
    assert {row["name"] for row in tracker.tables["attacks"]} == set(names)


def test_audit_cut_off_and_resumed_ends_with_the_same_bytes(
    run_dir: Path, audited: tuple[Path, RecordingTracker], tmp_path: Path
) -> None:
    # The first reference is finished, the second was killed while its scores were written.
    shutil.copytree(audited[0] / "references", tmp_path / "audit" / "references")
    second = tmp_path / "audit" / "references" / "02"
    whole = (second / "scores.json").read_text()
    (second / "scores.json").unlink()
    (second / "scores.json.tmp").write_text(whole[: len(whole) // 2])
    audit(run_dir, tmp_path / "audit")
    assert digest_tree(tmp_path / "audit") == digest_tree(audited[0])


def test_audit_from_the_start_gives_the_same_bytes(
    run_dir: Path, audited: tuple[Path, RecordingTracker], tmp_path: Path
) -> None:
    summary, _ = audit(run_dir, tmp_path / "audit")
    assert digest_tree(tmp_path / "audit") == digest_tree(audited[0])
    assert summary["attacks"] == len(ATTACKS)
    assert set(summary) == {"verdict", "attacks", "largest_auc", "largest_paired_auc", "controls_behaved"}


def test_an_empty_side_of_the_split_is_refused(run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir / "cohort", tmp_path / "cohort")
    table = tmp_path / "cohort" / "participants.tsv"
    write_tsv(table, [{**row, "split": "train"} for row in read_tsv(table)])
    with pytest.raises(DataError, match="a side of the split is empty"):
        audit(tmp_path, tmp_path / "audit")
