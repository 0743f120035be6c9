"""Stage train: the generator on the cohort's train patients."""

from typing import Any

from pipeline.cohort import digest_file, open_cohort
from pipeline.generate.public_labels import LABELS_FILE, public_labels
from pipeline.layout import WEIGHTS_FILE
from pipeline.runner import StageContext
from pipeline.train.loop import CHECKPOINTS, guarantee_of, train_generator, write_model_card
from pipeline.train.monitor import HeldOutMonitor
from pipeline.train.plan import TrainingPlan


def run(context: StageContext) -> dict[str, Any]:
    """Train the generator of the config into ``context.out``."""
    cohort = open_cohort(context.folder("ingest"))
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
