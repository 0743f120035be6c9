"""Reference generators: the target's own recipe on balanced random halves, each with its own synthetic cohort.

Every person of train and test is in for half of the references and out for the other half; so each person is compared
with himself, free of differences between the split's sides.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.targets import Attack, Persons, Reference, Release, score_persons
from pipeline.cohort import Case, Cohort, open_cohort, write_json
from pipeline.config import RunConfig
from pipeline.generate.synthesis import generate_cohort
from pipeline.parallel import iterate_trainings, training_device
from pipeline.seeds import derive_seed
from pipeline.train.loop import TrainingPlan, train_generator
from pipeline.train.weights import load_generator


@dataclass(frozen=True)
class ReferenceScores:
    """Scores of every person by every reference.

    Parameters
    ----------
    scores : mapping of str to ndarray, (references, persons), float64
        By attack name.
    is_member : ndarray, (references, persons), bool
    """

    scores: Mapping[str, NDArray[np.float64]]
    is_member: NDArray[np.bool_]


def balanced_halves(sides: Sequence[str], n_references: int, stream: np.random.Generator) -> NDArray[np.bool_]:
    """Draw complementary pairs of halves; each half takes half of each side of the split.

    Parameters
    ----------
    sides : sequence of str
        Side of each person: train or test.
    n_references : int
        Even.
    stream : numpy.random.Generator

    Returns
    -------
    ndarray, (n_references, persons), bool
        Who is in. Rows 2 i and 2 i + 1 are complements.
    """
    labels = np.array(sides)
    rows = []
    for _ in range(n_references // 2):
        inside = np.zeros(len(labels), bool)
        extra_inside = bool(stream.random() < 0.5)
        for side in sorted(set(sides)):
            members = stream.permutation(np.flatnonzero(labels == side))
            # Odd sides give their extra person to either half in turn, so that halves stay of equal size.
            n_inside = len(members) // 2 + (len(members) % 2 if extra_inside else 0)
            extra_inside ^= bool(len(members) % 2)
            inside[members[:n_inside]] = True
        rows += [inside, ~inside]
    return np.array(rows)


def score_with_references(
    persons: Persons,
    cohort: Cohort,
    config: RunConfig,
    reference: Reference,
    attacks: Mapping[str, Attack],
    folder: Path,
) -> ReferenceScores:
    """Train the references, make their cohorts, score every person with each.

    Parameters
    ----------
    persons : sequence of tuple of Case
        All scans of each person of train and test.
    cohort : Cohort
    config : RunConfig
        The target's own training and generation.
    reference : Reference
    attacks : mapping of str to Attack
    folder : Path
        Gets one sub-folder per reference with its generator and scores; a finished one is kept, a training that was
        cut off goes on.
    """
    stream = np.random.default_rng(derive_seed(reference.seed, "halves"))
    is_member = balanced_halves([cases[0].split for cases in persons], config.audit.n_references, stream)
    tasks = [
        ReferenceTask(number, _cases_of(persons, inside), tuple(persons), cohort, config, reference, attacks, folder)
        for number, inside in enumerate(is_member, start=1)
    ]
    found = list(iterate_trainings(score_one, tasks, config.compute))
    return ReferenceScores({name: np.array([scores[name] for scores in found]) for name in attacks}, is_member)


def _cases_of(persons: Persons, inside: NDArray[np.bool_]) -> tuple[Case, ...]:
    """Return all scans of the persons that are in, as the target was trained on all scans of its members."""
    scans = [case for cases, is_in in zip(persons, inside, strict=True) if is_in for case in cases]
    return tuple(sorted(scans, key=lambda case: case.subject))


@dataclass(frozen=True)
class ReferenceTask:
    """One reference to train and to score with, with all that a worker needs; see :func:`score_with_references`."""

    number: int
    members: tuple[Case, ...]
    persons: tuple[tuple[Case, ...], ...]
    cohort: Cohort
    config: RunConfig
    reference: Reference
    attacks: Mapping[str, Attack]
    root: Path

    @property
    def folder(self) -> Path:
        """Folder of this reference alone."""
        return self.root / f"{self.number:02d}"


def score_one(task: ReferenceTask) -> dict[str, list[float]]:
    """Train one reference, make its cohort, score every person; one with its mark is only read."""
    folder, config, cohort = task.folder, task.config, task.cohort
    mark = folder / "scores.json"
    if mark.is_file():
        _clear(folder)
        finished: dict[str, list[float]] = json.loads(mark.read_text(encoding="utf-8"))
        return finished
    compute, device = config.compute, training_device(config.compute)
    if device == "cpu":
        # One of several workers: what it calls starts no more of them.
        compute = compute.model_copy(update={"workers": 1, "scheduler": "local"})
    seed = derive_seed(task.reference.seed, "reference", task.number)
    plan = TrainingPlan(
        task.members, cohort.scheme, cohort.modalities, config.train, compute, seed, f"reference {task.number}"
    )
    train_generator(plan, folder)
    synthetic_folder = folder / "synthetic"
    shutil.rmtree(synthetic_folder, ignore_errors=True)
    generate_cohort(load_generator(folder), cohort, task.members, config.generate, compute, seed, synthetic_folder)
    release = Release(open_cohort(synthetic_folder), load_generator(folder).to(device))
    found = {
        name: score_persons(attack, task.persons, release, task.reference).tolist()
        for name, attack in task.attacks.items()
    }
    # Renamed when whole: a mark torn by a kill would count as a finished reference.
    temporary = folder / "writing.tmp"
    write_json(temporary, found)
    temporary.replace(mark)
    _clear(folder)
    return found


def _clear(folder: Path) -> None:
    """Drop what a reference was scored with; its mark is there, so that nothing has to go on from it."""
    for name in ("synthetic", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)


def standardise(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring each reference's scores (references, persons) to mean 0 and standard deviation 1 over persons."""
    deviation = np.maximum(scores.std(axis=1, keepdims=True), 1e-12)
    standardised: NDArray[np.float64] = (scores - scores.mean(axis=1, keepdims=True)) / deviation
    return standardised


def untouched_scores(references: ReferenceScores, attack: str) -> NDArray[np.float64]:
    """Return each person's mean score by the references that did not see him: (persons,)."""
    outside = ~references.is_member
    scores = np.where(outside, standardise(references.scores[attack]), 0)
    mean: NDArray[np.float64] = scores.sum(axis=0) / outside.sum(axis=0)
    return mean


def calibrate(references: ReferenceScores, attack: str) -> NDArray[np.float64]:
    """Return scores free of what belongs to the generator or to the person: (references, persons).

    Each reference's scores are standardised over persons (half of whom are in, by design), then each person's own mean
    is subtracted.
    """
    standardised = standardise(references.scores[attack])
    calibrated: NDArray[np.float64] = standardised - standardised.mean(axis=0, keepdims=True)
    return calibrated
