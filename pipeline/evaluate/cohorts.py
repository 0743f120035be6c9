"""Synthetic cohorts of an evaluation: one for each share of the real training patients and each generator.

An arm at a quarter of the patients stands for a hospital that has a quarter: its generator, its label maps and the
judge of curation must have seen nobody else. And an interval that holds the luck of one generator only says nothing of
the next one. So evaluate trains further generators by the run's own recipe, and makes a cohort from each, as the stages
train and generate do. The run's own cohort is that of all patients and generator 0.
"""

import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cohort import Case, Cohort, open_cohort, write_whole
from pipeline.config import RunConfig
from pipeline.config_evaluate import EvaluateSection
from pipeline.errors import ConfigError
from pipeline.evaluate.received import ReceivedRelease, open_received
from pipeline.generate.recipe import SYNTHETIC_FOLDER, repeat_recipe
from pipeline.parallel import iterate_trainings
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed
from pipeline.segmentation.arms import DESIGNS, choose_real_cases, list_arms
from pipeline.train.loop import CHECKPOINTS

# Beside the stages' folders, private as they are.
GENERATORS_FOLDER = ".generators"
MADE_FILE = "made.json"


@dataclass(frozen=True, order=True)
class Origin:
    """Where a synthetic cohort comes from.

    Parameters
    ----------
    share : float
        Of the real training patients, whom the generator was trained on.
    number : int
        Running number of the generator, and of the draw of its patients.
    """

    share: float
    number: int

    @property
    def title(self) -> str:
        """Share and number, as folders are called."""
        return f"{self.share:g}-{self.number}"


OWN = Origin(1.0, 0)


@dataclass(frozen=True)
class SyntheticCohort:
    """A synthetic cohort, and how many persons its generator was trained on; None: not known, of a received one."""

    cohort: Cohort
    n_persons: int | None


def origin_of(config: EvaluateSection, share: float, number: int = 0) -> Origin:
    """Return which cohort an arm uses at a share of the real patients: arms without any, at 0, use that of all."""
    return OWN if config.received_release is not None else Origin(share or OWN.share, number)


def list_origins(config: EvaluateSection) -> tuple[Origin, ...]:
    """Return the cohorts that the arms use, the run's own first: it is opened whichever arms are trained."""
    used = (
        origin_of(config, share, number)
        for name, share in list_arms(config)
        if DESIGNS[name].synthetic != "none"
        for number in range(config.n_generators)
    )
    return tuple(dict.fromkeys((OWN, *used)))


def choose_members(real: Cohort, share: float, seed: int, number: int = 0) -> tuple[Case, ...]:
    """Return all scans of a draw of a share of the real training patients: what that generator is trained on.

    Arms with real scans are trained on those of them that lack no modality.
    """
    return choose_real_cases(real.split("train"), share, seed, number)


def open_own(context: StageContext) -> tuple[Cohort, ReceivedRelease | None]:
    """Open the run's own synthetic cohort, or the received one in its place, with what is recorded of that."""
    release = context.config.evaluate.received_release
    if release is None:
        return open_cohort(context.folder("generate")), None
    return open_received(release, context.out, context.config.compute)


@dataclass(frozen=True)
class CohortTask:
    """One further generator to train, with all that a worker needs.

    Parameters
    ----------
    origin : Origin
    members : tuple of Case
    real : Cohort
    config : RunConfig
    seed : int
        Root of the stage's streams.
    root : Path
    """

    origin: Origin
    members: tuple[Case, ...]
    real: Cohort
    config: RunConfig
    seed: int
    root: Path

    @property
    def folder(self) -> Path:
        """Folder of this generator alone."""
        return self.root / self.origin.title


def make_synthetic_cohorts(context: StageContext, real: Cohort, own: Cohort) -> dict[Origin, SyntheticCohort]:
    """Train the further generators, side by side where there are cores for it, and make their cohorts.

    Parameters
    ----------
    context : StageContext
    real : Cohort
    own : Cohort
        As :func:`open_own` gives it.

    Returns
    -------
    dict of Origin to SyntheticCohort
        The run's own cohort first. A generator with its marker is only read; a training that was cut off goes on.

    Raises
    ------
    ConfigError
        If a share has too few persons for a generator.
    """
    config = context.config
    is_received = config.evaluate.received_release is not None
    cohorts = {OWN: SyntheticCohort(own, None if is_received else count_persons(real.split("train")))}
    root = generators_folder(context)
    tasks = [
        CohortTask(
            origin,
            choose_members(real, origin.share, context.seed, origin.number),
            real,
            config,
            context.seed,
            root,
        )
        for origin in list_origins(config.evaluate)
        if origin != OWN
    ]
    check_members(tasks, config)
    # Of another training or generation: not to be gone on from.
    for other in (context.run_dir / GENERATORS_FOLDER).glob("*"):
        if other != root:
            shutil.rmtree(other)
    for task, cohort in zip(tasks, iterate_trainings(make_cohort, tasks, config.compute), strict=True):
        cohorts[task.origin] = SyntheticCohort(cohort, count_persons(task.members))
    return cohorts


