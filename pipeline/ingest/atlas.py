"""The atlas that brains are brought onto: ICBM 2009a, skull-stripped, as it ships with nilearn.

References
----------
Fonov et al. 2011, "Unbiased average age-appropriate atlases for pediatric studies",
doi:10.1016/j.neuroimage.2010.07.033.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from pipeline.volumes import Volume, to_ras

RESOLUTION_MM = 2


@dataclass(frozen=True)
class Atlas:
    """An average brain.

    Parameters
    ----------
    t1 : Volume
        float32, T1-weighted, 0 outside the brain.
    brain : Volume
        bool, on the same grid.
    """

    t1: Volume
    brain: Volume


@cache
def load_atlas() -> Atlas:
    """Load the atlas at 2 mm, in RAS."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    t1, mask = load_mni152_template(resolution=RESOLUTION_MM), load_mni152_brain_mask(resolution=RESOLUTION_MM)
    brain = np.asarray(mask.dataobj) > 0
    affine = np.asarray(mask.affine, np.float64)
    masked = np.where(brain, np.asarray(t1.dataobj, np.float32), 0.0).astype(np.float32)
    return Atlas(to_ras(Volume(masked, affine)), to_ras(Volume(brain, affine)))
