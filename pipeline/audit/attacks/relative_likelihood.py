"""Attack on the released generator, with shadows: is the person likelier than other people are (RMIA).

The attacker has the generator, some generators of his own, and scans of other people with label maps. He asks how much
likelier the generator makes the person's scan than his own generators do on average, and how often that ratio is
above that of another person: who stands out against the population was trained on. He learns who was in the training
cohort, with few shadows.

With e(x, g) the error of the best reconstruction of x by g, and b the mean of such errors of the other people on the
release, p(x | g) = exp(-e(x, g) / b), a Laplace likelihood; p(x) is its mean over the shadows, half of which have x;
the score is the share of other people z with (p(x | g) / p(x)) / (p(z | g) / p(z)) >= 1, ties broken by its logarithm.

References
----------
Zarifzadeh, Liu, Shokri 2024, "Low-cost high-power membership inference attacks", arXiv:2312.03262 (RMIA, gamma 1).
"""

import numpy as np
from scipy.special import logsumexp

from pipeline.audit.attacks.likelihood_ratio import MIN_SHADOWS
from pipeline.audit.targets import Reference, Release, Scores, Targets
from pipeline.errors import DataError

ERRORS = "errors"
TIE_BREAK = 1e-6


def relative_likelihood(targets: Targets, release: Release, reference: Reference) -> Scores:
    """Score each target: (n,), float64, higher = member.

    Raises
    ------
    DataError
        If there are fewer than two shadows.
    """
    del targets
    shadows = reference.shadows
    if shadows is None or len(shadows.is_member) < MIN_SHADOWS:
        raise DataError(f"relative likelihood: too few shadows; expected {MIN_SHADOWS} or more; add references")
    errors, of_others = release.known[ERRORS], release.reconstruct(reference.others)
    scale = max(float(of_others.mean()), 1e-9)
    asked = _log_ratio(errors, shadows.scores[ERRORS], scale)
    population = _log_ratio(of_others, shadows.of_others[ERRORS], scale)
    above = asked[:, None] - population[None]
    found: Scores = (above >= 0).mean(axis=1) + TIE_BREAK * above.mean(axis=1)
    return found


def _log_ratio(errors: Scores, before: Scores, scale: float) -> Scores:
    """Return log of p(x | release) over its mean over shadows: (n,)."""
    usual = logsumexp(-before / scale, axis=0) - np.log(len(before))
    found: Scores = -errors / scale - usual
    return found