def generators_folder(context: StageContext) -> Path:
    """Return the folder of further generators: they hold as long as the stages train and generate do.

    Not within the stage's own folder: another step size of segmenters, another level or arm must not cost generators.
    """
    recipe = context.done("generate").get("fingerprint", "")
    return context.run_dir / GENERATORS_FOLDER / f"{recipe[:16]}-{context.seed:x}"


def count_persons(cases: Sequence[Case]) -> int:
    """Return how many persons the cases are of."""
    return len({case.person for case in cases})


def check_members(tasks: Sequence[CohortTask], config: RunConfig) -> None:
    """Refuse now what a training would be refused hours later: a share with too few persons for a generator.

    Raises
    ------
    ConfigError
    """
    n_needed = 2 if config.generate.label_sources.get("recombine", 0) > 0 else 1
    if config.train.privacy is not None:
        n_needed = max(n_needed, config.train.privacy.patients_per_step + 1)
    for task in tasks:
        n_persons = count_persons(task.members)
        if n_persons < n_needed:
            raise ConfigError(
                f"evaluate.shares: a generator of {task.origin.share:.0%} of the real training patients; expected at "
                f"least {n_needed} persons to train it on, got {n_persons}; leave out that share or the arms with "
                "synthetic scans, or take more persons"
            )


def make_cohort(task: CohortTask) -> Cohort:
    """Train one generator and make its cohort; what is there already is only read."""
    folder, origin = task.folder, task.origin
    if not (folder / MADE_FILE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        seed = derive_seed(task.seed, "generator", f"{origin.share:g}", origin.number)
        description = f"generator {origin.number} of {origin.share:.0%} of the patients"
        cohort = repeat_recipe(task.config, task.real, task.members, seed, folder, description)
        write_whole(folder / MADE_FILE, {"n_persons": count_persons(task.members), "n_cases": len(cohort.cases)})
    # The marker is there, so that what was to go on from is no longer needed.
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return open_cohort(folder / SYNTHETIC_FOLDER)


def remove_synthetic_cohorts(context: StageContext) -> None:
    """Remove the cohorts of further generators, as large as the run's own each; the generators stay, to make them anew.

    The marker first: a cohort half removed or half made anew by a kill must not be taken for a whole one.
    """
    for folder in sorted(generators_folder(context).glob("*")):
        (folder / MADE_FILE).unlink(missing_ok=True)
        shutil.rmtree(folder / SYNTHETIC_FOLDER, ignore_errors=True)


def describe_generators(cohorts: Mapping[Origin, SyntheticCohort]) -> list[dict[str, Any]]:
    """Return every synthetic cohort, as ``gain.json`` has it."""
    return [
        {
            "share": origin.share,
            "number": origin.number,
            "n_persons": one.n_persons,
            "n_cases": len(one.cohort.cases),
        }
        for origin, one in cohorts.items()
    ]


def list_draw_cautions(config: EvaluateSection, real: Cohort, cohorts: Mapping[Origin, SyntheticCohort]) -> list[str]:
    """Say what intervals do not hold of the luck of draws: of patients, and of the generators that saw them.

    And whom generators knew whom segmenters did not.
    """
    cautions = []
    shares = {share for name, share in list_arms(config) if DESIGNS[name].uses_real and share < 1.0}
    if shares and config.n_generators == 1:
        cautions.append(
            f"One draw of the real patients at {_list_shares(shares)}: intervals include no luck of who they are."
        )
    elif shares:
        held = ", ".join(f"{math.sqrt(1 - share):.0%}" for share in sorted(shares))
        cautions.append(
            f"The draws of real patients at {_list_shares(shares)} overlap: intervals include at most {held} of the "
            "standard deviation that fresh patients would bring."
        )
    if all(DESIGNS[name].synthetic == "none" for name in config.arms):
        return cautions
    if config.n_generators == 1:
        cautions.append("One generator at each share: intervals do not include the variation between generators.")
    elif config.n_generators < config.n_seeds:
        cautions.append(
            f"{config.n_generators} generators for {config.n_seeds} trainings: intervals include the variation between "
            "generators, and between draws of patients, in part only."
        )
    members = real.split("train")
    n_lacking = len(members) - len(real.complete(members)) if cohorts[OWN].n_persons is not None else 0
    if n_lacking:
        cautions.append(
            f"{n_lacking} of {len(members)} real training scans lack a modality, those of "
            f"{count_persons(members) - count_persons(real.complete(members))} persons altogether: generators are "
            "trained on them, segmenters are not."
        )
    return cautions


def _list_shares(shares: Collection[float]) -> str:
    return " and ".join(f"{share:.0%}" for share in sorted(shares))
