"""What an attack is given: targets without membership, what was released, reference material.

An attack is a function ``(targets, release, reference) -> scores``, one score per target, higher = member. Who is a
member is known to the scorer outside only. Reference material comes from val patients, and from shadows: releases that
the attacker makes himself, of persons whom he knows, with the same recipe. So members and non-members of the release
are treated alike. What an attack reads are arrays and functions: the same attacks run on records of a simulation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort import UNKNOWN, Case

Scores = NDArray[np.float64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Targets:
    """Scans that are asked about.

    Parameters
    ----------
    subjects : tuple of str
    views : mapping of str to ndarray, (n, ways, dimensions), float32
        By level, see :mod:`pipeline.audit.views`: each scan as it is, and mirrored.
    cases : tuple of Case
        The scans themselves, without source, side or attributes; none for records of a simulation.
    """

    subjects: tuple[str, ...]
    views: Mapping[str, Vectors]
    cases: tuple[Case, ...] = ()

    def __len__(self) -> int:
        """Return the number of scans."""
        return len(self.subjects)


@dataclass(frozen=True)
class Release:
    """What leaves the building, or the stand-in of a reference for it.

    Parameters
    ----------
    views : mapping of str to ndarray, (synthetic cases, dimensions), float32
        By level. Known to both threat models.
    reconstruct : callable
        Targets to the error of the generator's best rendering of each label map: (n,), float64. Known to the
        model-release threat model only.
    judge : callable, optional
        Targets to the discriminator's mean logit: (n,), float64. Never released: a warning only.
    known : mapping of str to ndarray, (n,), float64
        What attacks, by name, gave the very targets asked about, where that was found before.
    cases : tuple of Case
        The released scans themselves; none for records of a simulation.
    """

    views: Mapping[str, Vectors]
    reconstruct: Callable[[Targets], Scores]
    judge: Callable[[Targets], Scores] | None = None
    known: Mapping[str, Scores] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()


@dataclass(frozen=True)
class Shadows:
    """What attacks give on releases whose members the attacker knows.

    Parameters
    ----------
    scores : mapping of str to ndarray, (shadows, n), float64
        By attack, for the very targets asked about.
    of_others : mapping of str to ndarray, (shadows, others), float64
        By attack, for the other people of the reference.
    is_member : ndarray, (shadows, n), bool
        Who of the targets is in each.
    """

    scores: Mapping[str, Scores]
    of_others: Mapping[str, Scores]
    is_member: NDArray[np.bool_]


@dataclass(frozen=True)
class Reference:
    """What an attacker has beside the release.

    Parameters
    ----------
    others : Targets
        Other people: val patients.
    predict : callable
        Targets to the error of a generic model, made without any member: (n,), float64.
    seed : int
        Root of the attacks' streams.
    shadows : Shadows, optional
        None where there are none.
    """

    others: Targets
    predict: Callable[[Targets], Scores]
    seed: int
    shadows: Shadows | None = None


Attack = Callable[[Targets, Release, Reference], Scores]
# All scans of each person: what is known of one scan is known of the person.
Persons = Sequence[tuple[Case, ...]]


def unlabelled(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Return the cases without what the cohort's table says of them, the side of the split above all."""
    return tuple(replace(case, source=UNKNOWN, split=UNKNOWN, attributes={}) for case in cases)


def by_person(scores: Scores, subjects: Sequence[str], persons: Persons, takes_mean: bool = False) -> Scores:
    """Return each person's score: that of the most telling of his scans, or the mean of all.

    Parameters
    ----------
    scores : ndarray, (..., n), float64
        Of scans.
    subjects : sequence of str
        Of the scans.
    persons : sequence of tuple of Case
    takes_mean : bool

    Returns
    -------
    ndarray, (..., persons), float64
    """
    place = {subject: index for index, subject in enumerate(subjects)}
    gather = np.mean if takes_mean else np.max
    found = [gather(scores[..., [place[case.subject] for case in cases]], axis=-1) for cases in persons]
    return np.stack(found, axis=-1)
