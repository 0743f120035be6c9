"""Tumours: where, how large, what they are made of; grown on the anatomy that they pushed aside.

The core grows from a few lobes, faster in some directions by chance; oedema spreads from it many times faster along
white matter than into cortex. Viable, enhancing tumour is the core's outer shell, of a thickness that varies around
it. The laws here are the phantom's own: see :mod:`pipeline.phantom.anatomy`.

References
----------
Menze et al. 2015, doi:10.1109/TMI.2014.2377694 (classes). Clatz et al. 2005, "Realistic simulation of the 3-D growth of
brain tumors in MR images coupling diffusion with biomechanical deformation", doi:10.1109/TMI.2005.857217.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.growth import GREY, WHITE, GrowthLaw, grow
from pipeline.labels import LabelScheme
from pipeline.phantom.anatomy import Anatomy, Push, Template
from pipeline.volumes import bounding_box
from pipeline.warps import Float32Array, Spacing, random_field, random_warp, warp_image

VOLUME_ML = (5.0, 70.0, 120.0)
CORE_SHARE = (0.2, 0.6)
NON_ENHANCING_SHARE = 1 / 6
RIM_MM = (2.2, 5.0)
CORE_LAW = GrowthLaw(white_mm2_per_day=0.3, grey_mm2_per_day=0.05, proliferation_per_day=0.03, threshold=0.5)
OEDEMA_LAW = GrowthLaw(white_mm2_per_day=1.2, grey_mm2_per_day=0.04, proliferation_per_day=0.1, threshold=0.35)


@dataclass(frozen=True)
class TumorPlan:
    """What is drawn about a tumour before it grows.

    Parameters
    ----------
    centre_template_mm : tuple of float
        Atlas position, RAS+ world.
    volume_ml, core_share : float
        Whole tumour, and the part of it that is core.
    enhancing : bool
        Whether there is an enhancing rim; without it all core is class "necrotic core", as BraTS labels it.
    rim_mm : float
        Mean thickness of the rim.
    lobes_mm : ndarray, (n, 3), float64
        Positions of the lobes from the centre, along the array's axes.
    push_share : float
        Strength of the mass effect, as a share of the core's radius.
    """

    centre_template_mm: Spacing
    volume_ml: float
    core_share: float
    enhancing: bool
    rim_mm: float
    lobes_mm: NDArray[np.float64]
    push_share: float

    @property
    def core_radius_mm(self) -> float:
        """Radius of a ball of the core's volume."""
        return float((self.volume_ml * self.core_share * 1000.0 * 3.0 / (4.0 * np.pi)) ** (1 / 3))

    @property
    def push(self) -> Push:
        """Mass effect on the anatomy."""
        return Push(self.centre_template_mm, 1.15 * self.core_radius_mm, self.push_share * self.core_radius_mm)


@dataclass(frozen=True)
class Tumor:
    """A grown tumour.

    Parameters
    ----------
    labels : ndarray, (x, y, z), uint8
        Values of :class:`pipeline.labels.LabelScheme`.
    density : ndarray, (x, y, z), float32 in [0, 1]
        Fluid and cells in the oedema, falling outwards.
    enhancing : bool
    """

    labels: NDArray[np.uint8]
    density: Float32Array
    enhancing: bool


