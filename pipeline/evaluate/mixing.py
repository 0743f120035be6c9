"""The choice of what is mixed into real scans: a small search, stated in the config, on val.

Each kind of arm that mixes something in has its own search: :func:`deciding_arm` is trained at the largest share with
each candidate, and decides for the other arms of its kind. A rival that had to take what suits another would be sold
short. The best checkpoint on val counts, averaged over the seeds, which are none of the arms' own. Test patients have
no say. With one candidate there is nothing to train.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from pipeline.config_evaluate import MIXED_ARMS, ArmName, EvaluateSection, SearchSection
from pipeline.evaluate.experiment import Experiment, make_arm_of
from pipeline.evaluate.trainings import TrainingTask, try_out
from pipeline.parallel import iterate_trainings
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed
from pipeline.segmentation.arms import DECIDING_ARMS, DESIGNS, PASTING_ARM, Arm, Mixing, deciding_arm

SCANS_ARM = DECIDING_ARMS["scans"]


@dataclass(frozen=True)
class Trial:
    """A candidate for a kind of arm, and the Dice on val that it reached in each seed; none where nothing was tried."""

    arm: ArmName
    mixing: Mixing
    dice_val: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.dice_val))


def list_searches(config: EvaluateSection) -> dict[ArmName, tuple[Mixing, ...]]:
    """Return the candidates of each arm that decides for some of those trained, in the config's order."""
    deciding = dict.fromkeys(arm for arm in map(deciding_arm, config.arms) if arm is not None)
    searches = {arm: list_candidates(config.search, arm) for arm in deciding}
    if SCANS_ARM in searches and not any(deciding_arm(arm) == SCANS_ARM for arm in config.arms if arm in MIXED_ARMS):
        # What is left, as syn and syn-ft, takes its number of cases only.
        first = searches[SCANS_ARM][0]
        numbers = (replace(first, n_synthetic=one.n_synthetic) for one in searches[SCANS_ARM])
        searches[SCANS_ARM] = tuple(dict.fromkeys(numbers))
    return searches


def list_candidates(search: SearchSection, arm: ArmName) -> tuple[Mixing, ...]:
    """Return the candidates of an arm: every combination for what is synthetic, shares for what is pasted."""
    if DESIGNS[arm].pastes:
        return tuple(Mixing(paste_share=share) for share in list_shares(search, arm))
    return tuple(
        Mixing(share, schedule, None if n == "all" else n)
        for share, schedule, n in product(list_shares(search, arm), search.schedules, search.n_synthetic)
    )


def list_shares(search: SearchSection, arm: ArmName) -> tuple[float, ...]:
    """Return the shares that are tried for a deciding arm: of what is synthetic, or is pasted into."""
    if DESIGNS[arm].pastes:
        return search.paste_shares
    is_rendered = DESIGNS[arm].synthetic == "label maps"
    return (search.contrast_shares if is_rendered else ()) or search.synthetic_shares


def count_trials(config: EvaluateSection) -> int:
    """Return how many trainings the choice takes."""
    tried = (len(candidates) for candidates in list_searches(config).values() if len(candidates) > 1)
    return sum(tried) * config.search.n_seeds


def list_search_cautions(config: EvaluateSection) -> list[str]:
    """Say which rivals were tried with fewer settings than the arms with synthetic scans, and if luck chose."""
    counts = {arm: len(candidates) for arm, candidates in list_searches(config).items()}
    n_ours = counts.get(SCANS_ARM, 1)
    few = [
        f"{arm} was tried with {n} {'setting' if n == 1 else 'settings'} on val, {SCANS_ARM} with {n_ours}."
        for arm, n in counts.items()
        if n < n_ours
    ]
    if config.search.n_seeds == 1 and max(counts.values(), default=1) > 1:
        few.append("Each setting was tried on val in one training: which is best is partly that training's luck.")
    return few


