"""Verification: an intact release has no problems, and nothing that was changed goes unseen."""

import gzip
import json
import shutil

import pytest
from export_builders import REASON, audit_under, build_run, export, write_policy
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cohort import digest_file
from pipeline.export.bids import DESCRIPTION
from pipeline.export.gate import BOUND_NAMES
from pipeline.export.verify import verify_release


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
    # It knows the old checksums.
    (release / "done.json").unlink(missing_ok=True)


def test_an_intact_release_has_no_problems_and_no_warnings(passed_run):
    result = verify_release(passed_run / "release")
    assert (result.problems, result.warnings) == ([], [])
    n_files = sum(path.is_file() for path in (passed_run / "release").rglob("*"))
    assert result.n_files == n_files - 3  # the manifest, its checksum, done.json
    assert result.verdict == "pass under policy 'default', the shipped one"


def test_a_policy_weaker_than_the_shipped_one_is_a_warning_that_says_where(tmp_path):
    build_run(tmp_path, n_cases=1)
    policy = write_policy(tmp_path / "house.yaml", planted_auc=0.55)
    audit_under(tmp_path, policy)
    out, _ = export(tmp_path, policy=policy)
    result = verify_release(out)
    weaker = "AUC that a planted leak must reach 0.55 instead of 0.8"
    words = f"pass under policy 'house', weaker than the shipped one in: {weaker}"
    assert (result.problems, result.warnings, result.verdict) == ([], [words], words)
    shown = CliRunner().invoke(app, ["verify", str(out)])
    assert shown.exit_code == 0
    assert f"warning: {words}\n" in shown.output
    assert f"files verified; verdict of the audit: {words}\n" in shown.output
    # Told from the numbers, whatever the manifest says of them.
    reseal(out, lambda manifest: manifest.update(weaker_than_shipped=[], verdict_in_words="pass"))
    assert verify_release(out).warnings == [words]


def test_an_override_is_a_warning_and_no_problem(tmp_path):
    build_run(tmp_path, "fail")
    out, _ = export(tmp_path, REASON)
    result = verify_release(out)
    assert result.problems == []
    assert len(result.warnings) == 1
    assert REASON in result.warnings[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(note="Jane Doe, born 1950-01-01"),
        lambda record: record["summary"].update(comment="Jane Doe"),
        lambda record: record["summary"].update({"Jane Doe, born 1950-01-01": 1}),
        lambda record: record["files"].update({"manifest.json": "Jane Doe"}),
        lambda record: record.update(upstream={"audit": "Jane Doe"}),
        lambda record: record.update(code="Jane_Doe_1950"),
        lambda record: record["files"].update({"jane_doe.txt": "0" * 64}),
        lambda record: record.update(code="Jane Doe"),
        lambda record: record.update(digest="Jane Doe"),
        lambda record: record.pop("files"),
    ],
)
def test_nothing_can_hide_in_the_record_that_no_manifest_names(release, change):
    assert verify_release(release).problems == []
    path = release / "done.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    assert verify_release(release).problems == ["done.json: not as the export wrote it; ask for a whole release"]
    path.unlink()
    (release / "fingerprint.txt").write_text("Jane Doe")
    assert "expected a fingerprint and nothing else" in verify_release(release).problems[0]


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


@pytest.mark.parametrize("name", ["README.md", "LICENSE.txt", "audit.json", "croissant.json"])
def test_verify_misses_a_page_that_the_manifest_leaves_out_too(release, name):
    (release / name).unlink()
    reseal(release, lambda manifest: manifest.update(files=[x for x in manifest["files"] if x["path"] != name]))
    assert f"manifest.json: names no {name}; ask for a whole release" in verify_release(release).problems


def test_verify_misses_scans_that_the_manifest_leaves_out_too(release):
    shutil.rmtree(release / "bids")
    reseal(release, lambda manifest: manifest.update(files=[x for x in manifest["files"] if "bids" not in x["path"]]))
    assert verify_release(release).problems == ["manifest.json: names no scan in bids/; ask for a whole release"]


@pytest.mark.parametrize("value", [None, False, "no"])
def test_verify_wants_the_mark_that_a_release_is_synthetic(release, value):
    reseal(release, lambda manifest: manifest.update(synthetic=value))
    (problem,) = verify_release(release).problems
    assert "does not say that the release is synthetic" in problem


@pytest.mark.parametrize("policy", [None, {}, "default", {"auc_limit": 0.6}])
def test_verify_finds_a_missing_or_malformed_policy(release, policy):
    reseal(release, lambda manifest: manifest.update(policy=policy))
    result = verify_release(release)
    assert result.verdict == ""
    assert any("no policy, or a malformed one" in problem for problem in result.problems)
    assert any("another policy" in problem for problem in result.problems)


def test_an_audit_bound_to_nothing_does_not_fit_a_manifest_of_nothing(release):
    path = release / "audit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bound_to": dict.fromkeys(BOUND_NAMES)}))
    changed = {"path": "audit.json", "sha256": digest_file(path), "size": path.stat().st_size}

    def change(manifest):
        manifest["files"] = [changed if item["path"] == "audit.json" else item for item in manifest["files"]]
        for key in ("generator", "synthetic_cohort", "policy_sha256"):
            del manifest[key]

    reseal(release, change)
    assert verify_release(release).problems == [
        "manifest.json: does not say which generator, cohort and policy were audited"
    ]


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


@pytest.mark.parametrize("key", ["generator", "synthetic_cohort", "policy_sha256"])
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
