"""Auditing by one run: invented persons are put into one more training by a coin each, and guessed.

A canary is a label map of nobody with a look that nobody has: each class as bright, in each modality, as chance has it.
What a generator trained with it says of it can come from nowhere but its own scans. The guesses give a lower bound of
epsilon for the procedure, by one training where references take many. That generator is never released.

References
----------
Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run", arXiv:2305.08846.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.attacks.reconstruction import reconstruction_errors
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Scores, Targets, unlabelled
from pipeline.cohort import INTENSITY_MAX, Case, CaseData, Cohort, open_cohort, write_case, write_cohort_files
from pipeline.config import ComputeSection, GenerateSection, RunConfig
from pipeline.generate.public_labels import LABELS_FILE, draw_atlas_labels, public_labels
from pipeline.layout import WEIGHTS_FILE
from pipeline.parallel import training_device
from pipeline.seeds import derive_seed, numpy_stream
from pipeline.statistics import one_run_epsilon
from pipeline.train.generator import Generator
from pipeline.train.loop import CHECKPOINTS, guarantee_of, train_generator
from pipeline.train.plan import TrainingPlan
from pipeline.train.weights import load_generator
from pipeline.volumes import Grid
from pipeline.warps import random_field

BRIGHTNESS = (0.1, 0.9)
TEXTURE_SD, TEXTURE_MM = 0.03, 12.0
# Of the canaries, the share that is guessed to be in, and to be out; the rest is passed over. Fixed beforehand.
GUESSED_SHARE = 0.25
README = "Canaries of an audit: nobody was scanned. Private all the same: they say what a generator was trained on.\n"


@dataclass(frozen=True)
class CanaryFinding:
    """What the guesses show.

    Parameters
    ----------
    n_canaries, n_guesses, n_correct : int
    epsilon_lower : float
        Of the procedure, at the policy's level, one-sided.
    epsilon_resolvable : float
        The largest that so many guesses could have shown.
    delta : float
        At which both hold.
    """

    n_canaries: int
    n_guesses: int
    n_correct: int
    epsilon_lower: float
    epsilon_resolvable: float
    delta: float

    def as_json(self) -> dict[str, Any]:
        """Return the finding for ``audit.json``."""
        return asdict(self)


def make_canaries(
    cohort: Cohort, config: GenerateSection, compute: ComputeSection, n: int, seed: int, folder: Path
) -> tuple[Case, ...]:
    """Write canaries as a cohort like the one that is audited, and return them.

    Parameters
    ----------
    cohort : Cohort
        Gives grid, scheme and modalities.
    config : GenerateSection
        Gives the strata of their tumours.
    compute : ComputeSection
    n : int
    seed : int
    folder : Path
        To be written; what is there is written again, the same.

    Raises
    ------
    CaseError
        If no attempt gave a label map for one of them.
    """
    x, y, z = cohort.shape
    spacing_mm = (cohort.spacing_mm,) * 3
    affine = Grid(cohort.shape, cohort.spacing_mm).affine
    rows = []
    for number, labels in enumerate(draw_atlas_labels(config, compute, cohort, n, derive_seed(seed, "canaries"))):
        stream = numpy_stream(seed, "canary", number)
        condition = cohort.scheme.combine(labels.tissue_map, labels.tumor_map)
        images = {}
        for modality in cohort.modalities:
            brightness = stream.uniform(*BRIGHTNESS, cohort.scheme.n_condition_classes)
            texture = TEXTURE_SD * random_field((x, y, z), spacing_mm, TEXTURE_MM, stream)
            image = np.clip((brightness[condition] + texture) * INTENSITY_MAX, 1, INTENSITY_MAX)
            images[modality] = np.where(condition > 0, np.rint(image), 0).astype(np.int16)
        subject = f"canary{number:04d}"
        write_case(folder, CaseData(subject, images, labels.tissue_map, labels.tumor_map, affine, {}))
        rows.append({"participant_id": f"sub-{subject}", "source": "canary", "split": "train", "person": subject})
    write_cohort_files(folder, "Canaries", cohort.scheme, rows, README)
    return open_cohort(folder).cases


def toss(n: int, seed: int) -> NDArray[np.bool_]:
    """Return which canaries are in: a fair coin each, apart from the others; (n,)."""
    return numpy_stream(seed, "coins").random(n) < 0.5


def guess(scores: Scores, is_in: Sequence[bool] | NDArray[np.bool_], alpha: float, delta: float = 0.0) -> CanaryFinding:
    """Guess the canaries with the highest scores in, those with the lowest out, and count the right guesses.

    Parameters
    ----------
    scores : ndarray, (canaries,), float64
        Higher = in; made without knowing the coins.
    is_in : sequence of bool, (canaries,)
    alpha, delta : float
    """
    n = len(scores)
    n_side = int(GUESSED_SHARE * n)
    order = np.argsort(scores, kind="stable")
    inside = np.asarray(is_in)
    n_correct = int(inside[order[n - n_side :]].sum() + (~inside[order[:n_side]]).sum())
    lower, resolvable = (one_run_epsilon(n, 2 * n_side, right, alpha, delta) for right in (n_correct, 2 * n_side))
    return CanaryFinding(n, 2 * n_side, n_correct, lower, resolvable, delta)


def audit_by_canaries(
    cohort: Cohort, generator: Generator, config: RunConfig, setting: Setting, alpha: float, folder: Path
) -> CanaryFinding | None:
    """Train once more, on the members and on canaries that a coin each put in; guess them.

    How well the generator renders each canary is held against how well the audited one does, which saw none.

    Parameters
    ----------
    cohort : Cohort
    generator : Generator
        The audited one.
    config : RunConfig
        The target's own training.
    setting : Setting
    alpha : float
        Of the bound, one-sided.
    folder : Path
        Of the canaries and their generator; what is finished is kept, a training that was cut off goes on.

    Returns
    -------
    CanaryFinding or None
        None without ``audit.canaries``.
    """
    n = config.audit.canaries
    if not n:
        return None
    canaries = make_canaries(cohort, config.generate, config.compute, n, setting.seed, folder / "cohort")
    is_in = toss(n, setting.seed)
    members = (*cohort.split("train"), *(case for case, inside in zip(canaries, is_in, strict=True) if inside))
    seed = derive_seed(setting.seed, "canary-training")
    labels = public_labels(config, config.compute, cohort, seed, folder / CHECKPOINTS / LABELS_FILE)
    # Accounted for as many as coins put in on average: their true number is what is guessed.
    n_accounted = len({case.person for case in cohort.split("train")}) + n // 2
    plan = TrainingPlan(
        members, cohort.scheme, cohort.modalities, config.train, config.compute, seed, "canaries", labels, n_accounted
    )
    if not (folder / WEIGHTS_FILE).is_file():
        train_generator(plan, folder)
    trained = load_generator(folder).to(training_device(config.compute))
    targets = Targets(tuple(case.subject for case in canaries), {}, unlabelled(canaries))
    errors, errors_without = (reconstruction_errors(targets, one, setting) for one in (trained, generator))
    guarantee = guarantee_of(plan)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return guess(errors_without - errors, is_in, alpha, guarantee.get("delta", 0.0))
