"""A release received from another institution in place of synthetic scans of one's own."""

import gzip
import json
import shutil

import numpy as np
import pytest
from conftest import TINY

from pipeline.cohort import digest_file, open_cohort
from pipeline.config import ComputeSection, parse_config
from pipeline.config_params import flatten_config
from pipeline.errors import ConfigError, DataError
from pipeline.evaluate.received import RECEIVED_FOLDER, open_received, remove_received
from pipeline.runner import plan_stages, run_stages

LOCAL = ComputeSection(accelerator="cpu", workers=1)
ARMS = {"arms": ["real-aug", "syn-aug"]}


def config_for(release, **changes):
    return parse_config({**TINY, "evaluate": {**TINY["evaluate"], **ARMS, "received_release": release, **changes}}, "x")


def test_the_cohort_of_a_release_is_the_one_that_was_released(finished_run, tmp_path):
    expected = open_cohort(finished_run / "synthetic")
    found, _ = open_received(finished_run / "release", tmp_path, LOCAL)
    assert found.modalities == expected.modalities
    assert found.scheme == expected.scheme
    assert [case.subject for case in found.cases] == [case.subject for case in expected.cases]
    for mine, theirs in zip(found.cases, expected.cases, strict=True):
        for name in expected.modalities:
            np.testing.assert_array_equal(mine.image(name), theirs.image(name))
        np.testing.assert_array_equal(mine.condition(found.scheme), theirs.condition(expected.scheme))
    remove_received(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_was_unpacked_before_a_kill_is_not_taken_for_whole(finished_run, tmp_path):
    (tmp_path / f"{RECEIVED_FOLDER}.tmp" / "sub-old").mkdir(parents=True)
    cohort, _ = open_received(finished_run / "release", tmp_path, LOCAL)
    assert len(cohort.cases) == TINY["generate"]["n_cases"]
    assert [path.name for path in tmp_path.iterdir()] == [RECEIVED_FOLDER]
    assert not (tmp_path / RECEIVED_FOLDER / "sub-old").exists()


def test_a_release_that_is_not_whole_is_refused(finished_run, tmp_path):
    release = tmp_path / "release"
    shutil.copytree(finished_run / "release", release)
    damaged = next(release.rglob("*_T1w.nii.gz"))
    damaged.write_bytes(gzip.compress(b"nothing"))
    with pytest.raises(DataError, match=r"expected an intact release, got 1 problems: .*_T1w\.nii\.gz"):
        open_received(release, tmp_path / "out", LOCAL)
    with pytest.raises(DataError, match=r"manifest\.json: not found"):
        open_received(tmp_path / "absent", tmp_path / "out", LOCAL)


def test_evaluation_on_a_received_release_needs_nothing_but_ones_own_scans(finished_run, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    shutil.copytree(finished_run / "cohort", run_dir / "cohort")
    config = config_for(str(finished_run / "release"))
    run_stages(config, run_dir, first="evaluate", last="evaluate")
    gain = json.loads((run_dir / "evaluation" / "gain.json").read_text())
    assert gain["synthetic"] == "received"
    manifest = finished_run / "release" / "manifest.json"
    verdict = json.loads(manifest.read_text())["verdict"]
    # What was released by override, under which verdict, and what nobody can know.
    assert gain["received"]["manifest_sha256"] == digest_file(manifest)
    assert gain["received"]["verdict"].startswith(f"{verdict} under ")
    assert f"the audit's verdict is {verdict}; released by override" in gain["received"]["warnings"][0]
    cautions = " ".join(gain["cautions"])
    assert f"Synthetic scans are those of a received release; its audit's verdict: {verdict} under " in cautions
    assert "It is not known whether persons behind the release are among these test patients" in cautions
    assert "released by override, for the reason: " in cautions
    assert "One generator at each share" in cautions
    assert {arm["name"]: arm["n_synthetic"] for arm in gain["arms"]} == {"real-aug": 0, "syn-aug": 4}
    assert not (run_dir / "evaluation" / RECEIVED_FOLDER).exists()
    assert plan_stages(config, run_dir)["evaluate"].holds
    with pytest.raises(ConfigError, match="--from evaluate: stage train has no finished result"):
        run_stages(config_for(None), run_dir, first="evaluate", last="evaluate")


def test_where_a_release_lies_changes_nothing_and_what_it_holds_does(finished_run, tmp_path):
    moved, other = tmp_path / "moved", tmp_path / "other"
    for folder in (moved, other):
        folder.mkdir()
        shutil.copy(finished_run / "release" / "manifest.json", folder)
    with (other / "manifest.json").open("a") as file:
        file.write("\n")
    paths = (finished_run / "release", moved, other)
    prints = [plan_stages(config_for(str(path)), tmp_path)["evaluate"].fingerprint for path in paths]
    assert prints[0] == prints[1] != prints[2]
    flat = flatten_config(config_for(str(moved)))
    assert flat["evaluate.received_release"].startswith("sha256:")
    assert not any(str(tmp_path) in text for text in flat.values())
