"""Attack on the released data set: nearest synthetic neighbour.

The attacker has the released scans, a scan of the person he asks about, and some scans of other people. A generator
that copies puts synthetic scans nearer to the persons it was trained on than to others; so he measures the distance to
the nearest synthetic scan (or its mirror image), and subtracts the distance to the nearest other person, since some
brains are near to everything. He learns whether the person was in the training cohort.

References
----------
Chen et al. 2020, "GAN-Leaks: a taxonomy of membership inference attacks against generative models",
doi:10.1145/3372297.3417238 (full black-box attack, with calibration).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.targets import Reference, Release, Targets
from pipeline.cohort import Case
from pipeline.embedding import distances, embed_case, embed_with_mirror
from pipeline.progress import progress

NAME = "nearest-neighbour"
TITLE = "nearest synthetic neighbour"
THREAT_MODEL = "dataset"


def nearest_neighbour(targets: Targets, release: Release, reference: Reference) -> NDArray[np.float64]:
    """Score each target: (n_targets,), float64, higher = member."""
    synthetic = embed_synthetic(release, reference)
    return score_by_distance(embed_targets(targets, release, reference), synthetic, embed_reference(release, reference))


def score_by_distance(
    targets: NDArray[np.float32], synthetic: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return -(distance to the nearest synthetic scan - distance to the nearest other person)."""
    to_synthetic = distances(targets, synthetic).min(axis=1)
    scores: NDArray[np.float64] = distances(targets, others).min(axis=1) - to_synthetic
    return scores


def embed_targets(targets: Targets, release: Release, reference: Reference) -> NDArray[np.float32]:
    """Embed targets: (n, dimensions)."""
    return np.concatenate(embed_all(targets, embed_case, release, reference))


def embed_synthetic(release: Release, reference: Reference) -> NDArray[np.float32]:
    """Embed the synthetic scans and their mirror images: (2 n, dimensions)."""
    return np.concatenate(embed_all(release.synthetic.cases, embed_with_mirror, release, reference))


def embed_reference(release: Release, reference: Reference) -> NDArray[np.float32]:
    """Embed the other people and their mirror images: (2 n, dimensions)."""
    return np.concatenate(embed_all(reference.cases, embed_with_mirror, release, reference))


def embed_all(
    cases: Sequence[Case],
    embed: Callable[[Case, Sequence[str], float], NDArray[np.float32]],
    release: Release,
    reference: Reference,
) -> list[NDArray[np.float32]]:
    """Embed cases one after the other: each (k, dimensions)."""
    embeddings = []
    with progress("embed", len(cases)) as task:
        for case in cases:
            embeddings.append(np.atleast_2d(embed(case, reference.modalities, release.synthetic.spacing_mm)))
            task.advance()
    return embeddings
