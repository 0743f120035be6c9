"""The stage evaluate at toy size: every arm, shares, the search, resume, and what is written."""

import csv
import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from segment_builders import SHAPE, Recipe, Recorder, tiny_evaluation

from pipeline.cohort import digest_tree
from pipeline.config import parse_config
from pipeline.config_evaluate import ArmName
from pipeline.errors import ConfigError, DataError
from pipeline.evaluate import cohorts, gain, mixing, stage, subgroups, trainings
from pipeline.evaluate.comparison import Planned
from pipeline.evaluate.experiment import check_cohorts, make_arms, open_experiment
from pipeline.evaluate.findings import Findings
from pipeline.evaluate.intervals import Statistics
from pipeline.evaluate.scores import Score
from pipeline.runner import StageContext
from pipeline.segmentation.arms import Mixing, deciding_arm
from pipeline.segmentation.sampling import ArmSampler
from pipeline.segmentation.surface import diagonal_mm


def test_the_stage_writes_the_same_bytes_after_a_kill(tmp_path, segment_run):
    config = tiny_evaluation()
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    recorder = Recorder()
    for folder in (whole, cut):
        folder.mkdir()
    summary = stage.run(StageContext(config, segment_run, whole, 7, recorder))
    # Two validations a training: killed in the second arm's first.
    with pytest.raises(KeyboardInterrupt):
        stage.run(StageContext(config, segment_run, cut, 7, Recorder(fail_after=2)))
    assert stage.run(StageContext(config, segment_run, cut, 7, Recorder())) == summary
    assert digest_tree(whole) == digest_tree(cut)
    assert not list(whole.rglob("*.safetensors"))
    check_outputs(whole, config, recorder)


def check_outputs(folder, config, recorder):
    gain = json.loads((folder / "gain.json").read_text())
    assert [arm["name"] for arm in gain["arms"]] == list(config.evaluate.arms)
    for arm in gain["arms"]:
        assert {"share", "regions", "n_patients", "n_seeds", "steps"} <= arm.keys()
        assert {"mean", "sd", "ci"} == arm["regions"]["WT"]["hd95"].keys()
    # 4 arms beside the baseline, and real-syn with real: 5 pairs, 3 regions, 2 metrics
    assert len(gain["comparisons"]) == 30
    assert [one["dice_val"] for one in gain["search"]] == [None]
    expected = {"arm", "baseline", "share", "region", "metric", "role", "delta", "ci", "p_holm", "sentence"}
    assert expected <= gain["comparisons"][0].keys()
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # Three test patients, and no other.
    assert {row["patient"] for row in rows} == {"s005", "s006", "s007"}
    names = {path.stem for path in (folder / "figures").iterdir()}
    # One share is no curve, and no group has five patients.
    assert names == {"arms", "gain", "segmentations", "slopes-dice", "slopes-hd95", "extremes"}
    assert {Path(image).stem for image in recorder.images} == names
    assert [step for step, _ in recorder.values["real-aug/dice_val"]] == [2, 4]
    assert len(recorder.tables["arms"]) == 5
    check_words(gain)


def check_words(gain):
    """One sentence on the main comparison; all that weakens it apart."""
    main = next(c for c in gain["comparisons"] if c["arm"] == "real-syn-aug" and c["baseline"] == "real-aug")
    assert main["sentence"].startswith(gain["summary"])
    assert gain["summary"].endswith(".")
    assert gain["summary"].count(". ") == 0
    assert "; better in " in gain["summary"]
    cautions = " ".join(gain["cautions"])
    assert "Whether more steps would help was not tried." in cautions
    assert gain["steps_check"] is None
    # Four steps teach nothing.
    assert "has not been learnt in" in cautions
    assert "Unreliable: 3 test patients" in cautions
    assert "One training per arm" in cautions
    assert gain["power"]["sentence"].startswith(
        "3 test patients and 1 training of each arm would find, with a probability of 80%, "
    )
    assert gain["power"]["sentence"].count("no gain, however large,") == 2
    assert (
        gain["rivals"]
        == "real-syn-aug was not compared with any rival that needs no generator (copypaste-aug, random-contrast-aug)."
    )
    roles = Counter((c["role"], c["metric"]) for c in gain["comparisons"])
    assert roles == {("primary", "dice"): 1, ("secondary", "dice"): 14, ("reported", "hd95"): 15}
    assert not gain["power"]["is_measured"]
    # One source and fewer than five patients of each size.
    assert gain["subgroups"] == [] or all(row["ci"] is None for row in gain["subgroups"])
    assert gain["fairness"].startswith("No subgroup is large enough")
    assert gain["filling"] == ""
    assert {"calibration_error", "brier", "surface_dice", "lesion_dice"} <= gain["arms"][0]["regions"]["WT"].keys()


