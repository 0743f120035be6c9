"""Synthetic cohorts of an evaluation: who each generator may see, whose turn it is, resume, what is said of them."""

import json
import shutil
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import TINY
from segment_builders import Recipe, Recorder, tiny_evaluation

from pipeline.cohort import digest_tree, open_cohort
from pipeline.config import ComputeSection, parse_config
from pipeline.errors import ConfigError
from pipeline.evaluate import cohorts, stage, trainings
from pipeline.evaluate.cohorts import (
    OWN,
    Origin,
    SyntheticCohort,
    choose_members,
    list_draw_cautions,
    list_origins,
)
from pipeline.evaluate.experiment import make_arms, open_experiment
from pipeline.generate import recipe as recipe_module
from pipeline.runner import StageContext, run_stages
from pipeline.segmentation.arms import Mixing

CHOSEN = {"real-syn-aug": Mixing(0.25), "random-contrast-aug": Mixing(0.25)}
ARMS = ["real-aug", "real-syn-aug", "syn", "random-contrast-aug"]


@pytest.fixture
def recipe(monkeypatch):
    made = Recipe()
    monkeypatch.setattr(cohorts, "repeat_recipe", made)
    return made


def test_a_cohort_is_needed_for_each_share_and_generator_of_arms_that_use_one():
    def origins(**changes):
        return [origin.title for origin in list_origins(tiny_evaluation(**changes).evaluate)]

    assert origins() == ["1-0"]
    assert origins(arms=["real", "copypaste-aug"], baseline="real", shares=[0.5], n_seeds=2, n_generators=2) == ["1-0"]
    assert origins(arms=["real-aug", "random-contrast-aug"], shares=[0.5, 0.25]) == ["1-0", "0.5-0", "0.25-0"]
    # An arm without real scans uses the cohort of all patients, by each generator.
    assert origins(arms=["real-aug", "syn"], shares=[0.5], n_seeds=3, n_generators=2) == ["1-0", "1-1"]
    both = {"arms": ["real-aug", "real-syn"], "shares": [1.0, 0.5], "n_seeds": 2, "n_generators": 2}
    assert origins(**both) == ["1-0", "1-1", "0.5-0", "0.5-1"]
    # A release is used as it is at every share.
    assert origins(arms=["real-aug", "real-syn"], shares=[0.5], received_release="theirs") == ["1-0"]


def test_the_generator_of_a_share_sees_its_persons_and_nobody_else(tmp_path, own_segment_run, real, recipe):
    config = tiny_evaluation(arms=ARMS, shares=[1.0, 0.5], n_seeds=2, n_generators=2)
    context = StageContext(config, own_segment_run, tmp_path, 8, Recorder())
    experiment = open_experiment(context)
    halves = [tuple(case.subject for case in choose_members(real, 0.5, 8, number)) for number in (0, 1)]
    everyone = tuple(case.subject for case in real.split("train"))
    assert [len(half) for half in halves] == [2, 2]
    assert halves[0] != halves[1]
    members = {name: members for name, members, _, _ in recipe.calls}
    assert members == {"1-1": everyone, "0.5-0": halves[0], "0.5-1": halves[1]}
    assert len({seed for _, _, seed, _ in recipe.calls}) == 3
    found = {}
    for by_generator in make_arms(context, experiment, CHOSEN):
        for arm in by_generator:
            made_by = {case.folder.parents[2].name for case in arm.synthetic_cases}
            found[arm.name, arm.share, arm.number] = made_by
            if arm.share == 0.5:
                assert {case.subject for case in arm.real_cases} == set(halves[arm.number])
    assert not found["real-aug", 0.5, 0]
    assert not found["real-aug", 0.5, 1]
    for name in ("real-syn-aug", "random-contrast-aug"):
        folders = [found[name, share, number] for share in (1.0, 0.5) for number in (0, 1)]
        assert folders == [{own_segment_run.name}, {"1-1"}, {"0.5-0"}, {"0.5-1"}]
    assert [found["syn", 0.0, number] for number in (0, 1)] == [{own_segment_run.name}, {"1-1"}]


