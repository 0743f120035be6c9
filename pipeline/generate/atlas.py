"""Label source `atlas`: an atlas deformed by chance, a tumour grown in it; no patient's geometry enters.

The laws of deformation and growth differ from those of :mod:`pipeline.phantom`, or phantoms, which warp the same
atlas, could not test this source: here one density is grown and cut at levels that vary in space, there core and
oedema grow apart.

References
----------
Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033 (atlas). Swanson et al. 2000,
doi:10.1046/j.1365-2184.2000.00177.x (growth).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import CaseError
from pipeline.generate.anatomy import warp_person
from pipeline.generate.composition import draw_core, largest
from pipeline.generate.placement import LabelMaps, fill_holes, focus_shares, join, list_places, push_tissue
from pipeline.generate.plan import AskedCase
from pipeline.growth import GrowthLaw, grow
from pipeline.labels import TISSUE_CLASSES, LabelScheme, UInt8Array
from pipeline.resampling import resample_labels
from pipeline.volumes import Grid, Volume, bounding_box, to_ras
from pipeline.warps import random_field

LAW = GrowthLaw(white_mm2_per_day=0.5, grey_mm2_per_day=0.12, proliferation_per_day=0.05, threshold=0.25)
SEED_RADIUS_MM = 5.0
FOCI_APART_MM = 15.0
ROUGHNESS = 0.25
PUSH_STRENGTH = (0.15, 0.4)
WHITE = 3


def atlas_labels(asked: AskedCase, grid: Grid, scheme: LabelScheme, stream: np.random.Generator) -> LabelMaps:
    """Make the label maps of a person who does not exist.

    Parameters
    ----------
    asked : AskedCase
        What to aim at.
    grid : Grid
        Working grid of the cohort, centred on the brain.
    scheme : LabelScheme
    stream : numpy.random.Generator

    Returns
    -------
    LabelMaps

    Raises
    ------
    CaseError
        If growth finds no room for the volume.
    """
    spacing = (grid.spacing_mm,) * 3
    tissue_map = random_anatomy(grid, stream)
    core, enhancing = draw_core(asked, stream)
    tumor_map = np.zeros(grid.shape, np.uint8)
    for number, share in enumerate(focus_shares(asked.n_foci, stream)):
        volume_ml = share * asked.volume_ml
        # Others than the first may lie anywhere on that side.
        lobe = asked.lobe if number == 0 else None
        start = _seed(tissue_map, asked, lobe, tumor_map > 0, grid.spacing_mm, stream)
        density = grow(tissue_map, start, spacing, volume_ml, LAW)
        parts_ml = (volume_ml, core * volume_ml, enhancing * volume_ml)
        focus = cut_density(density, parts_ml, grid.spacing_mm, scheme, stream)
        tumor_map = np.where((tumor_map == 0) & (tissue_map > 0), focus, tumor_map).astype(np.uint8)
    # Growth goes round fluid and may close behind it.
    tumor_map = fill_holes(tumor_map, ndimage.binary_fill_holes(tumor_map > 0))
    pushed = push_tissue(tissue_map, tumor_map, grid.spacing_mm, stream.uniform(*PUSH_STRENGTH))
    return join(pushed, tumor_map)


def random_anatomy(grid: Grid, stream: np.random.Generator) -> UInt8Array:
    """Draw a tissue map: the atlas warped to a person of its own, mirrored in half of the cases."""
    tissue_map = atlas_tissue(grid)
    warped = warp_person(tissue_map, grid.spacing_mm, stream)
    brain = ndimage.binary_fill_holes(warped > 0)
    filled = fill_holes(warped, brain)
    return np.ascontiguousarray(filled[::-1]) if stream.random() < 0.5 else filled


@lru_cache(maxsize=2)
def atlas_tissue(grid: Grid) -> UInt8Array:
    """Return the atlas' tissue map on a grid centred on its brain: (x, y, z), uint8 in [0, 3]."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template

    mask, grey, white = (
        load(resolution=2) for load in (load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template)
    )
    brain = np.asarray(mask.dataobj) > 0
    grey_share, white_share = np.asarray(grey.dataobj), np.asarray(white.dataobj)
    shares = np.stack([1.0 - grey_share - white_share, grey_share, white_share])
    labels = np.where(brain, np.argmax(shares, axis=0) + 1, 0).astype(np.uint8)
    atlas = to_ras(Volume(labels, np.asarray(mask.affine, np.float64)))
    box = bounding_box(atlas.array > 0)
    middle = [(part.start + part.stop - 1) / 2 for part in box]
    x, y, z, _ = atlas.affine @ [*middle, 1.0]
    return resample_labels(atlas, Grid(grid.shape, grid.spacing_mm, (x, y, z)), len(TISSUE_CLASSES) + 1).array


