"""Attack on the released data set: nearest synthetic neighbour.

The attacker has the released scans, a scan of the person he asks about, and some scans of other people. A generator
that copies puts synthetic scans nearer to the persons it was trained on than to others; so he measures the distance to
the nearest synthetic scan (the person mirrored or not), and subtracts the distance to the nearest other person, since
some brains are near to everything. He does so on whole scans, on their texture, on tumours and on label maps alone. He
learns whether the person was in the training cohort.

References
----------
Chen et al. 2020, "GAN-Leaks: a taxonomy of membership inference attacks against generative models",
doi:10.1145/3372297.3417238 (full black-box attack, with calibration).
"""

import numpy as np

from pipeline.audit.targets import Reference, Release, Scores, Targets, Vectors

ROWS_AT_ONCE = 1024


def nearest_neighbour(targets: Targets, release: Release, reference: Reference, level: str) -> Scores:
    """Score each target: (n,), float64, higher = member.

    Parameters
    ----------
    targets, release, reference
        See :mod:`pipeline.audit.targets`.
    level : str
        Which view of the scans is compared; see :mod:`pipeline.audit.views`.
    """
    to_others = nearest_distances(targets.views[level], reference.others.views[level][:, 0])
    return to_others - nearest_distances(targets.views[level], release.views[level])


def nearest_distances(targets: Vectors, others: Vectors) -> Scores:
    """Return each target's Euclidean distance to the nearest of others, whichever way round.

    Parameters
    ----------
    targets : ndarray, (n, ways, dimensions), float32
    others : ndarray, (m, dimensions), float32

    Returns
    -------
    ndarray, (n,), float64
    """
    n, ways, dimensions = targets.shape
    rows = targets.reshape(n * ways, dimensions)
    nearest = np.full(len(rows), np.inf)
    for start in range(0, len(others), ROWS_AT_ONCE):
        nearest = np.minimum(nearest, distances(rows, others[start : start + ROWS_AT_ONCE]).min(axis=1))
    found: Scores = nearest.reshape(n, ways).min(axis=1)
    return found


def distances(first: Vectors, second: Vectors) -> Scores:
    """Return Euclidean distances: (first, second), float64; those below what float32 resolves may be 0."""
    squares = (first.astype(np.float64) ** 2).sum(axis=1)[:, None] + (second.astype(np.float64) ** 2).sum(axis=1)
    found: Scores = np.sqrt(np.maximum(squares - 2.0 * (first @ second.T), 0.0))
    return found
