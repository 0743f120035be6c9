"""Seeded random fields and diffeomorphic warps.

A warp is a *displacement*: float32, ``(3, x, y, z)``, millimetres along the array's axes. Warping pulls back: the
result at a point ``p`` is the source at ``p + displacement(p)``. Diffeomorphisms are exponentials of smooth stationary
velocities, integrated by scaling and squaring on a grid only as fine as the smoothness asks for. All arithmetic is
single-threaded or element by element, so the same seed gives the same bytes whatever the number of threads.

References
----------
Arsigny et al. 2006, "A Log-Euclidean framework for statistics on diffeomorphisms", doi:10.1007/11866565_113.
"""

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import ConfigError

Float32Array = NDArray[np.float32]
Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

NODES_PER_SIGMA = 2.0
MAX_AMPLITUDE_SHARE = 0.35


def random_field(shape: Shape, spacing_mm: Spacing, smoothness_mm: float, rng: np.random.Generator) -> Float32Array:
    """Draw a smooth Gaussian random field.

    Parameters
    ----------
    shape : tuple of int
        Voxels along x, y, z.
    spacing_mm : tuple of float
        Edge lengths of a voxel.
    smoothness_mm : float
        Standard deviation of the Gaussian that smooths the white noise, > 0.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape, float32
        Mean 0 and standard deviation 1, but for the refinement from the coarse nodes.

    Raises
    ------
    ConfigError
        If the smoothness is not positive.
    """
    _check_positive("smoothness_mm", smoothness_mm)
    nodes, node_spacing_mm = _coarse_grid(shape, spacing_mm, smoothness_mm / NODES_PER_SIGMA)
    return _refine(_coarse_field(nodes, node_spacing_mm, smoothness_mm, rng), shape)


def random_warp(
    shape: Shape,
    spacing_mm: Spacing,
    amplitude_mm: float,
    smoothness_mm: float,
    rng: np.random.Generator,
    is_symmetric: bool = False,
) -> Float32Array:
    """Draw a random diffeomorphism that is the identity on the grid's border.

    Parameters
    ----------
    shape : tuple of int
        Voxels along x, y, z.
    spacing_mm : tuple of float
        Edge lengths of a voxel.
    amplitude_mm : float
        Root mean square length of the displacement over the grid, met within some percent. At least 0 and at most
        :data:`MAX_AMPLITUDE_SHARE` of the smoothness, or of a sixth of the grid's shortest edge if that is less:
        beyond it folds cannot be excluded on a discrete grid.
    smoothness_mm : float
        Standard deviation of the Gaussian that smooths the velocity, > 0.
    rng : numpy.random.Generator
    is_symmetric : bool
        Deform both sides of the grid's middle in x alike; the middle stays a plane.

    Returns
    -------
    ndarray, (3, x, y, z), float32
        Displacement in mm.

    Raises
    ------
    ConfigError
        If the smoothness is not positive, or the amplitude is negative or too large for it.
    """
    _check_positive("smoothness_mm", smoothness_mm)
    shortest_edge_mm = min(n * s for n, s in zip(shape, spacing_mm, strict=True))
    limit_mm = MAX_AMPLITUDE_SHARE * min(smoothness_mm, shortest_edge_mm / 6.0)
    if not 0 <= amplitude_mm <= limit_mm:
        raise ConfigError(
            f"amplitude_mm; expected 0 to {limit_mm:g} at this smoothness and field of view, got {amplitude_mm:g}; "
            "make the warp smoother or weaker"
        )
    nodes, node_spacing_mm = _coarse_grid(shape, spacing_mm, smoothness_mm / NODES_PER_SIGMA)
    taper = _border_taper(nodes, node_spacing_mm, 1.5 * smoothness_mm)
    velocity = np.stack([_coarse_field(nodes, node_spacing_mm, smoothness_mm, rng) * taper for _ in range(3)])
    if is_symmetric:
        mirrored = velocity[:, ::-1] * np.array([-1, 1, 1], np.float32)[:, None, None, None]
        velocity = velocity + mirrored
    velocity *= np.float32(amplitude_mm / max(_rms(velocity), 1e-12))
    displacement = exponentiate(velocity, node_spacing_mm)
    # Flowing along a changing velocity ends nearer than a straight line of the same speed: one correction suffices.
    velocity *= np.float32(amplitude_mm / max(_rms(displacement), 1e-12))
    displacement = exponentiate(velocity, node_spacing_mm)
    return np.stack([_refine(component, shape) for component in displacement])


