"""What every new label map keeps, whatever its source, plan and seed: one whole brain, a tumour within, no folds."""

import numpy as np
import pytest
from conftest import check_whole, rng, write_toy_cohort
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import euler_number
from test_warps import jacobian_determinant

from pipeline.cohort import Cohort, open_cohort
from pipeline.errors import CaseError
from pipeline.generate import anatomy
from pipeline.generate.anatomy import count_on_faces, random_person_warp, warp_person
from pipeline.generate.atlas import atlas_labels
from pipeline.generate.placement import LabelMaps
from pipeline.generate.plan import AskedCase
from pipeline.generate.recombine import Donor, recombine, tumor_ml
from pipeline.labels import LabelScheme
from pipeline.volumes import Grid
from pipeline.warps import warp_labels

SCHEME = LabelScheme()
GRID = Grid((40, 48, 40), 4.0)
SEEDS = st.integers(0, 2**32 - 1)
ASKED = st.builds(
    AskedCase,
    number=st.just(1),
    label_source=st.just("atlas"),
    volume_ml=st.floats(6.0, 110.0),
    hemisphere=st.sampled_from(["left", "right"]),
    lobe=st.none() | st.sampled_from(["frontal", "parietal", "temporal"]),
    enhancing_share=st.none() | st.floats(0.0, 0.4),
    n_foci=st.integers(1, 2),
)


def check_tumor(maps: LabelMaps) -> None:
    tumor = maps.tumor_map
    assert tumor.any()
    assert tumor.max() <= len(SCHEME.tumor)
    # No healthy island within, and no core that lies bare where there is oedema to lie in.
    np.testing.assert_array_equal(ndimage.binary_fill_holes(tumor > 0), tumor > 0)
    depth = ndimage.distance_transform_edt(tumor > 0)
    oedema = tumor == SCHEME.tumor_values["oedema"]
    core = (tumor > 0) & ~oedema
    if core.sum() >= 8 and oedema.sum() >= 8:
        assert depth[core].mean() >= depth[oedema].mean()


@settings(deadline=None, max_examples=12)
@given(asked=ASKED, seed=SEEDS)
def test_a_person_of_the_atlas_is_whole_with_a_tumour_within(asked: AskedCase, seed: int) -> None:
    try:
        maps = atlas_labels(asked, GRID, SCHEME, rng(seed))
    except CaseError:
        return
    check_whole(maps)
    check_tumor(maps)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(write_toy_cohort(tmp_path_factory.mktemp("invariants") / "cohort", {"train": 4}))


@settings(deadline=None, max_examples=25)
@given(asked=ASKED, seed=SEEDS, pair=st.permutations(range(4)))
def test_a_recombined_person_is_whole_with_a_tumour_within(
    cohort: Cohort, asked: AskedCase, seed: int, pair: list[int]
) -> None:
    anatomy, giver = (cohort.cases[index] for index in pair[:2])
    try:
        maps = recombine(anatomy, Donor(giver, tumor_ml(giver, 8.0)), asked, cohort.scheme, 8.0, rng(seed))
    except CaseError:
        return
    check_whole(maps)
    check_tumor(maps)


@settings(deadline=None, max_examples=8)
@given(seed=SEEDS, spacing_mm=st.sampled_from([2.0, 3.0, 4.0]))
def test_a_new_persons_warp_folds_nowhere(seed: int, spacing_mm: float) -> None:
    shape = tuple(round(extent / spacing_mm) for extent in (160, 192, 160))
    warp = random_person_warp(shape, spacing_mm, rng(seed))
    assert jacobian_determinant(warp, (spacing_mm,) * 3).min() > 0


def has_topology_of(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Tell whether both have as many parts, holes and tunnels.

    With voxels joined at faces alone, or at corners too: where just one of both counts a tunnel, two voxels touch at a
    corner (one warp in sixty does that somewhere), and nothing could pass.
    """
    return ndimage.label(mask)[1] == ndimage.label(other)[1] and any(
        euler_number(mask, connectivity=reach) == euler_number(other, connectivity=reach) for reach in (1, 3)
    )


def test_topology_sees_a_tunnel_of_one_voxel_a_hole_and_a_part_and_no_touch_at_a_corner() -> None:
    solid = np.zeros((12, 12, 12), bool)
    solid[2:10, 2:10, 2:10] = True
    for where in (np.s_[5, 5, 2:10], np.s_[5, 5, 5], np.s_[0, 0, 0]):
        changed = solid.copy()
        changed[where] ^= True
        assert not has_topology_of(changed, solid)
    # A groove of the surface whose two banks touch at an edge.
    notched = solid.copy()
    notched[5, 2, 9] = notched[6, 3, 9] = False
    assert has_topology_of(notched, solid)


@settings(deadline=None, max_examples=8)
@given(seed=SEEDS)
@example(seed=921692)
def test_ventricles_stay_two_chambers_joined_in_the_middle(seed: int) -> None:
    # Two ellipsoids joined by a third, within one brain: one part each, and no tunnel.
    x, y, z = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * 2.0 for n in (80, 96, 80)], indexing="ij")
    tissue = np.where((x / 68) ** 2 + (y / 82) ** 2 + (z / 66) ** 2 < 1, 3, 0).astype(np.uint8)
    chambers = [
        ((abs(x) - 14) / 8) ** 2 + (y / 34) ** 2 + (z / 12) ** 2 < 1,
        (x / 16) ** 2 + (y / 8) ** 2 + (z / 8) ** 2 < 1,
    ]
    tissue[np.any(chambers, axis=0)] = 1
    warped = warp_labels(tissue, random_person_warp(tissue.shape, 2.0, rng(seed)), (2.0,) * 3, 4)
    for value in (1, 3):
        assert ndimage.label(tissue == value)[1] == 1
        assert has_topology_of(warped == value, tissue == value)


def test_a_new_person_is_not_cut_by_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    # A blunt brain that leaves one voxel on each side, as large ones do at 160 x 192 x 160 mm.
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 48, 40)], indexing="ij")
    tissue = (sum(axis**4 for axis in axes) < 0.96**4).astype(np.uint8)

    def n_cut() -> int:
        return sum(count_on_faces(warp_person(tissue, 4.0, rng(seed))) > 0 for seed in range(10))

    assert count_on_faces(tissue) == 0
    assert n_cut() == 0
    # The first warp alone cuts some.
    monkeypatch.setattr(anatomy, "MAX_WARPS", 1)
    assert n_cut() >= 4


def test_both_sides_of_a_new_person_are_much_alike() -> None:
    mirrored = []
    for seed in range(4):
        warp = random_person_warp((80, 96, 80), 2.0, rng(seed))
        across = warp[0, 39:41].mean(axis=0)
        mirrored.append(np.sqrt((across**2).mean()))
    # The midline leaves its plane by the weak third warp only, not by the eight millimetres that others allow.
    assert max(mirrored) < 3.0
