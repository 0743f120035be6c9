"""Composition of a tumour: as much enhancement as asked for, from where it is found, the outline untouched."""

import numpy as np
import pytest
from conftest import ask, rng
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.generate.composition import draw_core, largest, set_enhancing
from pipeline.labels import LabelScheme

SCHEME = LabelScheme()


def onion(radii=(3, 5, 9), shape=(24, 24, 24)):
    """Return a tumour of necrosis within enhancement within oedema."""
    distance = np.linalg.norm((np.indices(shape).T - (np.array(shape) - 1) / 2).T, axis=0)
    return np.select([distance < radii[0], distance < radii[1], distance < radii[2]], [1, 3, 2], 0).astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.sampled_from([(3, 5, 9), (0, 0, 9), (0, 6, 9), (6, 6, 9), (5, 7, 7)]))
def test_a_tumour_enhances_as_much_as_asked_for_and_keeps_its_outline(share, radii):
    before = onion(radii)
    changed = set_enhancing(before, share, SCHEME)
    np.testing.assert_array_equal(changed > 0, before > 0)
    assert abs((changed == 3).sum() - share * (before > 0).sum()) <= 1


def test_less_enhancement_leaves_the_rim_and_more_takes_what_is_nearest_to_the_core():
    before = onion()
    share = (before == 3).sum() / (before > 0).sum()
    np.testing.assert_array_equal(set_enhancing(before, share, SCHEME), before)
    core = np.isin(before, (1, 3))
    depth = ndimage.distance_transform_edt(core)
    less = set_enhancing(before, share / 3, SCHEME)
    assert depth[less == 3].max() <= depth[(before == 3) & (less == 1)].min()
    more = set_enhancing(before, 0.9, SCHEME)
    assert not (more == 1).any()
    distance = ndimage.distance_transform_edt(~core)
    assert distance[more == 3].max() <= distance[more == 2].min()


def test_schemes_without_a_class_are_left_alone_or_use_what_they_have():
    tumor = (onion() > 0).astype(np.uint8)
    np.testing.assert_array_equal(set_enhancing(tumor, 0.5, LabelScheme(("oedema",))), tumor)
    np.testing.assert_array_equal(set_enhancing(tumor, 0.5, LabelScheme(("enhancing",))), tumor)
    # Oedema 1, enhancing 2: what is too much becomes oedema.
    two = np.where(onion() > 0, 2, 0).astype(np.uint8)
    changed = set_enhancing(two, 0.25, LabelScheme(("oedema", "enhancing")))
    assert abs((changed == 2).sum() - 0.25 * (two > 0).sum()) <= 1


@pytest.mark.parametrize("share", [None, 0.0, 0.1, 0.4])
def test_a_core_is_drawn_around_what_enhances(share):
    for seed in range(50):
        core, enhancing = draw_core(ask(30.0, enhancing_share=share), rng(seed))
        assert 0 <= enhancing <= core <= 0.9
        if share is not None:
            assert enhancing == share


def test_the_largest_values_are_as_many_as_asked_for():
    values = rng().normal(size=(4, 5, 6))
    assert not largest(values, 0).any()
    chosen = largest(values, 7)
    assert chosen.sum() == 7
    assert values[chosen].min() > values[~chosen].max()
