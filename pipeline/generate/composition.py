"""What a tumour is made of: its core, and how much of it enhances."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.generate.plan import AskedCase
from pipeline.labels import LabelScheme, UInt8Array

CORE_SHARE = (0.15, 0.7)
# Of the core, where the plan does not ask for enhancement.
ENHANCING_SHARE = (0.25, 0.75)
NO_ENHANCEMENT = 0.15
# Of the core, where it does: a rim of enhancement around necrosis up to an almost solid tumour.
ENHANCING_OF_CORE = (0.35, 0.9)
MAX_CORE_SHARE = 0.9


def draw_core(asked: AskedCase, stream: np.random.Generator) -> tuple[float, float]:
    """Draw the core of a tumour, and what of it enhances, as shares of the whole tumour."""
    core = stream.uniform(*CORE_SHARE)
    if asked.enhancing_share is None:
        enhancing = core * stream.uniform(*ENHANCING_SHARE)
        return core, 0.0 if stream.random() < NO_ENHANCEMENT else enhancing
    if asked.enhancing_share > 0:
        core = min(asked.enhancing_share / stream.uniform(*ENHANCING_OF_CORE), MAX_CORE_SHARE)
    return max(core, asked.enhancing_share), asked.enhancing_share


def set_enhancing(tumor_map: UInt8Array, share: float, scheme: LabelScheme) -> UInt8Array:
    """Change how much of a tumour enhances; its outline stays.

    What enhances too much is the innermost: it becomes necrotic core, or oedema where the scheme has no core. What is
    lacking comes from the rim of the necrotic core first, then from the oedema nearest to the core.

    Parameters
    ----------
    tumor_map : ndarray, (x, y, z), uint8
    share : float
        Of the whole tumour, in [0, 1].
    scheme : LabelScheme
        One without the class leaves the tumour as it is.

    Returns
    -------
    ndarray, (x, y, z), uint8
    """
    values = scheme.tumor_values
    if "enhancing" not in values:
        return tumor_map
    enhancing, necrotic, oedema = (values.get(name, -1) for name in ("enhancing", "necrotic_core", "oedema"))
    changed = tumor_map.copy()
    n_wanted = round(share * int((changed > 0).sum()))
    excess = int((changed == enhancing).sum()) - n_wanted
    core = (changed == enhancing) | (changed == necrotic)
    depth = ndimage.distance_transform_edt(core)
    if excess > 0:
        rest = necrotic if necrotic > 0 else oedema
        if rest > 0:
            changed[largest(np.where(changed == enhancing, depth, 0), excess)] = rest
        return changed
    # Without a core, from the tumour's middle.
    distance = ndimage.distance_transform_edt(~core) if core.any() else -ndimage.distance_transform_edt(changed > 0)
    for available, order in ((changed == necrotic, -depth), (changed == oedema, -distance)):
        n_lacking = n_wanted - int((changed == enhancing).sum())
        chosen = largest(np.where(available, order, -np.inf), min(n_lacking, int(available.sum())))
        changed[chosen] = enhancing
    return changed


def largest(values: NDArray[np.floating], n: int) -> NDArray[np.bool_]:
    """Return the mask of the n largest values."""
    if n <= 0:
        return np.zeros(values.shape, bool)
    flat = values.ravel()
    mask = np.zeros(flat.shape, bool)
    mask[np.argpartition(flat, -n)[-n:]] = True
    return mask.reshape(values.shape)
