"""Attack on the released data set: how many synthetic scans lie around a person.

The attacker has the released scans and scans of the persons he asks about. Where a generator has learned persons by
heart, more of what it makes lies near them than near others; so he counts the share of synthetic scans within a radius
of the person. The radius is the median, over all whom he asks about, of the distance to the nearest synthetic scan. He
learns who was in the training cohort, even where no single scan is a copy.

References
----------
Hilprecht, Haerterich, Bernau 2019, "Monte Carlo and reconstruction membership inference attacks against generative
models", doi:10.2478/popets-2019-0067.
"""

import numpy as np

from pipeline.audit.attacks.nearest_neighbour import distances, nearest_distances
from pipeline.audit.targets import Reference, Release, Scores, Targets


def monte_carlo(targets: Targets, release: Release, reference: Reference, level: str) -> Scores:
    """Score each target: (n,), float64 in [0, 1], higher = member."""
    del reference
    views, synthetic = targets.views[level], release.views[level]
    radius = float(np.median(nearest_distances(views, synthetic)))
    ways = [(distances(views[:, way], synthetic) <= radius).mean(axis=1) for way in range(views.shape[1])]
    found: Scores = np.max(ways, axis=0)
    return found
