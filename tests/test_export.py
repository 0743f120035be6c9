"""The export stage on tiny cohorts: what is in a release, what is not, and what verification finds."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

from pipeline.cohort import CaseData, digest_file, digest_of, digest_tree, read_tsv, write_case, write_cohort_files
from pipeline.config import RunConfig, TrackingSection, parse_config
from pipeline.errors import DataError, GateRefused
from pipeline.export.bids import DESCRIPTION
from pipeline.export.card import public_audit
from pipeline.export.stage import run
from pipeline.export.verify import verify_release
from pipeline.labels import MODALITIES, LabelScheme
from pipeline.runner import StageContext
from pipeline.tracking import Tracking

REASON = "phantoms only, shown for teaching"
PSEUDONYM = "0123456789abcdef"
AFFINE = np.array([[4.0, 0, 0, -14], [0, 4, 0, -14], [0, 0, 4, -14], [0, 0, 0, 1]])
SHAPE = (8, 8, 8)
BIDS_VALIDATOR = shutil.which("bids-validator-deno")


def write_synthetic_cohort(root, n_cases=3, name="sub-syn{:04d}", split="n/a"):
    stream = np.random.default_rng(0)
    rows = []
    for number in range(1, n_cases + 1):
        tumor_map = np.zeros(SHAPE, np.uint8)
        tumor_map[1:4, 2:5, 2:5] = number % 3 + 1
        tissue_map = np.where(tumor_map > 0, 0, 2).astype(np.uint8)
        images = {modality: stream.integers(0, 1001, SHAPE).astype(np.int16) for modality in MODALITIES}
        subject = name.format(number)
        sidecars = {"t1": {"Donor": PSEUDONYM}}
        write_case(root, CaseData(subject.removeprefix("sub-"), images, tissue_map, tumor_map, AFFINE, sidecars))
        rows.append(
            {"participant_id": subject, "source": "recombine", "split": split, "person": "someone"}
            | {"volume_ml": f"{10.0 * number}", "hemisphere": "left", "enhancing_share": "0.30"}
            | {"asked_volume": "small", "asked_hemisphere": "left"}
        )
    write_cohort_files(root, "Synthetic", LabelScheme(), rows, "# Synthetic\n")


def build_audit(run_dir, verdict):
    bound_to = {
        "generator": digest_file(run_dir / "model" / "generator.safetensors"),
        "synthetic": digest_of(digest_tree(run_dir / "synthetic")),
    }
    rates = {"0.1": {"value": 0.1, "ci": [0.0, 0.4], "resolved": True}, "0.01": {"value": 0.0, "resolved": False}}
    attack = {"name": "nearest", "threat_model": "dataset", "n_members": 24, "n_nonmembers": 10, "auc": 0.512}
    attack |= {"auc_ci": [0.4, 0.62], "auc_either_sign": 0.512, "tpr_at_fpr": rates, "scores": [0.1, 0.2]}
    paired = {"attack": "nearest", "threat_model": "dataset", "n_patients": 34, "n_references": 8, "auc": 0.5}
    return {
        "verdict": verdict,
        "reasons": ["too few references"],
        "policy": {"auc_limit": 0.6},
        "unit": "patient",
        "attacks": [attack],
        "paired": [paired | {"auc_ci": [0.45, 0.55]}],
        "controls": {"negative": [{"name": "permuted", "expected": 0.5, "observed": 0.5, "behaved": True}]},
        "copies": {"n_near_duplicates": 0, "recall": 0.98, "nearest_pairs": [[PSEUDONYM, "syn0001"]]},
        "patients_needed": 299,
        "bound_to": bound_to,
        "patients": [{"patient": PSEUDONYM, "risk": 0.9}],
    }


def build_run(run_dir, verdict="pass", **cohort_options):
    """Make a run folder with all that the stage reads."""
    (run_dir / "model").mkdir(parents=True)
    (run_dir / "model" / "generator.safetensors").write_bytes(b"weights")
    write_synthetic_cohort(run_dir / "synthetic", **cohort_options)
    (run_dir / "cohort").mkdir()
    row = f"sub-{PSEUDONYM}\tphantom\ttrain\t{PSEUDONYM}\n"
    (run_dir / "cohort" / "participants.tsv").write_text(f"participant_id\tsource\tsplit\tperson\n{row}")
    (run_dir / "audit").mkdir()
    (run_dir / "audit" / "audit.json").write_text(json.dumps(build_audit(run_dir, verdict)))
    (run_dir / "evaluation").mkdir()
    (run_dir / "evaluation" / "gain.json").write_text(json.dumps({"summary": "Dice rose by 0.01 in this run."}))


def export(run_dir, reason="", **options):
    """Run the stage as the runner does; return its folder and summary."""
    out = run_dir / "release"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    (out / "fingerprint.txt").write_text("f")
    config = parse_config({"export": {"override_reason": reason, **options}, "compute": {"workers": 1}}, "test")
    assert isinstance(config, RunConfig)
    with Tracking(run_dir, TrackingSection(uri="none"), {}) as tracking:
        context = StageContext(config, run_dir, out, 0, tracking.start_stage("export", "f", "c"))
        summary = run(context)
    (out / "fingerprint.txt").unlink()
    (out / "done.json").write_text("{}")
    return out, summary


@pytest.fixture(scope="module")
def passed_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("passed")
    build_run(run_dir)
    export(run_dir)
    return run_dir


@pytest.fixture
def release(passed_run, tmp_path):
    """Copy the passed release, for tests that damage it."""
    return shutil.copytree(passed_run / "release", tmp_path / "release")


def reseal(release, change):
    """Edit the manifest and its checksum, as an adversary can."""
    path = release / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    (release / "manifest.json.sha256").write_text(f"{digest_file(path)}  manifest.json\n")


def texts(release):
    return {path: path.read_text() for path in release.rglob("*") if path.suffix in {".json", ".md", ".tsv", ".txt"}}


def test_a_release_has_the_names_that_receivers_expect(passed_run):
    names = {path.name for path in (passed_run / "release").iterdir()} - {"done.json"}
    expected = "README.md LICENSE.txt audit.json bids croissant.json manifest.json manifest.json.sha256"
    assert names == set(expected.split())


def test_an_intact_release_has_no_problems_and_no_warnings(passed_run):
    result = verify_release(passed_run / "release")
    assert (result.problems, result.warnings) == ([], [])
    n_files = sum(path.is_file() for path in (passed_run / "release").rglob("*"))
    assert result.n_files == n_files - 3  # the manifest, its checksum, done.json


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


@pytest.mark.parametrize("options", [{"name": "sub-p{:04d}"}, {"split": "train"}])
def test_cases_that_do_not_look_synthetic_are_not_exported(tmp_path, options):
    build_run(tmp_path, n_cases=1, **options)
    with pytest.raises(DataError, match="does not look like one"):
        export(tmp_path)


def test_same_inputs_give_the_same_bytes_in_another_folder(passed_run, tmp_path):
    build_run(tmp_path / "again")
    out, _ = export(tmp_path / "again")
    assert digest_tree(out) == digest_tree(passed_run / "release")


def test_every_nifti_says_that_it_is_synthetic_and_keeps_its_voxels(passed_run):
    paths = sorted((passed_run / "release").rglob("*.nii.gz"))
    assert len(paths) == 3 * 6
    for path in paths:
        image = nib.Nifti1Image.from_filename(path)
        assert image.header["descrip"].item().decode() == DESCRIPTION
        relative = path.relative_to(passed_run / "release" / "bids").with_suffix("")
        original = nib.Nifti1Image.from_filename(passed_run / "synthetic" / relative)
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(original.dataobj))
        np.testing.assert_array_equal(image.affine, original.affine)
        assert image.get_data_dtype() == original.get_data_dtype()


def test_compressed_files_hold_no_time_and_no_name(passed_run):
    for path in (passed_run / "release").rglob("*.nii.gz"):
        assert path.read_bytes()[3:8] == bytes(5)  # flags (a name would set one), modification time


def test_every_sidecar_says_that_its_file_is_synthetic_and_copies_nothing(passed_run):
    paths = list((passed_run / "release" / "bids").glob("sub-*/anat/*.json"))
    assert len(paths) == 3 * 6
    for path in paths:
        content = json.loads(path.read_text())
        assert content["Synthetic"] is True
        assert "Donor" not in content


def test_participants_have_public_columns_only(passed_run):
    rows = read_tsv(passed_run / "release" / "bids" / "participants.tsv")
    columns = "participant_id source volume_ml hemisphere enhancing_share asked_volume asked_hemisphere"
    assert list(rows[0]) == columns.split()
    assert [row["participant_id"] for row in rows] == ["sub-syn0001", "sub-syn0002", "sub-syn0003"]


def test_nothing_of_a_single_patient_and_no_place_on_disk_is_in_a_release(passed_run):
    for path, text in texts(passed_run / "release").items():
        for private in (PSEUDONYM, "someone", "nearest_pairs", '"scores"', str(passed_run)):
            assert private not in text, path.name


def test_a_pseudonym_in_a_text_stops_the_export(tmp_path):
    build_run(tmp_path)
    with pytest.raises(DataError, match="pseudonym") as caught:
        export(tmp_path, title=f"Cohort of {PSEUDONYM}")
    assert PSEUDONYM not in str(caught.value)


def test_the_public_audit_keeps_figures_and_drops_patients(tmp_path):
    build_run(tmp_path)
    audit = public_audit(build_audit(tmp_path, "pass") | {"power": {"smallest_auc": 0.7, "patients": ["x"]}})
    assert "patients" not in audit
    assert audit["power"] == {"smallest_auc": 0.7}
    assert audit["attacks"][0]["auc"] == 0.512
    assert audit["copies"] == {"n_near_duplicates": 0, "recall": 0.98}


def test_the_card_names_a_control_that_misbehaved(tmp_path):
    build_run(tmp_path, "invalid", n_cases=1)
    path = tmp_path / "audit" / "audit.json"
    audit = json.loads(path.read_text())
    audit["controls"]["positive"] = [{"name": "planted", "expected": 1.0, "observed": 0.5, "behaved": False}]
    path.write_text(json.dumps(audit))
    out, _ = export(tmp_path, REASON)
    assert "1 of 2 misbehaved (planted)" in (out / "README.md").read_text()


def test_a_card_can_be_made_from_an_audit_with_the_least_there_can_be(tmp_path):
    build_run(tmp_path, n_cases=1)
    path = tmp_path / "audit" / "audit.json"
    audit = json.loads(path.read_text())
    path.write_text(json.dumps({key: audit[key] for key in ("verdict", "bound_to")}))
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
        "0.512 (0.400 to 0.620)",
        "Dice rose by 0.01 in this run.",
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


def test_an_override_is_a_warning_and_no_problem(tmp_path):
    build_run(tmp_path, "fail")
    out, _ = export(tmp_path, REASON)
    result = verify_release(out)
    assert result.problems == []
    assert len(result.warnings) == 1
    assert REASON in result.warnings[0]


def test_the_licence_is_named_by_its_deed_or_by_its_id(tmp_path):
    build_run(tmp_path, n_cases=1)
    out, _ = export(tmp_path)
    assert "https://creativecommons.org/licenses/by/4.0/" in (out / "LICENSE.txt").read_text()
    out, _ = export(tmp_path, license="CC0-1.0")
    assert "CC0-1.0" in (out / "LICENSE.txt").read_text()


def test_the_manifest_matches_sha256sum_and_names_files_in_order(passed_run):
    release = passed_run / "release"
    checksum = hashlib.sha256((release / "manifest.json").read_bytes()).hexdigest()
    assert (release / "manifest.json.sha256").read_text() == f"{checksum}  manifest.json\n"
    manifest = json.loads((release / "manifest.json").read_text())
    paths = [entry["path"] for entry in manifest["files"]]
    assert paths == sorted(paths)
    assert manifest["generator"] == hashlib.sha256(b"weights").hexdigest()
    assert manifest["policy"] == {"auc_limit": 0.6}


def test_croissant_describes_files_that_are_there(passed_run):
    release = passed_run / "release"
    content = json.loads((release / "croissant.json").read_text())
    assert content["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    table, images, maps = content["distribution"]
    assert table["sha256"] == digest_file(release / table["contentUrl"])
    assert sum(len(list(release.glob(pattern))) for pattern in images["includes"]) == 3 * 4
    assert sum(len(list(release.glob(pattern))) for pattern in maps["includes"]) == 3 * 2


@pytest.mark.skipif(BIDS_VALIDATOR is None, reason="bids-validator-deno is not installed")
def test_the_bids_validator_accepts_a_release(passed_run):
    command = [BIDS_VALIDATOR, "--format", "json", str(passed_run / "release" / "bids")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    codes = {issue["code"] for issue in json.loads(done.stdout)["issues"]["issues"]}
    assert codes <= {"TOO_FEW_AUTHORS"}


def test_verify_finds_a_flipped_byte(release):
    path = next(release.rglob("*_FLAIR.nii.gz"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert [problem for problem in verify_release(release).problems if "checksum" in problem]


def test_verify_finds_a_file_that_was_cut_short(release):
    path = next(release.rglob("*_T2w.nii.gz"))
    path.write_bytes(path.read_bytes()[:-9])
    assert "size" in verify_release(release).problems[0]


def test_verify_finds_a_missing_file(release):
    next(release.rglob("*_T1w.nii.gz")).unlink()
    assert verify_release(release).problems[0].endswith("missing")


@pytest.mark.parametrize("name", ["extra.txt", "bids/done.json", "bids/.hidden", "bids/sub-syn0001/fingerprint.txt"])
def test_verify_finds_an_extra_file(release, name):
    (release / name).write_text("x")
    (problem,) = verify_release(release).problems
    assert name in problem


def test_verify_finds_an_edited_manifest(release):
    path = release / "manifest.json"
    path.write_text(path.read_text().replace('"pass"', '"fail"', 1))
    problems = verify_release(release).problems
    assert any("manifest.json.sha256" in problem for problem in problems)


def test_verify_finds_a_missing_checksum_of_the_manifest(release):
    (release / "manifest.json.sha256").unlink()
    assert "manifest.json.sha256" in verify_release(release).problems[0]


@pytest.mark.parametrize(
    "path",
    ["../secret.txt", "/etc/hostname", "bids/../../secret.txt", "C:\\x", "..\\x", ".", "", "a//b", "a\0b", "\ud800"],
)
def test_verify_reads_nothing_outside_the_release(release, path):
    secret = release.parent / "secret.txt"
    secret.write_text("secret")
    entry = {"path": path, "sha256": digest_file(secret), "size": secret.stat().st_size}
    reseal(release, lambda manifest: manifest["files"].append(entry))
    (problem,) = verify_release(release).problems
    assert "leads out" in problem


@pytest.mark.parametrize("entry", ["LICENSE.txt", {"path": "LICENSE.txt"}, {"path": 1, "sha256": "0", "size": 1}])
def test_verify_finds_a_malformed_entry(release, entry):
    reseal(release, lambda manifest: manifest["files"].append(entry))
    (problem,) = verify_release(release).problems
    assert "malformed" in problem


def test_verify_finds_an_entry_that_comes_twice(release):
    reseal(release, lambda manifest: manifest["files"].append(manifest["files"][0]))
    (problem,) = verify_release(release).problems
    assert "second time" in problem


def test_verify_finds_an_override_beside_a_pass(release):
    reseal(release, lambda manifest: manifest.update(override={"reason": REASON}))
    (problem,) = verify_release(release).problems
    assert "beside the verdict pass" in problem


@pytest.mark.parametrize("verdict", ["passed", None, ["pass"]])
def test_verify_finds_an_unknown_verdict(release, verdict):
    reseal(release, lambda manifest: manifest.update(verdict=verdict))
    assert any("unknown verdict" in problem for problem in verify_release(release).problems)


def test_verify_follows_no_links(release):
    path = next(release.rglob("*_FLAIR.nii.gz"))
    target = release.parent / "elsewhere.nii.gz"
    shutil.move(path, target)
    path.symlink_to(target)
    (problem,) = verify_release(release).problems
    assert "link" in problem


def test_verify_finds_a_folder_that_is_a_link(release):
    target = release.parent / "elsewhere"
    shutil.move(release / "bids" / "sub-syn0001", target)
    (release / "bids" / "sub-syn0001").symlink_to(target)
    assert any("link" in problem for problem in verify_release(release).problems)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"files": {}}', '{"files": [1]}', "[" * 100_000, "\xff"])
@pytest.mark.parametrize("name", ["manifest.json", "audit.json"])
def test_damaged_json_is_a_problem_and_no_traceback(release, name, content):
    (release / name).write_bytes(content.encode("latin-1"))
    assert any(name in problem for problem in verify_release(release).problems)


@pytest.mark.parametrize(
    "override", [None, {}, {"reason": "because"}, {"reason": 5}, "a long enough reason, but no object"]
)
def test_verify_wants_a_reason_where_the_verdict_is_not_pass(release, override):
    reseal(release, lambda manifest: manifest.update(verdict="fail", override=override))
    problems = verify_release(release).problems
    assert any("without an override" in problem for problem in problems)
    assert any("another verdict" in problem for problem in problems)


@pytest.mark.parametrize("key", ["generator", "synthetic_cohort"])
def test_verify_finds_an_audit_of_another_release(release, key):
    reseal(release, lambda manifest: manifest.update({key: "0" * 64}))
    (problem,) = verify_release(release).problems
    assert "bound to another" in problem


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda raw: raw.replace(DESCRIPTION.encode(), b"REAL - someone, a patient"), "not marked as synthetic"),
        (lambda raw: raw[:-100], "as many voxels"),
        (lambda raw: raw[:100], "NIfTI-1 header"),
        (lambda raw: b"\0" * len(raw), "NIfTI-1 header"),
    ],
)
@pytest.mark.parametrize("compress", [True, False])
def test_verify_looks_into_images_even_where_the_checksum_holds(release, damage, expected, compress):
    path = next(release.rglob("*_FLAIR.nii.gz"))
    name = path.relative_to(release).as_posix()
    raw = damage(gzip.decompress(path.read_bytes()))
    path.unlink()
    path = path if compress else path.with_suffix("")
    path.write_bytes(gzip.compress(raw) if compress else raw)
    changed = {"path": path.relative_to(release).as_posix(), "sha256": digest_file(path), "size": path.stat().st_size}

    def replace(manifest):
        manifest["files"] = [changed if entry["path"] == name else entry for entry in manifest["files"]]

    reseal(release, replace)
    (problem,) = verify_release(release).problems
    assert expected in problem


def test_verify_of_a_folder_without_a_manifest_is_a_problem(tmp_path):
    assert verify_release(tmp_path).problems == ["manifest.json: not found; expected it in a release folder"]
    assert verify_release(tmp_path / "nowhere").problems


def test_a_missing_gain_is_said_on_the_card(tmp_path):
    build_run(tmp_path, n_cases=1)
    (tmp_path / "evaluation" / "gain.json").unlink()
    out, _ = export(tmp_path)
    assert "has not been measured" in (out / "README.md").read_text()


def test_an_export_without_the_table_of_pseudonyms_is_refused(tmp_path):
    build_run(tmp_path, n_cases=1)
    (tmp_path / "cohort" / "participants.tsv").unlink()
    with pytest.raises(DataError, match="ingested cohort not found"):
        export(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_gain_is_refused(tmp_path, content):
    build_run(tmp_path, n_cases=1)
    (tmp_path / "evaluation" / "gain.json").write_text(content)
    with pytest.raises(DataError, match=re.escape("gain.json")):
        export(tmp_path)