@pytest.fixture(scope="module")
def full_plan():
    """Return a config with every arm at two shares, and a search of two candidates."""
    return tiny_evaluation(
        arms=get_args(ArmName),
        shares=[1.0, 0.5],
        search={"synthetic_shares": [0.25, 0.5], "paste_shares": [0.3, 0.6], "steps": 2},
        steps_check=True,
        comparisons=[["real-syn-aug", "real-aug"], ["syn", "real-aug"], ["real-syn", "real"], ["syn-aug", "syn"]],
    )


@pytest.fixture(scope="module")
def all_arms(full_plan, segment_run, tmp_path_factory):
    run_dir = shutil.copytree(segment_run, tmp_path_factory.mktemp("all") / "run")
    folder = run_dir / "evaluation"
    folder.mkdir()
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohorts, "repeat_recipe", Recipe())
        summary = stage.run(StageContext(full_plan, run_dir, folder, 7, recorder))
    return SimpleNamespace(folder=folder, summary=summary, recorder=recorder)


def test_every_arm_is_trained_at_every_share_and_those_without_real_scans_once(all_arms):
    gain = json.loads((all_arms.folder / "gain.json").read_text())
    found = {(arm["name"], arm["share"]) for arm in gain["arms"]}
    with_real = set(get_args(ArmName)) - {"syn", "syn-aug"}
    assert found == {(name, share) for name in with_real for share in (1.0, 0.5)} | {("syn", 0.0), ("syn-aug", 0.0)}
    assert len(gain["arms"]) == len(found) == 18
    folders = {path.name for path in (all_arms.folder / "trainings").iterdir()}
    assert {"real-1-0", "copypaste-aug-0.5-0", "syn-ft-aug-1-0", "syn-aug-0-0"} <= folders
    assert len(folders) == 18
    numbers = {(arm["name"], arm["share"]): (arm["n_real"], arm["n_synthetic"]) for arm in gain["arms"]}
    assert numbers["syn-ft", 0.5] == (2, 3)
    assert numbers["random-contrast-aug", 1.0] == (4, 3)
    assert numbers["syn-aug", 0.0] == (0, 3)
    with (all_arms.folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["arm"], float(row["share"])) for row in rows} == found


def test_no_interval_of_a_distance_reaches_beyond_the_image(all_arms):
    gain = json.loads((all_arms.folder / "gain.json").read_text())
    ends = [region["hd95"]["ci"][1] for arm in gain["arms"] for region in arm["regions"].values()]
    # Segmenters of four steps miss whole regions: some intervals end at the bound.
    assert max(ends) == pytest.approx(diagonal_mm(SHAPE, (4.0, 4.0, 4.0)))


def test_the_stage_runs_on_patches_of_volumes(tmp_path, segment_run, monkeypatch):
    shapes, draw = set(), ArmSampler.draw

    def drawn(*arguments):
        scan, labels = draw(*arguments)
        shapes.add((tuple(scan.shape), tuple(labels.shape)))
        return scan, labels

    monkeypatch.setattr(ArmSampler, "draw", drawn)
    arms = ["real-aug", "copypaste-aug", "random-contrast-aug"]
    config = tiny_evaluation(arms=arms, dimensions=3, network="dynunet", levels=2, patch_voxels=[8, 8, 8])
    stage.run(StageContext(config, segment_run, tmp_path, 7, Recorder()))
    gain = json.loads((tmp_path / "gain.json").read_text())
    assert [arm["name"] for arm in gain["arms"]] == arms
    # The field of view is four slices high, and no patch is higher: none has room for a tumour with its margin.
    assert shapes == {((4, 4, 8, 8, 4), (4, 1, 8, 8, 4))}
    assert "copypaste-aug was to paste a tumour into 50% of slices or patches and found a place in 0%" in str(gain)
    plain, pasted, contrasts = (arm["dice_val"] for arm in gain["arms"])
    assert plain == pasted
    assert plain != contrasts


