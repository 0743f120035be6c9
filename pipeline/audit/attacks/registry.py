"""All attacks, with what each is called, whom it models and what it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.attacks.classifier import classifier
from pipeline.audit.attacks.density_ratio import density_ratio
from pipeline.audit.attacks.discriminator import discriminator
from pipeline.audit.attacks.likelihood_ratio import MIN_SHADOWS, likelihood_ratio
from pipeline.audit.attacks.monte_carlo import monte_carlo
from pipeline.audit.attacks.nearest_neighbour import nearest_neighbour
from pipeline.audit.attacks.patient_set import patient_set
from pipeline.audit.attacks.reconstruction import reconstruction
from pipeline.audit.attacks.relative_likelihood import ERRORS, relative_likelihood
from pipeline.audit.targets import Attack, Reference, Release, Scores, Shadows, Targets

ThreatModel = Literal["dataset", "model", "warning"]


@dataclass(frozen=True)
class AttackKind:
    """One attack.

    Parameters
    ----------
    name, title : str
    threat_model : str
        ``dataset``: needs the released scans. ``model``: needs the generator too. ``warning``: needs what never
        leaves, and gates nothing.
    story : str
        What the attacker does, in a line.
    run : callable
    needs_shadows : bool
    takes_mean : bool
        Whether a person's scans count together, by their mean; else the most telling one counts.
    """

    name: str
    title: str
    threat_model: ThreatModel
    story: str
    run: Attack
    needs_shadows: bool = False
    takes_mean: bool = False


ATTACKS = (
    AttackKind(
        "nearest-neighbour",
        "nearest synthetic neighbour",
        "dataset",
        "looks how near the nearest released scan comes, beside the nearest other person",
        partial(nearest_neighbour, level="scan"),
    ),
    AttackKind(
        "nearest-texture",
        "nearest synthetic texture",
        "dataset",
        "the same on texture alone",
        partial(nearest_neighbour, level="texture"),
    ),
    AttackKind(
        "nearest-tumor",
        "nearest synthetic tumour",
        "dataset",
        "the same on the tumour and its surroundings",
        partial(nearest_neighbour, level="tumor"),
    ),
    AttackKind(
        "nearest-labels",
        "nearest synthetic label map",
        "dataset",
        "the same on the label map alone",
        partial(nearest_neighbour, level="labels"),
    ),
    AttackKind(
        "monte-carlo",
        "synthetic scans around",
        "dataset",
        "counts released scans within a radius of the person",
        partial(monte_carlo, level="scan"),
    ),
    AttackKind(
        "density-ratio",
        "density of synthetic scans (DOMIAS)",
        "dataset",
        "asks whether released scans are denser around the person than people are",
        partial(density_ratio, level="scan"),
    ),
    AttackKind(
        "classifier",
        "classifier of synthetic scans",
        "dataset",
        "trains a classifier of released scans against people and asks it about the person",
        partial(classifier, level="texture"),
    ),
    AttackKind(
        "patient-set",
        "all records of a patient together",
        "dataset",
        "adds up what scans, texture, tumour and label map of the person each tell",
        patient_set,
        takes_mean=True,
    ),
    AttackKind(
        "likelihood-ratio-neighbour",
        "likelihood ratio of the nearest neighbour (LiRA)",
        "dataset",
        "makes releases of his own with and without the person and compares",
        partial(likelihood_ratio, signal="nearest-neighbour"),
        needs_shadows=True,
    ),
    AttackKind(
        "reconstruction",
        "reconstruction by the generator",
        "model",
        "renders the person's label map in several styles and looks how near the best comes",
        reconstruction,
    ),
    AttackKind(
        "likelihood-ratio",
        "likelihood ratio of the reconstruction (LiRA)",
        "model",
        "makes generators of his own with and without the person and compares",
        partial(likelihood_ratio, signal="reconstruction"),
        needs_shadows=True,
    ),
    AttackKind(
        "relative-likelihood",
        "likelihood against other people (RMIA)",
        "model",
        "asks whether the scan is likelier than other people's are, by generators of his own",
        relative_likelihood,
        needs_shadows=True,
    ),
    AttackKind(
        "discriminator",
        "the discriminator, which never leaves",
        "warning",
        "asks the discriminator whether the scan is real",
        discriminator,
    ),
)
BY_NAME = {attack.name: attack for attack in ATTACKS}


def attack_release(targets: Targets, release: Release, reference: Reference) -> dict[str, Scores]:
    """Attack a release without shadows.

    Returns
    -------
    dict of str to ndarray, (n,), float64
        By attack; under ``errors`` the errors of reconstruction, which attacks with shadows start from.
    """
    errors = release.reconstruct(targets)
    # Rendered once: every attack on the generator asks for it.
    known = replace(release, reconstruct=lambda asked: errors if asked is targets else release.reconstruct(asked))
    found = {
        attack.name: attack.run(targets, known, reference)
        for attack in ATTACKS
        if not attack.needs_shadows and (attack.threat_model != "warning" or release.judge is not None)
    }
    return {**found, ERRORS: errors}


@dataclass(frozen=True)
class ShadowFindings:
    """What attacks without shadows found on each reference.

    Parameters
    ----------
    scores : mapping of str to ndarray, (references, n), float64
        By attack, and ``errors``; of the scans asked about.
    errors_of_others : ndarray, (references, others), float64
    is_member : ndarray, (references, n), bool
    """

    scores: Mapping[str, Scores]
    errors_of_others: Scores
    is_member: NDArray[np.bool_]

    def shadows(self, without: int | None = None) -> Shadows:
        """Return them as an attacker's shadows, without the one that is the release under attack and its complement.

        With the complement among them, whoever is in the release would be out of most shadows: the mean of fewer is
        less certain, and the attack would be wrong more often than chance on a release that tells nothing.
        """
        pair = None if without is None else without // 2
        kept = [number for number in range(len(self.is_member)) if number // 2 != pair]
        return Shadows(
            {name: scores[kept] for name, scores in self.scores.items()},
            {ERRORS: self.errors_of_others[kept]},
            self.is_member[kept],
        )


def attack_with_shadows(
    targets: Targets, release: Release, reference: Reference, found: Mapping[str, Scores], shadows: Shadows
) -> dict[str, Scores]:
    """Attack a release with shadows, after :func:`attack_release` found what it found; nothing where they are few."""
    if len(shadows.is_member) < MIN_SHADOWS:
        return {}
    informed = replace(reference, shadows=shadows)
    known = replace(release, known=found)
    return {attack.name: attack.run(targets, known, informed) for attack in ATTACKS if attack.needs_shadows}


def attack_references(targets: Targets, reference: Reference, found: ShadowFindings) -> dict[str, Scores]:
    """Return scores of all attacks on all references: for each (references, n).

    Each reference in turn is the release, and the others are the attacker's shadows; with fewer than four references
    attacks with shadows are left out.
    """
    scores = {name: values for name, values in found.scores.items() if name in BY_NAME}
    if len(found.is_member) < MIN_SHADOWS + 2:
        return scores
    rows: dict[str, list[Scores]] = {}
    for number in range(len(found.is_member)):
        release = Release({}, partial(_known_errors, errors=found.errors_of_others[number]))
        known = {name: values[number] for name, values in found.scores.items()}
        shadowed = attack_with_shadows(targets, release, reference, known, found.shadows(number))
        for name, values in shadowed.items():
            rows.setdefault(name, []).append(values)
    return scores | {name: np.array(values) for name, values in rows.items()}


def _known_errors(targets: Targets, errors: Scores) -> Scores:
    """Return errors found before; whoever asks is known beforehand."""
    if len(targets) != len(errors):
        raise ValueError(f"errors of {len(errors)} scans are known, {len(targets)} were asked about")
    return errors
