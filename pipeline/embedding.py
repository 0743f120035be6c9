"""Embedding of a whole scan for nearest-neighbour attacks: coarse, standardised by modality; nothing is fitted.

Each modality is brought to mean 0 and standard deviation 1 within the brain (so that brightness and contrast do not
count) and averaged over blocks of a centimetre and a half.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort import Case

BLOCK_MM = 15.0

Embedding = NDArray[np.float32]


def embed_case(case: Case, modalities: Sequence[str], spacing_mm: float) -> Embedding:
    """Embed a case on disk: (dimensions,), float32."""
    images, brain = read_case(case, modalities)
    return embed_scan(images, brain, spacing_mm)


def read_case(case: Case, modalities: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read a case's scan (modalities, x, y, z), float32 in [0, 1000], and its brain mask (x, y, z)."""
    images = np.stack([np.asarray(case.image(name), np.float32) for name in modalities])
    return images, case.brain()


def embed_scan(images: NDArray[np.float32], brain: NDArray[np.bool_], spacing_mm: float) -> Embedding:
    """Embed a scan.

    Parameters
    ----------
    images : ndarray, (modalities, x, y, z), float32
    brain : ndarray, (x, y, z), bool
    spacing_mm : float

    Returns
    -------
    ndarray, (dimensions,), float32
        Of length 1, so that a dot product is a correlation.
    """
    block = max(1, round(BLOCK_MM / spacing_mm))
    coarse = np.stack([average_blocks(image, block) for image in standardise_scan(images, brain)])
    vector: Embedding = coarse.ravel()
    return vector / np.float32(max(float(np.linalg.norm(vector)), 1e-6))


def standardise_scan(images: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Bring each modality (modalities, x, y, z) to mean 0 and deviation 1 within the brain; outside it is 0."""
    inside = images[:, brain]
    mean = inside.mean(axis=1)[:, None, None, None]
    deviation = np.maximum(inside.std(axis=1), 1e-6)[:, None, None, None]
    return np.where(brain, (images - mean) / deviation, 0.0).astype(np.float32)


def mirror_scan(images: NDArray[np.float32], brain: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Swap left and right of a scan (modalities, x, y, z) and its mask."""
    return images[:, ::-1], brain[::-1]


def embed_with_mirror(case: Case, modalities: Sequence[str], spacing_mm: float) -> NDArray[np.float32]:
    """Embed a case and its mirror image: (2, dimensions)."""
    return embed_both_ways(*read_case(case, modalities), spacing_mm)


def embed_both_ways(images: NDArray[np.float32], brain: NDArray[np.bool_], spacing_mm: float) -> NDArray[np.float32]:
    """Embed a scan, see :func:`embed_scan`, and its mirror image: (2, dimensions)."""
    return np.stack([embed_scan(images, brain, spacing_mm), embed_scan(*mirror_scan(images, brain), spacing_mm)])


def average_blocks(image: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Average a volume (x, y, z) over blocks of so many voxels a side, padded with 0 at the far ends."""
    pads = [(0, -n % block) for n in image.shape]
    padded = np.pad(image, pads)
    x, y, z = (n // block for n in padded.shape)
    blocks: NDArray[np.float32] = padded.reshape(x, block, y, block, z, block).mean(axis=(1, 3, 5))
    return blocks