def test_trainings_on_a_dask_cluster_give_the_same_bytes(tmp_path, segment_run):
    distributed = pytest.importorskip("distributed")
    config = tiny_evaluation(arms=["real-aug", "real-syn-aug"], n_seeds=2)
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    folders = [tmp_path / "here", tmp_path / "there"]
    with distributed.LocalCluster(**settings, host="127.0.0.1") as cluster:
        for folder, scheduler in zip(folders, ("local", cluster.scheduler_address), strict=True):
            folder.mkdir()
            compute = config.compute.model_copy(update={"scheduler": scheduler})
            of_place = config.model_copy(update={"compute": compute})
            stage.run(StageContext(of_place, segment_run, folder, 7, Recorder()))
    assert digest_tree(folders[0]) == digest_tree(folders[1])


def test_planned_pairs_are_compared_at_every_share_and_no_others(all_arms):
    gain = json.loads((all_arms.folder / "gain.json").read_text())
    pairs = {(c["arm"], c["baseline"], c["share"]) for c in gain["comparisons"]}
    at_both = {("real-syn-aug", "real-aug"), ("syn", "real-aug"), ("real-syn", "real")}
    # Neither of the last pair uses real scans: there is one comparison, whatever the share.
    assert pairs == {(*pair, share) for pair in at_both for share in (1.0, 0.5)} | {("syn-aug", "syn", 0.0)}
    words = {1.0: "with all real scans", 0.5: "with 50% of the real patients", 0.0: "without real scans"}
    assert all(f"against {c['baseline']} {words[c['share']]}" in c["sentence"] for c in gain["comparisons"])


def test_cheap_rivals_that_were_trained_are_told_of_though_not_planned(all_arms):
    gain = json.loads((all_arms.folder / "gain.json").read_text())
    assert gain["rivals"].startswith("real-syn-aug changes whole tumour Dice by ")
    for rival in ("copypaste-aug", "random-contrast-aug"):
        assert f"against {rival} with all real scans, which is not significant: " in gain["rivals"]
    assert gain["rivals"].count("95% CI") == 2
    assert not {"copypaste-aug", "random-contrast-aug"} & {c["baseline"] for c in gain["comparisons"]}


def test_two_shares_are_drawn_as_learning_curves(all_arms):
    names = {path.stem for path in (all_arms.folder / "figures").glob("learning-*.png")}
    assert names == {f"learning-{region}-{metric}" for region in ("WT", "TC", "ET") for metric in ("dice", "hd95")}


def test_the_predicted_slice_of_every_test_patient_is_kept(all_arms, real):
    slices = trainings.read_slices(all_arms.folder / "trainings" / "real-1-0")
    assert list(slices) == [case.subject for case in real.patients("test")]
    assert all(found.shape == SHAPE[:2] and found.dtype == np.uint8 for found in slices.values())


def test_groups_are_compared_with_what_the_plan_filled(monkeypatch, tmp_path, real):
    experiment = SimpleNamespace(real=real)
    patients = real.patients("test")
    scores = [
        Score(arm, seed, case.subject, "WT", "dice", value)
        for case in patients
        for seed in (0, 1)
        for arm, value in (("real-aug", 0.5), ("real-syn-aug", 0.6 + 0.01 * seed))
    ]
    planned = (Planned("real-syn-aug", "real-aug", 1.0, "WT", "dice", "primary"),)
    findings = Findings(experiment, (), (SimpleNamespace(scores=scores),), Statistics(200, 0.05, 1), planned)
    groups = {case.subject: {"volume": "small" if number else "large"} for number, case in enumerate(patients)}
    monkeypatch.setattr(gain, "group_patients", lambda *_: groups)
    monkeypatch.setattr(subgroups, "MIN_PATIENTS", 2)
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "synthetic" / "plan.tsv").write_text(
        "volume\tasked\tobtained\tseen\tsource\nsmall\t3\t3\t3\t1\nlarge\t1\t1\t1\t3\n"
    )
    context = StageContext(tiny_evaluation(), tmp_path, tmp_path, 7, Recorder())
    found = gain.compare_groups(context, findings)
    assert [(one.group, one.n_patients, one.filling.is_filled) for one in found[0].groups] == [("small", 2, True)]
    assert found[0].left_out == (("volume", "large", 1),)
    power = gain.measure_power(context, findings)
    assert power["is_measured"]
    assert "(measured standard deviations" in power["sentence"]
    assert power["sd_between_trainings_upper"] >= power["sd"]["between_trainings"]