def plan_tumor(template: Template, rng: np.random.Generator) -> TumorPlan:
    """Draw place, volume and make-up of a tumour.

    Parameters
    ----------
    template : Template
        Tumours start in the hemispheres, below the cortex or deeper.
    rng : numpy.random.Generator

    Returns
    -------
    TumorPlan
    """
    step = 3
    coarse = (slice(None, None, step),) * 3
    x, y, z = (
        origin + step * np.arange(-(-n // step))
        for origin, n in zip(template.origin_mm, template.depth_mm.shape, strict=True)
    )
    x, y, z = np.ix_(x, y, z)
    volume_ml = float(np.exp(rng.triangular(*np.log(VOLUME_ML))))
    core_share = float(rng.uniform(*CORE_SHARE))
    enhancing = bool(rng.random() >= NON_ENHANCING_SHARE)
    radius_mm = (volume_ml * core_share * 1000.0 * 3.0 / (4.0 * np.pi)) ** (1 / 3)
    # A large core needs room, or the skull would cut it flat.
    deep = template.depth_mm[coarse] > min(5.0 + 0.85 * radius_mm, 24.0)
    matter = template.white[coarse] + 0.3 * template.grey[coarse] > 0.6
    # Above the tentorium, off the midline.
    hemisphere = (np.abs(x) > 10) & (z > -20) & (y > -75 + 0.4 * z)
    places = np.argwhere(matter & hemisphere & deep)
    place = places[rng.integers(len(places))]
    cx, cy, cz = (float(o + step * i) for o, i in zip(template.origin_mm, place, strict=True))
    return TumorPlan(
        centre_template_mm=(cx, cy, cz),
        volume_ml=volume_ml,
        core_share=core_share,
        enhancing=enhancing,
        rim_mm=float(rng.uniform(*RIM_MM)),
        lobes_mm=rng.normal(0.0, 0.45 * radius_mm, (int(rng.integers(1, 5)), 3)),
        push_share=float(rng.uniform(0.35, 0.65) if enhancing else rng.uniform(0.1, 0.35)),
    )


def grow_tumor(anatomy: Anatomy, plan: TumorPlan, rng: np.random.Generator) -> Tumor:
    """Grow the planned tumour on an anatomy that already bears its mass effect.

    Parameters
    ----------
    anatomy : Anatomy
    plan : TumorPlan
    rng : numpy.random.Generator

    Returns
    -------
    Tumor

    Raises
    ------
    CaseError
        If the tumour does not find the tissue that it needs.
    """
    core = _grow_core(anatomy, plan, rng)
    tissue = np.where(anatomy.fractions[0] > 0.45, 0, anatomy.tissue)
    # Fluid finds its way between some fibre bundles more easily than between others: that makes the fingers.
    tissue[(tissue == WHITE) & (random_field(core.shape, anatomy.spacing_mm, 4.5, rng) < 0)] = GREY
    tissue[core] = WHITE
    density = grow(tissue, core.astype(np.float32), anatomy.spacing_mm, plan.volume_ml, OEDEMA_LAW)
    whole = _largest_part(((density >= OEDEMA_LAW.threshold) & anatomy.brain) | core)
    values = LabelScheme().tumor_values
    labels = np.zeros(core.shape, np.uint8)
    labels[whole] = values["oedema"]
    labels[core] = values["necrotic_core"]
    if plan.enhancing:
        labels[_find_rim(core, plan.rim_mm, anatomy.spacing_mm, rng)] = values["enhancing"]
    return Tumor(labels, density, plan.enhancing)


def _grow_core(anatomy: Anatomy, plan: TumorPlan, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Grow the core from its lobes; sulci give way to it, ventricles and skull do not."""
    shape, spacing = anatomy.brain.shape, anatomy.spacing_mm
    open_tissue = np.where(anatomy.brain & (anatomy.ventricles < 0.5) & (anatomy.depth_mm > 1.0), GREY, 0)
    open_tissue[(open_tissue == GREY) & (random_field(shape, spacing, 6.0, rng) > 0)] = WHITE
    target = np.array(plan.centre_template_mm, np.float32)[:, None, None, None]
    centre = np.unravel_index(int(((anatomy.template_mm - target) ** 2).sum(axis=0).argmin()), shape)
    start = np.zeros(shape, np.float32)
    lobe_mm = max(0.35 * plan.core_radius_mm, 0.8 * spacing[0])
    for lobe in plan.lobes_mm:
        axes = [(np.arange(n) - c) * s - offset for n, c, s, offset in zip(shape, centre, spacing, lobe, strict=True)]
        x, y, z = np.ix_(*(axis.astype(np.float32) ** 2 for axis in axes))
        start = np.maximum(start, np.exp(-(x + y + z) / np.float32(2 * lobe_mm**2)))
    start *= start > 0.05
    core_ml = plan.volume_ml * plan.core_share
    density = grow(open_tissue.astype(np.uint8), 0.7 * start, spacing, 1.05 * core_ml, CORE_LAW)
    # The random warp makes the outline irregular at a scale that growth itself would smooth away.
    density = warp_image(density, random_warp(shape, spacing, 1.6, 7.0, rng), spacing) * (open_tissue > 0)
    n_voxels = max(8, round(core_ml * 1000.0 / float(np.prod(spacing))))
    core = density >= max(np.partition(density, -n_voxels, axis=None)[-n_voxels], 1e-3)
    return _largest_part(np.asarray(ndimage.binary_fill_holes(core), np.bool_) & anatomy.brain)


def _find_rim(core: NDArray[np.bool_], rim_mm: float, spacing: Spacing, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return the core's enhancing shell: a thickness that varies, at least one voxel of it nearly everywhere."""
    thickness_mm = rim_mm * np.exp(0.45 * random_field(core.shape, spacing, 7.0, rng))
    thickness_mm = np.maximum(thickness_mm, 0.9 * max(spacing))
    depth_mm = np.zeros(core.shape, np.float32)
    box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in bounding_box(core))
    depth_mm[box] = ndimage.distance_transform_edt(np.pad(core[box], 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    return np.asarray(core & (depth_mm - 0.5 * min(spacing) <= thickness_mm), np.bool_)


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop the islands that are not connected to the largest part."""
    parts, n = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if n <= 1:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax(), np.bool_)
