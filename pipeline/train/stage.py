"""Stage train: the generator on the cohort's train patients."""

from typing import Any

from pipeline.cohort import Cohort, digest_file, open_cohort
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.generate.public_labels import LABELS_FILE, public_labels
from pipeline.layout import WEIGHTS_FILE
from pipeline.runner import StageContext
from pipeline.train.loop import CHECKPOINTS, guarantee_of, train_generator, write_model_card
from pipeline.train.monitor import HeldOutMonitor
from pipeline.train.plan import TrainingPlan


def run(context: StageContext) -> dict[str, Any]:
    """Train the generator of the config into ``context.out``."""
    cohort = open_cohort(context.folder("ingest"))
    refuse_smaller_trainings(context.config, cohort)
    plan = TrainingPlan(
        cases=cohort.split("train"),
        scheme=cohort.scheme,
        modalities=cohort.modalities,
        config=context.config.train,
        compute=context.config.compute,
        seed=context.seed,
        public=public_labels(
            context.config, context.config.compute, cohort, context.seed, context.out / CHECKPOINTS / LABELS_FILE
        ),
    )
    monitor = HeldOutMonitor(
        cohort.split("val"), cohort.scheme, cohort.modalities, context.out, context.seed, context.tracker
    )
    train_generator(plan, context.out, monitor)
    write_model_card(context.out, plan, cohort.spacing_mm, cohort.shape)
    summary = {
        "steps": plan.config.steps,
        "members": plan.n_members,
        "generator": digest_file(context.out / WEIGHTS_FILE)[:12],
    }
    if guarantee := guarantee_of(plan):
        figures = {name: guarantee[name] for name in ("epsilon", "delta", "noise_multiplier")}
        context.tracker.metrics({f"privacy/{name}": float(value) for name, value in figures.items()}, plan.config.steps)
        summary |= figures
    return summary


def refuse_smaller_trainings(config: RunConfig, cohort: Cohort) -> None:
    """Refuse now what the audit would be refused hours later: trainings on fewer patients than a private step draws.

    Raises
    ------
    ConfigError
    """
    if config.train.privacy is None:
        return
    n_half = (len(cohort.patients("train")) + len(cohort.patients("test"))) // 2
    n_few = config.audit.overtrained_members
    n_drawn = config.train.privacy.patients_per_step
    for key, n in (("its references, half of train and test persons,", n_half), ("audit.overtrained_members", n_few)):
        if 0 < n <= n_drawn:
            raise ConfigError(
                f"train.privacy.patients_per_step: expected fewer than the audit trains on, got {n_drawn}, and {key} "
                f"are {n}; draw fewer, or take more persons"
            )
