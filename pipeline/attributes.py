"""Attributes of a tumour that plans, strata and tables speak of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.labels import LabelScheme, UInt8Array
from pipeline.lobes import LOBES, brain_box, find_lobes
from pipeline.volumes import FloatArray, bounding_box

HEMISPHERES = ("left", "right")
VOLUMES = ("small", "medium", "large")
ENHANCEMENTS = ("none", "some", "strong")
FOCI = ("one", "several")
# By name in the config: into which strata each attribute is divided.
STRATA: dict[str, tuple[str, ...]] = {
    "volume": VOLUMES,
    "hemisphere": HEMISPHERES,
    "lobe": LOBES,
    "enhancing": ENHANCEMENTS,
    "foci": FOCI,
}
# Of the columns of participants.tsv.
COLUMN_DESCRIPTIONS = {
    "volume_ml": "Volume of the whole tumour in millilitres",
    "hemisphere": "Hemisphere that holds the tumour's centre",
    "lobe": "Lobe that holds most of the tumour, by the nearest of some points of an atlas",
    "enhancing_share": "Share of the whole tumour that enhances, from 0 to 1",
    "n_foci": "Number of parts of the tumour that are not connected",
}
NUMBER_COLUMNS = frozenset({"volume_ml", "enhancing_share", "n_foci"})
# A smaller part that is not connected with the rest is a speck of the annotation, no focus.
MIN_FOCUS_ML = 0.5


@dataclass(frozen=True)
class TumorAttributes:
    """What is said of a tumour.

    Parameters
    ----------
    volume_ml : float
        Whole tumour.
    hemisphere : str
        ``left`` or ``right``: where its centre of mass lies.
    lobe : str
        One of :data:`pipeline.lobes.LOBES`: that which holds most of it.
    enhancing_share : float
        Share of the whole tumour that enhances, in [0, 1].
    n_foci : int
        Parts of half a millilitre or more that are not connected; at least 1.
    """

    volume_ml: float
    hemisphere: str
    lobe: str
    enhancing_share: float
    n_foci: int

    def columns(self) -> dict[str, str]:
        """Return the attributes as columns of participants.tsv."""
        return {
            "volume_ml": f"{self.volume_ml:.1f}",
            "hemisphere": self.hemisphere,
            "lobe": self.lobe,
            "enhancing_share": f"{self.enhancing_share:.2f}",
            "n_foci": str(self.n_foci),
        }

    @classmethod
    def from_columns(cls, row: Mapping[str, str]) -> Self:
        """Undo :meth:`columns`, but for the rounding."""
        return cls(
            float(row["volume_ml"]), row["hemisphere"], row["lobe"], float(row["enhancing_share"]), int(row["n_foci"])
        )

    def strata(self, volume_edges_ml: tuple[float, ...], enhancing_edges: tuple[float, float]) -> dict[str, str]:
        """Return the stratum of each attribute, by its name in :data:`STRATA`.

        Parameters
        ----------
        volume_edges_ml : tuple of float
            Four edges; what lies beyond the outer ones belongs to the last stratum there.
        enhancing_edges : tuple of float
            Shares from which a tumour enhances at all, and strongly.
        """
        return {
            "volume": volume_stratum(self.volume_ml, volume_edges_ml),
            "hemisphere": self.hemisphere,
            "lobe": self.lobe,
            "enhancing": ENHANCEMENTS[int(np.digitize(self.enhancing_share, enhancing_edges))],
            "foci": FOCI[int(self.n_foci > 1)],
        }


def describe_tumor(
    tumor_map: UInt8Array, brain: NDArray[np.bool_], affine: FloatArray, scheme: LabelScheme
) -> TumorAttributes:
    """Measure a tumour on its label map.

    Parameters
    ----------
    tumor_map : ndarray, (x, y, z), uint8
        At least one voxel of tumour.
    brain : ndarray, (x, y, z), bool
        At least one voxel.
    affine : ndarray, (4, 4)
        World origin at the centre of the brain, RAS+.
    scheme : LabelScheme

    Returns
    -------
    TumorAttributes
    """
    box = bounding_box(tumor_map > 0)
    drawn = tumor_map[box]
    places = np.argwhere(drawn) + [edge.start for edge in box]
    points_mm = places @ affine[:3, :3].T + affine[:3, 3]
    enhancing = scheme.tumor_values.get("enhancing")
    share = float((drawn == enhancing).sum() / len(places)) if enhancing else 0.0
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    lobes = find_lobes(points_mm, brain_box(brain, affine))
    return TumorAttributes(
        volume_ml=len(places) * voxel_ml,
        hemisphere=HEMISPHERES[int(points_mm[:, 0].mean() >= 0)],
        lobe=LOBES[int(np.bincount(lobes).argmax())],
        enhancing_share=share,
        n_foci=count_foci(drawn > 0, voxel_ml),
    )


def count_foci(tumor: NDArray[np.bool_], voxel_ml: float) -> int:
    """Return the number of parts of :data:`MIN_FOCUS_ML` or more (26 neighbours connect), at least 1."""
    parts, _ = ndimage.label(tumor, np.ones((3, 3, 3)))
    sizes_ml = np.bincount(parts.ravel())[1:] * voxel_ml
    return max(1, int((sizes_ml >= MIN_FOCUS_ML).sum()))


def volume_stratum(volume_ml: float, edges_ml: tuple[float, ...]) -> str:
    """Return the stratum that a volume falls into: small, medium or large; what lies beyond an end belongs to it."""
    return VOLUMES[int(np.digitize(volume_ml, edges_ml[1:-1]))]
