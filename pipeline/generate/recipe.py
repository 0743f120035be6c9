"""The run's own recipe on other members: a generator trained on them, and its synthetic cohort.

The audit's references and the evaluation's further generators go this way, which is that of the stages train and
generate: same training, plan, candidates and curation, with a seed and members of their own.
"""

import shutil
from pathlib import Path

from pipeline.cohort import Case, Cohort, open_cohort
from pipeline.config import ComputeSection, RunConfig
from pipeline.generate.public_labels import LABELS_FILE, public_labels
from pipeline.generate.synthesis import generate_cohort
from pipeline.layout import MODEL_FILE
from pipeline.parallel import training_device
from pipeline.train.loop import CHECKPOINTS, train_generator, write_model_card
from pipeline.train.plan import TrainingPlan
from pipeline.train.weights import load_generator

SYNTHETIC_FOLDER = "synthetic"


def repeat_recipe(
    config: RunConfig, cohort: Cohort, members: tuple[Case, ...], seed: int, folder: Path, description: str
) -> Cohort:
    """Train a generator on members and make its synthetic cohort.

    Parameters
    ----------
    config : RunConfig
        The run's own training and generation.
    cohort : Cohort
        Gives grid, scheme, modalities, and the val patients that curation looks at.
    members : tuple of Case
        The only patients whom the generator, its label maps and the judge of curation see.
    seed : int
        Root of the streams.
    folder : Path
        Gets the generator and ``model.json``, ``checkpoints/``, of which a training that was cut off goes on, and
        ``synthetic/``. A generator that is there is not trained again.
    description : str
        Shown with the progress.

    Returns
    -------
    Cohort
        The synthetic one.

    Raises
    ------
    ConfigError, CaseError, DataError
        See :func:`pipeline.generate.synthesis.generate_cohort`.
    """
    compute = compute_of_worker(config.compute)
    if not (folder / MODEL_FILE).is_file():
        plan = TrainingPlan(
            members,
            cohort.scheme,
            cohort.modalities,
            config.train,
            compute,
            seed,
            description,
            public_labels(config, compute, cohort, seed, folder / CHECKPOINTS / LABELS_FILE),
        )
        train_generator(plan, folder)
        # Written last: a generator with it is whole.
        write_model_card(folder, plan, cohort.spacing_mm, cohort.shape)
    synthetic = folder / SYNTHETIC_FOLDER
    shutil.rmtree(synthetic, ignore_errors=True)
    generate_cohort(load_generator(folder), cohort, members, config.generate, compute, seed, synthetic)
    return open_cohort(synthetic)


def compute_of_worker(compute: ComputeSection) -> ComputeSection:
    """Return what one of several workers has: it starts no more of them, and asks no cluster that waits for it."""
    if compute.scheduler == "local" and training_device(compute) == "cuda":
        # One after the other, each with all cores.
        return compute
    return compute.model_copy(update={"workers": 1, "scheduler": "local"})


def clear_recipe(folder: Path) -> None:
    """Drop checkpoints and synthetic cohort, once nothing has to go on from them; the generator stays."""
    for name in (SYNTHETIC_FOLDER, CHECKPOINTS):
        shutil.rmtree(folder / name, ignore_errors=True)
