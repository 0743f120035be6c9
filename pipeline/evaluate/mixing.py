"""The choice of how synthetic scans are mixed in: a small search, stated in the config, on val; once for all arms.

One arm, :data:`SEARCH_ARM`, is trained at the largest share with each candidate: share of synthetic slices, schedule,
number of synthetic cases. The best checkpoint on val counts, averaged over the seeds, which are none of the arms' own.
Test patients have no say. With one candidate there is nothing to train.
"""

import json
import shutil
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from pipeline.cohort import write_whole
from pipeline.config_evaluate import ArmName, EvaluateSection, SearchSection
from pipeline.evaluate.trainings import Experiment, TrainingTask, make_arm_of, make_plan
from pipeline.parallel import iterate_trainings
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed
from pipeline.segmentation.arms import Mixing
from pipeline.segmentation.segmenter import train_segmenter

SEARCH_ARM: ArmName = "real-syn-aug"
TRIAL_FILE = "trial.json"


@dataclass(frozen=True)
class Trial:
    """A candidate and the Dice on val that it reached in each seed; none where nothing was tried."""

    mixing: Mixing
    dice_val: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.dice_val))


def list_candidates(search: SearchSection) -> tuple[Mixing, ...]:
    """Return every combination of the candidates, in the config's order."""
    return tuple(
        Mixing(share, schedule, None if n == "all" else n)
        for share, schedule, n in product(search.synthetic_shares, search.schedules, search.n_synthetic)
    )


def choose_mixing(context: StageContext, experiment: Experiment) -> tuple[Mixing, tuple[Trial, ...]]:
    """Try the candidates and take the best on val, the first of even ones.

    Returns
    -------
    tuple
        The choice, and what was tried.
    """
    config, compute = context.config.evaluate, context.config.compute
    candidates = list_candidates(config.search)
    if len(candidates) == 1:
        return candidates[0], (Trial(candidates[0], ()),)
    section = search_section(config)
    seed, n_seeds = derive_seed(context.seed, "search"), config.search.n_seeds
    tasks = [
        TrainingTask(
            experiment,
            make_arm_of(context, experiment, SEARCH_ARM, max(config.shares), mixing),
            number,
            section,
            compute,
            seed,
            context.out / "search" / f"{index}-{number}",
        )
        for index, mixing in enumerate(candidates)
        for number in range(n_seeds)
    ]
    reached = []
    for task, dice_val in zip(tasks, iterate_trainings(try_candidate, tasks, compute), strict=True):
        reached.append(dice_val)
        context.tracker.metrics({f"search/{task.folder.name}/dice_val": dice_val}, section.steps)
    by_candidate = np.reshape(reached, (len(candidates), n_seeds))
    trials = tuple(Trial(mixing, tuple(row.tolist())) for mixing, row in zip(candidates, by_candidate, strict=True))
    return max(trials, key=lambda trial: trial.mean).mixing, trials


def search_section(config: EvaluateSection) -> EvaluateSection:
    """Return the section of a trial: as the arms', with the search's steps."""
    steps = config.search.steps or config.steps
    return config.model_copy(update={"steps": steps, "validate_every": min(config.validate_every, steps)})


def try_candidate(task: TrainingTask) -> float:
    """Train a candidate and return its best Dice on val; one with its marker is only read."""
    folder = task.folder
    if not (folder / TRIAL_FILE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        plan = make_plan(task, f"search {folder.name}")
        best = train_segmenter(plan, task.experiment.scans, folder)
        write_whole(folder / TRIAL_FILE, {"steps": plan.validation_steps, "dice_val": best.curve.tolist()})
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return float(max(json.loads((folder / TRIAL_FILE).read_text(encoding="utf-8"))["dice_val"]))


def describe_search(config: EvaluateSection, chosen: Mixing, trials: tuple[Trial, ...]) -> list[dict[str, Any]]:
    """Return what was tried, as ``gain.json`` has it; ``dice_val`` is null where there was one candidate only."""
    return [
        {
            "synthetic_share": trial.mixing.synthetic_share,
            "schedule": trial.mixing.schedule,
            "n_synthetic": trial.mixing.n_synthetic or "all",
            "arm": SEARCH_ARM,
            "share": max(config.shares),
            "steps": search_section(config).steps if trial.dice_val else 0,
            "n_seeds": len(trial.dice_val),
            "dice_val": trial.mean if trial.dice_val else None,
            "chosen": trial.mixing == chosen,
        }
        for trial in trials
    ]
