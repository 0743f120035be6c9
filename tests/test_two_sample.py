"""Two-sample test: .5 for two samples of one kind, near 1 for a difference that a reader would see; by patient."""

import numpy as np
import torch
from scipy import ndimage

from pipeline.generate import two_sample
from pipeline.generate.two_sample import two_sample_auc

CPU = torch.device("cpu")


def patients(n, seed, sigma=1.0):
    """Return n patients of six slices of smooth noise each, patients of their own brightness."""
    stream = np.random.default_rng(seed)
    scans = ndimage.gaussian_filter(stream.normal(size=(n, 6, 2, 24, 24)), (0, 0, 0, sigma, sigma))
    brightness = stream.normal(500, 60, (n, 1, 1, 1, 1))
    return list(np.clip(brightness + 100 * scans / scans.std(), 0, 1000).astype(np.float32))


def test_samples_of_one_kind_are_not_told_apart():
    values = [two_sample_auc(patients(12, s), patients(12, s + 100), 25, s, CPU) for s in range(3)]
    # By the null's standard error of .12 at 12 a side, the mean of three lies within .2 of a half.
    assert abs(np.mean([estimate.value for estimate in values]) - 0.5) < 0.2
    assert all(estimate.ci[0] <= estimate.value <= estimate.ci[1] for estimate in values)


def test_blurred_slices_are_told_apart_and_the_second_sample_is_called_so():
    found = two_sample_auc(patients(12, 1), patients(12, 2, sigma=1.6), 60, 0, CPU)
    assert found.value > 0.9
    assert found == two_sample_auc(patients(12, 1), patients(12, 2, sigma=1.6), 60, 0, CPU)


def test_one_patients_slices_are_never_on_both_sides_of_a_fold(monkeypatch):
    trained, judged = [], []
    monkeypatch.setattr(two_sample, "_train", lambda first, second, *_: trained.append((first, second)))
    monkeypatch.setattr(two_sample, "_judge", lambda _, scans, __: judged.append((len(trained), scans)) or 0.5)
    sides = patients(9, 1), patients(9, 2)
    two_sample_auc(*sides, 1, 0, CPU)
    assert len(judged) == 18
    for n_trained, scans in judged:
        known = np.concatenate(trained[n_trained - 1])
        assert len(known) >= 6 * 12
        assert not (known == scans[0]).all(axis=(1, 2, 3)).any()