def test_the_search_tries_each_candidate_on_val_and_each_kind_of_arm_takes_its_best(all_arms):
    gain = json.loads((all_arms.folder / "gain.json").read_text())
    tried = gain["search"]
    # Of two that were tried the better one is at an end.
    assert sum("share that was tried" in caution for caution in gain["cautions"]) == 3
    keys = ("arm", "synthetic_share", "paste_share", "steps", "n_seeds", "share")
    # As many for each rival.
    assert [tuple(one[key] for key in keys) for one in tried] == [
        ("real-syn-aug", 0.25, None, 2, 1, 1.0),
        ("real-syn-aug", 0.5, None, 2, 1, 1.0),
        ("copypaste-aug", None, 0.3, 2, 1, 1.0),
        ("copypaste-aug", None, 0.6, 2, 1, 1.0),
        ("random-contrast-aug", 0.25, None, 2, 1, 1.0),
        ("random-contrast-aug", 0.5, None, 2, 1, 1.0),
    ]
    assert all(one["dice_val_by_seed"] == [one["dice_val"]] for one in tried)
    chosen = {one["arm"]: one for one in tried if one["chosen"]}
    for name, one in chosen.items():
        assert one["dice_val"] == max(other["dice_val"] for other in tried if other["arm"] == name)
    for arm in gain["arms"]:
        decides = deciding_arm(arm["name"])
        if arm["name"] in ("real-syn", "real-syn-aug", "random-contrast-aug"):
            assert arm["synthetic_share"] == chosen[decides]["synthetic_share"]
        assert arm["paste_share"] == (chosen[decides]["paste_share"] if arm["name"] == "copypaste-aug" else 0.0)
        assert (arm["pasted_share"] > 0) == (arm["name"] == "copypaste-aug")
    # The second number is the seed's.
    folders = sorted(path.name for path in (all_arms.folder / "search").iterdir())
    assert folders == sorted(f"{name}-{number}-0" for name in chosen for number in (0, 1))


def test_several_shares_to_paste_without_the_arm_that_pastes_are_refused():
    with pytest.raises(ConfigError, match=r"search\.paste_shares: expected one, as copypaste-aug is no arm"):
        parse_config({"evaluate": {"search": {"paste_shares": [0.3, 0.6]}}}, "tests")


def test_shares_in_random_contrasts_without_the_arm_are_refused():
    with pytest.raises(ConfigError, match=r"search\.contrast_shares: random-contrast-aug is no arm"):
        parse_config({"evaluate": {"search": {"contrast_shares": [0.1]}}}, "tests")


def test_the_baseline_is_trained_with_twice_the_steps_and_both_figures_are_said(all_arms, full_plan):
    gain = json.loads((all_arms.folder / "gain.json").read_text())
    found, steps = gain["steps_check"], full_plan.evaluate.steps
    assert (found["arm"], found["share"], found["steps"]) == ("real-aug", 1.0, [steps, 2 * steps])
    first = json.loads((all_arms.folder / "trainings" / "real-aug-1-0" / "scores.json").read_text())
    longer = json.loads((all_arms.folder / "steps-check" / "real-aug-1" / "trial.json").read_text())
    assert found["dice_val"] == [max(first["dice_val"]), max(longer["dice_val"])]
    # Looked at as often.
    assert longer["steps"] == [2 * step for step in first["steps"]]
    assert found["plateau"] or found["sentence"] in gain["cautions"]
    assert not [caution for caution in gain["cautions"] if "was not tried" in caution]


