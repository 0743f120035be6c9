"""Controls: what must not fire, and what must. An audit whose controls misbehave is invalid, whatever it says."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.copies import construct_copy
from pipeline.audit.embedding import embed_scan
from pipeline.audit.nearest_neighbour import embed_reference, embed_synthetic, embed_targets, score_by_distance
from pipeline.audit.reconstruction import predictability_errors, reconstruction_errors
from pipeline.audit.statistics import auc
from pipeline.audit.targets import Reference, Release, Targets
from pipeline.seeds import numpy_stream

MIN_PLANTED = 3
PLANTED_AUC = 0.8
MEMORY = 0.5


@dataclass(frozen=True)
class Control:
    """One control.

    Parameters
    ----------
    name, title : str
    expected, observed : str
        In words and figures.
    behaved : bool
    curve : tuple of ndarray
        Scores of the two sides, for the picture.
    """

    name: str
    title: str
    expected: str
    observed: str
    behaved: bool
    curve: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what goes into audit.json."""
        return {key: value for key, value in asdict(self).items() if key != "curve"}


def permuted_membership(name: str, title: str, value: float, permuted: NDArray[np.float64]) -> Control:
    """Judge the AUC under random membership: it must be .5 on average.

    Parameters
    ----------
    name, title : str
        Of the attack.
    value : float
        AUC under true membership, for the text only.
    permuted : ndarray, (permutations,), float64
    """
    mean, deviation = float(permuted.mean()), float(permuted.std())
    tolerance = 4 * deviation / np.sqrt(len(permuted))
    low, high = np.quantile(permuted, [0.025, 0.975])
    return Control(
        f"permuted-{name}",
        f"{title}, membership dealt out at random",
        f"mean AUC .50 within {tolerance:.3f}",
        f"mean {mean:.3f}, 95% of {len(permuted)} between {low:.2f} and {high:.2f} (true membership: {value:.2f})",
        bool(abs(mean - 0.5) <= tolerance),
    )


def planted_copies(
    members: Targets, nonmembers: Targets, release: Release, reference: Reference, share: float
) -> Control:
    """Plant copies of some members among the synthetic scans: the nearest-neighbour attack must see them.

    The planted members are compared with all non-members, so that the control has power whatever the share.
    """
    stream = numpy_stream(reference.seed, "planted")
    n_planted = min(len(members), max(MIN_PLANTED, round(share * len(members))))
    chosen = [members[int(i)] for i in stream.choice(len(members), n_planted, replace=False)]
    spacing_mm = release.synthetic.spacing_mm
    copies = []
    for case in chosen:
        images = np.stack([np.asarray(case.image(name), np.float32) for name in reference.modalities])
        brain = (np.asarray(case.tissue_map()) > 0) | (np.asarray(case.tumor_map()) > 0)
        changed, mask = construct_copy(images, brain, spacing_mm, stream)
        copies += [embed_scan(changed, mask, spacing_mm), embed_scan(changed[:, ::-1], mask[::-1], spacing_mm)]
    synthetic = np.concatenate([embed_synthetic(release, reference), np.stack(copies)])
    others = embed_reference(release, reference)
    planted = score_by_distance(embed_targets(chosen, release, reference), synthetic, others)
    clean = score_by_distance(embed_targets(nonmembers, release, reference), synthetic, others)
    return _judge_planted(
        "planted-copies", f"copies of {n_planted} members planted among the synthetic scans", planted, clean
    )


def planted_memory(
    members: Targets, nonmembers: Targets, release: Release, reference: Reference, share: float
) -> Control:
    """Give the generator a memory of some members: the reconstruction attack must see it.

    A generator that has half memorised a scan renders the mean of what it would have rendered and the scan itself, so
    its error on that scan is halved.
    """
    stream = numpy_stream(reference.seed, "memory")
    n_planted = min(len(members), max(MIN_PLANTED, round(share * len(members))))
    chosen = [members[int(i)] for i in stream.choice(len(members), n_planted, replace=False)]
    planted = predictability_errors(chosen, reference) - MEMORY * reconstruction_errors(
        chosen, release.generator, reference
    )
    clean = predictability_errors(nonmembers, reference) - reconstruction_errors(
        nonmembers, release.generator, reference
    )
    return _judge_planted("planted-memory", f"generator made to half remember {n_planted} members", planted, clean)


def _judge_planted(name: str, title: str, planted: NDArray[np.float64], clean: NDArray[np.float64]) -> Control:
    value = auc(planted, clean)
    return Control(
        name, title, f"AUC of at least {PLANTED_AUC}", f"AUC {value:.2f}", value >= PLANTED_AUC, (planted, clean)
    )
