"""The trainings of an evaluation: what they share, and one after the other with a marker for each that is done."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cohort import Case, Cohort, open_cohort, write_whole
from pipeline.config import ComputeSection
from pipeline.config_evaluate import ArmName, EvaluateSection
from pipeline.errors import DataError
from pipeline.evaluate.cohorts import (
    OWN,
    Origin,
    SyntheticCohort,
    choose_members,
    make_synthetic_cohorts,
    open_own,
    origin_of,
)
from pipeline.evaluate.received import ReceivedRelease
from pipeline.evaluate.scores import Score
from pipeline.figures import tumor_centre
from pipeline.labels import UInt8Array
from pipeline.parallel import iterate_trainings
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed
from pipeline.segmentation.arms import (
    DESIGNS,
    UNMIXED,
    Arm,
    Mixing,
    choose_synthetic_cases,
    deciding_arm,
    list_arms,
    make_arm,
)
from pipeline.segmentation.inference import most_probable, predict_probabilities
from pipeline.segmentation.metrics import score_patient
from pipeline.segmentation.scans import ScanPool, Window
from pipeline.segmentation.segmenter import BestSegmenter, SegmenterPlan, check_val, make_sampler, train_segmenter

MAX_PICTURED = 4
SCORES_FILE, SLICES_FILE, TRIAL_FILE = "scores.json", "slices.npy", "trial.json"


@dataclass(frozen=True)
class Experiment:
    """What all trainings share.

    Parameters
    ----------
    real : Cohort
    synthetic : mapping of Origin to SyntheticCohort
        Synthetic cohorts, by share and generator.
    scans : ScanPool
        Training scans, opened once.
    window : tuple of slice
        Field of view that holds every training scan; the same in each arm.
    pictured : tuple of Case
        Test patients that are shown, from the smallest to the largest tumour.
    received : ReceivedRelease, optional
        Whose cohort is the synthetic one.
    """

    real: Cohort
    synthetic: Mapping[Origin, SyntheticCohort]
    scans: ScanPool
    window: Window
    pictured: tuple[Case, ...]
    received: ReceivedRelease | None = None


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


def open_experiment(context: StageContext) -> Experiment:
    """Open the cohorts, make those of further generators, and fit the field of view.

    Raises
    ------
    DataError
        If the real cohort has no train, val or test patients, an arm has too few cases of a kind, the synthetic cohort
        differs in grid, classes or modalities, or a received release is not intact.
    ConfigError
        If a share has too few persons for a generator.
    """
    config = context.config.evaluate
    real, (own, received) = open_cohort(context.folder("ingest")), open_own(context)
    check_cohorts(real, own, is_received=config.received_release is not None)
    check_arms(context, real, own)
    synthetic = make_synthetic_cohorts(context, real, own)
    scans = ScanPool(real.modalities)
    # Of all training scans, whichever arms are trained: a field of view that differed would be one more difference.
    cases = [
        *choose_real(context, real, max(config.shares)),
        *(c for one in synthetic.values() for c in one.cohort.cases),
    ]
    window = scans.fit_window(cases, config.dimensions, 2**config.levels)
    return Experiment(real, synthetic, scans, window, choose_pictured(real.patients("test")), received)


def choose_real(context: StageContext, real: Cohort, share: float) -> tuple[Case, ...]:
    """Return the real training cases of a share that lack no modality."""
    return real.complete(choose_members(real, share, context.seed))


def choose_synthetic(
    context: StageContext, experiment: Experiment, share: float, number: int, n: int | None
) -> tuple[Case, ...]:
    """Return the synthetic cases of an arm at a share, made by one of the generators; see :func:`origin_of`.

    Parameters
    ----------
    context : StageContext
    experiment : Experiment
    share : float
    number : int
        Of the generator.
    n : int or None
        Number of cases; None: all. A further generator, more of whose cases were refused, may have fewer.
    """
    origin = origin_of(context.config.evaluate, share, number)
    cases = experiment.synthetic[origin].cohort.cases
    return choose_synthetic_cases(cases, n if n is None or origin == OWN else min(n, len(cases)), context.seed)


def make_arms(
    context: StageContext, experiment: Experiment, chosen: Mapping[ArmName, Mixing]
) -> tuple[tuple[Arm, ...], ...]:
    """Put the arms together, each at each share; those without real scans once, at share 0.

    Parameters
    ----------
    context : StageContext
    experiment : Experiment
    chosen : mapping of str to Mixing
        What the search of each deciding arm chose.

    Returns
    -------
    tuple of tuple of Arm
        Of each arm and share what its trainings take in turn: one for each generator, or one alone for arms that use
        no synthetic cohort.
    """
    return tuple(
        tuple(
            make_arm_of(context, experiment, name, share, chosen, number)
            for number in range(context.config.evaluate.n_generators if DESIGNS[name].synthetic != "none" else 1)
        )
        for name, share in list_arms(context.config.evaluate)
    )


def make_arm_of(
    context: StageContext,
    experiment: Experiment,
    name: ArmName,
    share: float,
    chosen: Mapping[ArmName, Mixing],
    number: int = 0,
) -> Arm:
    """Put an arm at a share together, with the scans of one of the generators."""
    decides = deciding_arm(name)
    mixing = UNMIXED if decides is None else chosen[decides]
    is_synthetic = DESIGNS[name].synthetic != "none"
    synthetic = choose_synthetic(context, experiment, share, number, mixing.n_synthetic) if is_synthetic else ()
    real = choose_real(context, experiment.real, share)
    return make_arm(name, share, real, synthetic, mixing, context.config.evaluate, number)


def check_cohorts(real: Cohort, synthetic: Cohort, is_received: bool = False) -> None:
    """Raise DataError if arms cannot be trained and compared on these cohorts."""
    cure = "ingest your scans at its spacing_mm and size_voxels" if is_received else "run the stage generate again"
    for side in ("train", "val", "test"):
        if not real.split(side):
            raise DataError(f"no {side} patients; expected at least one; change `ingest.split` or add scans")
    check_val(real.patients("val"))
    for what, of_real, of_synthetic in (
        ("grid", real.shape, synthetic.shape),
        ("spacing in mm", round(real.spacing_mm, 3), round(synthetic.spacing_mm, 3)),
        ("tumour classes", real.scheme.tumor, synthetic.scheme.tumor),
        ("modalities", real.modalities, synthetic.modalities),
    ):
        if of_real != of_synthetic:
            raise DataError(
                f"{what} of the synthetic cohort; expected the real cohort's {of_real}, got {of_synthetic}; {cure}"
            )


def check_arms(context: StageContext, real: Cohort, own: Cohort) -> None:
    """Refuse now what would be refused after hours of training generators: too few cases of a kind for an arm.

    Raises
    ------
    DataError
    """
    config = context.config.evaluate
    n_synthetic = max((n for n in config.search.n_synthetic if n != "all"), default=None)
    synthetic = choose_synthetic_cases(own.cases, n_synthetic, context.seed)
    for name, share in list_arms(config):
        make_arm(name, share, choose_real(context, real, share) if share else (), synthetic, UNMIXED, config)


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
    record = {**curves, "generator": task.arm.generator, "pasted_share": pasted_share, "test": test}
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
