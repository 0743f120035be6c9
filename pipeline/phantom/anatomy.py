"""Healthy anatomy: the MNI152 tissue maps that ship with nilearn, made individual.

Each subject has its own head shape, smooth and fine deformation, ventricle size, width of sulci and cortex. The laws
here are the phantom's own: label sources of ``generate`` use others, or phantoms could not test them.

References
----------
Fonov et al. 2011, "Unbiased average age-appropriate atlases for pediatric studies",
doi:10.1016/j.neuroimage.2010.07.033.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.volumes import FloatArray, bounding_box
from pipeline.warps import Float32Array, Shape, Spacing, exponentiate, mass_effect, random_field, random_warp

FIELD_OF_VIEW_MM = (176.0, 216.0, 192.0)
CENTRE_MM = (0.0, -17.0, 5.0)
# LPS array axes against RAS+ world.
AXIS_SIGNS = (-1.0, -1.0, 1.0)
ATLAS_MARGIN = 8
SURFACE_VOXELS = 2
SWELLING_STEP = 4
FULL_WIDTH_IN_SIGMAS = 2.355
# Less than resampling.resample takes: the atlas is an average and blurred already.
ALIASING_SHARE = 0.7

HEAD_SCALE_SD = 0.025
HEAD_SCALE_RANGE = (0.92, 1.07)
HEAD_TILT_DEGREES = 3.0
SMOOTH_WARP_MM = (2.6, 22.0)
FINE_WARP_MM = (1.2, 8.0)
VENTRICLE_GROWTH_MM = (-2.5, 3.5)
ATROPHY = (-0.3, 1.2)


@dataclass(frozen=True)
class Template:
    """The atlas on a 1 mm grid in RAS orientation.

    Parameters
    ----------
    csf, grey, white : ndarray, (x, y, z), float32 in [0, 1]
        Tissue fractions, sharpened; their sum is 1 in the brain.
    depth_mm : ndarray, (x, y, z), float32
        Distance to the brain's surface, negative outside.
    ventricles : ndarray, (x, y, z), float32 in [0, 1]
        Share of lateral and third ventricle.
    detail : ndarray, (x, y, z), float32
        What the T1 template shows beyond a mixture of three tissues: deep nuclei, myelination.
    swelling : ndarray, (3, x, y, z), float32
        Velocity that widens the ventricles, length about 1 at their walls; every :data:`SWELLING_STEP` th voxel.
    origin_mm : tuple of float
        World position of the first voxel.
    """

    csf: Float32Array
    grey: Float32Array
    white: Float32Array
    depth_mm: Float32Array
    ventricles: Float32Array
    detail: Float32Array
    swelling: Float32Array
    origin_mm: Spacing


@dataclass(frozen=True)
class Anatomy:
    """One subject's healthy brain on its grid, LPS array orientation.

    Parameters
    ----------
    fractions : ndarray, (3, x, y, z), float32 in [0, 1]
        CSF, grey and white matter; sum 1 in the brain and 0 outside.
    brain : ndarray, (x, y, z), bool
    depth_mm : ndarray, (x, y, z), float32
        Distance to the brain's surface in the atlas, negative outside.
    ventricles, detail : ndarray, (x, y, z), float32
        As in :class:`Template`.
    template_mm : ndarray, (3, x, y, z), float32
        Atlas position of each voxel, RAS+ world.
    affine : ndarray, (4, 4), float64
    """

    fractions: Float32Array
    brain: NDArray[np.bool_]
    depth_mm: Float32Array
    ventricles: Float32Array
    detail: Float32Array
    template_mm: Float32Array
    affine: FloatArray

    @property
    def tissue(self) -> NDArray[np.uint8]:
        """Tissue map: 0 outside, 1 CSF, 2 grey matter, 3 white matter."""
        return np.where(self.brain, self.fractions.argmax(axis=0) + 1, 0).astype(np.uint8)

    @property
    def spacing_mm(self) -> Spacing:
        """Edge lengths of a voxel."""
        x, y, z = np.abs(np.diag(self.affine)[:3])
        return float(x), float(y), float(z)


@dataclass(frozen=True)
class Push:
    """Mass effect on the anatomy: where, how wide, how far.

    Parameters
    ----------
    centre_template_mm : tuple of float
        Atlas position, RAS+ world.
    radius_mm, push_mm : float
        As in :func:`pipeline.warps.mass_effect`.
    """

    centre_template_mm: Spacing
    radius_mm: float
    push_mm: float


def make_anatomy(spacing_mm: float, push: Push | None, rng: np.random.Generator) -> Anatomy:
    """Draw one subject's anatomy.

    Parameters
    ----------
    spacing_mm : float
        Isotropic spacing of the grid.
    push : Push or None
        Mass effect, if there is a tumour; the skull holds the brain's outline.
    rng : numpy.random.Generator

    Returns
    -------
    Anatomy
    """
    template = smooth_template(spacing_mm)
    shape = grid_shape(spacing_mm)
    spacing = (spacing_mm, spacing_mm, spacing_mm)
    affine = grid_affine(shape, spacing_mm)
    template_mm = _swell_ventricles(_template_positions(shape, affine, rng), template, rng)
    if push is not None:
        template_mm = _push_tissue(template_mm, template, push, spacing)
    channels = (template.depth_mm, template.csf, template.grey, template.white, template.ventricles, template.detail)
    depth_mm, csf, grey, white, ventricles, detail = (
        _sample(channel, template_mm, template.origin_mm) for channel in channels
    )
    brain = depth_mm > 0
    fractions = _individual_cortex(np.stack([csf, grey, white]), depth_mm, ventricles, spacing, rng)
    fractions *= brain
    return Anatomy(fractions, brain, depth_mm, ventricles, detail, template_mm, affine)


def grid_shape(spacing_mm: float) -> Shape:
    """Return the voxels along x, y, z of the field of view."""
    x, y, z = (2 * round(extent / spacing_mm / 2) for extent in FIELD_OF_VIEW_MM)
    return x, y, z


def grid_affine(shape: Shape, spacing_mm: float) -> FloatArray:
    """Return the affine of the field of view, RAS+ world, LPS array axes."""
    signs = np.array(AXIS_SIGNS)
    affine = np.diag([*(signs * spacing_mm), 1.0])
    affine[:3, 3] = np.array(CENTRE_MM) - signs * (np.array(shape) - 1) / 2 * spacing_mm
    return affine


@lru_cache(maxsize=2)
def smooth_template(spacing_mm: float) -> Template:
    """Return the atlas prepared for sampling at a spacing: a coarse voxel averages over about its own width.

    Parameters
    ----------
    spacing_mm : float
        Isotropic spacing of the grid to come.

    Returns
    -------
    Template
        Cached.
    """
    template = load_template()
    sigma_mm = ALIASING_SHARE * math.sqrt(max(0.0, spacing_mm**2 - 1.0)) / FULL_WIDTH_IN_SIGMAS
    if sigma_mm == 0:
        return template
    smooth = partial(ndimage.gaussian_filter, sigma=sigma_mm)
    return replace(
        template,
        csf=smooth(template.csf),
        grey=smooth(template.grey),
        white=smooth(template.white),
        depth_mm=smooth(template.depth_mm),
        ventricles=smooth(template.ventricles),
        detail=smooth(template.detail),
    )


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Load the atlas, sharpen its blurred tissue maps and derive ventricles, depth and detail.

    Returns
    -------
    Template
        Cached: it is the same for all subjects.
    """
    from nilearn.datasets import (  # noqa: PLC0415 takes seconds to import
        load_mni152_brain_mask,
        load_mni152_gm_template,
        load_mni152_template,
        load_mni152_wm_template,
    )

    mask_image = load_mni152_brain_mask(resolution=1)
    mask = np.asarray(mask_image.dataobj) > 0
    box = bounding_box(mask)
    origin = mask_image.affine[:3, 3] + np.array([s.start for s in box]) - ATLAS_MARGIN
    mask = np.pad(mask[box], ATLAS_MARGIN)
    t1, grey, white = (
        np.pad(np.asarray(load(resolution=1).dataobj, np.float32)[box], ATLAS_MARGIN)
        for load in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    )
    depth_mm, nearest = _find_surface(mask)
    csf, grey, white = _sharpen(grey, white, mask, nearest)
    world = [origin[axis] + np.arange(n) for axis, n in enumerate(mask.shape)]
    ventricles = _find_ventricles(csf, depth_mm, world)
    white, grey = _drop_ventricle_rim(white, grey, ventricles)
    csf = _deepen_midline(csf, white, depth_mm, world)
    total = np.maximum(csf + grey + white, 1e-3)
    csf, grey, white = csf / total, grey / total, white / total
    detail = _t1_detail(t1, (csf, grey, white), mask)
    x, y, z = (float(o) for o in origin)
    return Template(csf, grey, white, depth_mm, ventricles, detail, _swelling_velocity(ventricles), (x, y, z))


