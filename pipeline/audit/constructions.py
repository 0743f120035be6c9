"""Copies constructed on purpose, of kinds that a leaking generator, or who wants to hide a leak, might make.

A wider law than that of :mod:`pipeline.near_duplicates`, which curation and the planted controls draw from: there a
copy stays where it was. Every copy is changed in gain and noisy; by its kind it is moved or recoloured beside.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.labels import UInt8Array

MAX_TURN_DEGREES, MAX_SHIFT_MM = 30.0, 20.0
SCALES, GAMMAS, GAINS = (0.7, 1.4), (0.7, 1.4), (0.85, 1.15)
MAX_SHADING = 0.3
NOISE_SD = 30.0
# What of each range is used where a copy is moved in every way at once: else much of it would lie off the grid.
SHARE_OF_RANGE = 0.5

Images = NDArray[np.float32]
Matrix = NDArray[np.float64]
Stream = np.random.Generator


def construct(
    kind: str, images: Images, condition: UInt8Array, spacing_mm: float, stream: Stream
) -> tuple[Images, UInt8Array]:
    """Construct a copy.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    images : ndarray, (modalities, x, y, z), float32 in [0, 1000]
    condition : ndarray, (x, y, z), uint8
        Label map of tissue and tumour joined; goes the same way as the images.
    spacing_mm : float
    stream : numpy.random.Generator

    Returns
    -------
    images, condition : ndarray
        Of the same shapes; the images are 0 outside the brain, as stored scans are.
    """
    if kind in _COLOURS:
        images = _COLOURS[kind](images, stream)
    else:
        matrix, shift_mm = _MOVES[kind](stream)
        images, condition = move(images, condition, matrix, shift_mm / spacing_mm)
    gains = stream.uniform(*GAINS, (len(images), 1, 1, 1))
    changed = images * gains + stream.normal(0, NOISE_SD, images.shape)
    # What is stored of a scan is 0 outside the brain, and not below.
    return np.where(condition > 0, np.clip(changed, 0, None), 0).astype(np.float32), condition


def move(images: Images, condition: UInt8Array, matrix: Matrix, shift: Matrix) -> tuple[Images, UInt8Array]:
    """Move a scan and its condition about the grid's centre; what leaves the grid is lost.

    Parameters
    ----------
    images : ndarray, (modalities, x, y, z), float32
    condition : ndarray, (x, y, z), uint8
    matrix : ndarray, (3, 3)
        From the new to the old place.
    shift : ndarray, (3,)
        Voxels.
    """
    centre = (np.array(condition.shape) - 1) / 2
    offset = centre - matrix @ centre + shift
    moved = np.stack([ndimage.affine_transform(image, matrix, offset, order=1) for image in images])
    return moved, ndimage.affine_transform(condition, matrix, offset, order=0)


def _stay(stream: Stream) -> tuple[Matrix, Matrix]:
    del stream
    return np.eye(3), np.zeros(3)


def _turn(stream: Stream, share: float = 1.0) -> tuple[Matrix, Matrix]:
    angle = np.deg2rad(stream.uniform(5, share * MAX_TURN_DEGREES))
    return Rotation.from_rotvec(angle * _direction(stream)).as_matrix(), np.zeros(3)


def _turn_by_quarters(stream: Stream) -> tuple[Matrix, Matrix]:
    turns = Rotation.create_group("O").as_matrix()
    moves = turns[np.abs(np.trace(turns, axis1=1, axis2=2) - 3) > 1e-6]
    return np.rint(moves[int(stream.integers(len(moves)))]), np.zeros(3)


def _mirror(stream: Stream) -> tuple[Matrix, Matrix]:
    axes = int(stream.integers(1, 8))
    return np.diag([-1.0 if axes >> axis & 1 else 1.0 for axis in range(3)]), np.zeros(3)


def _shift(stream: Stream, share: float = 1.0) -> tuple[Matrix, Matrix]:
    return np.eye(3), stream.uniform(5, share * MAX_SHIFT_MM) * _direction(stream)


def _rescale(stream: Stream, share: float = 1.0) -> tuple[Matrix, Matrix]:
    return np.eye(3) / np.exp(share * stream.uniform(*np.log(SCALES))), np.zeros(3)


def _move_every_way(stream: Stream) -> tuple[Matrix, Matrix]:
    turn, _ = _turn(stream, SHARE_OF_RANGE)
    _, shift_mm = _shift(stream, SHARE_OF_RANGE)
    scale, _ = _rescale(stream, SHARE_OF_RANGE)
    mirror = _mirror(stream)[0] if stream.random() < 0.5 else np.eye(3)
    return turn @ scale @ mirror, shift_mm


def _shade(images: Images, stream: Stream) -> Images:
    """Change contrast by a power, and brightness by a field that varies across the head."""
    low, high = np.log(GAMMAS)
    powers = np.exp(stream.uniform(low, high, (len(images), 1, 1, 1)))
    ticks = np.meshgrid(*(np.linspace(-1, 1, n) for n in images.shape[1:]), indexing="ij")
    field = np.tensordot(_direction(stream), np.stack(ticks), axes=1)
    shaded: Images = 1000 * (images / 1000) ** powers * (1 + MAX_SHADING * field / np.abs(field).max())
    return shaded.astype(np.float32)


def _invert(images: Images, stream: Stream) -> Images:
    del stream
    return (1000 - images).astype(np.float32)


def _direction(stream: Stream) -> Matrix:
    vector = stream.normal(size=3)
    direction: Matrix = vector / np.linalg.norm(vector)
    return direction


_MOVES: dict[str, Callable[[Stream], tuple[Matrix, Matrix]]] = {
    "in place": _stay,
    "turned": _turn,
    "quarter turns": _turn_by_quarters,
    "mirrored": _mirror,
    "shifted": _shift,
    "rescaled": _rescale,
    "moved every way": _move_every_way,
}
_COLOURS: dict[str, Callable[[Images, Stream], Images]] = {"shaded": _shade, "negative": _invert}
KINDS = (*_MOVES, *_COLOURS)
