"""Label source recombine: two persons, the tumour asked for, one whole brain that is neither parent's."""

import numpy as np
import pytest
from conftest import ask, check_whole, rng, write_toy_cohort
from scipy import ndimage

from pipeline.attributes import HEMISPHERES, describe_tumor
from pipeline.cohort import Cohort, open_cohort
from pipeline.generate import recombine as recombine_module
from pipeline.generate.placement import rescale_tumor
from pipeline.generate.recombine import Donor, choose_persons, fill_tumor, random_turn, recombine, tumor_ml
from pipeline.volumes import Grid

TOY_VOXEL_ML = 0.512


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(
        write_toy_cohort(tmp_path_factory.mktemp("recombine") / "cohort", {"train": 4}, individual=False)
    )


@pytest.mark.parametrize("seed", range(6))
def test_recombined_maps_have_the_tumour_asked_for_within_one_whole_brain(cohort: Cohort, seed: int) -> None:
    anatomy, donor = cohort.cases[seed % 4], cohort.cases[(seed + 1) % 4]
    hemisphere = HEMISPHERES[seed % 2]
    maps = recombine(anatomy, Donor(donor, tumor_ml(donor, 8.0)), ask(30.0, hemisphere), cohort.scheme, 8.0, rng(seed))
    check_whole(maps)
    found = describe_tumor(maps.tumor_map, maps.tissue_map > 0, Grid(cohort.shape, 8.0).affine, cohort.scheme)
    # Classes are voted anew on an 8 mm grid and at most 10% may be cut at the brain's edge.
    assert found.volume_ml == pytest.approx(30.0, rel=0.3)
    assert found.hemisphere == hemisphere
    # A small core may fall between 8 mm voxels, but rim and oedema stay nested as in the donor.
    assert {0, 2, 3} <= set(np.unique(maps.tumor_map)) <= {0, 1, 2, 3}
    np.testing.assert_array_equal(maps.tumor_map > 0, ndimage.binary_fill_holes(maps.tumor_map > 0))
    depth = ndimage.distance_transform_edt(maps.tumor_map > 0)
    assert depth[maps.tumor_map == 3].mean() > depth[maps.tumor_map == 2].mean()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35])
def test_recombined_tumours_enhance_as_asked_for_and_have_two_foci(cohort: Cohort, share: float) -> None:
    anatomy, donor = cohort.cases[:2]
    asked = ask(40.0, enhancing_share=share, n_foci=2)
    maps = recombine(anatomy, Donor(donor, tumor_ml(donor, 8.0)), asked, cohort.scheme, 8.0, rng(4))
    check_whole(maps)
    found = describe_tumor(maps.tumor_map, maps.tissue_map > 0, Grid(cohort.shape, 8.0).affine, cohort.scheme)
    assert found.enhancing_share == pytest.approx(share, abs=0.02)
    assert found.n_foci == 2


def test_a_hole_that_a_donors_tumour_gets_is_filled_with_tumour(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tear(*arguments: object) -> np.ndarray:
        turned = rescale_tumor(*arguments)
        middle = np.argwhere(turned > 0).mean(axis=0).round().astype(int)
        turned[tuple(middle)] = 0
        return turned

    anatomy, donor = cohort.cases[:2]
    monkeypatch.setattr(recombine_module, "rescale_tumor", tear)
    # A warp might close the hole by itself.
    monkeypatch.setattr(recombine_module, "random_warp", lambda shape, *_: np.zeros((3, *shape), np.float32))
    maps = recombine(anatomy, Donor(donor, tumor_ml(donor, 8.0)), ask(60.0), cohort.scheme, 8.0, rng(2))
    np.testing.assert_array_equal(maps.tumor_map > 0, ndimage.binary_fill_holes(maps.tumor_map > 0))


def test_recombined_maps_are_neither_parent_s(cohort: Cohort) -> None:
    anatomy, donor = cohort.cases[:2]
    maps = recombine(anatomy, Donor(donor, tumor_ml(donor, 8.0)), ask(40.0), cohort.scheme, 8.0, rng(1))
    for case in (anatomy, donor):
        for flip in (1, -1):
            overlap = maps.tumor_map[::flip] == np.asarray(case.tumor_map())
            assert overlap[(maps.tumor_map[::flip] > 0) | (np.asarray(case.tumor_map()) > 0)].mean() < 0.9
            assert (maps.tissue_map[::flip] != np.asarray(case.tissue_map())).mean() > 0.02


def test_a_donor_is_near_the_volume_asked_for_and_never_gives_the_anatomy_too(cohort: Cohort) -> None:
    volumes_ml = [float((np.asarray(case.tumor_map()) > 0).sum()) * TOY_VOXEL_ML for case in cohort.cases]
    donors = [Donor(case, tumor_ml(case, 8.0)) for case in cohort.cases]
    assert [donor.volume_ml for donor in donors] == pytest.approx(volumes_ml)
    largest = cohort.cases[int(np.argmax(volumes_ml))]
    for seed in range(10):
        # Nobody is within a factor of 1.8 in length of a hundred times the largest: the nearest is taken.
        anatomy, donor = choose_persons(donors, ask(100 * max(volumes_ml)), rng(seed))
        assert donor.case.subject == largest.subject
        assert anatomy.subject != donor.case.subject
        _, donor = choose_persons(donors, ask(min(volumes_ml)), rng(seed))
        assert 1 / 1.8 <= donor.length_factor(min(volumes_ml)) <= 1.8


def test_filling_takes_the_other_hemisphere_and_leaves_no_hole() -> None:
    tissue = np.zeros((8, 4, 3), np.uint8)
    tissue[1:7, 1:3] = 2
    tissue[5, 1:3] = 3
    tumor = np.zeros_like(tissue)
    tumor[2, 1:3] = 1
    tissue[2, 1:3] = 0
    filled = fill_tumor(tissue, tumor)
    # The mirror image of x = 2 on eight voxels is x = 5.
    assert (filled[2, 1:3] == 3).all()
    np.testing.assert_array_equal(np.delete(filled, 2, axis=0), np.delete(tissue, 2, axis=0))
    # A tumour across the midline has no healthy counterpart: the nearest tissue comes in.
    tumor[2:6, 1:3] = 1
    tissue[2:6, 1:3] = 0
    assert (fill_tumor(tissue, tumor)[1:7, 1:3] == 2).all()


def test_filling_a_patient_leaves_tissue_everywhere_in_the_brain(cohort: Cohort) -> None:
    for case in cohort.cases:
        brain = case.condition(cohort.scheme) > 0
        filled = fill_tumor(np.asarray(case.tissue_map()), np.asarray(case.tumor_map()))
        np.testing.assert_array_equal(filled > 0, brain)


def test_tumours_are_turned_and_stretched_at_their_volume_and_about_half_are_mirrored() -> None:
    matrices = [random_turn(rng(seed)) for seed in range(60)]
    for matrix in matrices:
        assert abs(np.linalg.det(matrix)) == pytest.approx(1.0)
        # Lengths change by some tenths at most: normal, of deviation .15.
        lengths = np.linalg.svd(matrix, compute_uv=False)
        assert 0.5 < lengths.min() <= 1.0 <= lengths.max() < 2.0
    assert np.mean([np.linalg.svd(matrix, compute_uv=False).max() for matrix in matrices]) > 1.05
    # Binomial(60, 1/2): mean 30, SD 3.9.
    assert 16 <= sum(np.linalg.det(matrix) < 0 for matrix in matrices) <= 44
