"""Label scheme: classes, regions, the condition, translation from a source."""

import itertools
import math
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from pipeline.attributes import STRATA, CaseAttributes, count_foci, describe_tumor, tissue_contrast, volume_stratum
from pipeline.errors import ConfigError
from pipeline.labels import REGION_CLASSES, TUMOR_CLASSES, LabelScheme

SCHEMES = st.sets(st.sampled_from(TUMOR_CLASSES), min_size=1).map(lambda names: LabelScheme(tuple(sorted(names))))


@st.composite
def schemes_with_maps(draw):
    """Draw a scheme, a tissue map and a tumour map of it on the same small grid."""
    scheme = draw(SCHEMES)
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    tissue = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 3)))
    tumor = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, len(scheme.tumor))))
    return scheme, tissue, tumor


@given(schemes_with_maps())
def test_a_region_is_the_union_of_its_classes(drawn):
    scheme, _, tumor = drawn
    for region, names in REGION_CLASSES.items():
        present = [name for name in names if name in scheme.tumor]
        assert (region in scheme.regions) == bool(present)
        union = np.zeros(tumor.shape, bool)
        for name in present:
            union |= tumor == scheme.tumor_values[name]
        if present:
            np.testing.assert_array_equal(scheme.region_mask(tumor, region), union)


@given(schemes_with_maps())
def test_enhancing_lies_in_core_and_core_in_whole_tumour(drawn):
    scheme, _, tumor = drawn
    masks = [scheme.region_mask(tumor, region) for region in ("ET", "TC", "WT") if region in scheme.regions]
    for inner, outer in itertools.pairwise(masks):
        assert not (inner & ~outer).any()
    np.testing.assert_array_equal(masks[-1], tumor > 0)


@given(schemes_with_maps())
def test_splitting_undoes_combining(drawn):
    scheme, tissue, tumor = drawn
    condition = scheme.combine(tissue, tumor)
    assert condition.dtype == np.uint8
    assert condition.max() < scheme.n_condition_classes
    tissue_again, tumor_again = scheme.split(condition)
    np.testing.assert_array_equal(tumor_again, tumor)
    np.testing.assert_array_equal(tissue_again, np.where(tumor > 0, 0, tissue))


def test_the_condition_of_the_full_scheme_is_what_one_writes_down_by_hand():
    scheme = LabelScheme()
    tissue = np.array([0, 1, 2, 3, 3, 2, 0], np.uint8)
    tumor = np.array([0, 0, 0, 0, 1, 2, 3], np.uint8)
    assert scheme.combine(tissue, tumor).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert scheme.condition_names == (
        "background",
        "csf",
        "grey_matter",
        "white_matter",
        "necrotic_core",
        "oedema",
        "enhancing",
    )
    assert scheme.n_condition_classes == 7
    assert scheme.regions == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


def test_a_scheme_with_fewer_classes_numbers_them_without_gaps_and_drops_empty_regions():
    scheme = LabelScheme(("oedema", "necrotic_core"))
    assert scheme.tumor == ("necrotic_core", "oedema")
    assert scheme.tumor_values == {"necrotic_core": 1, "oedema": 2}
    assert scheme.regions == {"WT": (1, 2), "TC": (1,)}
    assert scheme.n_condition_classes == 6
    assert LabelScheme(("oedema",)).regions == {"WT": (1,)}


@pytest.mark.parametrize(("classes", "named"), [(("oedema", "cyst"), "cyst"), ((), "none")])
def test_an_unknown_class_or_none_at_all_is_refused(classes, named):
    with pytest.raises(ConfigError, match=named) as caught:
        LabelScheme(classes)
    assert "necrotic_core, oedema, enhancing" in str(caught.value)


def test_source_values_are_translated_by_name_and_unclaimed_ones_become_background():
    scheme = LabelScheme()
    source = np.array([0, 1, 2, 4, 5, 9], np.int16)
    rules = {"oedema": [2], "necrotic_core": [1, 5], "enhancing": [4]}
    translated = scheme.from_source(source, rules)
    assert translated.dtype == np.uint8
    assert translated.tolist() == [0, 1, 2, 3, 1, 0]


