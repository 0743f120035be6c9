"""Attack on the released generator: reconstruction.

The attacker has the generator, and of the person he asks about a scan with its label map. He renders the label map
with several styles and looks how near the best rendering comes to the scan. Some scans are easy to guess for anyone,
so he subtracts how well a generic model, made without any member, predicts the scan from the label map. A generator
that remembers a person comes nearer than that. He learns whether the person was in the training cohort.

References
----------
Hilprecht, Haerterich, Bernau 2019, "Monte Carlo and reconstruction membership inference attacks against generative
models", doi:10.2478/popets-2019-0067. Shafran, Peleg, Hoshen 2021, "Membership inference attacks are easier on
difficult problems", doi:10.1109/ICCV48922.2021.01455 (the predictability term).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.audit.setting import Setting
from pipeline.audit.targets import Reference, Release, Scores, Targets
from pipeline.cohort import INTENSITY_MAX, Case
from pipeline.generate.sampling import render_volume
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.progress import progress
from pipeline.seeds import numpy_stream, torch_stream
from pipeline.train.data import one_hot
from pipeline.train.generator import Generator

SMOOTHING_MM = (4.0, 10.0)
VOXELS_PER_CASE = 20_000
RIDGE = 1e-2


def reconstruction(targets: Targets, release: Release, reference: Reference) -> Scores:
    """Score each target: (n,), float64, higher = member."""
    return reference.predict(targets) - release.reconstruct(targets)


def negative_errors(targets: Targets, release: Release, reference: Reference) -> Scores:
    """Return minus the error of the best reconstruction: what attacks with shadows start from, (n,)."""
    del reference
    return -release.reconstruct(targets)


def reconstruction_errors(targets: Targets, generator: Generator, setting: Setting) -> Scores:
    """Return the mean absolute error, in units of the intensity range, of the best of some renderings per target."""
    errors = np.empty(len(targets))
    with progress("reconstruct", len(targets)) as task:
        for index, case in enumerate(targets.cases):
            condition = case.condition(setting.scheme)
            brain = condition > 0
            real = read_brain(case, setting.modalities, brain)
            draws = []
            for draw in range(setting.n_style_draws):
                # The same styles for every target: no target is given better luck.
                rendered = render_volume(generator, condition, torch_stream(setting.seed, "style", draw))
                draws.append(float(np.abs((rendered[:, brain] + 1) / 2 - real).mean()))
            errors[index] = min(draws)
            task.advance()
    return errors


def predictability_errors(targets: Targets, weights: Scores, setting: Setting) -> Scores:
    """Return the mean absolute error of a generic model per target: (n,); see :func:`fit_generic_model`."""
    errors = np.empty(len(targets))
    with progress("predict", len(targets)) as task:
        for index, case in enumerate(targets.cases):
            condition = case.condition(setting.scheme)
            brain = condition > 0
            features = context_features(condition, setting.scheme, setting.spacing_mm)[:, brain]
            errors[index] = np.abs(weights @ features - read_brain(case, setting.modalities, brain)).mean()
            task.advance()
    return errors


def fit_generic_model(cases: Sequence[Case], setting: Setting) -> Scores:
    """Fit intensities to the label map's surroundings by ridge regression on val patients: (modalities, features)."""
    inputs, outputs = [], []
    for index, case in enumerate(cases):
        condition = case.condition(setting.scheme)
        brain = condition > 0
        features = context_features(condition, setting.scheme, setting.spacing_mm)[:, brain]
        stream = numpy_stream(setting.seed, "generic", index)
        picks = stream.integers(features.shape[1], size=min(VOXELS_PER_CASE, features.shape[1]))
        inputs.append(features[:, picks])
        outputs.append(read_brain(case, setting.modalities, brain)[:, picks])
    x, y = np.concatenate(inputs, axis=1), np.concatenate(outputs, axis=1)
    gram = x @ x.T + RIDGE * x.shape[1] * np.eye(len(x))
    weights: Scores = np.linalg.solve(gram, x @ y.T).T
    return weights


def context_features(condition: UInt8Array, scheme: LabelScheme, spacing_mm: float) -> NDArray[np.float64]:
    """Return each voxel's class and the shares of classes around it at two scales: (features, x, y, z)."""
    code = one_hot(condition, scheme.n_condition_classes).astype(np.float64)
    around = [ndimage.gaussian_filter(code, (0, *[s / spacing_mm] * 3)) for s in SMOOTHING_MM]
    return np.concatenate([code, *around])


def read_brain(case: Case, modalities: Sequence[str], brain: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the intensities within the brain: (modalities, voxels), in [0, 1]."""
    return np.stack([np.asarray(case.image(name))[brain] for name in modalities]) / INTENSITY_MAX
