"""Attack on the released data set: all records of one patient together.

The attacker has the released scans, and everything that a hospital keeps of the person he asks about: each of his
scans, its texture, its tumour, its label map. None may give the person away alone; so he measures how near the nearest
synthetic record comes to each (see :mod:`pipeline.audit.attacks.nearest_neighbour`), brings the measures to one scale
over all whom he asks about, and adds them up; of a person with several scans he takes the mean instead of the most
telling one. He learns whether the person was in the training cohort.

References
----------
Hilprecht, Haerterich, Bernau 2019, "Monte Carlo and reconstruction membership inference attacks against generative
models", doi:10.2478/popets-2019-0067 (set membership inference).
"""

import numpy as np

from pipeline.audit.attacks.nearest_neighbour import nearest_neighbour
from pipeline.audit.targets import Reference, Release, Scores, Targets


def patient_set(targets: Targets, release: Release, reference: Reference) -> Scores:
    """Score each target: (n,), float64, higher = member.

    Parameters
    ----------
    targets, release, reference
        See :mod:`pipeline.audit.targets`.
    """
    parts = [_scaled(nearest_neighbour(targets, release, reference, level)) for level in targets.views]
    together: Scores = np.stack(parts).sum(axis=0)
    return together


def _scaled(scores: Scores) -> Scores:
    """Return scores with mean 0 and deviation 1; all 0 where they are alike."""
    spread = float(scores.std())
    scaled: Scores = (scores - scores.mean()) / spread if spread > 0 else np.zeros_like(scores)
    return scaled
