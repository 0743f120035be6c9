"""A toy world whose leak is known: records instead of scans, so that whole audits run in a blink.

Persons are points of normal coordinates, one set for each view. A generator makes points of the same law; with a
memory, a share of them lie near members. Its errors of reconstruction are those of a person (some are easy to guess),
of the generator, and of chance, less what it remembers of a member. So the truth is known: without memory there is
nothing to find, whatever the attack. ``benchmarks/audit_verdicts.py`` asks of it how often an audit says what.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.attacks.reconstruction import reconstruction
from pipeline.audit.attacks.registry import (
    BY_NAME,
    ShadowFindings,
    attack_references,
    attack_release,
    attack_with_shadows,
)
from pipeline.audit.attacks.relative_likelihood import ERRORS
from pipeline.audit.conclusions import Conclusions, Evidence, conclude
from pipeline.audit.controls import Dealt, Planted
from pipeline.audit.copies import nothing_copied
from pipeline.audit.dealing import balanced_halves, deal_again
from pipeline.audit.gallery import COPY_LEVELS
from pipeline.audit.gather import N_DEALT
from pipeline.audit.planting import MEMORY, PLANTED_SHARES, n_planted, plant_copies, plant_everyone
from pipeline.audit.policy import Policy
from pipeline.audit.targets import Reference, Release, Scores, Targets, Vectors
from pipeline.audit.views import LEVELS
from pipeline.config import AuditSection
from pipeline.seeds import numpy_stream

COPY_NOISE = 0.3
USUAL_ERROR = 20.0


@dataclass(frozen=True)
class World:
    """A toy world.

    Parameters
    ----------
    n_persons : int
        Of train and test together; three in five are members of the target.
    n_others : int
        Other people that an attacker has.
    n_synthetic : int
        Of each release.
    dimensions : int
        Of each view.
    copied : float
        Share of synthetic records that lie near a member.
    remembered : float
        How much smaller a member's error of reconstruction is, in standard deviations of chance.
    n_remembered : int, optional
        Only so many persons are remembered when in; all, if None.
    """

    n_persons: int
    n_others: int = 10
    n_synthetic: int = 48
    dimensions: int = 24
    copied: float = 0.0
    remembered: float = 0.0
    n_remembered: int | None = None


class ToyAudit:
    """One audit in a toy world.

    Parameters
    ----------
    world : World
    n_references : int
    seed : int
    """

    def __init__(self, world: World, n_references: int, seed: int) -> None:
        self.world, self.seed = world, seed
        self._stream = numpy_stream(seed, "world")
        self.targets = self._people("t", world.n_persons)
        others = self._people("o", world.n_others)
        # Errors are positive, as those of a generator are.
        self._ease = {
            "t": USUAL_ERROR + self._stream.normal(size=world.n_persons),
            "o": USUAL_ERROR + self._stream.normal(size=world.n_others),
        }
        self.reference = Reference(others, self._predict, seed)
        n_members = round(0.6 * world.n_persons)
        self.is_member = np.arange(world.n_persons) < n_members
        sides = np.where(self.is_member, "train", "test").tolist()
        self.is_in = balanced_halves(sides, n_references, numpy_stream(seed, "halves"))

    def evidence(self) -> Evidence:
        """Attack the target and the references, plant leaks."""
        target = self.release(self.is_member)
        found = attack_release(self.targets, target, self.reference)
        releases = [self.release(inside) for inside in self.is_in]
        shadows = self._attack_all(releases)
        told = [
            plant_everyone(self.targets, inside, release, release.reconstruct(self.targets), self._stream)
            for inside, release in zip(self.is_in, releases, strict=True)
        ]
        scores = found | attack_with_shadows(self.targets, target, self.reference, found, shadows.shadows())
        dealt = [
            Dealt(table, attack_references(self.targets, self.reference, replace(shadows, is_member=table)))
            for table in deal_again(self.is_member, len(self.is_in), N_DEALT, self.seed)
        ]
        return Evidence(
            self.is_member,
            {name: values for name, values in scores.items() if name in BY_NAME},
            attack_references(self.targets, self.reference, shadows),
            self.is_in,
            [*self._planted_copies(target), self._planted_memory(found)],
            dict.fromkeys(COPY_LEVELS, nothing_copied(self.world.n_persons)),
            dealt,
            attack_references(self.targets, self.reference, self._attack_all(told)),
        )

    def _attack_all(self, releases: Sequence[Release]) -> ShadowFindings:
        found = [attack_release(self.targets, release, self.reference) for release in releases]
        return ShadowFindings(
            {name: np.array([one[name] for one in found]) for name in found[0]},
            np.array([release.reconstruct(self.reference.others) for release in releases]),
            self.is_in,
        )

    def conclude(self, policy: Policy, section: AuditSection) -> Conclusions:
        """Return what the audit says."""
        return conclude(self.evidence(), policy, section, self.seed)

    def release(self, inside: NDArray[np.bool_]) -> Release:
        """Make a release whose members are these: (persons,), bool."""
        world, stream = self.world, self._stream
        source = stream.choice(np.flatnonzero(inside), world.n_synthetic)
        is_copy = stream.random(world.n_synthetic) < world.copied
        views: dict[str, Vectors] = {}
        for level in LEVELS:
            near = self._near(level, source)
            views[level] = np.where(is_copy[:, None], near, self._vectors(world.n_synthetic))
        own = stream.normal()
        # Whoever is remembered; of a few only, the first persons are.
        chosen = inside if world.n_remembered is None else inside & (np.arange(world.n_persons) < world.n_remembered)
        remembered = world.remembered * chosen
        errors = {
            "t": self._ease["t"] - remembered + own + stream.normal(size=world.n_persons),
            "o": self._ease["o"] + own + stream.normal(size=world.n_others),
        }
        return Release(views, lambda asked: errors[asked.subjects[0][0]][: len(asked)])

    def _planted_copies(self, target: Release) -> list[Planted]:
        planted: list[Planted] = []
        outside = np.flatnonzero(~self.is_member)
        for share in PLANTED_SHARES:
            chosen = numpy_stream(self.seed, "planted", f"{share:g}").choice(
                np.flatnonzero(self.is_member), n_planted(share, int(self.is_member.sum())), replace=False
            )
            copies: Mapping[str, Vectors] = {level: self._near(level, chosen) for level in LEVELS}
            planted += plant_copies(self._take(chosen), self._take(outside), target, self.reference, copies, share)
        return planted

    def _planted_memory(self, found: Mapping[str, Scores]) -> Planted:
        """Halve the errors of some members, as :class:`pipeline.audit.planting.MemorisingGenerator` does."""
        members = np.flatnonzero(self.is_member)
        chosen = members[: n_planted(0.2, len(members))]
        remembering = Release({}, lambda asked: MEMORY * found[ERRORS][chosen])
        scores = reconstruction(self._take(chosen), remembering, replace(self.reference, predict=self._ease_of(chosen)))
        return Planted("planted-memory", "memory of some", scores, found["reconstruction"][~self.is_member])

    def _ease_of(self, places: NDArray[np.intp]) -> Callable[[Targets], Scores]:
        return lambda asked: self._ease["t"][places]

    def _people(self, prefix: str, n: int) -> Targets:
        return Targets(tuple(f"{prefix}{i}" for i in range(n)), {level: self._vectors(n)[:, None] for level in LEVELS})

    def _take(self, places: NDArray[np.intp]) -> Targets:
        subjects = tuple(self.targets.subjects[int(place)] for place in places)
        return Targets(subjects, {level: views[places] for level, views in self.targets.views.items()})

    def _near(self, level: str, places: NDArray[np.intp]) -> Vectors:
        near: Vectors = self.targets.views[level][places, 0] + np.float32(COPY_NOISE) * self._vectors(len(places))
        return near

    def _vectors(self, n: int) -> Vectors:
        return self._stream.normal(size=(n, self.world.dimensions)).astype(np.float32)

    def _predict(self, asked: Targets) -> Scores:
        return self._ease[asked.subjects[0][0]][: len(asked)]
