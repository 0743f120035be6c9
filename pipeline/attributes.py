"""Attributes of a case that plans, strata and tables speak of: of its tumour, and of how its scan looks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.labels import TISSUE_CLASSES, LabelScheme, UInt8Array
from pipeline.lobes import LOBES, brain_box, find_lobes
from pipeline.volumes import FloatArray, bounding_box

HEMISPHERES = ("left", "right")
VOLUMES = ("small", "medium", "large")
ENHANCEMENTS = ("none", "some", "strong")
FOCI = ("one", "several")
CONTRASTS = ("low", "middle", "high")
# By name in the config: into which strata each attribute is divided.
STRATA: dict[str, tuple[str, ...]] = {
    "volume": VOLUMES,
    "hemisphere": HEMISPHERES,
    "lobe": LOBES,
    "enhancing": ENHANCEMENTS,
    "foci": FOCI,
    "contrast": CONTRASTS,
}
TITLES = {name: f"tumour: {name}" for name in STRATA} | {"contrast": "scan: contrast"}
# Of the columns of participants.tsv.
COLUMN_DESCRIPTIONS = {
    "volume_ml": "Volume of the whole tumour in millilitres",
    "hemisphere": "Hemisphere that holds the tumour's centre",
    "lobe": "Lobe that holds most of the tumour, by the nearest of some points of an atlas",
    "enhancing_share": "Share of the whole tumour that enhances, from 0 to 1",
    "n_foci": "Number of parts of the tumour that are not connected",
    "contrast": "White minus grey matter in the first modality, where the range of brightness is 1000",
}
NUMBER_COLUMNS = frozenset({"volume_ml", "enhancing_share", "n_foci", "contrast"})
# A smaller part that is not connected with the rest is a speck of the annotation, no focus.
MIN_FOCUS_ML = 0.5


@dataclass(frozen=True)
class CaseAttributes:
    """What is said of a case.

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
    contrast : float
        Of the scan, see :func:`tissue_contrast`; NaN where there is no scan yet.
    """

    volume_ml: float
    hemisphere: str
    lobe: str
    enhancing_share: float
    n_foci: int
    contrast: float = math.nan

    def columns(self) -> dict[str, str]:
        """Return the attributes as columns of participants.tsv."""
        return {
            "volume_ml": f"{self.volume_ml:.1f}",
            "hemisphere": self.hemisphere,
            "lobe": self.lobe,
            "enhancing_share": f"{self.enhancing_share:.2f}",
            "n_foci": str(self.n_foci),
            "contrast": f"{self.contrast:.1f}",
        }

    @classmethod
    def from_columns(cls, row: Mapping[str, str]) -> Self:
        """Undo :meth:`columns`, but for the rounding."""
        return cls(
            float(row["volume_ml"]),
            row["hemisphere"],
            row["lobe"],
            float(row["enhancing_share"]),
            int(row["n_foci"]),
            float(row["contrast"]),
        )

    def strata(
        self,
        volume_edges_ml: tuple[float, ...],
        enhancing_edges: tuple[float, float],
        contrast_edges: tuple[float, float] | None = None,
    ) -> dict[str, str]:
        """Return the stratum of each attribute that is known, by its name in :data:`STRATA`.

        Parameters
        ----------
        volume_edges_ml : tuple of float
            Four edges; what lies beyond the outer ones belongs to the last stratum there.
        enhancing_edges : tuple of float
            Shares from which a tumour enhances at all, and strongly.
        contrast_edges : tuple of float, optional
            Contrasts from which one is middling, and high.
        """
        known = {
            "volume": volume_stratum(self.volume_ml, volume_edges_ml),
            "hemisphere": self.hemisphere,
            "lobe": self.lobe,
            "enhancing": ENHANCEMENTS[int(np.digitize(self.enhancing_share, enhancing_edges))],
            "foci": FOCI[int(self.n_foci > 1)],
        }
        if contrast_edges is not None and math.isfinite(self.contrast):
            known["contrast"] = CONTRASTS[int(np.digitize(self.contrast, contrast_edges))]
        return known


def describe_tumor(
    tumor_map: UInt8Array, brain: NDArray[np.bool_], affine: FloatArray, scheme: LabelScheme
) -> CaseAttributes:
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
    CaseAttributes
    """
    box = bounding_box(tumor_map > 0)
    drawn = tumor_map[box]
    places = np.argwhere(drawn) + [edge.start for edge in box]
    points_mm = places @ affine[:3, :3].T + affine[:3, 3]
    enhancing = scheme.tumor_values.get("enhancing")
    share = float((drawn == enhancing).sum() / len(places)) if enhancing else 0.0
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    lobes = find_lobes(points_mm, brain_box(brain, affine))
    return CaseAttributes(
        volume_ml=len(places) * voxel_ml,
        hemisphere=HEMISPHERES[int(points_mm[:, 0].mean() >= 0)],
        lobe=LOBES[int(np.bincount(lobes).argmax())],
        enhancing_share=share,
        n_foci=count_foci(drawn > 0, voxel_ml),
    )


def tissue_contrast(image: NDArray[np.int16], tissue_map: UInt8Array) -> float:
    """Return how much brighter white is than grey matter, on the scale of the scan; NaN where one is missing.

    Parameters
    ----------
    image : ndarray, (x, y, z), int16 in [0, 1000]
        Of the first modality.
    tissue_map : ndarray, (x, y, z), uint8
    """
    names = ("grey_matter", "white_matter")
    grey, white = (np.asarray(image)[tissue_map == TISSUE_CLASSES.index(name) + 1] for name in names)
    return float(white.mean() - grey.mean()) if len(grey) and len(white) else math.nan


def count_foci(tumor: NDArray[np.bool_], voxel_ml: float) -> int:
    """Return the number of parts of :data:`MIN_FOCUS_ML` or more (26 neighbours connect), at least 1."""
    parts, _ = ndimage.label(tumor, np.ones((3, 3, 3)))
    sizes_ml = np.bincount(parts.ravel())[1:] * voxel_ml
    return max(1, int((sizes_ml >= MIN_FOCUS_ML).sum()))


def volume_stratum(volume_ml: float, edges_ml: tuple[float, ...]) -> str:
    """Return the stratum that a volume falls into: small, medium or large; what lies beyond an end belongs to it."""
    return VOLUMES[int(np.digitize(volume_ml, edges_ml[1:-1]))]
