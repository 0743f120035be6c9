"""The attack by reconstruction: it sees a generator that remembers, and none that does not."""

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from audit_builders import N_MEMBERS, read_images, reference_of, setting_of
from numpy.typing import NDArray

from pipeline.audit.attacks import reconstruction
from pipeline.audit.targets import Release
from pipeline.audit.views import view_targets
from pipeline.cohort import Case, Cohort
from pipeline.statistics import auc


def memory_of(cases: Sequence[Case], cohort: Cohort) -> dict[bytes, NDArray[np.float32]]:
    """Return the scans of cases in [-1, 1] by their label maps."""
    return {case.condition(cohort.scheme).tobytes(): read_images(case, cohort)[0] / 500 - 1 for case in cases}


def class_means(cohort: Cohort) -> NDArray[np.float32]:
    """Return the mean intensity of each class over val patients: (modalities, classes)."""
    means = []
    for case in cohort.split("val"):
        images, condition = read_images(case, cohort)[0], case.condition(cohort.scheme)
        means.append([[image[condition == c].mean() for c in range(7)] for image in images])
    return np.mean(means, axis=0)


@pytest.fixture
def remembering(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> dict[bytes, NDArray[np.float32]]:
    """Replace the rendering by what a generator with a memory does; return the memory, to be filled."""
    memory: dict[bytes, NDArray[np.float32]] = {}
    means = class_means(cohort)

    def render(generator: object, condition: NDArray[np.uint8], stream: object) -> NDArray[np.float32]:
        typical = means[:, condition] / 500 - 1
        remembered = memory.get(condition.tobytes())
        return typical if remembered is None else 0.7 * typical + 0.3 * remembered

    monkeypatch.setattr(reconstruction, "render_volume", render)
    return memory


def test_reconstruction_sees_a_generator_that_remembers_and_none_that_does_not(
    cohort: Cohort, remembering: dict[bytes, NDArray[np.float32]]
) -> None:
    members, others = cohort.split("train"), cohort.split("test")
    targets = view_targets((*members, *others), setting_of(cohort))
    reference = reference_of(cohort, targets)
    errors = partial(reconstruction.reconstruction_errors, generator=SimpleNamespace(), setting=setting_of(cohort))
    scores = reconstruction.reconstruction(targets, Release({}, errors), reference)
    assert 0.2 < auc(scores[:N_MEMBERS], scores[N_MEMBERS:]) < 0.8
    remembering.update(memory_of(members, cohort))
    scores = reconstruction.reconstruction(targets, Release({}, errors), reference)
    assert auc(scores[:N_MEMBERS], scores[N_MEMBERS:]) == 1.0


def test_reconstruction_error_is_the_best_of_the_styles_in_units_of_the_range(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cohort.split("train")[0]
    truth = read_images(case, cohort)[0] / 500 - 1
    off = iter([0.4, 0.1, 0.3])
    monkeypatch.setattr(reconstruction, "render_volume", lambda *_: truth + next(off))
    setting = setting_of(cohort, 3)
    errors = reconstruction.reconstruction_errors(view_targets([case], setting), SimpleNamespace(), setting)
    # The best is .1 off on a scale of length 2, .05 of the range.
    assert errors == pytest.approx([0.05], abs=1e-6)


def test_a_generic_model_predicts_better_than_the_mean(cohort: Cohort) -> None:
    setting = setting_of(cohort)
    weights = reconstruction.fit_generic_model(cohort.split("val"), setting)
    assert weights.shape == (4, 3 * cohort.scheme.n_condition_classes)
    errors = reconstruction.predictability_errors(view_targets(cohort.split("test"), setting), weights, setting)
    for case, error in zip(cohort.split("test"), errors, strict=True):
        images, brain = read_images(case, cohort)
        inside = images[:, brain] / 1000
        assert 0 < error < 0.7 * np.abs(inside - inside.mean(axis=1, keepdims=True)).mean()
