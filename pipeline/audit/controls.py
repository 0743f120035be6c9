"""Controls: what must not fire, and what must. An audit whose controls misbehave is invalid, whatever it says."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.audit.nearest_neighbour import nearest_neighbour
from pipeline.audit.reconstruction import reconstruction
from pipeline.audit.targets import Persons, Reference, Release, Targets, score_persons, unlabelled
from pipeline.cohort import INTENSITY_MAX, Case, CaseData, write_case
from pipeline.config import AuditSection
from pipeline.embedding import read_case
from pipeline.near_duplicates import construct_copy
from pipeline.scratch import temporary_folder
from pipeline.seeds import numpy_stream
from pipeline.statistics import auc, permutation_aucs, permutation_p
from pipeline.train.data import one_hot, one_hot_slices, read_scan
from pipeline.train.generator import Generator

N_ATTACKS = 2
MIN_PLANTED = 3
PLANTED_AUC = 0.8
MEMORY = 0.5


@dataclass(frozen=True)
class Control:
    """One control.

    Parameters
    ----------
    name, title : str
    expected, observed : str
        In words and figures.
    behaved : bool
    curve : tuple of ndarray
        Scores of the two sides, for the picture.
    """

    name: str
    title: str
    expected: str
    observed: str
    behaved: bool
    curve: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what goes into audit.json."""
        return {key: value for key, value in asdict(self).items() if key != "curve"}


def permuted_membership(name: str, title: str, value: float, permuted: NDArray[np.float64]) -> Control:
    """Judge the AUC under random membership: it must be .5 on average.

    Parameters
    ----------
    name, title : str
        Of the attack.
    value : float
        AUC under true membership, for the text only.
    permuted : ndarray, (permutations,), float64
    """
    mean, deviation = float(permuted.mean()), float(permuted.std())
    tolerance = 4 * deviation / np.sqrt(len(permuted))
    low, high = np.quantile(permuted, [0.025, 0.975])
    return Control(
        f"permuted-{name}",
        f"{title}, membership dealt out at random",
        f"mean AUC .50 within {tolerance:.3f}",
        f"mean {mean:.3f}, 95% of {len(permuted)} between {low:.2f} and {high:.2f} (true membership: {value:.2f})",
        bool(abs(mean - 0.5) <= tolerance),
    )


def untouched_patients(
    name: str, title: str, scores: NDArray[np.float64], is_train: NDArray[np.bool_], policy: AuditSection, seed: int
) -> Control:
    """Compare the two sides of the split by references that saw neither: there is nothing to find.

    What is found all the same is a difference between the sides, or a fault of the scorer, and would be taken for a
    leak on the target.

    Parameters
    ----------
    name, title : str
        Of the attack.
    scores : ndarray, (persons,), float64
        Each person's mean score by the references that did not see him, standardised by reference.
    is_train : ndarray, (persons,), bool
        Side of the split.
    policy : AuditSection
    seed : int
    """
    value = auc(scores[is_train], scores[~is_train])
    permuted = permutation_aucs(
        scores[is_train], scores[~is_train], policy.n_permutations, numpy_stream(seed, "untouched", name)
    )
    p_value = permutation_p(value, permuted)
    level = policy.alpha / N_ATTACKS
    return Control(
        f"untouched-{name}",
        f"{title} by references that saw neither side, train against test persons",
        f"p of at least {level:.3g} (Bonferroni over attacks)",
        f"AUC {value:.2f}, p = {p_value:.3g}",
        p_value >= level,
    )


def planted_copies(
    members: Persons, nonmembers: Persons, release: Release, reference: Reference, share: float
) -> Control:
    """Plant copies of some members among the synthetic scans: the nearest-neighbour attack must see them.

    The planted members are compared with all non-members, so that the control has power whatever the share.
    """
    stream = numpy_stream(reference.seed, "planted")
    chosen = _choose(members, share, stream)
    synthetic = release.synthetic
    with temporary_folder() as folder:
        planted = [_write_copy(case, folder, reference, synthetic.spacing_mm, stream) for case in chosen]
        leaking = Release(replace(synthetic, cases=(*synthetic.cases, *planted)), release.generator)
        targets = [*((case,) for case in chosen), *nonmembers]
        scores = score_persons(nearest_neighbour, targets, leaking, reference)
    title = f"copies of {len(chosen)} members planted among the synthetic scans"
    return _judge_planted("planted-copies", title, scores[: len(chosen)], scores[len(chosen) :])