def cut_density(
    density: NDArray[np.float32],
    parts_ml: tuple[float, float, float],
    spacing_mm: float,
    scheme: LabelScheme,
    stream: np.random.Generator,
) -> UInt8Array:
    """Cut a density into the classes of a tumour.

    The densest part is core; what of it lies deepest is necrotic, the rest enhances. Both cuts are made on the
    density, or depth, times a smooth random field, so that borders are uneven.

    Parameters
    ----------
    density : ndarray, (x, y, z), float32
    parts_ml : tuple of float
        Volumes of the whole tumour, of its core, and of what of the core enhances.
    spacing_mm : float
    scheme : LabelScheme
        A data set without a class gets its part in the nearest class that it has.
    stream : numpy.random.Generator

    Returns
    -------
    ndarray, (x, y, z), uint8
    """
    values = scheme.tumor_values
    spacing = (spacing_mm, spacing_mm, spacing_mm)
    shape = density.shape
    uneven = np.exp(ROUGHNESS * random_field((shape[0], shape[1], shape[2]), spacing, 10.0, stream))
    n_whole, n_core, n_enhancing = (round(ml * 1000 / spacing_mm**3) for ml in parts_ml)
    whole = largest(density, max(1, n_whole)) & (density > 0)
    core = largest(np.where(whole, density * uneven, 0), max(1, n_core)) & whole
    core = ndimage.binary_opening(core) | (core & ndimage.binary_erosion(whole))
    outermost = values.get("oedema", values.get("enhancing", 1))
    tumor_map = np.where(whole, outermost, 0).astype(np.uint8)
    rim, centre = values.get("enhancing", outermost), values.get("necrotic_core", values.get("enhancing", outermost))
    tumor_map[core] = rim
    depth = ndimage.distance_transform_edt(core, sampling=spacing_mm) * uneven
    necrotic = largest(np.where(core, depth, 0), int(core.sum()) - n_enhancing) & core
    tumor_map[necrotic] = centre
    return tumor_map


def _seed(
    tissue_map: UInt8Array,
    asked: AskedCase,
    lobe: str | None,
    away_from: NDArray[np.bool_],
    spacing_mm: float,
    stream: np.random.Generator,
) -> NDArray[np.float32]:
    """Return a ball of cells in the white matter asked for, not at its edge, and not near another focus."""
    depth_mm = ndimage.distance_transform_edt(tissue_map > 0, sampling=spacing_mm)
    deep = (tissue_map == WHITE) & (depth_mm > 2 * SEED_RADIUS_MM)
    if away_from.any():
        deep &= ndimage.distance_transform_edt(~away_from, sampling=spacing_mm) > FOCI_APART_MM
    candidates = list_places(deep, tissue_map > 0, asked.hemisphere, lobe, SEED_RADIUS_MM / spacing_mm)
    if not len(candidates):
        raise CaseError("no white matter to start a tumour in; expected some in each hemisphere; check the grid's size")
    centre = candidates[stream.integers(len(candidates))]
    distance_mm = np.linalg.norm((np.indices(tissue_map.shape).T - centre).T * spacing_mm, axis=0)
    ball: NDArray[np.float32] = np.exp(-0.5 * (distance_mm / (SEED_RADIUS_MM / 2)) ** 2).astype(np.float32)
    return ball
