"""Leaks made on purpose: copies among the released scans, a generator that remembers, references that tell all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.controls import Planted
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Reference, Release, Scores, Targets, Vectors
from pipeline.cohort import Case
from pipeline.train.data import one_hot, one_hot_slices, read_scan
from pipeline.train.generator import Generator

MIN_PLANTED = 3
PLANTED_SHARES = (0.05, 0.2)
# Attacks that must see a whole scan with its label map among the released ones.
MUST_SEE_COPIES = ("nearest-neighbour", "nearest-texture", "nearest-tumor", "nearest-labels", "patient-set")
# Of the scan in what a generator that remembers renders: it halves the error of reconstruction.
MEMORY = 0.5
# Length of the noise in a record that is planted in a reference, that of the record being 1: they correlate by .96.
RECORD_NOISE = 0.3


def n_planted(share: float, n_members: int) -> int:
    """Return how many members are planted: a share of them, three at least."""
    return min(n_members, max(MIN_PLANTED, round(share * n_members)))


def plant_copies(
    members: Targets,
    others: Targets,
    release: Release,
    reference: Reference,
    copies: Mapping[str, Vectors],
    share: float,
) -> list[Planted]:
    """Plant copies of members among the released scans: attacks by the nearest neighbour must see them.

    The planted are compared with all non-members, so that the control has power whatever the share.

    Parameters
    ----------
    members : Targets
        Those who are planted, one scan each.
    others : Targets
        Scans of non-members.
    release : Release
    reference : Reference
    copies : mapping of str to ndarray, (planted, dimensions), float32
        Views of the copies.
    share : float
        What share of members that is meant to be; for the name.
    """
    views = {level: np.concatenate([made, copies[level]]) for level, made in release.views.items() if level in copies}
    leaking = replace(release, views=views)
    # Asked about together, as an attacker would: some attacks bring their scores to one scale.
    asked = Targets(
        (*members.subjects, *others.subjects),
        {level: np.concatenate([members.views[level], others.views[level]]) for level in members.views},
    )
    found = []
    for name in MUST_SEE_COPIES:
        scores = BY_NAME[name].run(asked, leaking, reference)
        title = f"copies of {len(members)} members ({share:.0%}) planted among the synthetic scans, seen by"
        planted, clean = scores[: len(members)], scores[len(members) :]
        found.append(Planted(f"planted-copies-{share:g}-{name}", f"{title} '{BY_NAME[name].title}'", planted, clean))
    return found


class MemorisingGenerator(Generator):
    """A generator that renders the mean of its own work and the scan, where it recognises a person's label map.

    Parameters
    ----------
    generator : Generator
    cases : sequence of Case
        Persons to remember.
    setting : Setting
        Gives scheme and modalities.
    """

    def __init__(self, generator: Generator, cases: Sequence[Case], setting: Setting) -> None:
        super().__init__(generator.config)
        self.load_state_dict(generator.state_dict())
        self.to(next(generator.parameters()).device)
        self._memory: dict[bytes, Tensor] = {}
        config = generator.config
        for case in cases:
            condition = case.condition(setting.scheme)
            scan = torch.from_numpy(read_scan(case, setting.modalities, (slice(None),) * 3))
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


def plant_everyone(
    targets: Targets, inside: NDArray[np.bool_], release: Release, errors: Scores, stream: np.random.Generator
) -> Release:
    """Make a release tell everything of its members: a noisy record of each beside it, and half the error.

    Attacked like any reference, it must give a paired figure far above the limits: a control of the whole way from
    scores to that figure, not of the attack alone.

    Parameters
    ----------
    targets : Targets
        Those who are asked about.
    inside : ndarray, (targets,), bool
        Whose scans the release was made of.
    release : Release
    errors : ndarray, (targets,), float64
        Of reconstruction.
    stream : numpy.random.Generator
    """
    views = {}
    for level, made in release.views.items():
        own = targets.views[level][inside, 0]
        noise = stream.standard_normal(own.shape, dtype=np.float32)
        lengths = np.linalg.norm(own, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
        views[level] = np.concatenate([made, own + np.float32(RECORD_NOISE) * lengths * noise])
    remembered = np.where(inside, MEMORY * errors, errors)
    return Release(views, lambda asked: remembered if asked is targets else release.reconstruct(asked))


def _key(code: NDArray[np.float32]) -> bytes:
    """Return what a one-hot label map is recognised by."""
    return np.packbits(code > 0).tobytes()