def planted_memory(
    members: Persons, clean: NDArray[np.float64], release: Release, reference: Reference, share: float
) -> Control:
    """Give the generator a memory of some members: the reconstruction attack must see it.

    Parameters
    ----------
    members : sequence of Case
    clean : ndarray, (n_nonmembers,), float64
        What the attack gave the non-members: the memory does not change it.
    release : Release
    reference : Reference
    share : float
        Of members to remember.
    """
    chosen = _choose(members, share, numpy_stream(reference.seed, "memory"))
    leaking = Release(release.synthetic, MemorisingGenerator(release.generator, chosen, reference))
    scores = reconstruction(unlabelled(chosen), leaking, reference)
    title = f"generator made to half remember {len(chosen)} members"
    return _judge_planted("planted-memory", title, scores, clean)


class MemorisingGenerator(Generator):
    """A generator that renders the mean of its own work and the scan, where it recognises a person's label map.

    Parameters
    ----------
    generator : Generator
    cases : sequence of Case
        Persons to remember.
    reference : Reference
        Gives scheme and modalities.
    """

    def __init__(self, generator: Generator, cases: Targets, reference: Reference) -> None:
        super().__init__(generator.config)
        self.load_state_dict(generator.state_dict())
        self.to(next(generator.parameters()).device)
        self._memory: dict[bytes, Tensor] = {}
        config = generator.config
        for case in cases:
            condition = case.condition(reference.scheme)
            scan = torch.from_numpy(read_scan(case, reference.modalities, (slice(None),) * 3))
            if config.dimensions == 3:
                self._memory[_key(one_hot(condition, config.n_classes))] = scan
                continue
            padded = np.pad(condition, ((0, 0), (0, 0), (config.context_slices, config.context_slices)))
            codes = one_hot_slices(padded, config.n_classes, config.context_slices)
            self._memory |= {_key(code): scan[..., index] for index, code in enumerate(codes)}

    def forward(self, condition: Tensor, style: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render as :meth:`Generator.forward`, then mix in what is remembered."""
        rendered = super().forward(condition, style, noise)
        mixed = []
        for image, code in zip(rendered, condition.cpu().numpy(), strict=True):
            scan = self._memory.get(_key(code))
            mixed.append(image if scan is None else torch.lerp(image, scan.to(image), MEMORY))
        return torch.stack(mixed)


def _key(code: NDArray[np.float32]) -> bytes:
    """Return what a one-hot label map is recognised by."""
    return np.packbits(code > 0).tobytes()


def _choose(members: Persons, share: float, stream: np.random.Generator) -> list[Case]:
    """Draw some persons; of each, the first scan is planted."""
    n_planted = min(len(members), max(MIN_PLANTED, round(share * len(members))))
    return [members[int(i)][0] for i in stream.choice(len(members), n_planted, replace=False)]


def _write_copy(case: Case, folder: Path, reference: Reference, spacing_mm: float, stream: np.random.Generator) -> Case:
    """Write a copy of a case such as a leaking generator might make; return it."""
    images, brain = read_case(case, reference.modalities)
    changed, mask = construct_copy(images, brain, spacing_mm, stream)
    stored = np.where(mask, np.clip(np.rint(changed), 0, INTENSITY_MAX), 0).astype(np.int16)
    subject = f"planted{case.subject}"
    empty = np.zeros(mask.shape, np.uint8)
    data = CaseData(
        subject, dict(zip(reference.modalities, stored, strict=True)), mask.astype(np.uint8), empty, case.affine, {}
    )
    write_case(folder, data)
    return Case(subject, folder / f"sub-{subject}" / "anat")


def _judge_planted(name: str, title: str, planted: NDArray[np.float64], clean: NDArray[np.float64]) -> Control:
    value = auc(planted, clean)
    return Control(
        name, title, f"AUC of at least {PLANTED_AUC}", f"AUC {value:.2f}", value >= PLANTED_AUC, (planted, clean)
    )
