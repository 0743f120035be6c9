"""Reference generators: the target's own recipe on balanced random halves, each with its own synthetic cohort.

Every person of train and test is in for half of the references and out for the other half; so each person is compared
with himself, free of differences between the split's sides. The same references are the shadows of attacks that need
some, and the negative control's releases that saw neither side.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.asked import Asked
from pipeline.audit.attacks.registry import ShadowFindings, attack_release
from pipeline.audit.attacks.relative_likelihood import ERRORS
from pipeline.audit.material import open_release
from pipeline.audit.planting import plant_everyone
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Persons, Reference, Scores, Targets
from pipeline.cohort import Case, Cohort, write_whole
from pipeline.config import RunConfig
from pipeline.generate.recipe import clear_recipe, repeat_recipe
from pipeline.parallel import iterate_trainings, training_device
from pipeline.seeds import derive_seed, numpy_stream
from pipeline.train.weights import load_generator

OF_FEW = "few"


@dataclass(frozen=True)
class ReferenceFindings:
    """What attacks without shadows found on the references.

    Parameters
    ----------
    as_they_are : ShadowFindings
    telling_everything : ShadowFindings
        On the same releases, made to tell everything of their members: a control.
    of_few : mapping of str to ndarray, (n,), float64, or None
        What attacks gave the targets on the generator of few.
    """

    as_they_are: ShadowFindings
    telling_everything: ShadowFindings
    of_few: Mapping[str, Scores] | None


def attack_all_references(
    asked: Asked,
    is_in: NDArray[np.bool_],
    cohort: Cohort,
    config: RunConfig,
    setting: Setting,
    reference: Reference,
    folder: Path,
    few: Sequence[Case] = (),
) -> ReferenceFindings:
    """Train the references, make their cohorts, attack each without shadows, as it is and made to tell everything.

    Parameters
    ----------
    asked : Asked
    is_in : ndarray, (references, persons), bool
        See :func:`pipeline.audit.dealing.balanced_halves`.
    cohort : Cohort
    config : RunConfig
        The target's own training and generation.
    setting : Setting
    reference : Reference
    folder : Path
        Gets one sub-folder per reference with its generator and scores; a finished one is kept, a training that was
        cut off goes on.
    few : sequence of Case
        Members of one more generator, trained on them alone: a positive control. None: there is none.

    Returns
    -------
    ReferenceFindings
    """
    tasks = [
        ReferenceTask(
            f"{number:02d}", _cases_of(asked.persons, inside), asked.targets, cohort, config, setting, reference, folder
        )
        for number, inside in enumerate(is_in, start=1)
    ]
    if few:
        tasks.append(ReferenceTask(OF_FEW, tuple(few), asked.targets, cohort, config, setting, reference, folder))
    found = list(iterate_trainings(attack_one, tasks, config.compute))
    of_few = {name: np.array(scores) for name, scores in found.pop()["scores"].items()} if few else None
    as_they_are, telling_everything = (
        ShadowFindings(
            {name: np.array([one[key][name] for one in found]) for name in found[0][key]},
            np.array([one["others"][ERRORS] for one in found]),
            is_in[:, asked.owners],
        )
        for key in ("scores", "everything")
    )
    return ReferenceFindings(as_they_are, telling_everything, of_few)


def _cases_of(persons: Persons, inside: NDArray[np.bool_]) -> tuple[Case, ...]:
    """Return all scans of the persons that are in, as the target was trained on all scans of its members."""
    scans = [case for cases, is_in in zip(persons, inside, strict=True) if is_in for case in cases]
    return tuple(sorted(scans, key=lambda case: case.subject))


@dataclass(frozen=True)
class ReferenceTask:
    """One reference to train and attack, with all that a worker needs; see :func:`attack_all_references`."""

    name: str
    members: tuple[Case, ...]
    targets: Targets
    cohort: Cohort
    config: RunConfig
    setting: Setting
    reference: Reference
    root: Path

    @property
    def folder(self) -> Path:
        """Folder of this reference alone."""
        return self.root / self.name


Findings = dict[str, dict[str, list[float]]]


def attack_one(task: ReferenceTask) -> Findings:
    """Train one reference, make its cohort, attack it; one with its mark is only read."""
    folder, config, cohort = task.folder, task.config, task.cohort
    mark = folder / "scores.json"
    if mark.is_file():
        clear_recipe(folder)
        finished: Findings = json.loads(mark.read_text(encoding="utf-8"))
        return finished
    seed = derive_seed(task.setting.seed, "reference", task.name)
    synthetic = repeat_recipe(config, cohort, task.members, seed, folder, f"reference {task.name}")
    generator = load_generator(folder).to(training_device(config.compute))
    release = open_release(synthetic.cases, generator, task.setting)
    scores = attack_release(task.targets, release, task.reference)
    inside = np.isin(task.targets.subjects, [case.subject for case in task.members])
    told = plant_everyone(task.targets, inside, release, scores[ERRORS], numpy_stream(seed, "everything"))
    everything = attack_release(task.targets, told, task.reference)
    found: Findings = {
        "scores": {name: values.tolist() for name, values in scores.items()},
        "everything": {name: values.tolist() for name, values in everything.items()},
        "others": {ERRORS: release.reconstruct(task.reference.others).tolist()},
    }
    write_whole(mark, found)
    clear_recipe(folder)
    return found
