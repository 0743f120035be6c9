"""The evaluation finds a planted gain and harm, by real trainings; ``benchmarks/gain_planted.py``: at length."""

import json

import pytest
from segment_builders import Recorder

from pipeline.cohort import open_cohort
from pipeline.config import RunConfig
from pipeline.evaluate import stage
from pipeline.phantom.planted import EVALUATION, PlantedSizes, write_planted
from pipeline.runner import StageContext

SIZES = PlantedSizes(n_train=1, n_val=4, n_test=12, n_synthetic=24, spacing_mm=6.0)
# A gain is there once segmenters have learnt, near the plateau on val (900 steps bring no more); by then trainings
# differ by .1, which takes five of them. A harm of this size shows with three.
LENGTHS = {
    "gain": {"n_seeds": 5, "steps": 600},
    "harm": {"n_seeds": 3, "steps": 600},
    "none": {"n_seeds": 3, "steps": 600},
}


def compare(tmp_path, effect):
    """Evaluate a planted effect: the comparison of real-syn with real by Dice of the whole tumour."""
    section = {**EVALUATION, **LENGTHS[effect], "validate_every": LENGTHS[effect]["steps"] // 4}
    write_planted(tmp_path, effect, SIZES, seed=1)
    out = tmp_path / "evaluation"
    out.mkdir()
    config = RunConfig.model_validate({"evaluate": section, "compute": {"accelerator": "cpu", "workers": 2}})
    stage.run(StageContext(config, tmp_path, out, 1, Recorder()))
    found = json.loads((out / "gain.json").read_text())["comparisons"]
    return next(row for row in found if row["region"] == "WT" and row["metric"] == "dice")


def test_more_phantoms_like_the_real_ones_are_found_to_help(tmp_path):
    row = compare(tmp_path, "gain")
    assert row["ci"][0] > 0.0, row["sentence"]
    assert row["significant"]


def test_label_maps_of_others_are_found_to_harm(tmp_path):
    row = compare(tmp_path, "harm")
    assert row["ci"][1] < 0.0, row["sentence"]
    assert row["significant"]


def test_copies_of_the_training_patient_are_not_found_to_change_anything(tmp_path):
    row = compare(tmp_path, "none")
    assert row["ci"][0] <= 0.0 <= row["ci"][1], row["sentence"]
    assert not row["significant"]


@pytest.mark.parametrize("effect", ["gain", "harm", "none"])
def test_what_is_planted_is_what_it_is_said_to_be(tmp_path, effect):
    sizes = PlantedSizes(n_train=1, n_val=1, n_test=1, n_synthetic=3, spacing_mm=6.0)
    write_planted(tmp_path, effect, sizes, seed=1)
    real, synthetic = open_cohort(tmp_path / "cohort"), open_cohort(tmp_path / "synthetic")
    assert [len(real.split(side)) for side in ("train", "val", "test")] == [1, 1, 1]
    assert len(synthetic.cases) == 3
    first = real.split("train")[0]
    images = [case.image("flair").tobytes() for case in synthetic.cases]
    labels = [case.tumor_map().tobytes() for case in synthetic.cases]
    if effect == "none":
        assert set(images) == {first.image("flair").tobytes()}
        assert set(labels) == {first.tumor_map().tobytes()}
        return
    assert len(set(images)) == len(set(labels)) == 3
    # A tumour is bright on FLAIR: under label maps of others it is less so.
    bright = [float(case.image("flair")[case.tumor_map() == 2].mean()) for case in synthetic.cases]
    usual = [float(case.image("flair")[case.tissue_map() > 0].mean()) for case in synthetic.cases]
    contrast = sum(bright) / sum(usual)
    assert contrast > 1.3 if effect == "gain" else contrast < 1.3