def test_a_tumour_is_described_by_volume_side_and_enhancing_share():
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    affine[:3, 3] = [-9.0, -9.0, -10.0]
    tumor = np.zeros((10, 10, 5), np.uint8)
    tumor[1:3, 4, 2], tumor[3, 4, 2], tumor[4, 4, 2] = 2, 3, 3
    # Voxels of 20 mm^3 = .02 ml; x indices 1 to 4 lie at -7 to -1 mm: left.
    brain = np.ones(tumor.shape, bool)
    attributes = describe_tumor(tumor, brain, affine, LabelScheme())
    assert attributes.volume_ml == pytest.approx(0.08)
    columns = attributes.columns()
    assert columns == {
        "volume_ml": "0.1",
        "hemisphere": "left",
        "lobe": "deep",
        "enhancing_share": "0.50",
        "n_foci": "1",
        "contrast": "nan",
    }
    known = replace(attributes, contrast=12.34)
    assert CaseAttributes.from_columns(known.columns()) == replace(known, volume_ml=0.1, contrast=12.3)
    assert describe_tumor(tumor[::-1], brain, affine, LabelScheme()).hemisphere == "right"
    one_class = (tumor > 0).astype(np.uint8)
    assert describe_tumor(one_class, brain, affine, LabelScheme(("oedema",))).enhancing_share == 0.0


def test_contrast_is_white_less_grey_matter_and_unknown_without_either():
    image, tissue = np.array([5, 100, 300, 600, 800], np.int16), np.array([0, 1, 2, 3, 3], np.uint8)
    assert tissue_contrast(image, tissue) == 400.0
    assert math.isnan(tissue_contrast(image[:3], tissue[:3]))


def test_foci_are_parts_of_half_a_millilitre_that_no_corner_connects():
    tumor = np.zeros((12, 12, 12), bool)
    tumor[:4, :4, :4] = True
    assert count_foci(tumor, 0.01) == 1
    tumor[4:8, 4:8, 4:8] = True
    assert count_foci(tumor, 0.01) == 1
    tumor[9:, 9:, 9:] = True
    # 27 voxels of .01 ml are a speck; of .02 ml they are not.
    assert count_foci(tumor, 0.01) == 1
    assert count_foci(tumor, 0.02) == 2
    assert count_foci(tumor[:1, :1, :1], 0.001) == 1


def test_strata_of_a_tumour_have_their_edges():
    edges = ((5.0, 25.0, 60.0, 120.0), (0.02, 0.2))
    tumor = CaseAttributes(30.0, "left", "frontal", 0.1, 1)
    expected = {"volume": "medium", "hemisphere": "left", "lobe": "frontal", "enhancing": "some", "foci": "one"}
    assert tumor.strata(*edges) == expected
    assert [*expected, "contrast"] == list(STRATA)
    for contrast, stratum in ((99.9, "low"), (100.0, "middle"), (149.0, "middle"), (150.0, "high")):
        found = replace(tumor, contrast=contrast).strata(*edges, (100.0, 150.0))
        assert found == expected | {"contrast": stratum}
    assert tumor.strata(*edges, (100.0, 150.0)) == expected
    assert replace(tumor, enhancing_share=0.019, n_foci=3).strata(*edges) == expected | {
        "enhancing": "none",
        "foci": "several",
    }
    assert replace(tumor, enhancing_share=0.2).strata(*edges)["enhancing"] == "strong"


@pytest.mark.parametrize(
    ("volume_ml", "stratum"),
    [(1, "small"), (5, "small"), (24.9, "small"), (25, "medium"), (59, "medium"), (60, "large"), (500, "large")],
)
def test_a_volume_falls_into_its_stratum_and_beyond_the_ends_into_the_last(volume_ml, stratum):
    assert volume_stratum(volume_ml, (5.0, 25.0, 60.0, 120.0)) == stratum
