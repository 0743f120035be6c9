"""Tissue: told apart in any contrast, and not where there is nothing to tell apart."""

import numpy as np
import pytest
from conftest import toy_brain

from pipeline.errors import CaseError
from pipeline.ingest.tissue import classify_tissue


# On the finer grid, the classes' brightness is found on some of the voxels.
@pytest.mark.parametrize(("n", "spacing_mm"), [(24, 4.0), (48, 1.0)])
@pytest.mark.parametrize("modality", ["t1", "t2"])
def test_tissue_is_told_apart_whatever_the_order_of_brightness(modality, n, spacing_mm):
    images, tissue, tumor = toy_brain((n, n, n), np.random.default_rng(0))
    # A field that makes one side a third brighter than the other.
    field = np.linspace(0.85, 1.15, n)[:, None, None]
    brain = (tissue > 0) | (tumor > 0)
    arguments = ((images[modality] * field).astype(np.float32), modality, brain, tumor > 0, 0.1, spacing_mm)
    found = classify_tissue(*arguments)
    assert not found[~brain].any()
    assert not found[tumor > 0].any()
    assert (found[tissue > 0] > 0).all()
    for value in (1, 2, 3):
        overlap = 2 * ((found == value) & (tissue == value)).sum()
        assert overlap / ((found == value).sum() + (tissue == value).sum()) > 0.9
    np.testing.assert_array_equal(classify_tissue(*arguments), found)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:dipy")
def test_an_image_without_tissue_contrast_is_a_case_error():
    _, tissue, _ = toy_brain((24, 24, 24), np.random.default_rng(0))
    flat, none = (tissue > 0).astype(np.float32), np.zeros(tissue.shape, bool)
    with pytest.raises(CaseError, match="expected tissue contrast"):
        classify_tissue(flat, "t1", tissue > 0, none, 0.1, 4.0)


def test_a_brain_of_hardly_any_voxels_is_a_case_error():
    images, tissue, _ = toy_brain((24, 24, 24), np.random.default_rng(0))
    none = np.zeros(tissue.shape, bool)
    flat, dot = none.copy(), none.copy()
    flat[4:20, 4:20, 12], dot[10:13, 10:13, 10:13] = True, True
    for brain in (flat, dot):
        with pytest.raises(CaseError, match="voxels of healthy brain"):
            classify_tissue(images["t1"], "t1", brain, none, 0.1, 4.0)
