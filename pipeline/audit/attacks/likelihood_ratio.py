"""Attacks with shadows: how likely a score is if the person was in, and if he was out (LiRA).

The attacker makes releases of his own with the same recipe, from people he knows, some with the person he asks about
and some without. What a simpler attack says of the person on those tells him what to expect in either case; he takes
the ratio of the likelihoods of what it says on the release in question. It needs no threshold common to all: a person
who is easy to guess is compared with himself. He learns who was in the training cohort.

The score is log N(s; mean in, v) - log N(s; mean out, v), s brought to mean 0 and deviation 1 over all whom he asks
about, one variance v for all persons: with fewer than sixteen shadows one for each could not be told.

References
----------
Carlini et al. 2022, "Membership inference attacks from first principles", arXiv:2112.03570 (section 5, the variant
with a global variance).
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.targets import Reference, Release, Scores, Targets
from pipeline.errors import DataError

MIN_SHADOWS = 2


def likelihood_ratio(targets: Targets, release: Release, reference: Reference, signal: str) -> Scores:
    """Score each target: (n,), float64, higher = member; 0 for one whom no shadow has, or every one has.

    Parameters
    ----------
    targets, release, reference
        See :mod:`pipeline.audit.targets`; the reference needs shadows, the release ``known[signal]``.
    signal : str
        The simpler attack.

    Raises
    ------
    DataError
        If there are fewer than two shadows.
    """
    del targets
    shadows = reference.shadows
    if shadows is None or len(shadows.is_member) < MIN_SHADOWS:
        raise DataError(f"likelihood ratio: too few shadows; expected {MIN_SHADOWS} or more; add references")
    observed = standardise(release.known[signal])
    before = standardise(shadows.scores[signal])
    mean_in, mean_out = _means(before, shadows.is_member), _means(before, ~shadows.is_member)
    expected = np.where(shadows.is_member, mean_in, mean_out)
    residuals = before - expected
    # A mean over few shadows follows them: what is left is smaller than the noise by the numbers spent on means.
    n_free = max(int(np.isfinite(residuals).sum() - np.isfinite(mean_in).sum() - np.isfinite(mean_out).sum()), 1)
    variance = max(float(np.nansum(residuals**2)) / n_free, 1e-12)
    ratio = ((observed - mean_out) ** 2 - (observed - mean_in) ** 2) / (2 * variance)
    found: Scores = np.nan_to_num(ratio)
    return found


def standardise(scores: Scores) -> Scores:
    """Bring scores (..., n) to mean 0 and standard deviation 1 over the last axis."""
    deviation = np.maximum(scores.std(axis=-1, keepdims=True), 1e-12)
    found: Scores = (scores - scores.mean(axis=-1, keepdims=True)) / deviation
    return found


def _means(scores: Scores, chosen: NDArray[np.bool_]) -> Scores:
    """Return each person's mean over the shadows that are chosen: (n,); NaN where none is."""
    count = chosen.sum(axis=0)
    total = np.where(chosen, scores, 0.0).sum(axis=0)
    found: Scores = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found