def list_edge_cautions(config: EvaluateSection, arms: Sequence[Arm]) -> list[str]:
    """Say where the best share on val is the smallest or largest that was tried: one beyond may be better.

    Parameters
    ----------
    config : EvaluateSection
    arms : sequence of Arm
        As trained, with what the search chose.
    """
    mixed = {deciding_arm(arm.name): arm.mixing for arm in arms if arm.name in (*MIXED_ARMS, PASTING_ARM)}
    cautions = []
    for name, mixing in mixed.items():
        if name is None:
            continue
        tried = list_shares(config.search, name)
        share = mixing.paste_share if DESIGNS[name].pastes else mixing.synthetic_share
        if len(tried) > 1 and share in (min(tried), max(tried)) and share < 1.0:
            end = "smallest" if share == min(tried) else "largest"
            cautions.append(
                f"Of {name} the {end} share that was tried, {share:g}, did best on val: one beyond it may do better."
            )
    return cautions


def choose_mixing(context: StageContext, experiment: Experiment) -> tuple[dict[ArmName, Mixing], tuple[Trial, ...]]:
    """Try the candidates and take the best on val for each kind of arm, the first of even ones.

    Returns
    -------
    tuple
        The choice of each deciding arm, and what was tried.
    """
    config, compute = context.config.evaluate, context.config.compute
    searches = list_searches(config)
    section = search_section(config)
    seed, n_seeds = derive_seed(context.seed, "search"), config.search.n_seeds
    tasks = [
        TrainingTask(
            experiment,
            make_arm_of(context, experiment, arm, max(config.shares), {arm: mixing}),
            number,
            section,
            compute,
            seed,
            context.out / "search" / f"{arm}-{index}-{number}",
        )
        for arm, candidates in searches.items()
        if len(candidates) > 1
        for index, mixing in enumerate(candidates)
        for number in range(n_seeds)
    ]
    reached: list[float] = []
    for task, dice_val in zip(tasks, iterate_trainings(try_out, tasks, compute), strict=True):
        reached.append(dice_val)
        context.tracker.metrics({f"search/{task.folder.name}/dice_val": dice_val}, section.steps)
    left = iter(reached)
    trials = tuple(
        Trial(arm, mixing, tuple(next(left) for _ in range(n_seeds if len(candidates) > 1 else 0)))
        for arm, candidates in searches.items()
        for mixing in candidates
    )
    return {arm: _best([trial for trial in trials if trial.arm == arm]) for arm in searches}, trials


def _best(trials: list[Trial]) -> Mixing:
    return trials[0].mixing if len(trials) == 1 else max(trials, key=lambda trial: trial.mean).mixing


def search_section(config: EvaluateSection) -> EvaluateSection:
    """Return the section of a trial: as the arms', with the search's steps."""
    steps = config.search.steps or config.steps
    return config.model_copy(update={"steps": steps, "validate_every": min(config.validate_every, steps)})


def describe_search(
    config: EvaluateSection, chosen: dict[ArmName, Mixing], trials: tuple[Trial, ...]
) -> list[dict[str, Any]]:
    """Return what was tried, as ``gain.json`` has it; ``dice_val`` is null where there was one candidate only."""
    return [
        {
            "arm": trial.arm,
            **_describe_mixing(trial),
            "share": max(config.shares),
            "steps": search_section(config).steps if trial.dice_val else 0,
            "n_seeds": len(trial.dice_val),
            "dice_val": trial.mean if trial.dice_val else None,
            "dice_val_by_seed": list(trial.dice_val),
            "chosen": trial.mixing == chosen[trial.arm],
        }
        for trial in trials
    ]


def _describe_mixing(trial: Trial) -> dict[str, Any]:
    mixing = trial.mixing
    if DESIGNS[trial.arm].pastes:
        return {"synthetic_share": None, "schedule": None, "n_synthetic": None, "paste_share": mixing.paste_share}
    n_synthetic = mixing.n_synthetic or "all"
    shares = {"synthetic_share": mixing.synthetic_share, "schedule": mixing.schedule, "n_synthetic": n_synthetic}
    return {**shares, "paste_share": None}
