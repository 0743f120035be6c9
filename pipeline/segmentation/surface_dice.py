"""Surface Dice: how much of two surfaces lies within a tolerance of each other.

References
----------
Nikolov et al. 2021, "Clinically applicable segmentation of head and neck anatomy", doi:10.2196/26151.
"""

from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics.surface_dice import compute_surface_dice

from pipeline.segmentation.surface import Mask
from pipeline.volumes import bounding_box


def surface_dice(first: Mask, second: Mask, spacing_mm: Sequence[float], tolerance_mm: float) -> float:
    """Return the share of both surfaces, by area, that lies within a tolerance of the other one.

    MONAI's, with the areas of surface elements between voxels (marching cubes), as DeepMind's reference has them.

    Parameters
    ----------
    first, second : ndarray, same shape, bool
    spacing_mm : sequence of float
        Edge length of a voxel along each axis.
    tolerance_mm : float

    Returns
    -------
    float
        1 where both masks are empty, 0 where one is.
    """
    if not first.any() and not second.any():
        return 1.0
    if not first.any() or not second.any():
        return 0.0
    box = bounding_box(first | second)
    one, other = (torch.from_numpy(np.ascontiguousarray(mask[box])[None, None]) for mask in (first, second))
    value = compute_surface_dice(
        one,
        other,
        class_thresholds=[tolerance_mm],
        include_background=True,
        spacing=list(spacing_mm),
        use_subvoxels=True,
    )
    return float(value)