def _find_surface(mask: NDArray[np.bool_]) -> tuple[Float32Array, tuple[NDArray[np.int32], ...]]:
    """Return the signed depth below the surface, and for each voxel the nearest that lies a little below it."""
    inner = ndimage.binary_erosion(mask, iterations=SURFACE_VOXELS)
    to_inner_mm, nearest = ndimage.distance_transform_edt(~inner, return_indices=True)
    outside = np.minimum(SURFACE_VOXELS + 0.5 - to_inner_mm, -0.5)
    depth_mm = np.where(mask, ndimage.distance_transform_edt(mask) - 0.5, outside)
    return depth_mm.astype(np.float32), tuple(nearest)


def _sharpen(
    grey: Float32Array, white: Float32Array, mask: NDArray[np.bool_], nearest: tuple[NDArray[np.int32], ...]
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Undo some of the blur of averaging 152 brains: unsharp masking; the fractions are scaled to sum 1 later.

    At the surface the averages fade to background: there, and outside, the tissue a little deeper goes on.
    """
    csf = np.clip(1.0 - grey - white, 0, 1) * mask
    sharp = []
    for fraction, gain in ((csf, 2.2), (grey, 1.0), (white, 1.0)):
        surround = ndimage.gaussian_filter(fraction, 3.0)
        sharp.append(np.clip(fraction + gain * (fraction - surround), 0, 1).astype(np.float32)[nearest])
    csf, grey, white = sharp
    return csf, grey, white


def _find_ventricles(csf: Float32Array, depth_mm: Float32Array, world: list[NDArray[np.float64]]) -> Float32Array:
    """Return the share of lateral and third ventricles: deep CSF, connected, around the middle."""
    x, y, z = np.ix_(*world)
    near = (np.abs(x) < 45) & (y > -60) & (y < 45) & (z > -20) & (z < 35) & (depth_mm > 14)
    labels = ndimage.label((csf > 0.5) & near)[0]
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    core = np.isin(labels, np.flatnonzero(sizes > 150))
    return np.asarray(np.where(ndimage.binary_dilation(core, iterations=2), csf, 0), np.float32)


def _drop_ventricle_rim(
    white: Float32Array, grey: Float32Array, ventricles: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Turn the thin grey rim of partial volume around ventricles to white matter; thick grey (caudate) stays."""
    thick = ndimage.grey_opening(grey, size=(5, 5, 5))
    near = ndimage.gaussian_filter(ndimage.grey_dilation(ventricles, size=(7, 7, 7)), 1.0)
    excess = np.clip(grey - thick, 0, None) * np.clip(near, 0, 1)
    return white + excess, grey - excess


def _deepen_midline(
    csf: Float32Array, white: Float32Array, depth_mm: Float32Array, world: list[NDArray[np.float64]]
) -> Float32Array:
    """Open the fissure between the hemispheres, which averaging closed."""
    x, _, z = np.ix_(*world)
    fissure = np.exp(-((x / 1.2) ** 2)) * (z > 0) * np.clip(1.0 - 3.0 * ndimage.gaussian_filter(white, 2.0), 0, 1)
    return np.asarray(np.clip(csf + 0.9 * fissure * (depth_mm > 0), 0, 3), np.float32)


def _t1_detail(
    t1: Float32Array, fractions: tuple[Float32Array, Float32Array, Float32Array], mask: NDArray[np.bool_]
) -> Float32Array:
    """Return the T1 template less what its three tissues' mean intensities explain."""
    explained = np.zeros_like(t1)
    for fraction in fractions:
        pure = fraction[mask] ** 4
        explained += fraction * np.float32((pure * t1[mask]).sum() / pure.sum())
    detail = np.where(mask, np.clip(t1 - explained, -0.12, 0.12), 0)
    return np.asarray(ndimage.gaussian_filter(detail, 1.0) * np.clip(1 - 2 * fractions[0], 0, 1), np.float32)


def _swelling_velocity(ventricles: Float32Array) -> Float32Array:
    """Return the velocity, pulling back, that widens the ventricles: up the gradient of their smoothed share."""
    smooth = ndimage.gaussian_filter(ventricles, 5.0)
    step = SWELLING_STEP
    gradient = np.asarray(np.gradient(smooth[::step, ::step, ::step], step))
    return np.asarray(gradient / np.abs(gradient).max(), np.float32)


def _template_positions(shape: Shape, affine: FloatArray, rng: np.random.Generator) -> Float32Array:
    """Draw head shape and warps; return the atlas position of each voxel, (3, x, y, z), RAS+ world."""
    x, y, z = np.abs(np.diag(affine)[:3])
    spacing: Spacing = (float(x), float(y), float(z))
    displacement = random_warp(shape, spacing, *SMOOTH_WARP_MM, rng) + random_warp(shape, spacing, *FINE_WARP_MM, rng)
    size = rng.normal(1.0, HEAD_SCALE_SD)
    scale = np.clip(size * rng.normal(1.0, HEAD_SCALE_SD, 3), *HEAD_SCALE_RANGE)
    tilt = np.radians(rng.normal(0.0, HEAD_TILT_DEGREES, 3)).clip(-0.12, 0.12)
    centred = []
    for axis, n in enumerate(shape):
        along = [1, 1, 1]
        along[axis] = n
        steps = ((np.arange(n) - (n - 1) / 2) * spacing[axis]).reshape(along)
        centred.append((steps + displacement[axis]) * AXIS_SIGNS[axis] / scale[axis])
    for axis, angle in enumerate(tilt):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        cosine, sine = math.cos(angle), math.sin(angle)
        centred[a], centred[b] = cosine * centred[a] - sine * centred[b], sine * centred[a] + cosine * centred[b]
    return np.stack([c + centre for c, centre in zip(centred, CENTRE_MM, strict=True)]).astype(np.float32)


def _swell_ventricles(template_mm: Float32Array, template: Template, rng: np.random.Generator) -> Float32Array:
    """Give the subject's ventricles their own size."""
    amount_mm = np.float32(rng.uniform(*VENTRICLE_GROWTH_MM))
    step_mm = float(SWELLING_STEP)
    field = exponentiate(amount_mm * template.swelling, (step_mm, step_mm, step_mm))
    moved = [_sample(component, template_mm, template.origin_mm, step_mm) for component in field]
    return template_mm + np.stack(moved)


def _push_tissue(template_mm: Float32Array, template: Template, push: Push, spacing: Spacing) -> Float32Array:
    """Let the tumour push the anatomy aside; the brain's surface and what lies near it hardly move."""
    shape = template_mm.shape[1:]
    target = np.array(push.centre_template_mm, np.float32)[:, None, None, None]
    nearest = np.unravel_index(int(((template_mm - target) ** 2).sum(axis=0).argmin()), shape)
    x, y, z = (int(i) * s for i, s in zip(nearest, spacing, strict=True))
    depth_mm = _sample(template.depth_mm, template_mm, template.origin_mm)
    mobility = np.clip(depth_mm / 12.0, 0, 1)
    displacement = mass_effect(shape, spacing, (x, y, z), push.radius_mm, push.push_mm, mobility)
    points = [
        np.arange(n, dtype=np.float32).reshape([-1 if axis == k else 1 for k in range(3)]) + displacement[axis] / s
        for axis, (n, s) in enumerate(zip(shape, spacing, strict=True))
    ]
    return np.stack([ndimage.map_coordinates(component, points, order=1, mode="nearest") for component in template_mm])


def _sample(channel: Float32Array, template_mm: Float32Array, origin_mm: Spacing, step_mm: float = 1.0) -> Float32Array:
    points = (template_mm - np.array(origin_mm, np.float32)[:, None, None, None]) / np.float32(step_mm)
    return np.asarray(ndimage.map_coordinates(channel, points, order=1, mode="nearest"), np.float32)


def _individual_cortex(
    fractions: Float32Array,
    depth_mm: Float32Array,
    ventricles: Float32Array,
    spacing: Spacing,
    rng: np.random.Generator,
) -> Float32Array:
    """Vary the width of sulci and the thickness of cortex: odds of CSF and white matter change from place to place."""
    x, y, z = depth_mm.shape
    shape = (x, y, z)
    finest_mm = 2.0 * max(spacing)
    atrophy = np.float32(rng.uniform(*ATROPHY))
    cortex = np.clip(1.0 - np.abs(depth_mm - 8.0) / 14.0, 0, 1)
    csf_odds = cortex * (atrophy + 0.8 * random_field(shape, spacing, max(7.0, finest_mm), rng))
    # Furrows of its own: thin sheets where a random field changes sign.
    furrow = np.exp(-((random_field(shape, spacing, max(5.0, finest_mm), rng) / 0.18) ** 2))
    csf_odds += np.clip(cortex, 0, 0.6) * furrow * 1.6
    white_odds = 0.5 * random_field(shape, spacing, max(6.0, finest_mm), rng)
    odds = np.maximum(fractions, 1e-4)
    odds[0] *= np.exp(csf_odds)
    odds[2] *= np.exp(white_odds)
    odds /= odds.sum(axis=0)
    # The ventricles' walls are where the warp put them, whatever the odds.
    odds[0] = np.maximum(odds[0], ventricles)
    odds[1:] *= (1.0 - odds[0]) / np.maximum(odds[1] + odds[2], 1e-6)
    return odds
