"""How near new label maps lie to those of members, beside how near other real persons' lie: label maps can leak too.

For each map the most alike of all members' maps counts, by Dice: of the tumour after its centre has been laid on the
other's, of the tissues after the brain's centre has; each also mirrored. What is nearer than other real persons are
would be a member in disguise.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.cohort import Case, Cohort
from pipeline.labels import TISSUE_CLASSES, LabelScheme

# Or the map's own, where that is coarser.
TUMOR_SPACING_MM, TISSUE_SPACING_MM = 4.0, 8.0
TUMOR_BOX_MM, BRAIN_BOX_MM = 96.0, 200.0
N_BOOTSTRAP, ALPHA = 1000, 0.05

Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Shapes:
    """A case's label maps, ready to be compared.

    Parameters
    ----------
    tumor : ndarray, (regions, n, n, n), float32 in [0, 1]
        Scored regions in a box around the tumour's centre.
    tissue : ndarray, (3, m, m, m), float32 in [0, 1]
        Tissues in a box around the brain's centre.
    """

    tumor: Maps
    tissue: Maps


def read_shapes(case: Case, scheme: LabelScheme, spacing_mm: float) -> Shapes:
    """Read a case's label maps, coarsely, each in a box around its centre."""
    tissue_map, tumor_map = np.asarray(case.tissue_map()), np.asarray(case.tumor_map())
    tumor = np.stack([scheme.region_mask(tumor_map, region) for region in scheme.regions])
    tissue = np.stack([tissue_map == value for value in range(1, len(TISSUE_CLASSES) + 1)])
    return Shapes(
        _boxed(tumor, tumor_map > 0, TUMOR_BOX_MM, TUMOR_SPACING_MM, spacing_mm),
        _boxed(tissue, case.brain(), BRAIN_BOX_MM, TISSUE_SPACING_MM, spacing_mm),
    )


def _boxed(
    maps: NDArray[np.bool_], around: NDArray[np.bool_], box_mm: float, apart_mm: float, spacing_mm: float
) -> Maps:
    """Return maps at points of a cube about a mask's centre of mass, linearly between voxels."""
    step = max(1, round(apart_mm / spacing_mm))
    n = round(box_mm / spacing_mm / step)
    centre = np.argwhere(around).mean(axis=0)
    axes = [c + step * (np.arange(n) - (n - 1) / 2) for c in centre]
    points = np.meshgrid(*axes, indexing="ij")
    boxed: Maps = np.stack([ndimage.map_coordinates(one.astype(np.float32), points, order=1) for one in maps])
    return boxed


def likeness(first: Maps, second: Maps) -> float:
    """Return the mean Dice of maps (classes, x, y, z) in [0, 1]; classes that neither has are left out."""
    both = np.minimum(first, second).sum(axis=(1, 2, 3))
    sizes = first.sum(axis=(1, 2, 3)) + second.sum(axis=(1, 2, 3))
    return float((2 * both[sizes > 0] / sizes[sizes > 0]).mean()) if (sizes > 0).any() else 1.0


def nearest_likeness(shapes: Shapes, members: Sequence[Shapes]) -> dict[str, float]:
    """Return the Dice of a case's tumour and tissues with those of the member that is most alike, mirrored or not."""
    return {
        part: max(likeness(turned, getattr(member, part)) for member in members for turned in (own, own[:, ::-1]))
        for part, own in (("tumor", shapes.tumor), ("tissue", shapes.tissue))
    }


def measure_geometry(
    members: Sequence[Shapes], groups: Mapping[str, Iterable[Shapes]], stream: np.random.Generator
) -> dict[str, dict[str, dict[str, object]]]:
    """Compare groups of label maps with those of members.

    Parameters
    ----------
    members : sequence of Shapes
        The same for every group, so that none has a better chance of finding its like.
    groups : mapping of str to iterable of Shapes
        Label sources, and other real persons.
    stream : numpy.random.Generator
        Of the intervals.

    Returns
    -------
    dict
        By part (``tumor``, ``tissue``) and group: ``mean`` of the nearest Dice, its bootstrap ``ci`` by case, ``max``.
    """
    result: dict[str, dict[str, dict[str, object]]] = {"tumor": {}, "tissue": {}}
    for name, group in groups.items():
        nearest = [nearest_likeness(shapes, members) for shapes in group]
        for part, figures in result.items():
            values = np.array([likeness_of[part] for likeness_of in nearest])
            if len(values):
                draws = values[stream.integers(len(values), size=(N_BOOTSTRAP, len(values)))].mean(axis=1)
                low, high = np.quantile(draws, [ALPHA / 2, 1 - ALPHA / 2])
                ci = [float(low), float(high)]
                figures[name] = {"mean": float(values.mean()), "ci": ci, "max": float(values.max())}
    return result


def compare_geometry(
    synthetic: Cohort, real: Cohort, stream: np.random.Generator
) -> dict[str, dict[str, dict[str, object]]]:
    """Compare the label maps of each label source, and of real persons of val and test, with those of members."""

    def read(cohort: Cohort, cases: Iterable[Case]) -> Iterator[Shapes]:
        return (read_shapes(case, cohort.scheme, cohort.spacing_mm) for case in cases)

    groups = {
        source: read(synthetic, [case for case in synthetic.cases if case.source == source])
        for source in sorted({case.source for case in synthetic.cases})
    }
    groups["real"] = read(real, (*real.patients("val"), *real.patients("test")))
    # Every scan of a member, not one of each: label maps are recombined from all.
    return measure_geometry(list(read(real, real.split("train"))), groups, stream)
