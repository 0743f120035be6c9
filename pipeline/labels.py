"""Label scheme: which tissue and tumour classes a cohort has, and which regions are scored.

Class maps are ``uint8``. The tissue map holds 0 (not healthy tissue) and 1 to 3; the tumour map holds 0 and one value
per tumour class of the cohort, in the order of :data:`TUMOR_CLASSES`. The *condition* that the generator sees joins
both: background 0, tissue 1 to 3, tumour classes from 4 on.

References
----------
Menze et al. 2015, "The Multimodal Brain Tumor Image Segmentation Benchmark (BraTS)", doi:10.1109/TMI.2014.2377694.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

UInt8Array = NDArray[np.uint8]

TISSUE_CLASSES = ("csf", "grey_matter", "white_matter")
TUMOR_CLASSES = ("necrotic_core", "oedema", "enhancing")
MODALITIES = ("t1", "t1ce", "t2", "flair")
MODALITY_TITLES = {"t1": "T1", "t1ce": "T1 with contrast", "t2": "T2", "flair": "FLAIR"}
REGION_CLASSES: dict[str, tuple[str, ...]] = {
    "WT": ("necrotic_core", "oedema", "enhancing"),
    "TC": ("necrotic_core", "enhancing"),
    "ET": ("enhancing",),
}
REGION_TITLES = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}


@dataclass(frozen=True)
class LabelScheme:
    """The classes of one cohort.

    Parameters
    ----------
    tumor : tuple of str
        Tumour classes present in the data set, in the order of :data:`TUMOR_CLASSES`; class ``i`` has value ``i + 1``.

    Raises
    ------
    ConfigError
        If a class is unknown, or if there is none.
    """

    tumor: tuple[str, ...] = TUMOR_CLASSES

    def __post_init__(self) -> None:
        unknown = [name for name in self.tumor if name not in TUMOR_CLASSES]
        if unknown or not self.tumor:
            raise ConfigError(
                f"tumour classes; expected some of {', '.join(TUMOR_CLASSES)}, got "
                f"{', '.join(self.tumor) or 'none'}; correct `labels:` in the data manifest"
            )
        object.__setattr__(self, "tumor", tuple(name for name in TUMOR_CLASSES if name in self.tumor))

    @property
    def n_condition_classes(self) -> int:
        """Number of classes of the condition, background included."""
        return 1 + len(TISSUE_CLASSES) + len(self.tumor)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the condition's classes, in order of their values."""
        return ("background", *TISSUE_CLASSES, *self.tumor)

    @property
    def tumor_values(self) -> dict[str, int]:
        """Value in the tumour map of each class."""
        return {name: value for value, name in enumerate(self.tumor, start=1)}

    @property
    def regions(self) -> dict[str, tuple[int, ...]]:
        """Values in the tumour map that make up each scored region; a region without any class is left out."""
        values = self.tumor_values
        regions = {
            region: tuple(values[name] for name in names if name in values) for region, names in REGION_CLASSES.items()
        }
        return {region: members for region, members in regions.items() if members}

    def region_mask(self, tumor_map: UInt8Array, region: str) -> NDArray[np.bool_]:
        """Return the mask of a region.

        Parameters
        ----------
        tumor_map : ndarray, any shape, uint8
            Tumour map of this scheme.
        region : str
            A key of :attr:`regions`.

        Returns
        -------
        ndarray, same shape, bool
        """
        return np.isin(tumor_map, self.regions[region])

    def combine(self, tissue_map: UInt8Array, tumor_map: UInt8Array) -> UInt8Array:
        """Join tissue and tumour maps to the condition: tumour wins over tissue.

        Parameters
        ----------
        tissue_map, tumor_map : ndarray, same shape, uint8

        Returns
        -------
        ndarray, same shape, uint8 in [0, :attr:`n_condition_classes`)
        """
        shifted = tumor_map + np.uint8(len(TISSUE_CLASSES))
        return np.where(tumor_map > 0, shifted, tissue_map).astype(np.uint8)

    def split(self, condition: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
        """Undo :meth:`combine`: return the tissue map (0 under the tumour) and the tumour map."""
        n_tissue = len(TISSUE_CLASSES)
        is_tumor = condition > n_tissue
        tissue_map = np.where(is_tumor, 0, condition).astype(np.uint8)
        tumor_map = np.where(is_tumor, condition - np.uint8(n_tissue), 0).astype(np.uint8)
        return tissue_map, tumor_map

    def from_source(self, values: NDArray[np.generic], source_values: Mapping[str, Iterable[int]]) -> UInt8Array:
        """Translate a source's label values to this scheme's.

        Parameters
        ----------
        values : ndarray, any shape, integer
            Label map as found in the source.
        source_values : mapping of str to iterable of int
            For each class name the values that mean it in the source.

        Returns
        -------
        ndarray, same shape, uint8
            Values that no class claims become 0; the caller checks beforehand that there are none.
        """
        result = np.zeros(values.shape, np.uint8)
        claimed = np.isin(values, [value for members in source_values.values() for value in members])
        drawn = values[claimed]
        found = np.zeros(drawn.shape, np.uint8)
        for name, members in source_values.items():
            found[np.isin(drawn, list(members))] = self.tumor_values[name]
        result[claimed] = found
        return result
