"""Lesion by lesion, as BraTS 2023 does it: how well each is found, and what was found where there is none.

Lesions that a dilation of the truth joins are one. A found part (26 neighbours connect) belongs to each lesion whose
dilation it touches; a lesion is scored against all of its parts together, undilated. Lesions up to a volume are not
scored, but parts that touch them are no false ones. Every part that touches no lesion counts as one more lesion, with
the worst score.

As the challenge's code for gliomas: three dilations with 18 neighbours at 1 mm; lesions up to 50 mm3 left out; false
parts counted whatever their size; nothing to score and nothing false: the best score. It differs in three ways. The
number of dilations follows the spacing: as many voxels as come nearest to 3 mm, the fewer of two numbers that are as
near, so that the reach is 3 mm at 1 mm, 2 mm at 2 mm, 3 mm at 3 mm, 4 mm at 4 mm. The worst distance is the image's
diagonal; the challenge's is 374 mm, about that of its 240 x 240 x 155 voxels. Distances are this project's HD95,
between surface voxels; the challenge weighs surface elements by their area.

References
----------
Moawad et al. 2023, "The Brain Tumor Segmentation (BraTS-METS) Challenge 2023", arXiv:2306.00838; Saluja et al. 2023,
https://github.com/rachitsaluja/BraTS-2023-Metrics (the rules).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.segmentation.surface import Mask, diagonal_mm, hd95_mm
from pipeline.volumes import bounding_box

MERGE_MM = 3.0
MAX_IGNORED_MM3 = 50.0
DILATION = ndimage.generate_binary_structure(3, 2)
NEIGHBOURS = ndimage.generate_binary_structure(3, 3)


@dataclass(frozen=True)
class LesionScores:
    """How the lesions of one region of one patient were found.

    Parameters
    ----------
    dice, hd95 : float
        Mean over scored lesions and false parts.
    n_lesions, n_missed, n_false : int
        Lesions that are scored, those of them that no part touches, parts that touch no lesion.
    """

    dice: float
    hd95: float
    n_lesions: int
    n_missed: int
    n_false: int


def score_lesions(predicted: Mask, truth: Mask, spacing_mm: Sequence[float]) -> LesionScores:
    """Score a predicted mask lesion by lesion.

    Parameters
    ----------
    predicted, truth : ndarray, (x, y, z), bool
    spacing_mm : sequence of float
        Edge lengths of a voxel along x, y, z.

    Returns
    -------
    LesionScores
        Dice 1 and HD95 0 where there is neither a lesion to score nor a false part.
    """
    if not predicted.any() and not truth.any():
        return LesionScores(1.0, 0.0, 0, 0, 0)
    worst_mm, n_steps = diagonal_mm(truth.shape, spacing_mm), count_dilations(spacing_mm)
    # What lies beyond the reach of the dilation can be cut off.
    box = tuple(
        slice(max(edge.start - n_steps, 0), min(edge.stop + n_steps, n))
        for edge, n in zip(bounding_box(predicted | truth), truth.shape, strict=True)
    )
    predicted, truth = predicted[box], truth[box]
    zones, n_zones = ndimage.label(ndimage.binary_dilation(truth, DILATION, iterations=n_steps), NEIGHBOURS)
    parts, n_parts = ndimage.label(predicted, NEIGHBOURS)
    lesions = np.where(truth, zones, 0)
    touching = _pairs(zones, parts)
    sizes_mm3 = np.bincount(lesions.ravel(), minlength=n_zones + 1) * float(np.prod(spacing_mm))
    scored = [number for number in range(1, n_zones + 1) if sizes_mm3[number] > MAX_IGNORED_MM3]
    dices, distances_mm = [], []
    for number in scored:
        lesion = lesions == number
        found = np.isin(parts, touching[touching[:, 0] == number, 1])
        dices.append(2.0 * int((lesion & found).sum()) / (int(lesion.sum()) + int(found.sum())))
        distances_mm.append(hd95_mm(lesion, found, spacing_mm) if found.any() else worst_mm)
    n_false = n_parts - len(np.unique(touching[:, 1]))
    n = len(scored) + n_false
    return LesionScores(
        dice=sum(dices) / n if n else 1.0,
        hd95=(sum(distances_mm) + n_false * worst_mm) / n if n else 0.0,
        n_lesions=len(scored),
        n_missed=sum(number not in touching[:, 0] for number in scored),
        n_false=n_false,
    )


def count_dilations(spacing_mm: Sequence[float]) -> int:
    """Return how many dilations by one voxel come nearest to :data:`MERGE_MM`, the fewer of even ones; at least one."""
    return max(1, math.ceil(round(MERGE_MM / float(np.mean(spacing_mm)) - 0.5, 6)))


def _pairs(zones: NDArray[np.integer], parts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return which zone and part share a voxel: (pairs, 2), each pair once."""
    shared = (zones > 0) & (parts > 0)
    n = int(parts.max(initial=0)) + 1
    # Counted as one number for both: faster than sorting pairs.
    codes = np.flatnonzero(np.bincount(zones[shared].astype(np.int64) * n + parts[shared]))
    return np.stack([codes // n, codes % n], axis=1)
