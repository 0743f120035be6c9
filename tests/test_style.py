"""Style: what differs between scanners becomes a short code that names nobody."""

import numpy as np
import pytest

from pipeline.train.style import PERSONS_PER_ENTRY, encode_styles, measure_style


def scan(levels, noise=0.0, seed=0):
    tissue = np.zeros((12, 12, 12), np.uint8)
    tissue[1:4], tissue[4:8], tissue[8:11] = 1, 2, 3
    image = np.array([0, *levels], float)[tissue]
    image += noise * np.random.default_rng(seed).normal(size=image.shape) * (tissue > 0)
    return image.astype(np.int16), tissue


def test_style_is_the_brightness_of_each_tissue_and_the_noise():
    image, tissue = scan((100, 300, 500))
    np.testing.assert_allclose(measure_style([image, image * 2], tissue), [100, 300, 500, 0, 200, 600, 1000, 0])
    noisy, _ = scan((100, 300, 500), noise=20.0)
    # The mean absolute difference of two normal numbers is their deviation times 2 / sqrt(pi).
    assert measure_style([noisy], tissue)[3] == pytest.approx(20 * 2 / np.sqrt(np.pi), rel=0.1)
    assert np.isfinite(measure_style([image], np.where(tissue == 1, 0, tissue).astype(np.uint8))).all()
    assert np.isfinite(measure_style([image], np.zeros_like(tissue))).all()


def test_codes_are_uncorrelated_of_deviation_one_and_few():
    stream = np.random.default_rng(0)
    figures = stream.normal(size=(24, 3)) @ stream.normal(size=(3, 16)) * 50 + 400
    codes = encode_styles(figures, 24, 16)
    # Three things differ; 24 persons would bear six entries.
    assert codes.shape == (24, 3)
    np.testing.assert_allclose(codes.T @ codes / 24, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(codes.mean(axis=0), 0.0, atol=1e-9)
    varied = figures + stream.normal(size=figures.shape)
    assert encode_styles(varied, 24, 16).shape == (24, 24 // PERSONS_PER_ENTRY)
    assert encode_styles(varied, 24, 2).shape == (24, 2)
    # With few persons nothing is told of any.
    assert encode_styles(varied, PERSONS_PER_ENTRY - 1, 16).shape == (24, 0)
    assert encode_styles(np.ones((8, 16)), 8, 16).shape == (8, 0)


def test_the_first_entry_is_what_differs_most():
    stream = np.random.default_rng(1)
    brightness = stream.normal(size=12)
    figures = 400 + 100 * brightness[:, None] * np.ones(16) + stream.normal(size=(12, 16))
    codes = encode_styles(figures, 12, 16)
    assert abs(np.corrcoef(codes[:, 0], brightness)[0, 1]) > 0.999
