"""SynthStrip and HD-BET are called as their authors document it; these tests write stand-ins for them."""

import json
import sys

import numpy as np
import pytest

from pipeline.config import IngestSection, parse_config
from pipeline.errors import CaseError, ConfigError
from pipeline.ingest import brain
from pipeline.ingest.atlas import load_atlas
from pipeline.ingest.brain import check_brain, check_volume, extract_brain, keep_largest
from pipeline.ingest.brain_tools import PROGRAMS, run_tool
from pipeline.ingest.registration import Alignment
from pipeline.volumes import Volume

# Takes the brighter half for the brain; says what it was called with.
STAND_IN = """#!{python}
import json, os, pathlib, sys
import nibabel as nib, numpy as np
arguments = sys.argv[1:]
said = {{"arguments": arguments, "weights": os.environ.get("HD_BET_PARAMS", "")}}
pathlib.Path({log!r}).write_text(json.dumps(said))
image = nib.load(arguments[arguments.index("-i") + 1])
mask = (np.asarray(image.dataobj) > 5).astype(np.uint8)
if "-m" in arguments:
    out = arguments[arguments.index("-m") + 1]
else:
    out = arguments[arguments.index("-o") + 1].replace(".nii.gz", "_bet.nii.gz")
{body}
"""
WRITE = "nib.save(nib.Nifti1Image(mask, image.affine), out)"


@pytest.fixture
def head():
    array = np.zeros((12, 14, 10), np.float32)
    array[3:9, 4:10, 2:8] = 10
    return Volume(array, np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a stand-in for a tool on the PATH; return its weights and what it says."""

    def install(tool, body=WRITE):
        folder, log, weights = tmp_path / "bin", tmp_path / "log.json", tmp_path / "weights"
        folder.mkdir()
        weights.write_bytes(b"weights")
        for name in PROGRAMS[tool]:
            (folder / name).write_text(STAND_IN.format(python=sys.executable, log=str(log), body=body))
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return weights, log

    return install


@pytest.mark.parametrize("tool", PROGRAMS)
def test_the_mask_that_a_tool_finds_comes_back_on_the_heads_grid(tool, head, install):
    weights, log = install(tool)
    mask = run_tool(head, tool, weights)
    assert mask.array.dtype == bool
    np.testing.assert_array_equal(mask.array, head.array > 0)
    np.testing.assert_allclose(mask.affine, head.affine)
    said = json.loads(log.read_text())
    if tool == "synthstrip":
        assert said["arguments"][said["arguments"].index("--model") + 1] == str(weights)
    else:
        assert said["weights"] == str(weights)
        assert "--save_bet_mask" in said["arguments"]


@pytest.mark.parametrize("tool", PROGRAMS)
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit('no memory for Jane Doe')", r"failed \(exit code 1\); expected a brain mask"),
        ("pass", r"failed \(exit code 0\)"),
        ("nib.save(nib.Nifti1Image(mask, image.affine @ np.diag([2, 1, 1, 1])), out)", "brain mask on another grid"),
    ],
)
def test_a_tool_that_fails_is_the_cases_problem_and_not_quoted(tool, body, words, head, install):
    weights, _ = install(tool, body)
    with pytest.raises(CaseError, match=words) as caught:
        run_tool(head, tool, weights)
    assert "Jane" not in str(caught.value)


def test_a_tool_that_is_not_installed_or_has_no_weights_is_refused_in_words(head, install, tmp_path, monkeypatch):
    install("synthstrip")
    with pytest.raises(ConfigError, match=r"brain_weights: no such file"):
        run_tool(head, "synthstrip", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"none of hd-bet is on the PATH; install it, or use atlas"):
        run_tool(head, "hd-bet", tmp_path / "weights")
    with pytest.raises(ConfigError, match=r"brain_extraction: synthstrip needs its weights"):
        parse_config({"ingest": {"brain_extraction": "synthstrip"}}, "tests")


def test_a_mask_that_falls_apart_is_judged_by_its_largest_part(monkeypatch, tmp_path):
    atlas = load_atlas()
    halves = atlas.brain.array.copy()
    halves[halves.shape[0] // 2] = False
    monkeypatch.setattr(brain, "align_to_atlas", lambda head, is_stripped: Alignment(np.eye(4), 1.0))
    monkeypatch.setattr(brain, "run_tool", lambda head, tool, weights: Volume(mask, head.affine))
    config = IngestSection(brain_extraction="synthstrip", brain_weights=tmp_path / "weights")
    mask = halves
    with pytest.raises(CaseError, match="brain mask that shares"):
        extract_brain(atlas.t1, config)
    mask = atlas.brain.array.copy()
    mask[:3, :3, :3] = True
    np.testing.assert_array_equal(extract_brain(atlas.t1, config).array, keep_largest(atlas.brain.array))


@pytest.mark.parametrize("edge_mm", [80.0, 140.0])
def test_a_mask_found_in_a_head_has_the_volume_of_a_whole_brain(edge_mm):
    mask = Volume(np.ones((4, 4, 4), bool), np.diag([edge_mm / 4] * 3 + [1.0]))
    with pytest.raises(CaseError, match=f"brain mask of {edge_mm**3 / 1000:.0f} ml; expected 700 to 2300 ml"):
        check_brain(mask, mask.array)
    if edge_mm == 80.0:
        check_volume(mask)
