"""Attack on the released data set: density of synthetic scans against density of people (DOMIAS).

The attacker has the released scans and scans of other people. A person in whose place synthetic scans are denser than
people are is one on whom the generator has over-fitted: a brain that is merely common is dense in both. He estimates
both densities on the main axes of what he has, and takes their ratio. He learns who was in the training cohort.

A density of whole scans would be singular, so it is one on few axes: a third of the number of other people, at most
eight; with few others it says little.

References
----------
van Breugel, Sun, Qian, van der Schaar 2023, "Membership inference attacks against synthetic data through overfitting
detection", arXiv:2302.12580.
"""

import numpy as np
from scipy.special import logsumexp
from sklearn.decomposition import PCA

from pipeline.audit.targets import Reference, Release, Scores, Targets

MAX_AXES, OTHERS_PER_AXIS = 8, 3
ROWS_AT_ONCE = 64


def density_ratio(targets: Targets, release: Release, reference: Reference, level: str) -> Scores:
    """Score each target: (n,), float64, log of the ratio, higher = member."""
    others, synthetic = reference.others.views[level], release.views[level]
    axes = main_axes(synthetic, others[:, 0])
    views = targets.views[level]
    people = axes.transform(others.reshape(-1, others.shape[-1]))
    made = axes.transform(synthetic)
    spread = np.maximum(np.concatenate([made, people]).std(axis=0), 1e-9)
    ways = []
    for way in range(views.shape[1]):
        asked = axes.transform(views[:, way]) / spread
        ways.append(log_density(asked, made / spread) - log_density(asked, people / spread))
    found: Scores = np.max(ways, axis=0)
    return found


def main_axes(synthetic: np.ndarray, others: np.ndarray) -> PCA:
    """Return the main axes of synthetic scans and people, each counting as much as the other."""
    n = int(np.clip(len(others) // OTHERS_PER_AXIS, 1, MAX_AXES))
    n = min(n, len(others) + len(synthetic) - 1, others.shape[1])
    together = np.concatenate([synthetic, others])
    # The few axes alone, without the hundreds that a full decomposition of a large release would hold in memory.
    solver = "arpack" if n < min(together.shape) else "full"
    return PCA(n, svd_solver=solver, random_state=0, copy=False).fit(together)


def log_density(points: Scores, sample: Scores) -> Scores:
    """Return the log of a Gaussian kernel density, bandwidth by Scott's rule, up to a constant of the dimension."""
    n, dimensions = sample.shape
    width = n ** (-1.0 / (dimensions + 4))
    parts = []
    for start in range(0, len(points), ROWS_AT_ONCE):
        squares = ((points[start : start + ROWS_AT_ONCE, None] - sample[None]) ** 2).sum(axis=2) / width**2
        parts.append(logsumexp(-0.5 * squares, axis=1) - np.log(n) - dimensions * np.log(width))
    return np.concatenate(parts)