def mass_effect(
    shape: Shape,
    spacing_mm: Spacing,
    centre_mm: Spacing,
    radius_mm: float,
    push_mm: float,
    mobility: Float32Array | None = None,
) -> Float32Array:
    """Push tissue radially away from a centre: strongest at a radius, fading beyond it.

    Parameters
    ----------
    shape : tuple of int
        Voxels along x, y, z.
    spacing_mm : tuple of float
        Edge lengths of a voxel.
    centre_mm : tuple of float
        Centre of the push, along the array's axes, from the centre of the first voxel.
    radius_mm : float
        Where the push is strongest, > 0.
    push_mm : float
        Its speed there over unit time, about its length. Tissue inside is stretched, outside compressed; a negative
        push does the opposite.
    mobility : ndarray, (x, y, z), float32 in [0, 1], optional
        Factor on the push: 0 where tissue is held (at the skull).

    Returns
    -------
    ndarray, (3, x, y, z), float32
        Displacement in mm; it pulls back, hence points to the centre.

    Raises
    ------
    ConfigError
        If the radius is not positive.

    References
    ----------
    Radial expansion as the simplest law of mass effect: Mohamed et al. 2006, "Deformable registration of brain tumor
    images via a statistical model of tumor-induced deformation", doi:10.1016/j.media.2006.06.005.
    """
    _check_positive("radius_mm", radius_mm)
    nodes, node_spacing_mm = _coarse_grid(shape, spacing_mm, max(2.0 * min(spacing_mm), radius_mm / 5.0))
    axes = [np.arange(n) * s - c for n, s, c in zip(nodes, node_spacing_mm, centre_mm, strict=True)]
    offset = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    ratio = np.sqrt((offset**2).sum(axis=0)) / np.float32(radius_mm)
    speed_over_radius = 2.0 / (1.0 + ratio**2) / np.float32(radius_mm)
    # The bump above falls as 1/r; the exponential ends it within the same hemisphere's far side.
    fading = np.exp(-np.maximum(ratio - 1.0, 0.0) / 3.0) * _border_taper(nodes, node_spacing_mm, radius_mm)
    if mobility is not None:
        fading = fading * _refine(mobility, nodes)
    velocity = (-push_mm * offset * speed_over_radius * fading).astype(np.float32)
    return np.stack([_refine(component, shape) for component in exponentiate(velocity, node_spacing_mm)])


def exponentiate(velocity: Float32Array, spacing_mm: Spacing) -> Float32Array:
    """Flow along a stationary velocity for unit time, by scaling and squaring.

    Parameters
    ----------
    velocity : ndarray, (3, x, y, z), float32
        In mm per unit time.
    spacing_mm : tuple of float

    Returns
    -------
    ndarray, (3, x, y, z), float32
        Displacement in mm.
    """
    fastest = float(np.abs(velocity).max()) / min(spacing_mm)
    n_squarings = max(0, math.ceil(math.log2(max(fastest, 1e-6) / 0.25)))
    displacement = velocity / np.float32(2**n_squarings)
    for _ in range(n_squarings):
        displacement = compose(displacement, displacement, spacing_mm)
    return displacement


def compose(first: Float32Array, second: Float32Array, spacing_mm: Spacing) -> Float32Array:
    """Return the displacement that does the work of two: warping with the first, then the result with the second.

    Parameters
    ----------
    first, second : ndarray, (3, x, y, z), float32
        Displacements in mm.
    spacing_mm : tuple of float

    Returns
    -------
    ndarray, (3, x, y, z), float32
    """
    points = _sampling_points(second, spacing_mm)
    moved = [ndimage.map_coordinates(component, points, order=1, mode="nearest") for component in first]
    return second + np.stack(moved).astype(np.float32)


def warp_image(image: NDArray[np.generic], displacement: Float32Array, spacing_mm: Spacing) -> Float32Array:
    """Warp an image with linear interpolation; beyond the grid its border goes on.

    Parameters
    ----------
    image : ndarray, (x, y, z), any numeric type
    displacement : ndarray, (3, x, y, z), float32
        In mm.
    spacing_mm : tuple of float

    Returns
    -------
    ndarray, (x, y, z), float32
    """
    points = _sampling_points(displacement, spacing_mm)
    return np.asarray(ndimage.map_coordinates(image.astype(np.float32), points, order=1, mode="nearest"), np.float32)


