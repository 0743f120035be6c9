"""The trainings of an evaluation: what they share, and one after the other with a marker for each that is done."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cohort import Case, Cohort, open_cohort, write_json
from pipeline.config import ComputeSection, EvaluateSection
from pipeline.errors import DataError
from pipeline.evaluate.scores import Score
from pipeline.figures import tumor_centre
from pipeline.labels import UInt8Array
from pipeline.parallel import iterate_trainings
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed
from pipeline.segmentation.arms import Arm, ScanPool, Window, choose_real_cases, fit_window, make_arm
from pipeline.segmentation.metrics import score_patient
from pipeline.segmentation.segmenter import SIZE_MULTIPLE, SegmenterPlan, predict_case, train_segmenter

MAX_PICTURED = 4
SCORES_FILE, PICTURED_FILE = "scores.json", "pictured.npy"


@dataclass(frozen=True)
class Experiment:
    """What all trainings share.

    Parameters
    ----------
    real : Cohort
    arms : tuple of Arm
    scans : ScanPool
        Training scans, opened once.
    window : tuple of slice
        Field of view that holds every training scan; the same in each arm.
    pictured : tuple of Case
        Test patients that are shown, from the smallest to the largest tumour.
    """

    real: Cohort
    arms: tuple[Arm, ...]
    scans: ScanPool
    window: Window
    pictured: tuple[Case, ...]


@dataclass(frozen=True)
class TrainingResult:
    """What is kept of a training.

    Parameters
    ----------
    arm : str
    seed : int
    steps : tuple of int
        Of each validation.
    dice_val, losses : tuple of float
        Mean Dice on val at each validation, and mean loss before it.
    scores : tuple of Score
        Of the test patients.
    folder : Path
        Holds :data:`SCORES_FILE` and :data:`PICTURED_FILE`.
    """

    arm: str
    seed: int
    steps: tuple[int, ...]
    dice_val: tuple[float, ...]
    losses: tuple[float, ...]
    scores: tuple[Score, ...]
    folder: Path


def open_experiment(context: StageContext) -> Experiment:
    """Open the cohorts and put the arms together.

    Raises
    ------
    DataError
        If the real cohort has no train, val or test patients, or the synthetic one differs in grid, classes or
        modalities.
    """
    config = context.config.evaluate
    real, synthetic = open_cohort(context.folder("ingest")), open_cohort(context.folder("generate"))
    check_cohorts(real, synthetic)
    chosen = choose_real_cases(real.complete(real.split("train")), config.real_share, context.seed)
    scans = ScanPool(real.modalities)
    # Of all training scans, whichever arms are trained: a field of view that differed would be one more difference.
    window = fit_window(scans.extent([*chosen, *synthetic.cases]), SIZE_MULTIPLE)
    arms = tuple(make_arm(name, chosen, synthetic.cases, config) for name in dict.fromkeys(config.arms))
    return Experiment(real, arms, scans, window, choose_pictured(real.patients("test")))


def check_cohorts(real: Cohort, synthetic: Cohort) -> None:
    """Raise DataError if arms cannot be trained and compared on these cohorts."""
    for side in ("train", "val", "test"):
        if not real.split(side):
            raise DataError(f"no {side} patients; expected at least one; change `ingest.split` or add scans")
    for what, of_real, of_synthetic in (
        ("grid", real.shape, synthetic.shape),
        ("tumour classes", real.scheme.tumor, synthetic.scheme.tumor),
        ("modalities", real.modalities, synthetic.modalities),
    ):
        if of_real != of_synthetic:
            raise DataError(
                f"{what} of the synthetic cohort; expected the real cohort's {of_real}, got {of_synthetic}; "
                "run the stage generate again"
            )


def choose_pictured(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """Choose the patients to show, evenly over tumour size."""
    sizes = [int((case.tumor_map() > 0).sum()) for case in cases]
    order = np.argsort(sizes, kind="stable")
    places = np.unique(np.linspace(0, len(cases) - 1, min(MAX_PICTURED, len(cases))).round().astype(int))
    return tuple(cases[order[place]] for place in places)


@dataclass(frozen=True)
class TrainingTask:
    """One training, with all that a worker needs.

    Parameters
    ----------
    experiment : Experiment
    arm : Arm
    number : int
        Running number of the seed.
    config : EvaluateSection
    compute : ComputeSection
    seed : int
        Root of the stage's streams.
    folder : Path
        Of this training alone.
    """

    experiment: Experiment
    arm: Arm
    number: int
    config: EvaluateSection
    compute: ComputeSection
    seed: int
    folder: Path


def train_all(context: StageContext, experiment: Experiment) -> tuple[TrainingResult, ...]:
    """Train every arm with every seed, side by side where there are cores for it; record the curves."""
    config, compute = context.config.evaluate, context.config.compute
    tasks = [
        TrainingTask(
            experiment, arm, number, config, compute, context.seed, context.out / "trainings" / f"{arm.name}-{number}"
        )
        for arm in experiment.arms
        for number in range(config.n_seeds)
    ]
    results = []
    for result in iterate_trainings(train_and_score, tasks, compute):
        results.append(result)
        # The first seed's curves carry the arm's name alone; a key has one curve only.
        name = result.arm if result.seed == 0 else f"{result.arm}-seed{result.seed}"
        for step, dice_val, loss in zip(result.steps, result.dice_val, result.losses, strict=True):
            context.tracker.metrics({f"{name}/loss": loss, f"{name}/dice_val": dice_val}, step)
    return tuple(results)


def train_and_score(task: TrainingTask) -> TrainingResult:
    """Train one arm with one seed and score it on the test patients; a training with its marker is only read."""
    folder, arm = task.folder, task.arm
    if not (folder / SCORES_FILE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _train_anew(task)
    # The marker is there, so that what was to go on from is no longer needed.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    record = json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))
    share = task.config.real_share if arm.real_cases else 0.0
    scores = tuple(
        Score(arm.name, task.number, patient, region, metric, value, share)
        for patient, regions in record["test"].items()
        for region, metrics in regions.items()
        for metric, value in metrics.items()
    )
    steps, dice_val, losses = (tuple(record[key]) for key in ("steps", "dice_val", "losses"))
    return TrainingResult(arm.name, task.number, steps, dice_val, losses, scores, folder)


def _train_anew(task: TrainingTask) -> None:
    experiment, folder = task.experiment, task.folder
    real = experiment.real
    plan = SegmenterPlan(
        arm=task.arm,
        val_cases=real.patients("val"),
        scheme=real.scheme,
        modalities=real.modalities,
        config=task.config,
        compute=task.compute,
        window=experiment.window,
        seed=derive_seed(task.seed, "training", task.number),
    )
    best = train_segmenter(plan, experiment.scans, folder)
    test: dict[str, Any] = {}
    shown: dict[str, UInt8Array] = {}
    for case in real.patients("test"):
        predicted = predict_case(best.segmenter, case, plan.modalities, plan.window)
        truth = np.asarray(case.tumor_map())
        test[case.subject] = score_patient(predicted, truth, real.scheme, (real.spacing_mm,) * 3)
        shown[case.subject] = predicted[:, :, tumor_centre(truth)[2]]
    np.save(folder / PICTURED_FILE, np.stack([shown[case.subject] for case in experiment.pictured]))
    curves = {"steps": plan.validation_steps, "dice_val": best.curve.tolist(), "losses": best.losses.tolist()}
    temporary = folder / "writing.tmp"
    write_json(temporary, {**curves, "test": test})
    temporary.replace(folder / SCORES_FILE)
