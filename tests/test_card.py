"""The card and what stands beside it: all that a receiver must know, nothing of a patient."""

import json

import pytest
from export_builders import REASON, audit_under, build_audit, build_run, edit_audit, export, write_policy

from pipeline.cohort import digest_file
from pipeline.errors import DataError
from pipeline.export.public_audit import public_audit


def test_the_public_audit_keeps_figures_and_drops_patients(tmp_path):
    build_run(tmp_path)
    audit = public_audit(build_audit(tmp_path, "pass") | {"power": {"smallest_auc": 0.7, "patients": ["x"]}})
    assert "patients" not in audit
    assert audit["power"] == {"smallest_auc": 0.7}
    assert audit["attacks"][0]["auc"] == 0.512
    assert audit["copies"] == {"n_near_duplicates": 0, "recall": 0.98}


def test_the_card_names_a_control_that_misbehaved(tmp_path):
    build_run(tmp_path, "invalid", n_cases=1)
    planted = [{"name": "planted", "expected": 1.0, "observed": 0.5, "behaved": False}]
    edit_audit(tmp_path, lambda audit: audit | {"controls": {**audit["controls"], "positive": planted}})
    out, _ = export(tmp_path, REASON)
    assert "1 of 2 misbehaved (planted)" in (out / "README.md").read_text()


def test_a_card_can_be_made_from_an_audit_with_the_least_there_can_be(tmp_path):
    build_run(tmp_path, n_cases=1)
    edit_audit(tmp_path, lambda audit: {key: audit[key] for key in ("verdict", "bound_to", "policy")})
    card = (export(tmp_path)[0] / "README.md").read_text()
    assert "none were run" in card
    assert "nothing is recorded as unresolved" in card


def test_a_malformed_audit_table_is_refused():
    with pytest.raises(DataError, match="malformed"):
        public_audit({"attacks": ["nearest"]})


def test_the_card_says_what_a_receiver_must_know(passed_run):
    card = (passed_run / "release" / "README.md").read_text()
    assert card.splitlines()[0].startswith("# SYNTHETIC")
    for text in (
        "4 mm",
        "| small (below 25 ml) | 2 | 0 |",
        "| medium (25 to 60 ml) | 1 | 0 |",
        "Privacy audit: **pass under policy 'default', the shipped one**.",
        "0.512 (0.400 to 0.620)",
        "Dice rose by 0.01 in this run. Few patients.",
        "too few references",
        "at a false positive rate of 0.01",
        "synthcohort verify RELEASE",
        "only a signature counts, and this release has none",
    ):
        assert text in card
    assert "Released against" not in card


def test_an_override_stands_at_the_top_of_the_card_and_in_the_manifest(tmp_path):
    build_run(tmp_path, "invalid")
    out, _ = export(tmp_path, REASON)
    first_lines = "\n".join((out / "README.md").read_text().splitlines()[:10])
    assert REASON in first_lines
    assert "invalid" in first_lines
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["override"] == {"reason": REASON}
    assert manifest["verdict"] == "invalid"


def test_a_pass_under_a_policy_weaker_than_the_shipped_one_says_so_on_card_and_manifest(tmp_path):
    build_run(tmp_path, n_cases=1)
    policy = write_policy(tmp_path / "house.yaml", auc_limit__dataset=0.95, min_patients_a_side=3)
    audit_under(tmp_path, policy)
    out, _ = export(tmp_path, policy=policy)
    weaker = ["AUC limit of attacks on the data set 0.95 instead of 0.6", "persons a side 3 instead of 20"]
    words = f"pass under policy 'house', weaker than the shipped one in: {'; '.join(weaker)}"
    assert (out / "README.md").read_text().count(words) == 2
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["verdict"] == "pass"
    assert manifest["verdict_in_words"] == words
    assert manifest["policy"]["name"] == "house"
    assert manifest["policy_sha256"] == digest_file(tmp_path / "house.yaml")
    assert manifest["weaker_than_shipped"] == weaker


def test_an_override_under_another_policy_names_it_on_the_card(tmp_path):
    build_run(tmp_path, "fail", n_cases=1)
    policy = write_policy(tmp_path / "house.yaml", auc_limit__dataset=0.55)
    audit_under(tmp_path, policy)
    out, _ = export(tmp_path, REASON, policy=policy)
    assert "under policy 'house', nowhere weaker than the shipped one" in (out / "README.md").read_text()


def test_the_licence_is_named_by_its_deed_or_by_its_id(tmp_path):
    build_run(tmp_path, n_cases=1)
    out, _ = export(tmp_path)
    assert "https://creativecommons.org/licenses/by/4.0/" in (out / "LICENSE.txt").read_text()
    out, _ = export(tmp_path, license="CC0-1.0")
    assert "CC0-1.0" in (out / "LICENSE.txt").read_text()


def test_croissant_describes_files_that_are_there(passed_run):
    release = passed_run / "release"
    content = json.loads((release / "croissant.json").read_text())
    assert content["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    table, images, maps = content["distribution"]
    assert table["sha256"] == digest_file(release / table["contentUrl"])
    assert sum(len(list(release.glob(pattern))) for pattern in images["includes"]) == 3 * 4
    assert sum(len(list(release.glob(pattern))) for pattern in maps["includes"]) == 3 * 2


def test_a_missing_gain_is_said_on_the_card(tmp_path):
    build_run(tmp_path, n_cases=1)
    (tmp_path / "evaluation" / "gain.json").unlink()
    out, _ = export(tmp_path)
    assert "has not been measured" in (out / "README.md").read_text()