@pytest.mark.usefixtures("recipe")
def test_trainings_take_generators_and_draws_of_patients_in_turn(tmp_path, own_segment_run, monkeypatch):
    config = tiny_evaluation(arms=["real-aug", "real-syn"], shares=[1.0, 0.5], n_seeds=3, n_generators=2)
    context = StageContext(config, own_segment_run, tmp_path, 7, Recorder())
    experiment = open_experiment(context)
    tasks = []
    monkeypatch.setattr(trainings, "iterate_trainings", lambda _, items, __: tasks.extend(items) or [])
    trainings.train_all(context, experiment, make_arms(context, experiment, CHOSEN))
    taken = {}
    for task in tasks:
        taken.setdefault(task.arm.title, []).append((task.number, task.arm.number))
    in_turn = [(0, 0), (1, 1), (2, 0)]
    assert taken == {
        "real-aug-1": [(0, 0), (1, 0), (2, 0)],
        "real-aug-0.5": in_turn,
        "real-syn-1": in_turn,
        "real-syn-0.5": in_turn,
    }
    # Whatever the arm, a training is of the same patients.
    half = {task.number: task.arm.real_cases for task in tasks if task.arm.title == "real-aug-0.5"}
    assert all(task.arm.real_cases == half[task.number] for task in tasks if task.arm.share == 0.5)


def test_a_generator_that_is_done_is_only_read_and_a_cohort_half_removed_is_made_again(
    tmp_path, own_segment_run, recipe
):
    config = tiny_evaluation(arms=["real-aug", "real-syn"], shares=[0.5])
    context = StageContext(config, own_segment_run, tmp_path, 7, Recorder())
    for _ in range(2):
        open_experiment(context)
    assert len(recipe.calls) == 1
    folder = cohorts.generators_folder(context) / "0.5-0"
    assert json.loads((folder / "made.json").read_text()) == {"n_persons": 2, "n_cases": 3}
    cohorts.remove_synthetic_cohorts(context)
    assert not list(folder.iterdir())
    open_experiment(context)
    assert len(recipe.calls) == 2


@pytest.mark.parametrize("cut_off", ["while it is removed", "while it is made anew"])
def test_a_kill_amid_a_cohort_leaves_nothing_that_is_taken_for_whole(
    tmp_path, own_segment_run, recipe, monkeypatch, cut_off
):
    config = tiny_evaluation(arms=["real-aug", "real-syn"], shares=[0.5])
    context = StageContext(config, own_segment_run, tmp_path, 7, Recorder())
    open_experiment(context)
    synthetic = cohorts.generators_folder(context) / "0.5-0" / "synthetic"

    def kill_and_leave_half(*_, **__):
        (synthetic / "participants.tsv").unlink(missing_ok=True)
        (synthetic / "candidates").mkdir(parents=True, exist_ok=True)
        raise KeyboardInterrupt

    if cut_off == "while it is made anew":
        cohorts.remove_synthetic_cohorts(context)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        if cut_off == "while it is removed":
            patched.setattr(cohorts.shutil, "rmtree", kill_and_leave_half)
            cohorts.remove_synthetic_cohorts(context)
        else:
            patched.setattr(cohorts, "repeat_recipe", kill_and_leave_half)
            open_experiment(context)
    made = open_experiment(context).synthetic[Origin(0.5, 0)]
    assert len(made.cohort.cases) == 3
    assert len(recipe.calls) == 2
    cohorts.remove_synthetic_cohorts(context)
    assert not synthetic.exists()