def warp_labels(
    labels: NDArray[np.uint8], displacement: Float32Array, spacing_mm: Spacing, n_classes: int
) -> NDArray[np.uint8]:
    """Warp a label map: each class's share is interpolated linearly, the largest share wins, the lower class at a tie.

    Parameters
    ----------
    labels : ndarray, (x, y, z), uint8 in [0, n_classes)
    displacement : ndarray, (3, x, y, z), float32
        In mm.
    spacing_mm : tuple of float
    n_classes : int
        Background included.

    Returns
    -------
    ndarray, (x, y, z), uint8
    """
    points = _sampling_points(displacement, spacing_mm).reshape(3, -1)
    lower, fraction = [], []
    for axis, n in enumerate(labels.shape):
        position = np.clip(points[axis], 0, n - 1)
        lower.append(np.minimum(position.astype(np.int64), max(n - 2, 0)))
        fraction.append(position - lower[-1])
    strides = (labels.shape[1] * labels.shape[2], labels.shape[2], 1)
    base = sum(index * stride for index, stride in zip(lower, strides, strict=True))
    steps = [stride if n > 1 else 0 for stride, n in zip(strides, labels.shape, strict=True)]
    flat = labels.ravel()
    corners = [
        flat[base + sum(s * c for s, c in zip(steps, corner, strict=True))] for corner in product((0, 1), repeat=3)
    ]
    warped = corners[0].copy()
    # Only where the eight corners differ is there anything to vote about.
    mixed = np.flatnonzero(np.any([corner != corners[0] for corner in corners[1:]], axis=0))
    shares = np.zeros((n_classes, mixed.size), np.float32)
    for corner, values in zip(product((0, 1), repeat=3), corners, strict=True):
        weight = np.ones(mixed.size, np.float32)
        for axis, upper in enumerate(corner):
            weight *= fraction[axis][mixed] if upper else 1 - fraction[axis][mixed]
        for value in range(n_classes):
            shares[value] += weight * (values[mixed] == value)
    warped[mixed] = shares.argmax(axis=0).astype(np.uint8)
    return np.asarray(warped.reshape(labels.shape), np.uint8)


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name}; expected more than 0, got {value:g}; give a length in millimetres")


def _rms(displacement: Float32Array) -> float:
    return float(np.sqrt((displacement.astype(np.float64) ** 2).sum(axis=0).mean()))


def _sampling_points(displacement: Float32Array, spacing_mm: Spacing) -> Float32Array:
    """Return where each voxel is read, in voxel indices, (3, x, y, z)."""
    points = displacement / np.array(spacing_mm, np.float32)[:, None, None, None]
    for axis, n in enumerate(displacement.shape[1:]):
        along = [1, 1, 1]
        along[axis] = n
        points[axis] += np.arange(n, dtype=np.float32).reshape(along)
    return points


def _coarse_grid(shape: Shape, spacing_mm: Spacing, node_mm: float) -> tuple[Shape, Spacing]:
    """Return shape and spacing of a grid with the same corners and nodes at most ``node_mm`` apart, if coarser."""
    extents = [(n - 1) * s for n, s in zip(shape, spacing_mm, strict=True)]
    x, y, z = (min(n, max(4, math.ceil(extent / node_mm) + 1)) for n, extent in zip(shape, extents, strict=True))
    dx, dy, dz = (extent / max(n - 1, 1) or 1.0 for n, extent in zip((x, y, z), extents, strict=True))
    return (x, y, z), (dx, dy, dz)


def _coarse_field(
    nodes: Shape, node_spacing_mm: Spacing, smoothness_mm: float, rng: np.random.Generator
) -> Float32Array:
    """Draw the field on its nodes; noise is drawn on a wider grid, so that the border is as rough as the rest."""
    sigmas = [smoothness_mm / s for s in node_spacing_mm]
    pads = [math.ceil(2 * sigma) for sigma in sigmas]
    noise = rng.standard_normal([n + 2 * pad for n, pad in zip(nodes, pads, strict=True)], dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, sigmas, truncate=3.0)
    field = smooth[tuple(slice(pad, pad + n) for n, pad in zip(nodes, pads, strict=True))]
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-12), np.float32)


def _border_taper(nodes: Shape, node_spacing_mm: Spacing, width_mm: float) -> Float32Array:
    """Return a window that rises smoothly from 0 at the border to 1 at a depth, (x, y, z)."""
    window = np.ones(nodes, np.float32)
    for axis, (n, spacing) in enumerate(zip(nodes, node_spacing_mm, strict=True)):
        depth_mm = np.minimum(np.arange(n), np.arange(n)[::-1]) * spacing
        share = np.clip(depth_mm / min(width_mm, (n - 1) * spacing / 2 or 1.0), 0.0, 1.0)
        along = [1, 1, 1]
        along[axis] = n
        window *= (share**2 * (3.0 - 2.0 * share)).astype(np.float32).reshape(along)
    return window


def _refine(field: Float32Array, shape: Shape) -> Float32Array:
    """Interpolate to another number of nodes between the same corners: Catmull-Rom's cubic, one axis after another."""
    for axis, n in enumerate(shape):
        n_nodes = field.shape[axis]
        if n_nodes == n:
            continue
        position = np.linspace(0.0, n_nodes - 1, n)
        lower = np.minimum(position.astype(np.int64), max(n_nodes - 2, 0))
        t = position - lower
        weights = (
            -0.5 * t + t**2 - 0.5 * t**3,
            1.0 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2.0 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        )
        along = [1, 1, 1]
        along[axis] = n
        taps = [np.take(field, np.clip(lower + k - 1, 0, n_nodes - 1), axis=axis) for k in range(4)]
        field = sum(tap * w.astype(np.float32).reshape(along) for tap, w in zip(taps, weights, strict=True))
    return np.asarray(field, np.float32)
