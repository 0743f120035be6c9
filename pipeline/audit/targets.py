"""What an attack is given: targets without membership, what was released, reference material.

An attack is a function ``(targets, release, reference) -> scores``, one score per target, higher = member. Who is a
member is known to the scorer outside only. Reference material comes from val patients and synthetic data, so that
members and non-members are treated alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort import UNKNOWN, Case, Cohort
from pipeline.labels import LabelScheme
from pipeline.train.generator import Generator


@dataclass(frozen=True)
class Release:
    """What leaves the building, or a reference's stand-in for it.

    Parameters
    ----------
    synthetic : Cohort
        Known to both threat models.
    generator : Generator
        Known to the model-release threat model only.
    """

    synthetic: Cohort
    generator: Generator


@dataclass(frozen=True)
class Reference:
    """What an attacker has beside the release.

    Parameters
    ----------
    cases : tuple of Case
        Val patients.
    scheme : LabelScheme
    modalities : tuple of str
    n_style_draws : int
        Styles that an attack on the generator may try.
    seed : int
        Root of the attack's streams.
    predictability : mapping of str to float
        By subject, how far a generic model is from the scan (see :mod:`pipeline.audit.reconstruction`), where that has
        been measured already: it depends on no release.
    """

    cases: tuple[Case, ...]
    scheme: LabelScheme
    modalities: tuple[str, ...]
    n_style_draws: int
    seed: int
    predictability: Mapping[str, float] = field(default_factory=dict)


Targets = Sequence[Case]
# All scans of each person: what is known of one scan is known of the person.
Persons = Sequence[tuple[Case, ...]]
Attack = Callable[[Targets, Release, Reference], NDArray[np.float64]]


def score_persons(attack: Attack, persons: Persons, release: Release, reference: Reference) -> NDArray[np.float64]:
    """Score each person by the most telling of his scans: (n_persons,).

    Targets are handed over in an order that tells nothing about membership.
    """
    scans = sorted((case for cases in persons for case in cases), key=lambda case: case.subject)
    scores = attack(unlabelled(scans), release, reference)
    by_subject = {case.subject: float(score) for case, score in zip(scans, scores, strict=True)}
    return np.array([max(by_subject[case.subject] for case in cases) for cases in persons])


def unlabelled(cases: Targets) -> tuple[Case, ...]:
    """Return the cases without what the cohort's table says of them, the side of the split above all."""
    return tuple(replace(case, source=UNKNOWN, split=UNKNOWN, attributes={}) for case in cases)