def test_generators_of_another_recipe_are_not_gone_on_from(tmp_path, own_segment_run, recipe):
    config = tiny_evaluation(arms=["real-aug", "real-syn"], shares=[0.5])
    for seed in (7, 8):
        open_experiment(StageContext(config, own_segment_run, tmp_path, seed, Recorder()))
    assert len(recipe.calls) == 2
    assert len(list((own_segment_run / cohorts.GENERATORS_FOLDER).iterdir())) == 1


def test_the_recipe_of_a_share_makes_a_cohort_as_the_stages_do_and_resumes(finished_run, tmp_path, monkeypatch):
    """The whole way at the smallest size: trained, planned, drawn, curated; killed amid, and the same bytes."""
    changes = {"arms": ["real-aug", "real-syn-aug"], "shares": [1.0, 0.5], "n_seeds": 2, "n_generators": 2}

    def context_of(name, fail_after=None, **more):
        config = parse_config({**TINY, "evaluate": {**TINY["evaluate"], **changes, **more}}, "tests")
        run_dir, out = tmp_path / f"run-{name.split('-')[0]}", tmp_path / name
        if not run_dir.is_dir():
            shutil.copytree(finished_run, run_dir)
        out.mkdir(exist_ok=True)
        return StageContext(config, run_dir, out, 7, Recorder(fail_after=fail_after))

    def kept(context):
        return {path.name for path in cohorts.generators_folder(context).glob("*/*")}

    whole = context_of("whole")
    stage.run(whole)
    gain = json.loads((whole.out / "gain.json").read_text())
    n_members = len(open_cohort(finished_run / "cohort").split("train"))
    assert [(one["share"], one["number"], one["n_persons"]) for one in gain["generators"]] == [
        (1.0, 0, n_members),
        (1.0, 1, n_members),
        (0.5, 0, n_members // 2),
        (0.5, 1, n_members // 2),
    ]
    assert all(1 <= one["n_cases"] <= TINY["generate"]["n_cases"] for one in gain["generators"])
    arms = {(arm["name"], arm["share"]): arm for arm in gain["arms"]}
    assert arms["real-syn-aug", 0.5]["n_generator_persons"] == n_members // 2
    assert arms["real-syn-aug", 0.5]["n_generators"] == 2
    assert arms["real-aug", 0.5]["n_generator_persons"] is None
    assert not [caution for caution in gain["cautions"] if "generator" in caution]
    generator = {"model.json", "generator.safetensors"}
    assert kept(whole) == generator
    cut = context_of("cut", fail_after=3)
    with pytest.raises(KeyboardInterrupt):
        stage.run(cut)
    assert kept(cut) == {*generator, "synthetic", "made.json"}
    stage.run(context_of("cut"))
    assert digest_tree(whole.out) == digest_tree(cut.out)
    # Another setting of the evaluation: cohorts are made anew by the generators that are there.
    monkeypatch.setattr(recipe_module, "train_generator", lambda *_: pytest.fail("it has been trained"))
    again = context_of("whole-again", alpha=0.1)
    stage.run(again)
    assert (again.out / "scores.csv").read_bytes() == (whole.out / "scores.csv").read_bytes()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_worker_asks_for_no_more_workers(monkeypatch, device):
    monkeypatch.setattr(recipe_module, "training_device", lambda _: device)
    of_cluster = recipe_module.compute_of_worker(ComputeSection(workers=3, scheduler="tcp://host:8786"))
    assert (of_cluster.workers, of_cluster.scheduler) == (1, "local")
    of_here = recipe_module.compute_of_worker(ComputeSection(workers=3))
    assert (of_here.workers, of_here.scheduler) == (1 if device == "cpu" else 3, "local")


def test_generators_of_one_share_differ(finished_run, tmp_path):
    config = parse_config({**TINY, "evaluate": {**TINY["evaluate"], "n_seeds": 3, "n_generators": 3}}, "tests")
    run_dir = shutil.copytree(finished_run, tmp_path / "run")
    context = StageContext(config, run_dir, tmp_path, 7, Recorder())
    made = open_experiment(context).synthetic
    assert list(made) == [Origin(1.0, 0), Origin(1.0, 1), Origin(1.0, 2)]
    first_scans = [np.asarray(one.cohort.cases[0].image("t1")) for one in made.values()]
    assert all(not np.array_equal(one, another) for one, another in pairwise(first_scans))


def test_a_share_with_too_few_persons_for_a_generator_is_refused_before_anything_is_trained(tmp_path, segment_run):
    for shares, train, n_needed in (([1.0, 0.25], {}, 2), ([0.75], {"privacy": {"patients_per_step": 3}}, 4)):
        config = tiny_evaluation(arms=["real-aug", "real-syn"], shares=shares)
        privacy = None if not train else SimpleNamespace(**train["privacy"])
        config = config.model_copy(update={"train": config.train.model_copy(update={"privacy": privacy})})
        context = StageContext(config, segment_run, tmp_path, 7, Recorder())
        with pytest.raises(ConfigError, match=rf"evaluate\.shares: .* expected at least {n_needed} persons"):
            open_experiment(context)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_seeds": 2, "n_generators": 3}, "n_generators: expected at most n_seeds, 2, got 3"),
        ({"n_seeds": 2, "n_generators": 2, "received_release": "theirs"}, "n_generators: expected 1 with received_rel"),
    ],
)
def test_more_generators_than_trainings_or_with_a_release_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({"evaluate": changes}, "tests")


