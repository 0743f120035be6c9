"""Style of a scan: how bright each tissue is in each modality, and how noisy; what differs between scanners.

A generator that is told nothing of this makes the same average look of every label map, whatever style is drawn.
So the first entries of the style code that a training scan comes with are its own figures, brought to mean 0,
deviation 1 and no correlation over the members; what is drawn for a new scan, standard normal numbers, means the same.
The code is one for all of a person's slices, and short and blurred on purpose: one that told each person apart would
teach the generator to make that person.

References
----------
Karras et al. 2019, doi:10.1109/CVPR.2019.00453 (style). Kessy, Lewin and Strimmer 2018, "Optimal whitening and
decorrelation", doi:10.1080/00031305.2016.1277159.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.labels import TISSUE_CLASSES, UInt8Array

# At least so many members for each entry: with fewer, an entry would tell who it is.
PERSONS_PER_ENTRY = 4
# What of an entry's variance is noise.
BLUR = 0.1

Figures = NDArray[np.float64]


def measure_style(images: Sequence[NDArray[np.int16] | None], tissue_map: UInt8Array) -> Figures:
    """Measure the style of a scan on its healthy tissue.

    Parameters
    ----------
    images : sequence of ndarray, (x, y, z), int16 in [0, 1000], or None
        One for each modality; None for one that is missing.
    tissue_map : ndarray, (x, y, z), uint8

    Returns
    -------
    ndarray, (modalities * 4,), float64
        For each modality the mean of CSF, grey and white matter, and the noise: the mean absolute difference of
        neighbours in white matter along x. A tissue that is missing has the mean of the others, a modality NaN.
    """
    figures: list[float] = []
    white = np.asarray(tissue_map == len(TISSUE_CLASSES))
    pairs = white[1:] & white[:-1]
    for image in images:
        if image is None:
            figures += [math.nan] * (len(TISSUE_CLASSES) + 1)
            continue
        values = np.asarray(image, np.float32)
        means = np.array([_mean(values[tissue_map == number]) for number in range(1, len(TISSUE_CLASSES) + 1)])
        means = np.where(np.isfinite(means), means, _mean(means[np.isfinite(means)]))
        noise = _mean(np.abs(np.diff(values, axis=0))[pairs])
        figures += np.nan_to_num([*means, noise]).tolist()
    return np.array(figures, np.float64)


def encode_styles(figures: Figures, n_persons: int, n_most: int) -> Figures:
    """Turn the figures of all members into codes: uncorrelated, mean 0, deviation 1.

    Parameters
    ----------
    figures : ndarray, (cases, figures), float64
        NaN for what a case lacks: it counts as the others' mean.
    n_persons : int
        Among the cases.
    n_most : int
        Length of the generator's style.

    Returns
    -------
    ndarray, (cases, entries), float64
        Entries along the directions in which styles differ most, at most one for each :data:`PERSONS_PER_ENTRY`
        persons and none where nothing differs.
    """
    known = np.isfinite(figures)
    means = np.where(known, figures, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    figures = np.where(known, figures, means)
    spread = figures.std(axis=0)
    standard = (figures - figures.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    scores, sizes, _ = np.linalg.svd(standard, full_matrices=False)
    n_entries = min(n_most, n_persons // PERSONS_PER_ENTRY, int((sizes > 1e-6).sum()))
    codes: Figures = scores[:, :n_entries] * np.sqrt(len(figures))
    return codes


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean()) if values.size else float("nan")
