"""Attack on what never leaves: the discriminator's own judgement.

The attacker has stolen the discriminator, and has the person's scan with its label map. It was trained to call the
members' scans real; so he takes its judgement as it is. He learns who was in the training cohort, often with near
certainty: that is why the discriminator stays in the run folder. It gates nothing; it is a warning, and shows that the
training did see its members.

References
----------
Hayes et al. 2019, "LOGAN", doi:10.2478/popets-2019-0008 (white-box attack).
"""

import numpy as np

from pipeline.audit.targets import Reference, Release, Scores, Targets


def discriminator(targets: Targets, release: Release, reference: Reference) -> Scores:
    """Score each target: (n,), float64, higher = member; all 0 where the discriminator is not there."""
    del reference
    return np.zeros(len(targets)) if release.judge is None else release.judge(targets)