def test_what_an_interval_does_not_hold_and_whom_segmenters_did_not_see_is_said(real):
    def cautions(real=real, n_persons=4, **changes):
        config = tiny_evaluation(**{"arms": ["real-aug", "real-syn"], **changes}).evaluate
        return list_draw_cautions(config, real, {OWN: SyntheticCohort(real, n_persons)})

    assert cautions() == ["One generator at each share: intervals do not include the variation between generators."]
    assert cautions(n_seeds=3, n_generators=3) == []
    assert cautions(arms=["real-aug"]) == []
    assert cautions(arms=["real-aug"], shares=[1.0, 0.5, 0.25]) == [
        "One draw of the real patients at 25% and 50%: intervals include no luck of who they are."
    ]
    # Of half of a pool sqrt(.5) of the standard deviation that fresh patients would bring.
    assert cautions(shares=[0.5], n_seeds=3, n_generators=3) == [
        "The draws of real patients at 50% overlap: intervals include at most 71% of the standard deviation that fresh "
        "patients would bring."
    ]
    assert len(cautions(shares=[0.5], n_seeds=3, n_generators=2)) == 2
    assert cautions(arms=["syn", "syn-aug"], baseline="syn", shares=[0.5], n_seeds=2, n_generators=2) == []
    (part,) = cautions(n_seeds=3, n_generators=2)
    assert part.startswith("2 generators for 3 trainings")
    first = real.split("train")[0].subject
    lacking = SimpleNamespace(
        split=real.split, complete=lambda cases: tuple(case for case in cases if case.subject != first)
    )
    assert cautions(lacking)[1] == (
        "1 of 4 real training scans lack a modality, those of 1 persons altogether: generators are trained on them, "
        "segmenters are not."
    )
    # Of a release nobody knows whom its generator knew.
    assert len(cautions(lacking, n_persons=None)) == 1


def test_a_run_evaluates_at_a_share_with_a_generator_of_its_own(finished_run, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir)
    changes = {"arms": ["real-aug", "random-contrast-aug"], "shares": [0.5]}
    config = parse_config({**TINY, "evaluate": {**TINY["evaluate"], **changes}}, "tests")
    run_stages(config, run_dir, "evaluate", "evaluate")
    (arm,) = [
        one for one in json.loads((run_dir / "evaluation" / "gain.json").read_text())["arms"] if one["n_synthetic"]
    ]
    assert (arm["name"], arm["share"]) == ("random-contrast-aug", 0.5)
    assert arm["n_generator_persons"] == arm["n_real_persons"] == 3
