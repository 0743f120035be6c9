"""Attributes of a tumour that plans, strata and tables speak of."""

from dataclasses import dataclass

import numpy as np

from pipeline.labels import LabelScheme, UInt8Array
from pipeline.volumes import FloatArray, bounding_box

HEMISPHERES = ("left", "right")


@dataclass(frozen=True)
class TumorAttributes:
    """What is said of a tumour.

    Parameters
    ----------
    volume_ml : float
        Whole tumour.
    hemisphere : str
        ``left`` or ``right``: where its centre of mass lies.
    enhancing_share : float
        Share of the whole tumour that enhances, in [0, 1].
    """

    volume_ml: float
    hemisphere: str
    enhancing_share: float

    def columns(self) -> dict[str, str]:
        """Return the attributes as columns of participants.tsv."""
        return {
            "volume_ml": f"{self.volume_ml:.1f}",
            "hemisphere": self.hemisphere,
            "enhancing_share": f"{self.enhancing_share:.2f}",
        }


def describe_tumor(tumor_map: UInt8Array, affine: FloatArray, scheme: LabelScheme) -> TumorAttributes:
    """Measure a tumour on its label map.

    Parameters
    ----------
    tumor_map : ndarray, (x, y, z), uint8
        At least one voxel of tumour.
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
    centre_mm = affine @ [*places.mean(axis=0), 1.0]
    enhancing = scheme.tumor_values.get("enhancing")
    share = float((drawn == enhancing).sum() / len(places)) if enhancing else 0.0
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    return TumorAttributes(len(places) * voxel_ml, HEMISPHERES[int(centre_mm[0] >= 0)], share)


def volume_stratum(volume_ml: float, edges_ml: tuple[float, ...]) -> str:
    """Return the stratum that a volume falls into: small, medium or large; what lies beyond an end belongs to it."""
    return ("small", "medium", "large")[int(np.digitize(volume_ml, edges_ml[1:-1]))]
