"""The export stage on tiny cohorts: what is in a release, and what never gets into one."""

import hashlib
import json
import re
import shutil

import pytest
from export_builders import (
    PSEUDONYM,
    REASON,
    audit_under,
    build_audit,
    build_run,
    edit_audit,
    export,
    write_policy,
    write_records,
)

from pipeline.audit.policy import load_policy
from pipeline.cohort import digest_file, digest_tree
from pipeline.errors import DataError, GateRefused
from pipeline.export.manifest import list_files
from pipeline.export.verify import verify_release


def texts(release):
    return {path: path.read_text() for path in release.rglob("*") if path.suffix in {".json", ".md", ".tsv", ".txt"}}


def test_a_release_has_the_names_that_receivers_expect(passed_run):
    names = {path.name for path in (passed_run / "release").iterdir()} - {"done.json"}
    expected = "README.md LICENSE.txt audit.json bids croissant.json manifest.json manifest.json.sha256"
    assert names == set(expected.split())


def test_the_stage_returns_what_the_release_is(tmp_path):
    build_run(tmp_path, "unresolved")
    _, summary = export(tmp_path, REASON)
    assert summary["verdict"] == "unresolved"
    assert summary["overridden"] is True
    assert summary["files"] == 3 * 12 + 8 + 4  # cases; beside them in bids/; at the top


@pytest.mark.parametrize("verdict", ["fail", "unresolved", "invalid"])
def test_a_refused_export_writes_nothing(tmp_path, verdict):
    build_run(tmp_path, verdict)
    with pytest.raises(GateRefused):
        export(tmp_path)
    assert [path.name for path in (tmp_path / "release").iterdir()] == ["fingerprint.txt"]


def test_a_cohort_that_changed_after_its_audit_is_refused_even_with_a_reason(tmp_path):
    build_run(tmp_path, "unresolved")
    (tmp_path / "synthetic" / "README.md").write_text("changed")
    with pytest.raises(GateRefused, match="the synthetic cohort changed"):
        export(tmp_path, REASON)


# Audits that do not belong: none of them is lifted by a reason.


def test_an_edited_audit_is_refused(tmp_path):
    build_run(tmp_path, "fail", n_cases=1)
    path = tmp_path / "audit" / "audit.json"
    path.write_text(path.read_text().replace('"fail"', '"pass"', 1))
    with pytest.raises(GateRefused, match=r"audit\.json was changed after the audit wrote it"):
        export(tmp_path, REASON)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("{"),
        lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"files": {}})),
        lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"files": None})),
    ],
    ids=["no record", "damaged record", "record without files", "record with no list of files"],
)
def test_an_audit_without_a_record_of_it_is_refused(tmp_path, damage):
    build_run(tmp_path, n_cases=1)
    damage(tmp_path / "audit" / "done.json")
    with pytest.raises(GateRefused, match=r"no record of how audit\.json was written"):
        export(tmp_path, REASON)


def bring(folder, run_dir, other):
    """Replace a folder of a run by that of another run."""
    shutil.rmtree(run_dir / folder)
    shutil.copytree(other / folder, run_dir / folder)


@pytest.fixture
def two_runs(tmp_path):
    """Make two runs that differ in cohort, generator and synthetic cohort; the second passed, the first failed."""
    one, other = tmp_path / "one", tmp_path / "other"
    build_run(one, "fail", n_cases=1)
    build_run(other, n_cases=2)
    (other / "model" / "generator.safetensors").write_bytes(b"other weights")
    with (other / "cohort" / "participants.tsv").open("a") as table:
        table.write("sub-fedcba9876543210\tphantom\ttrain\tfedcba9876543210\n")
    (other / "audit" / "audit.json").write_text(json.dumps(build_audit(other, "pass")))
    write_records(other)
    export(other)
    return one, other


