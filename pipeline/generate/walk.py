"""Walks: from one style to another on one label map, and from one label map to another in one style.

A picture of what lies between: no proof that nothing was memorised, which is the audit's business. All label maps are
synthetic cases': no patient is in the picture.

References
----------
Raya and Udupa 1990, "Shape-based interpolation of multidimensional objects", doi:10.1109/42.52980 (signed distances).
White 2016, "Sampling generative networks", arXiv:1609.04468 (along the sphere).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from pipeline.cohort import Case, Cohort
from pipeline.figures import condition_tile, grey_tile, mosaic, plane_slice, save_picture, tumor_centre
from pipeline.generate.sampling import render_with_style, to_intensity
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.seeds import torch_stream
from pipeline.train.generator import Generator

N_STEPS = 7
# Slices on each side of the one shown whose shapes are interpolated: enough for what a slice's neighbours tell it.
SLAB = 8
MAX_OTHERS = 8
SHOWN = ("t1ce", "flair")

Scan = NDArray[np.float32]


def mix_styles(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Return the style code at a share of the way, along the sphere, so that it stays as likely as its ends.

    Parameters
    ----------
    first, second : Tensor, (1, style_size), float32
        Standard normal draws.
    share : float
        In [0, 1].
    """
    cosine = torch.nn.functional.cosine_similarity(first, second).clamp(-1.0, 1.0)
    angle = torch.arccos(cosine)
    if float(torch.sin(angle)) < 1e-4:
        return torch.lerp(first, second, share)
    mixed: Tensor = (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)
    return mixed


Distance = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """A label map as distances that can be mixed; see :func:`read_shape`.

    Parameters
    ----------
    tissues, tumor : sequence of ndarray, (x, y, z), float32, or None
        Signed distances to the border of the brain and of each tissue, of the whole tumour and of each of its classes;
        none of what is not there.
    centre : ndarray, (3,), float64, or None
        Of the tumour, in voxels; none if there is no tumour.
    size : tuple of int
        Of the map.
    """

    tissues: Sequence[Distance | None]
    tumor: Sequence[Distance | None]
    centre: NDArray[np.float64] | None
    size: tuple[int, ...]


def read_shape(condition: UInt8Array, scheme: LabelScheme) -> Shape:
    """Read a label map of tissue and tumour joined: (x, y, z), uint8."""
    tissue_map, tumor_map = scheme.split(condition)
    n_tissues = scheme.n_condition_classes - len(scheme.tumor)
    # No tissue claims the place of the tumour: the nearest one fills it when the tumour moves on.
    tissues = [condition > 0, *(tissue_map == value for value in range(1, n_tissues))]
    classes = [tumor_map > 0, *(tumor_map == value for value in range(1, 1 + len(scheme.tumor)))]
    return Shape(
        [_signed_distance(mask) for mask in tissues],
        [_signed_distance(mask) for mask in classes],
        np.argwhere(tumor_map > 0).mean(axis=0) if tumor_map.any() else None,
        condition.shape,
    )


def mix_shapes(first: Shape, second: Shape, share: float, scheme: LabelScheme) -> UInt8Array:
    """Return the label map at a share of the way: tissue and tumour each mixed, the tumour moved on the line between.

    Mixed where they stand, tumours that lie apart would crumble half way. What only one end has shrinks towards the
    other.

    Parameters
    ----------
    first, second : Shape
    share : float
        In [0, 1]; 0 and 1 give the maps themselves.
    scheme : LabelScheme

    Returns
    -------
    ndarray, (x, y, z), uint8
        Tissue and tumour joined.
    """
    tissue_map = _choose(first.tissues, second.tissues, share, first.size)
    tumor = [first.tumor, second.tumor]
    if first.centre is not None and second.centre is not None:
        way = second.centre - first.centre
        tumor = [_moved(first.tumor, share * way), _moved(second.tumor, (share - 1) * way)]
    tumor_map = _choose(tumor[0], tumor[1], share, first.size)
    return scheme.combine(tissue_map, np.where(tissue_map > 0, tumor_map, 0).astype(np.uint8))


