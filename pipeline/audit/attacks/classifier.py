"""Attack on the released data set: a classifier that tells synthetic scans from other people.

The attacker has the released scans and scans of other people. He trains a classifier to tell the two apart and asks it
about a person: a generator draws its scans towards whom it was trained on, so members look more synthetic than others
do. He learns who was in the training cohort.

References
----------
Hayes, Melis, Danezis, De Cristofaro 2019, "LOGAN: membership inference attacks against generative models",
doi:10.2478/popets-2019-0008 (black-box attack, with a discriminator of the attacker's own).
"""

import numpy as np
from sklearn.linear_model import LogisticRegression

from pipeline.audit.attacks.density_ratio import main_axes
from pipeline.audit.targets import Reference, Release, Scores, Targets

PENALTY = 1.0


def classifier(targets: Targets, release: Release, reference: Reference, level: str) -> Scores:
    """Score each target: (n,), float64, log odds of being synthetic, higher = member."""
    others, synthetic = reference.others.views[level], release.views[level]
    axes = main_axes(synthetic, others[:, 0])
    people = axes.transform(others.reshape(-1, others.shape[-1]))
    made = axes.transform(synthetic)
    spread = np.maximum(np.concatenate([made, people]).std(axis=0), 1e-9)
    model = LogisticRegression(C=1 / PENALTY, class_weight="balanced")
    model.fit(np.concatenate([made, people]) / spread, np.repeat([1, 0], [len(made), len(people)]))
    views = targets.views[level]
    ways = [model.decision_function(axes.transform(views[:, way]) / spread) for way in range(views.shape[1])]
    found: Scores = np.mean(ways, axis=0)
    return found
