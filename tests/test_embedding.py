"""The embedding: blind to brightness and contrast, not to the person."""

import numpy as np
import pytest
from audit_builders import read_images

from pipeline.cohort import Cohort
from pipeline.embedding import embed_case, embed_scan, mirror_scan


def test_embedding_does_not_see_brightness_and_contrast_but_sees_the_person(cohort: Cohort) -> None:
    first, second = cohort.cases[:2]
    images, brain = read_images(first, cohort)
    embedded = embed_scan(images, brain, 8.0)
    assert np.linalg.norm(embedded) == pytest.approx(1.0)
    np.testing.assert_allclose(embed_scan(images * 0.5 + 70, brain, 8.0), embedded, atol=1e-5)
    np.testing.assert_allclose(embed_case(first, cohort.modalities, 8.0), embedded, atol=1e-6)
    assert embedded @ embed_case(second, cohort.modalities, 8.0) < 0.95
    twice_mirrored = mirror_scan(*mirror_scan(images, brain))
    np.testing.assert_array_equal(embed_scan(*twice_mirrored, 8.0), embedded)
