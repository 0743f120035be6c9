"""Label source `recombine`: the anatomy of one patient, the tumour of another, each deformed by chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.cohort import Case
from pipeline.errors import CaseError
from pipeline.generate.anatomy import warp_person
from pipeline.generate.composition import set_enhancing
from pipeline.generate.placement import (
    LabelMaps,
    fill_holes,
    focus_shares,
    join,
    place_tumor,
    push_tissue,
    rescale_tumor,
)
from pipeline.generate.plan import AskedCase
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.warps import random_warp, warp_labels

TUMOR_WARP_MM = (4.5, 20.0)
STRETCH_SD = 0.15
TILT_DEGREES = 20.0
PUSH_STRENGTH = (0.1, 0.35)
MAX_SCALE = 1.8
N_SCALINGS = 3


@dataclass(frozen=True)
class Donor:
    """A patient whose tumour may be taken.

    Parameters
    ----------
    case : Case
    volume_ml : float
        Of the whole tumour; measured once, not for each label map.
    """

    case: Case
    volume_ml: float

    def length_factor(self, volume_ml: float) -> float:
        """Return by how much the tumour has to be scaled in length to have a volume."""
        return float((volume_ml / self.volume_ml) ** (1 / 3))


def recombine(
    anatomy: Case,
    donor: Donor,
    asked: AskedCase,
    scheme: LabelScheme,
    spacing_mm: float,
    stream: np.random.Generator,
) -> LabelMaps:
    """Make the label maps of a new person from two.

    Parameters
    ----------
    anatomy : Case
    donor : Donor
        Another person, who gives the tumour.
    asked : AskedCase
        What to aim at.
    scheme : LabelScheme
    spacing_mm : float
    stream : numpy.random.Generator

    Returns
    -------
    LabelMaps

    Raises
    ------
    CaseError
        If the donor's tumour vanishes on the grid, or finds no place.
    """
    tumor_map = np.asarray(donor.case.tumor_map())
    tissue_map = fill_tumor(np.asarray(anatomy.tissue_map()), np.asarray(anatomy.tumor_map()))
    tissue_map = warp_person(tissue_map, spacing_mm, stream)
    if stream.random() < 0.5:
        tissue_map = np.ascontiguousarray(tissue_map[::-1])
    placed = np.zeros(tissue_map.shape, np.uint8)
    for number, share in enumerate(focus_shares(asked.n_foci, stream)):
        turned = deform_tumor(tumor_map, donor, share * asked.volume_ml, spacing_mm, stream)
        if not turned.any():
            raise CaseError("donor's tumour vanished on the grid; expected some voxels; use a finer grid")
        # Others than the first may lie anywhere on that side, but not against it.
        free = np.where(ndimage.binary_dilation(placed > 0, iterations=2), 0, tissue_map).astype(np.uint8)
        focus = place_tumor(free, turned, asked.hemisphere, asked.lobe if number == 0 else None, stream)
        placed = np.where(placed > 0, placed, focus).astype(np.uint8)
    if asked.enhancing_share is not None:
        placed = set_enhancing(placed, asked.enhancing_share, scheme)
    return join(push_tissue(tissue_map, placed, spacing_mm, stream.uniform(*PUSH_STRENGTH)), placed)


def deform_tumor(
    tumor_map: UInt8Array, donor: Donor, volume_ml: float, spacing_mm: float, stream: np.random.Generator
) -> UInt8Array:
    """Turn, stretch, warp and scale a tumour, in the middle of a grid of the same shape.

    Parameters
    ----------
    tumor_map : ndarray, (x, y, z), uint8
        The donor's.
    donor : Donor
    volume_ml : float
        To come near to: a warp changes volumes, so what it leaves is scaled anew.
    spacing_mm : float
    stream : numpy.random.Generator

    Returns
    -------
    ndarray, same shape, uint8
        Empty if nothing is left on the grid.
    """
    x, y, z = tumor_map.shape
    spacing = (spacing_mm, spacing_mm, spacing_mm)
    scale, turn = donor.length_factor(volume_ml), random_turn(stream)
    warp = random_warp((x, y, z), spacing, *TUMOR_WARP_MM, stream)
    for _ in range(N_SCALINGS):
        turned = warp_labels(rescale_tumor(tumor_map, scale, turn), warp, spacing, int(tumor_map.max()) + 1)
        # Turning and warping a thin part may tear it: no healthy tissue within a tumour.
        turned = fill_holes(turned, ndimage.binary_fill_holes(turned > 0))
        found_ml = float((turned > 0).sum()) * spacing_mm**3 / 1000
        scale *= (volume_ml / max(found_ml, spacing_mm**3 / 1000)) ** (1 / 3)
    return turned


def choose_persons(donors: Sequence[Donor], asked: AskedCase, stream: np.random.Generator) -> tuple[Case, Donor]:
    """Draw two persons: one for the anatomy, another for the tumour.

    The donor's tumour has to be scaled by a factor of 1.8 in length at most; where nobody's tumour is near enough to
    the volume asked for, the nearest is taken.
    """
    factors = np.array([abs(np.log(donor.length_factor(asked.volume_ml))) for donor in donors])
    near = np.flatnonzero(factors <= np.log(MAX_SCALE))
    donor = int(stream.choice(near)) if len(near) else int(factors.argmin())
    others = [index for index, other in enumerate(donors) if other.case.person != donors[donor].case.person]
    anatomy = int(stream.choice(others))
    return donors[anatomy].case, donors[donor]


def tumor_ml(case: Case, spacing_mm: float) -> float:
    """Return the volume of a case's whole tumour, ml."""
    return float(np.count_nonzero(case.tumor_map())) * spacing_mm**3 / 1000


def fill_tumor(tissue_map: UInt8Array, tumor_map: UInt8Array) -> UInt8Array:
    """Fill the place of a tumour with the other hemisphere's tissue, where there is some, else with the nearest.

    Parameters
    ----------
    tissue_map, tumor_map : ndarray, (x, y, z), uint8
        The grid's middle in x is the midline.

    Returns
    -------
    ndarray, (x, y, z), uint8
        Tissue everywhere in the brain.
    """
    tumor = tumor_map > 0
    filled = np.where(tumor, tissue_map[::-1], tissue_map).astype(np.uint8)
    return fill_holes(filled, tumor | (tissue_map > 0))


def random_turn(stream: np.random.Generator) -> NDArray[np.float64]:
    """Draw how a tumour is turned: any angle about z, a slight tilt, mirrored in half of the cases; and stretched.

    Returns
    -------
    ndarray, (3, 3), float64
        Keeps volumes.
    """
    tilt = stream.uniform(-TILT_DEGREES, TILT_DEGREES, 2)
    matrix = Rotation.from_euler("zxy", [stream.uniform(0, 360), *tilt], degrees=True).as_matrix()
    mirror = np.diag([-1.0 if stream.random() < 0.5 else 1.0, 1.0, 1.0])
    stretches = stream.normal(0.0, STRETCH_SD, 3)
    turned: NDArray[np.float64] = matrix @ np.diag(np.exp(stretches - stretches.mean())) @ mirror
    return turned