def test_the_audit_of_another_run_is_refused(two_runs):
    one, other = two_runs
    shutil.copyfile(other / "audit" / "audit.json", one / "audit" / "audit.json")
    with pytest.raises(GateRefused, match="was changed after the audit wrote it"):
        export(one, REASON)
    # With its record beside it.
    bring("audit", one, other)
    with pytest.raises(GateRefused, match="the audit was made with another"):
        export(one, REASON)


@pytest.mark.parametrize("folder", ["cohort", "model", "synthetic"])
def test_an_audit_of_another_cohort_generator_or_synthetic_cohort_is_refused(two_runs, folder):
    one, other = two_runs
    bring(folder, other, one)
    with pytest.raises(GateRefused, match=f"the audit was made with another {folder}/"):
        export(other, REASON)


@pytest.mark.parametrize(
    ("folder", "name"), [("model", "the generator"), ("synthetic", "the synthetic cohort")], ids=["model", "synthetic"]
)
def test_another_generator_or_synthetic_cohort_under_the_old_record_is_refused(two_runs, folder, name):
    one, other = two_runs
    record = (other / folder / "done.json").read_text()
    bring(folder, other, one)
    (other / folder / "done.json").write_text(record)
    with pytest.raises(GateRefused, match=f"looked at other files: {name} changed since"):
        export(other, REASON)


@pytest.mark.parametrize("folder", ["cohort", "model", "synthetic"])
def test_an_audited_folder_without_a_record_is_refused(tmp_path, folder):
    build_run(tmp_path, n_cases=1)
    (tmp_path / folder / "done.json").unlink()
    with pytest.raises(GateRefused, match=f"another {folder}/ .* no record"):
        export(tmp_path, REASON)


def test_an_audit_under_another_policy_is_refused(tmp_path):
    build_run(tmp_path, n_cases=1)
    policy = write_policy(tmp_path / "house.yaml", auc_limit__dataset=0.95)
    with pytest.raises(GateRefused, match="other files: the policy changed since"):
        export(tmp_path, REASON, policy=policy)
    audit_under(tmp_path, policy)
    export(tmp_path, policy=policy)
    write_policy(tmp_path / "house.yaml", auc_limit__dataset=0.55)
    with pytest.raises(GateRefused, match="other files: the policy changed since"):
        export(tmp_path, REASON, policy=policy)
    (tmp_path / "house.yaml").unlink()
    with pytest.raises(GateRefused, match=r"policy house\.yaml not found"):
        export(tmp_path, REASON, policy=policy)


def test_same_inputs_give_the_same_bytes_in_another_folder(passed_run, tmp_path):
    build_run(tmp_path / "again")
    out, _ = export(tmp_path / "again")
    assert digest_tree(out) == digest_tree(passed_run / "release")


def test_nothing_of_a_single_patient_and_no_place_on_disk_is_in_a_release(passed_run):
    for path, text in texts(passed_run / "release").items():
        for private in (PSEUDONYM, "someone", "nearest_pairs", '"scores"', str(passed_run)):
            assert private not in text, path.name


def test_a_pseudonym_in_a_text_stops_the_export(tmp_path):
    build_run(tmp_path)
    with pytest.raises(DataError, match="pseudonym") as caught:
        export(tmp_path, title=f"Cohort of {PSEUDONYM}")
    assert PSEUDONYM not in str(caught.value)


def test_the_manifest_matches_sha256sum_and_names_files_in_order(passed_run):
    release = passed_run / "release"
    checksum = hashlib.sha256((release / "manifest.json").read_bytes()).hexdigest()
    assert (release / "manifest.json.sha256").read_text() == f"{checksum}  manifest.json\n"
    manifest = json.loads((release / "manifest.json").read_text())
    paths = [entry["path"] for entry in manifest["files"]]
    assert paths == sorted(paths)
    assert manifest["generator"] == hashlib.sha256(b"weights").hexdigest()
    assert manifest["policy"] == load_policy("default").model_dump(mode="json")
    assert manifest["verdict_in_words"] == "pass under policy 'default', the shipped one"
    assert manifest["weaker_than_shipped"] == []