@pytest.fixture
def recipe(monkeypatch):
    made = Recipe()
    monkeypatch.setattr(cohorts, "repeat_recipe", made)
    return made


@pytest.mark.usefixtures("recipe")
def test_the_candidate_that_is_best_on_val_is_chosen_and_the_first_of_even_ones(
    monkeypatch, tmp_path, own_segment_run, full_plan
):
    context = StageContext(full_plan, own_segment_run, tmp_path, 7, Recorder())
    experiment = open_experiment(context)
    for reached, expected, others in (((0.2, 0.3), 0.5, 0.3), ((0.3, 0.2), 0.25, 0.6), ((0.3, 0.3), 0.25, 0.3)):
        answered = (*reached, *reached[::-1], 0.4, 0.1)
        answers = iter(answered)
        monkeypatch.setattr(mixing, "iterate_trainings", lambda *_, answers=answers: answers)
        chosen, trials = mixing.choose_mixing(context, experiment)
        # Each rival takes what suits it, not what suits another; the second has the figures of the first, turned.
        assert chosen["real-syn-aug"].synthetic_share == expected
        assert chosen["copypaste-aug"].paste_share == others
        assert chosen["random-contrast-aug"].synthetic_share == 0.25
        assert [trial.dice_val for trial in trials] == [(value,) for value in answered]


def test_one_candidate_is_taken_without_a_training(tmp_path, segment_run):
    search = {"synthetic_shares": [0.5], "schedules": ["synthetic-first"], "n_synthetic": [2]}
    context = StageContext(tiny_evaluation(search=search), segment_run, tmp_path, 7, Recorder())
    experiment = open_experiment(context)
    chosen, trials = mixing.choose_mixing(context, experiment)
    assert chosen == {"real-syn-aug": Mixing(0.5, "synthetic-first", 2)}
    assert [trial.dice_val for trial in trials] == [()]
    assert not list(tmp_path.iterdir())
    arms = {arm.name: arm for arm, *_ in make_arms(context, experiment, chosen)}
    assert [len(arms[name].synthetic_cases) for name in ("real", "real-syn", "syn")] == [0, 2, 2]


@pytest.mark.usefixtures("recipe")
def test_a_search_that_was_killed_does_not_repeat_what_was_done(monkeypatch, tmp_path, own_segment_run, full_plan):
    context = StageContext(full_plan, own_segment_run, tmp_path, 7, Recorder(fail_after=1))
    experiment = open_experiment(context)
    # The first candidate's figure is recorded, those after it are not.
    with pytest.raises(KeyboardInterrupt):
        mixing.choose_mixing(context, experiment)
    trained, honest = [], trainings.train_segmenter
    monkeypatch.setattr(
        trainings, "train_segmenter", lambda plan, *rest: trained.append(plan.description) or honest(plan, *rest)
    )
    (tmp_path / "search" / "real-syn-aug-1-0" / "trial.json").unlink()
    again = dataclasses.replace(context, tracker=Recorder())
    mixing.choose_mixing(again, experiment)
    done = ("search real-syn-aug-0-0",)
    expected = [f"search {arm}-{number}-0" for arm in mixing.list_searches(full_plan.evaluate) for number in (0, 1)]
    assert trained == [name for name in expected if name not in done]


@pytest.mark.parametrize("missing", ["train", "val", "test"])
def test_a_cohort_without_one_side_of_the_split_is_refused(real, synthetic, missing):
    kept = SimpleNamespace(split=lambda side: () if side == missing else real.cases)
    with pytest.raises(DataError, match=f"no {missing} patients"):
        check_cohorts(kept, synthetic)


def test_a_val_without_any_tumour_is_refused_before_generators_are_trained(real, synthetic, monkeypatch):
    monkeypatch.setattr(type(real), "patients", lambda *_: (SimpleNamespace(tumor_map=lambda: np.zeros(SHAPE)),))
    with pytest.raises(DataError, match="no patient of val has a tumour"):
        check_cohorts(real, synthetic)


def test_a_synthetic_cohort_with_other_modalities_is_refused(real, synthetic):
    with pytest.raises(DataError, match="modalities of the synthetic cohort"):
        check_cohorts(real, dataclasses.replace(synthetic, modalities=("t1",)))