def _choose(
    first: Sequence[Distance | None], second: Sequence[Distance | None], share: float, size: tuple[int, ...]
) -> UInt8Array:
    """Return the class of each voxel within the whole, 0 outside it; the whole comes first in both."""
    whole, *parts = (_mixed(one, other, share) for one, other in zip(first, second, strict=True))
    if whole is None:
        return np.zeros(size, np.uint8)
    nowhere = np.full(size, -np.inf, np.float32)
    nearest = np.argmax([nowhere if part is None else part for part in parts], axis=0)
    return np.where(whole > 0, 1 + nearest, 0).astype(np.uint8)


def _mixed(first: Distance | None, second: Distance | None, share: float) -> Distance | None:
    """Return the distance at a share of the way; what one end has not is at that end shrunk to nothing."""
    if first is None:
        return None if second is None else second - np.float32((1 - share) * (second.max() + 1))
    if second is None:
        return first - np.float32(share * (first.max() + 1))
    return (1 - share) * first + share * second


def _moved(distances: Sequence[Distance | None], way: NDArray[np.float64]) -> list[Distance | None]:
    return [None if one is None else ndimage.shift(one, way, order=1, mode="nearest") for one in distances]


def _signed_distance(mask: NDArray[np.bool_]) -> Distance | None:
    """Return the distance to a mask's border in voxels, above 0 inside; none if there is nothing."""
    if not mask.any():
        return None
    if mask.all():
        return np.full(mask.shape, float(sum(mask.shape)), np.float32)
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    return np.asarray(inside - outside, np.float32)


def evenness(scans: Sequence[Scan]) -> float:
    """Return the largest step of a walk as a multiple of the mean step: 1 if all are alike; 0 steps count as none."""
    steps = np.array([np.abs(after - before).mean() for before, after in pairwise(scans)])
    return float(steps.max() / steps.mean()) if steps.any() else 1.0


def walk(generator: Generator, synthetic: Cohort, seed: int, path: Path) -> dict[str, float]:
    """Draw both walks and write their picture.

    Parameters
    ----------
    generator : Generator
    synthetic : Cohort
        Its first case is where both walks start; the second ends at another.
    seed : int
    path : Path
        PNG: first the walk over styles, a row for each modality shown; then the label maps of the walk over shapes, and
        its rows.

    Returns
    -------
    dict of str to float
        :func:`evenness` of each walk, ``style`` and ``shape``.
    """
    z = tumor_centre(np.asarray(synthetic.cases[0].tumor_map()))[2]
    slab = slice(max(z - SLAB, 0), z + SLAB + 1) if generator.config.dimensions == 2 else slice(None)
    middle = z - (slab.start or 0)
    ends = [case.condition(synthetic.scheme)[:, :, slab] for case in (synthetic.cases[0], _other_end(synthetic, z))]
    styles = [torch.randn(1, generator.config.style_size, generator=torch_stream(seed, "walk", end)) for end in "ab"]
    shares = np.linspace(0.0, 1.0, N_STEPS)

    def render(condition: UInt8Array, style: Tensor) -> Scan:
        scan = render_with_style(generator, condition, style, torch_stream(seed, "walk", "noise"))[..., middle]
        brain = condition[..., middle] > 0
        return np.stack([to_intensity(channel, brain) for channel in scan]).astype(np.float32)

    by_style = [render(ends[0], mix_styles(styles[0], styles[1], float(share))) for share in shares]
    first, second = (read_shape(end, synthetic.scheme) for end in ends)
    maps = [mix_shapes(first, second, float(share), synthetic.scheme) for share in shares]
    by_shape = [render(one, styles[0]) for one in maps]
    shown = [i for i, name in enumerate(synthetic.modalities) if name in SHOWN] or [0]
    rows = [[_tile(scan[i]) for scan in by_style] for i in shown]
    rows.append([condition_tile(plane_slice(one, "axial", middle)) for one in maps])
    rows += [[_tile(scan[i]) for scan in by_shape] for i in shown]
    save_picture(mosaic(rows), path)
    return {"style": evenness(by_style), "shape": evenness(by_shape)}


def _other_end(synthetic: Cohort, z: int) -> Case:
    """Return the case, of the next few, that has most tumour in a slice."""
    others = synthetic.cases[1 : 1 + MAX_OTHERS] or synthetic.cases
    return max(others, key=lambda case: int((np.asarray(case.tumor_map()[:, :, z]) > 0).sum()))


def _tile(image: Scan) -> NDArray[np.uint8]:
    return grey_tile(plane_slice(image[:, :, None], "axial", 0))
