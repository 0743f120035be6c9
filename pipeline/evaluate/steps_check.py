"""Were the steps enough? The baseline is trained once more with twice as many.

The step size falls to 0 by a cosine, so that every training's curve is flat at its end, one that is much too short too:
the curve is no evidence. What twice the steps reach is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config_evaluate import EvaluateSection
from pipeline.evaluate.experiment import Experiment
from pipeline.evaluate.trainings import TrainingResult, TrainingTask, try_out
from pipeline.parallel import iterate_trainings
from pipeline.runner import StageContext
from pipeline.segmentation.arms import Arm

# A smaller gain of Dice on val by twice the steps is none.
PLATEAU_TOLERANCE = 0.01
# With less Dice on val nothing has been learnt, and what does not move is no plateau.
MIN_DICE_PLATEAU = 0.05
CHECK_FOLDER = "steps-check"


@dataclass(frozen=True)
class StepsCheck:
    """Best Dice on val of one training with the config's steps, and of the same with twice as many.

    Parameters
    ----------
    arm : str
    share : float
    steps : int
        Of the shorter one.
    dice_val, doubled_dice_val : float
    """

    arm: str
    share: float
    steps: int
    dice_val: float
    doubled_dice_val: float

    @property
    def is_plateau(self) -> bool:
        """Whether twice the steps gained next to nothing on what had been learnt."""
        return self.dice_val >= MIN_DICE_PLATEAU and self.doubled_dice_val - self.dice_val < PLATEAU_TOLERANCE

    @property
    def sentence(self) -> str:
        """Say what was found."""
        verdict = "plateau reached" if self.is_plateau else "no plateau yet, so that more steps may change this"
        return (
            f"Best Dice on val of {self.arm} is {self.dice_val:.3f} with {self.steps} steps and "
            f"{self.doubled_dice_val:.3f} with {2 * self.steps}: {verdict}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as ``gain.json`` has it."""
        return {
            "arm": self.arm,
            "share": self.share,
            "steps": [self.steps, 2 * self.steps],
            "dice_val": [self.dice_val, self.doubled_dice_val],
            "plateau": self.is_plateau,
            "sentence": self.sentence,
        }


def doubled_section(config: EvaluateSection) -> EvaluateSection:
    """Return the section of the longer training: looked at on val as often as the shorter one, half as frequently."""
    return config.model_copy(update={"steps": 2 * config.steps, "validate_every": 2 * config.validate_every})


def check_steps(
    context: StageContext, experiment: Experiment, arms: Sequence[Arm], results: Sequence[TrainingResult]
) -> StepsCheck | None:
    """Train the baseline at the largest share with twice the steps, from the weights that its first training had.

    Parameters
    ----------
    context : StageContext
    experiment : Experiment
    arms : sequence of Arm
        Each at each share once, as of the first generator.
    results : sequence of TrainingResult
        Of these arms.

    Returns
    -------
    StepsCheck or None
        None where ``evaluate.steps_check`` is off.
    """
    config, compute = context.config.evaluate, context.config.compute
    if not config.steps_check:
        return None
    arm = max((arm for arm in arms if arm.name == config.baseline), key=lambda arm: arm.share)
    first = next(one for one in results if (one.arm, one.share, one.seed) == (arm.name, arm.share, 0))
    folder = context.out / CHECK_FOLDER / arm.title
    task = TrainingTask(experiment, arm, 0, doubled_section(config), compute, context.seed, folder)
    (doubled,) = iterate_trainings(try_out, [task], compute)
    context.tracker.metrics({f"{CHECK_FOLDER}/dice_val": doubled}, 2 * config.steps)
    return StepsCheck(arm.name, arm.share, config.steps, max(first.dice_val), doubled)
