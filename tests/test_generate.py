"""The synthetic cohort: plan, label maps of both sources, slices that agree, same bytes however many workers."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, write_toy_cohort
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.attributes import HEMISPHERES, describe_tumor
from pipeline.cohort import Cohort, digest_tree, open_cohort, read_tsv
from pipeline.config import ComputeSection, GenerateSection, RunConfig, parse_config
from pipeline.errors import CaseError, ConfigError
from pipeline.generate import stage
from pipeline.generate.atlas import atlas_labels, atlas_tissue, cut_density, random_anatomy
from pipeline.generate.placement import LabelMaps, fill_holes, place_tumor, push_tissue, rescale_tumor
from pipeline.generate.plan import VOLUME_STRATA, AskedCase, make_plan, plan_table
from pipeline.generate.recombine import choose_persons, fill_tumor, length_factor, random_rotation, recombine
from pipeline.generate.sampling import _slice_noise, render_volume, render_with_style, to_intensity
from pipeline.generate.stage import LabelTask, generate_cohort, make_labels
from pipeline.labels import LabelScheme
from pipeline.seeds import numpy_stream, torch_stream
from pipeline.train.generator import Generator, GeneratorConfig
from pipeline.volumes import Grid

MakeConfig = Callable[..., RunConfig]
GRID = Grid((40, 48, 40), 4.0)
VOXEL_ML = 0.064
TOY_VOXEL_ML = 0.512
CPU = ComputeSection(accelerator="cpu", workers=1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(write_toy_cohort(tmp_path_factory.mktemp("generate") / "cohort", {"train": 4}))


@pytest.fixture(scope="module")
def generator() -> Generator:
    config = GeneratorConfig(
        dimensions=2, n_classes=7, n_modalities=4, channels=8, levels=2, style_size=4, context_slices=1
    )
    torch.manual_seed(0)
    return Generator(config).eval().requires_grad_(False)


def ask(volume_ml: float, hemisphere: str = "left", number: int = 1) -> AskedCase:
    return AskedCase(number, "atlas", "medium", hemisphere, volume_ml)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_plan_asks_for_every_stratum_alike_and_for_sources_by_their_share(n: int, seed: int, share: float) -> None:
    config = GenerateSection(n_cases=n, label_sources={"recombine": share, "atlas": 1 - share})
    plan = make_plan(config, rng(seed))
    assert [case.number for case in plan] == list(range(1, n + 1))
    strata = Counter(case.stratum for case in plan)
    counts = [strata[volume, side] for volume in VOLUME_STRATA for side in HEMISPHERES]
    assert sum(counts) == n
    assert max(counts) - min(counts) <= 1
    n_recombined = sum(case.label_source == "recombine" for case in plan)
    assert abs(n_recombined - share * n) < 1
    for case in plan:
        low, high = config.volume_edges_ml[VOLUME_STRATA.index(case.volume) :][:2]
        assert low < case.volume_ml < high


def test_plan_asks_for_one_source_only_where_the_config_does() -> None:
    config = GenerateSection(n_cases=7, label_sources={"atlas": 1.0})
    assert {case.label_source for case in make_plan(config, rng())} == {"atlas"}


def test_plan_table_counts_asked_obtained_and_source() -> None:
    asked = [replace(ask(30, "left"), volume="small"), replace(ask(30, "left"), volume="large")]
    rows = plan_table(asked, [("small", "left"), ("small", "left")], [("large", "right")] * 3)
    found = {(r["volume"], r["hemisphere"]): (r["asked"], r["obtained"], r["source"]) for r in rows}
    assert found.pop(("small", "left")) == (1, 2, 0)
    assert found.pop(("large", "left")) == (1, 0, 0)
    assert found.pop(("large", "right")) == (0, 0, 3)
    assert set(found.values()) == {(0, 0, 0)}


def check_whole(maps: LabelMaps) -> None:
    """Check that tissue and tumour never overlap and leave no hole inside the brain."""
    assert not ((maps.tissue_map > 0) & (maps.tumor_map > 0)).any()
    brain = (maps.tissue_map > 0) | (maps.tumor_map > 0)
    assert maps.tumor_map.any()
    np.testing.assert_array_equal(brain, ndimage.binary_fill_holes(brain))
    # Tumour does not reach into the background: nothing of it is a piece of its own outside the brain.
    assert ndimage.label(brain)[1] == 1


@pytest.mark.parametrize("seed", range(6))
def test_recombined_maps_have_the_tumour_asked_for_within_one_whole_brain(cohort: Cohort, seed: int) -> None:
    anatomy, donor = cohort.cases[seed % 4], cohort.cases[(seed + 1) % 4]
    hemisphere = HEMISPHERES[seed % 2]
    maps = recombine(anatomy, donor, ask(30.0, hemisphere), 8.0, rng(seed))
    check_whole(maps)
    found = describe_tumor(maps.tumor_map, Grid(cohort.shape, 8.0).affine, cohort.scheme)
    # Classes are voted anew on an 8 mm grid and at most 10% may be cut at the brain's edge.
    assert found.volume_ml == pytest.approx(30.0, rel=0.3)
    assert found.hemisphere == hemisphere
    # A small core may fall between 8 mm voxels, but rim and oedema stay nested as in the donor.
    assert {0, 2, 3} <= set(np.unique(maps.tumor_map)) <= {0, 1, 2, 3}
    depth = ndimage.distance_transform_edt(maps.tumor_map > 0)
    assert depth[maps.tumor_map == 3].mean() > depth[maps.tumor_map == 2].mean()


def test_recombined_maps_are_neither_parent_s(cohort: Cohort) -> None:
    anatomy, donor = cohort.cases[:2]
    maps = recombine(anatomy, donor, ask(40.0), 8.0, rng(1))
    for case in (anatomy, donor):
        for flip in (1, -1):
            overlap = maps.tumor_map[::flip] == np.asarray(case.tumor_map())
            assert overlap[(maps.tumor_map[::flip] > 0) | (np.asarray(case.tumor_map()) > 0)].mean() < 0.9
            assert (maps.tissue_map[::flip] != np.asarray(case.tissue_map())).mean() > 0.02


def test_anatomy_and_tumour_come_from_two_persons(
    cohort: Cohort, tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def spy(anatomy: object, donor: object, *rest: object) -> LabelMaps:
        drawn.append((anatomy, donor))
        raise CaseError("try again")

    monkeypatch.setattr(stage, "recombine", spy)
    config = tiny_config(generate={"max_attempts": 60}).generate
    asked = replace(ask(30.0), label_source="recombine")
    with pytest.raises(CaseError):
        make_labels(LabelTask(asked, cohort.cases, cohort.scheme, Grid(cohort.shape, 8.0), config, 1))
    assert len(drawn) == 60
    assert all(anatomy is not donor for anatomy, donor in drawn)
    # Of 4 * 3 ordered pairs, 60 draws miss a given one with probability (11 / 12)^60 = .005.
    assert len({(a.subject, d.subject) for a, d in drawn}) >= 10


def test_a_donor_is_near_the_volume_asked_for_and_never_gives_the_anatomy_too(cohort: Cohort) -> None:
    volumes_ml = [float((np.asarray(case.tumor_map()) > 0).sum()) * TOY_VOXEL_ML for case in cohort.cases]
    largest = cohort.cases[int(np.argmax(volumes_ml))]
    for seed in range(10):
        # Nobody is within a factor of 1.8 in length of a hundred times the largest: the nearest is taken.
        anatomy, donor = choose_persons(cohort.cases, ask(100 * max(volumes_ml)), 8.0, rng(seed))
        assert donor.subject == largest.subject
        assert anatomy.subject != donor.subject
        _, donor = choose_persons(cohort.cases, ask(min(volumes_ml)), 8.0, rng(seed))
        assert 1 / 1.8 <= length_factor(donor, min(volumes_ml), 8.0) <= 1.8


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


def test_holes_are_filled_from_the_nearest_tissue_within_the_region_only() -> None:
    tissue = np.array([1, 0, 0, 0, 3], np.uint8).reshape(5, 1, 1)
    region = np.array([1, 1, 0, 1, 1], bool).reshape(5, 1, 1)
    assert fill_holes(tissue, region).ravel().tolist() == [1, 1, 0, 3, 3]
    assert fill_holes(np.zeros_like(tissue), region).ravel().tolist() == [0] * 5


def ball(shape: tuple[int, int, int], centre: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    return np.linalg.norm((np.indices(shape).T - np.array(centre)).T, axis=0) <= radius


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4])
def test_rescaling_changes_the_volume_by_the_cube_and_centres(scale: float) -> None:
    core, whole = (ball((32, 32, 32), (10, 12, 14), radius) for radius in (3, 7))
    tumor = np.where(core, 3, np.where(whole, 2, 0)).astype(np.uint8)
    turned = rescale_tumor(tumor, scale, random_rotation(rng()))
    assert (turned > 0).sum() == pytest.approx((tumor > 0).sum() * scale**3, rel=0.1)
    np.testing.assert_allclose(np.argwhere(turned > 0).mean(axis=0), 15.5, atol=0.3)
    assert (turned == 3).sum() == pytest.approx((tumor == 3).sum() * scale**3, rel=0.25)


def test_rotations_keep_lengths_and_about_half_are_mirrored() -> None:
    matrices = [random_rotation(rng(seed)) for seed in range(60)]
    for matrix in matrices:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    # Binomial(60, 1/2): mean 30, SD 3.9.
    assert 16 <= sum(np.linalg.det(matrix) < 0 for matrix in matrices) <= 44


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
def test_a_tumour_is_placed_whole_within_the_brain_on_its_side(hemisphere: str) -> None:
    tissue = np.where(ball((32, 32, 32), (15.5, 15.5, 15.5), 14), 3, 0).astype(np.uint8)
    tumor = np.where(ball((32, 32, 32), (16, 16, 16), 4), 2, 0).astype(np.uint8)
    placed = place_tumor(tissue, tumor, hemisphere, rng())
    assert (placed > 0).sum() >= 0.98 * (tumor > 0).sum()
    assert (tissue[placed > 0] > 0).all()
    centre_x = np.argwhere(placed > 0).mean(axis=0)[0]
    assert (centre_x < 15.5) == (hemisphere == "left")


def test_a_tumour_without_room_is_refused() -> None:
    tissue = np.where(ball((32, 32, 32), (15.5, 15.5, 15.5), 5), 3, 0).astype(np.uint8)
    tumor = np.where(ball((32, 32, 32), (16, 16, 16), 7), 2, 0).astype(np.uint8)
    with pytest.raises(CaseError, match="no place in the brain"):
        place_tumor(tissue, tumor, "left", rng())


def test_a_hemisphere_without_grey_or_white_matter_is_refused() -> None:
    tissue = np.where(ball((32, 32, 32), (15.5, 15.5, 15.5), 12), 3, 0).astype(np.uint8)
    tissue[:16][tissue[:16] > 0] = 1
    tumor = np.where(ball((32, 32, 32), (16, 16, 16), 2), 2, 0).astype(np.uint8)
    assert place_tumor(tissue, tumor, "right", rng()).any()
    with pytest.raises(CaseError, match="no place in the brain"):
        place_tumor(tissue, tumor, "left", rng())


def test_tissue_is_pushed_outwards_and_the_outline_stays() -> None:
    tissue = np.where(ball((40, 40, 40), (20, 20, 20), 17), 3, 0).astype(np.uint8)
    tissue[ball((40, 40, 40), (20, 20, 20), 5)] = 1
    tumor = np.where(ball((40, 40, 40), (20, 20, 20), 6), 1, 0).astype(np.uint8)
    pushed = push_tissue(tissue, tumor, 4.0, 0.3)
    np.testing.assert_array_equal(pushed > 0, tissue > 0)
    assert (pushed == 1).sum() > 1.2 * (tissue == 1).sum()


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
@pytest.mark.parametrize("volume_ml", [8.0, 30.0, 90.0])
def test_atlas_maps_have_the_tumour_asked_for_within_one_whole_brain(hemisphere: str, volume_ml: float) -> None:
    scheme = LabelScheme()
    for attempt in range(4):
        maps = atlas_labels(ask(volume_ml, hemisphere), GRID, scheme, rng(attempt))
        check_whole(maps)
        found = describe_tumor(maps.tumor_map, GRID.affine, scheme)
        assert found.volume_ml == pytest.approx(volume_ml, rel=0.15)
        if found.hemisphere == hemisphere:
            break
    # Large tumours may grow across the midline; the stage then tries again, as here.
    assert found.hemisphere == hemisphere
    core = (maps.tumor_map == 1) | (maps.tumor_map == 3)
    assert 0 < core.sum() < (maps.tumor_map > 0).sum()


def test_atlas_is_one_brain_in_the_middle_of_the_grid() -> None:
    tissue = atlas_tissue(GRID)
    assert ndimage.label(tissue > 0)[1] == 1
    # A head of about 1.5 to 2 litres with its fluid (the MNI152 mask), more grey than fluid in it.
    assert 1500 < (tissue > 0).sum() * VOXEL_ML < 2100
    box = ndimage.find_objects((tissue > 0).astype(np.uint8))[0]
    for part, n in zip(box, GRID.shape, strict=True):
        assert abs(part.start + part.stop - n) <= 2
    assert not tissue[[0, -1]].any()


def test_every_anatomy_is_another_and_has_no_hole() -> None:
    first, second = random_anatomy(GRID, rng(1)), random_anatomy(GRID, rng(2))
    for tissue in (first, second):
        np.testing.assert_array_equal(tissue > 0, ndimage.binary_fill_holes(tissue > 0))
        assert set(np.unique(tissue)) == {0, 1, 2, 3}
    brain = (first > 0) | (second > 0)
    assert (first != second)[brain].mean() > 0.2
    np.testing.assert_array_equal(first, random_anatomy(GRID, rng(1)))


def bell() -> NDArray[np.float32]:
    distance = np.linalg.norm((np.indices((30, 30, 30)).T - 14.5).T, axis=0)
    return np.where(distance < 12, np.exp(-((distance / 6) ** 2)), 0).astype(np.float32)


@pytest.mark.parametrize(
    "classes",
    [
        ("necrotic_core", "oedema", "enhancing"),
        ("oedema",),
        ("enhancing",),
        ("necrotic_core",),
        ("necrotic_core", "oedema"),
        ("oedema", "enhancing"),
        ("necrotic_core", "enhancing"),
    ],
)
def test_cut_density_uses_the_classes_of_the_scheme_only_and_nests_them(classes: tuple[str, ...]) -> None:
    scheme = LabelScheme(classes)
    whole_ml, core_ml = 60.0, 20.0
    for seed in range(4):
        tumor = cut_density(bell(), whole_ml, core_ml, 4.0, scheme, rng(seed))
        assert (tumor > 0).sum() * VOXEL_ML == pytest.approx(whole_ml, abs=VOXEL_ML)
        assert set(np.unique(tumor)) <= {0, *scheme.tumor_values.values()}
        values = scheme.tumor_values
        if len(classes) < 3:
            continue
        core = np.isin(tumor, [values["necrotic_core"], values["enhancing"]])
        # Opening rounds the core off: it loses at most a part.
        assert 0.6 * core_ml < core.sum() * VOXEL_ML <= core_ml + VOXEL_ML
        depth = ndimage.distance_transform_edt(tumor > 0)
        assert depth[core].mean() > depth[tumor == values["oedema"]].mean()
        if (tumor == values["enhancing"]).any():
            assert depth[tumor == values["necrotic_core"]].mean() > depth[tumor == values["enhancing"]].mean()


def test_some_atlas_tumours_do_not_enhance() -> None:
    enhances = [(cut_density(bell(), 60.0, 20.0, 4.0, LabelScheme(), rng(s)) == 3).any() for s in range(60)]
    # 15% do not: of 60 mean 9, SD 2.8.
    assert 1 <= enhances.count(False) <= 20


def test_atlas_works_for_a_scheme_of_one_class() -> None:
    maps = atlas_labels(ask(30.0), GRID, LabelScheme(("oedema",)), rng())
    assert set(np.unique(maps.tumor_map)) == {0, 1}
    check_whole(maps)


@pytest.mark.parametrize("n_slices", [1, 4, 9, 16, 60])
def test_slice_noise_has_unit_variance_whatever_the_number_of_slices(n_slices: int) -> None:
    noise = _slice_noise(n_slices, (120, 100), torch_stream(0, "noise")).numpy()
    assert noise.shape == (n_slices, 1, 120, 100)
    # 12,000 independent columns: the relative error of a variance is about sqrt(2 / 12,000) = .013.
    np.testing.assert_allclose(noise.var(axis=(1, 2, 3)), 1.0, atol=0.06)


def test_noise_of_neighbouring_slices_correlates_and_of_distant_ones_does_not() -> None:
    noise = _slice_noise(40, (100, 100), torch_stream(0, "noise")).numpy().reshape(40, -1)
    # White noise smoothed by a Gaussian of 1.5: correlation exp(-d^2 / (4 * 1.5^2)) at distance d.
    for distance in (1, 2, 4):
        expected = np.exp(-(distance**2) / (4 * 1.5**2))
        assert np.corrcoef(noise[10], noise[10 + distance])[0, 1] == pytest.approx(expected, abs=0.05)
    assert abs(np.corrcoef(noise[10], noise[25])[0, 1]) < 0.05


def test_neighbouring_rendered_slices_agree_as_independent_ones_do_not(cohort: Cohort, generator: Generator) -> None:
    # The same map in every slice: whatever differs between slices comes from style and noise.
    slab = np.repeat(cohort.cases[0].condition(cohort.scheme)[:, :, 8:9], 16, axis=2)
    brain = slab[:, :, 0] > 0
    generator = deepcopy(generator)
    with torch.no_grad():
        for block in generator.blocks:
            block.noise_strength.fill_(1.0)

    def roughness(scan: NDArray[np.float32]) -> float:
        return float(np.abs(np.diff(scan[:, brain], axis=2)).mean())

    whole = render_volume(generator, slab, torch_stream(1, "whole"))
    independent = np.concatenate(
        [render_volume(generator, slab[:, :, z : z + 1], torch_stream(1, "slice", z)) for z in range(16)], axis=3
    )
    one_style = torch.zeros(1, 4)
    without_smoothing = np.concatenate(
        [render_with_style(generator, slab[:, :, :1], one_style, torch_stream(1, "slice", z)) for z in range(16)],
        axis=3,
    )
    assert 0 < roughness(whole) < 0.6 * roughness(without_smoothing)
    assert roughness(without_smoothing) < roughness(independent)


def test_rendering_in_chunks_changes_nothing(
    cohort: Cohort, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    condition = cohort.cases[0].condition(cohort.scheme)
    whole = render_volume(generator, condition, torch_stream(1, "x"))
    assert whole.shape == (4, *condition.shape)
    assert (whole[:, condition == 0] == -1).all()
    monkeypatch.setattr("pipeline.generate.sampling.SLICES_AT_ONCE", 5)
    np.testing.assert_allclose(render_volume(generator, condition, torch_stream(1, "x")), whole, atol=1e-5)


def test_intensities_are_scaled_to_0_to_1000_and_0_outside() -> None:
    scan = np.array([-1.0, 0.0, 1.0, 1.5, 0.5], np.float32)
    brain = np.array([1, 1, 1, 1, 0], bool)
    assert to_intensity(scan, brain).tolist() == [0, 500, 1000, 1000, 0]
    assert to_intensity(scan, brain).dtype == np.int16


def make_cohort(cohort: Cohort, generator: Generator, out: Path, workers: int, n_cases: int = 5) -> Path:
    config = parse_config({**TINY, "generate": {**TINY["generate"], "n_cases": n_cases}}, "tests").generate
    compute = ComputeSection(accelerator="cpu", workers=workers)
    generate_cohort(generator, cohort, cohort.cases, config, compute, 1, out)
    return out


def test_cohort_is_the_same_whatever_the_workers_and_opens_as_one(
    cohort: Cohort, generator: Generator, tmp_path: Path
) -> None:
    first = make_cohort(cohort, generator, tmp_path / "first", workers=1)
    second = make_cohort(cohort, generator, tmp_path / "second", workers=2)
    assert digest_tree(first) == digest_tree(second)
    made = open_cohort(first)
    assert len(made.cases) == 5
    assert made.scheme == cohort.scheme
    assert made.modalities == cohort.modalities
    assert made.shape == cohort.shape
    assert made.spacing_mm == cohort.spacing_mm
    rows = read_tsv(first / "participants.tsv")
    assert {row["source"] for row in rows} == {"recombine", "atlas"}
    for case, row in zip(made.cases, rows, strict=True):
        condition = case.condition(made.scheme)
        for modality in made.modalities:
            assert not np.asarray(case.image(modality))[condition == 0].any()
        found = describe_tumor(np.asarray(case.tumor_map()), case.affine, made.scheme)
        assert row["hemisphere"] == found.hemisphere == row["asked_hemisphere"]
        assert float(row["volume_ml"]) == pytest.approx(found.volume_ml, abs=0.06)
        assert (first / "figures" / f"sub-{case.subject}.png").is_file()


def test_a_label_map_does_not_depend_on_those_made_before(cohort: Cohort) -> None:
    config = parse_config({**TINY, "generate": {**TINY["generate"], "label_sources": {"atlas": 1.0}}}, "tests").generate
    asked = make_plan(config, numpy_stream(1, "plan"))
    maps = [make_labels(LabelTask(a, (), cohort.scheme, Grid(cohort.shape, 8.0), config, 1)) for a in asked[:2]]
    again = make_labels(LabelTask(asked[1], (), cohort.scheme, Grid(cohort.shape, 8.0), config, 1))
    np.testing.assert_array_equal(again.tumor_map, maps[1].tumor_map)
    assert (maps[0].tumor_map != maps[1].tumor_map).any()


def test_recombining_one_person_is_refused(cohort: Cohort, generator: Generator, tmp_path: Path) -> None:
    config = GenerateSection(n_cases=2)
    with pytest.raises(ConfigError, match="recombine needs two persons, got 1"):
        generate_cohort(generator, cohort, cohort.cases[:1], config, CPU, 1, tmp_path / "out")


def test_labels_that_cannot_be_made_are_given_up_with_what_to_do(cohort: Cohort, tiny_config: MakeConfig) -> None:
    config = tiny_config(generate={"max_attempts": 3, "volume_edges_ml": [3000.0, 3500.0, 4000.0, 5000.0]}).generate
    for source in ("atlas", "recombine"):
        asked = AskedCase(1, source, "small", "left", 3200.0)
        with pytest.raises(CaseError, match="no label map with a small tumour in 3 attempts"):
            make_labels(LabelTask(asked, cohort.cases, cohort.scheme, Grid(cohort.shape, 8.0), config, 1))


def test_labels_that_miss_the_plan_are_kept_rather_than_none(
    cohort: Cohort, tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off_side(*_: object) -> LabelMaps:
        tissue, tumor = (np.zeros(cohort.shape, np.uint8) for _ in range(2))
        tumor[18:22, 10:14, 6:10] = 2
        return LabelMaps(tissue, tumor)

    monkeypatch.setattr(stage, "atlas_labels", off_side)
    task = LabelTask(ask(30.0, "left"), (), cohort.scheme, Grid(cohort.shape, 8.0), tiny_config().generate, 1)
    assert make_labels(task).tumor_map.sum() == 2 * 64