def test_an_export_without_the_table_of_pseudonyms_is_refused(tmp_path):
    build_run(tmp_path, n_cases=1)
    (tmp_path / "cohort" / "participants.tsv").unlink()
    with pytest.raises(DataError, match="ingested cohort not found"):
        export(tmp_path)


@pytest.mark.parametrize("table", ["participant_id\tsource\n", "subject\tsource\nsomeone\tphantom\n"])
def test_an_export_whose_table_names_no_pseudonym_to_look_for_is_refused(tmp_path, table):
    build_run(tmp_path, n_cases=1)
    (tmp_path / "cohort" / "participants.tsv").write_text(table)
    with pytest.raises(DataError, match="names nobody"):
        export(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_gain_is_refused(tmp_path, content):
    build_run(tmp_path, n_cases=1)
    (tmp_path / "evaluation" / "gain.json").write_text(content)
    with pytest.raises(DataError, match=re.escape("gain.json")):
        export(tmp_path)


def plan_generator(run_dir, **model):
    """Turn a run's audit into one that gated the generator too; give the generator its description."""
    described = {"generator": {"dimensions": 2}, "condition_classes": ["a"], "modalities": ["t1"], "spacing_mm": 1.0}
    described |= {"shape": [8, 8, 8], "steps": 5, "privacy": None, "n_members": 24, **model}
    (run_dir / "model" / "model.json").write_text(json.dumps(described))
    edit_audit(run_dir, lambda audit: audit | {"release": "generator"})


def test_the_generator_goes_out_only_where_the_audit_gated_it(tmp_path, passed_run):
    assert not list((passed_run / "release").rglob("*.safetensors"))
    assert "generator/" not in (passed_run / "release" / "README.md").read_text()
    build_run(tmp_path)
    plan_generator(tmp_path)
    out, _ = export(tmp_path)
    assert (out / "generator" / "generator.safetensors").read_bytes() == b"weights"
    assert json.loads((out / "generator" / "model.json").read_text())["shape"] == [8, 8, 8]
    assert "generator/" in (out / "README.md").read_text()
    assert verify_release(out).problems == []
    # Nothing else of the folder: no checkpoint, no discriminator.
    assert sorted(path.name for path in (out / "generator").iterdir()) == ["generator.safetensors", "model.json"]


def test_a_generator_without_description_is_not_released(tmp_path):
    build_run(tmp_path)
    plan_generator(tmp_path)
    (tmp_path / "model" / "model.json").write_text("{")
    with pytest.raises(DataError, match=r"model\.json is missing or damaged"):
        export(tmp_path)


def rewrite(release, change):
    """Change a release and make its manifest fit again, as one would who adds a file by hand."""
    change(release)
    manifest = json.loads((release / "manifest.json").read_text())
    manifest["files"] = [
        {"path": name, "sha256": digest_file(release / name), "size": (release / name).stat().st_size}
        for name in sorted(list_files(release))
    ]
    (release / "manifest.json").write_text(json.dumps(manifest))
    (release / "manifest.json.sha256").write_text(f"{digest_file(release / 'manifest.json')}  manifest.json\n")
    return verify_release(release).problems


def test_verification_finds_a_generator_that_no_audit_gated_and_one_that_was_not_audited(tmp_path):
    build_run(tmp_path / "dataset")
    out, _ = export(tmp_path / "dataset")
    problems = rewrite(out, lambda release: (release / "extra.safetensors").write_bytes(b"weights"))
    assert any("the audit gated a data set only" in problem for problem in problems)
    build_run(tmp_path / "generator")
    plan_generator(tmp_path / "generator")
    out, _ = export(tmp_path / "generator")
    weights = out / "generator" / "generator.safetensors"
    assert any("another generator" in one for one in rewrite(out, lambda release: weights.write_bytes(b"others")))
    assert any("expected it and no other" in one for one in rewrite(out, lambda release: weights.unlink()))
