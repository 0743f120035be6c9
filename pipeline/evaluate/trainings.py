"""The trainings of an evaluation, one after the other with a marker for each that is done."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cohort import Case, write_whole
from pipeline.config import ComputeSection
from pipeline.config_evaluate import EvaluateSection
from pipeline.evaluate.experiment import Experiment
from pipeline.evaluate.scores import Score
from pipeline.figures import tumor_centre
from pipeline.labels import UInt8Array
from pipeline.parallel import iterate_trainings
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed
from pipeline.segmentation.arms import (
    Arm,
)
from pipeline.segmentation.inference import most_probable, predict_probabilities
from pipeline.segmentation.metrics import score_patient
from pipeline.segmentation.segmenter import BestSegmenter, SegmenterPlan, make_sampler, train_segmenter

SCORES_FILE, SLICES_FILE, TRIAL_FILE = "scores.json", "slices.npy", "trial.json"


@dataclass(frozen=True)
class TrainingResult:
    """What is kept of a training.

    Parameters
    ----------
    arm : str
    share : float
        Of the real training patients; 0 for an arm that uses none.
    seed : int
    steps : tuple of int
        Of each validation.
    dice_val, losses : tuple of float
        Mean Dice on val at each validation, and mean loss before it.
    scores : tuple of Score
        Of the test patients.
    pasted_share : float
        Share of the real slices or patches into which a tumour was in truth pasted.
    folder : Path
        Holds :data:`SCORES_FILE` and :data:`SLICES_FILE`.
    """

    arm: str
    share: float
    seed: int
    steps: tuple[int, ...]
    dice_val: tuple[float, ...]
    losses: tuple[float, ...]
    scores: tuple[Score, ...]
    pasted_share: float
    folder: Path


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


def train_all(
    context: StageContext, experiment: Experiment, arms: Sequence[Sequence[Arm]]
) -> tuple[TrainingResult, ...]:
    """Train every arm with every seed, side by side where there are cores for it; record the curves.

    Parameters
    ----------
    context : StageContext
    experiment : Experiment
    arms : sequence of sequence of Arm
        As :func:`make_arms` gives them: training s takes generator s modulo their number.
    """
    config, compute = context.config.evaluate, context.config.compute
    folder = context.out / "trainings"
    tasks = [
        TrainingTask(experiment, arm, number, config, compute, context.seed, folder / f"{arm.title}-{number}")
        for by_generator in arms
        for number in range(config.n_seeds)
        for arm in [by_generator[number % len(by_generator)]]
    ]
    results = []
    for result in iterate_trainings(train_and_score, tasks, compute):
        results.append(result)
        record_curves(context, result)
    return tuple(results)


def record_curves(context: StageContext, result: TrainingResult) -> None:
    """Record a training's curves; a key has one curve only, the first seed's has the shortest name."""
    share = "" if len(context.config.evaluate.shares) == 1 else f"-{result.share:g}"
    name = f"{result.arm}{share}" if result.seed == 0 else f"{result.arm}{share}-seed{result.seed}"
    for step, dice_val, loss in zip(result.steps, result.dice_val, result.losses, strict=True):
        context.tracker.metrics({f"{name}/loss": loss, f"{name}/dice_val": dice_val}, step)


def make_plan(task: TrainingTask, description: str = "") -> SegmenterPlan:
    """Return the plan of a training."""
    real = task.experiment.real
    return SegmenterPlan(
        arm=task.arm,
        val_cases=real.patients("val"),
        scheme=real.scheme,
        modalities=real.modalities,
        config=task.config,
        compute=task.compute,
        window=task.experiment.window,
        seed=derive_seed(task.seed, "training", task.number),
        description=description,
    )


def try_out(task: TrainingTask) -> float:
    """Train and return the best Dice on val: test patients have no say. A training with its marker is only read."""
    folder = task.folder
    if not (folder / TRIAL_FILE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        plan = make_plan(task, f"{folder.parent.name} {folder.name}")
        best = train_segmenter(plan, task.experiment.scans, folder)
        write_whole(folder / TRIAL_FILE, {"steps": plan.validation_steps, "dice_val": best.curve.tolist()})
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return float(max(json.loads((folder / TRIAL_FILE).read_text(encoding="utf-8"))["dice_val"]))


def train_and_score(task: TrainingTask) -> TrainingResult:
    """Train one arm with one seed and score it on the test patients; a training with its marker is only read."""
    folder, arm = task.folder, task.arm
    if not (folder / SCORES_FILE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _train_anew(task)
    # The marker is there, so that what was to go on from is no longer needed.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    record = json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))
    scores = tuple(
        Score(
            arm=arm.name,
            seed=task.number,
            patient=patient,
            region=region,
            metric=metric,
            value=value,
            share=arm.share,
        )
        for patient, regions in record["test"].items()
        for region, metrics in regions.items()
        for metric, value in metrics.items()
    )
    steps, dice_val, losses = (tuple(record[key]) for key in ("steps", "dice_val", "losses"))
    return TrainingResult(
        arm.name, arm.share, task.number, steps, dice_val, losses, scores, record["pasted_share"], folder
    )


def _train_anew(task: TrainingTask) -> None:
    experiment, folder, plan = task.experiment, task.folder, make_plan(task)
    best = train_segmenter(plan, experiment.scans, folder)
    test: dict[str, Any] = {}
    # Of every patient: whom an arm helps and harms most is known only once all arms are trained.
    slices: dict[str, UInt8Array] = {}
    for case in experiment.real.patients("test"):
        test[case.subject], predicted = score_case(best, case, plan, experiment.real.spacing_mm)
        slices[case.subject] = predicted[:, :, shown_slice(case)].copy()
    np.save(folder / SLICES_FILE, np.stack([slices[subject] for subject in sorted(slices)]))
    curves = {"steps": plan.validation_steps, "dice_val": best.curve.tolist(), "losses": best.losses.tolist()}
    pasted_share = make_sampler(plan, experiment.scans).count_pasted(plan.config.batch_size, plan.config.steps)
    record = {**curves, "number": task.arm.number, "pasted_share": pasted_share, "test": test}
    write_whole(folder / SCORES_FILE, record)


def score_case(
    best: BestSegmenter, case: Case, plan: SegmenterPlan, spacing_mm: float
) -> tuple[dict[str, dict[str, float]], UInt8Array]:
    """Return a test patient's scores and the predicted tumour map; nothing else of the patient stays in memory."""
    probabilities = predict_probabilities(best.segmenter, case, plan.inference)
    predicted, truth = most_probable(probabilities), np.asarray(case.tumor_map())
    return score_patient(predicted, truth, plan.scheme, (spacing_mm,) * 3, probabilities, case.brain()), predicted


def shown_slice(case: Case) -> int:
    """Return the axial slice that pictures show of a patient: the one with most tumour."""
    return tumor_centre(np.asarray(case.tumor_map()))[2]


def read_slices(folder: Path) -> dict[str, UInt8Array]:
    """Read the predicted slice of each test patient: (x, y), uint8."""
    subjects = sorted(json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))["test"])
    return dict(zip(subjects, np.load(folder / SLICES_FILE), strict=True))
