"""Attack on the released generator: reconstruction.

The attacker has the generator, and of the person he asks about a scan with its label map. He renders the label map
with several styles and looks how near the best rendering comes to the scan. Some scans are easy to guess for anyone,
so he subtracts how well a generic model, made without any member, predicts the scan from the label map. A generator
that remembers a person comes nearer than that. He learns whether the person was in the training cohort.

References
----------
Hilprecht, Haertsch, Miller 2019, "Monte Carlo and reconstruction membership inference attacks against generative
models", doi:10.2478/popets-2019-0067. Shafran, Peleg, Hoshen 2021, "Membership inference attacks are easier on
difficult problems", doi:10.1109/ICCV48922.2021.01455 (the predictability term).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.audit.targets import Reference, Release, Targets
from pipeline.cohort import INTENSITY_MAX, Case
from pipeline.generate.sampling import render_volume
from pipeline.labels import LabelScheme
from pipeline.progress import progress
from pipeline.seeds import numpy_stream, torch_stream
from pipeline.train.data import one_hot
from pipeline.train.generator import Generator

NAME = "reconstruction"
TITLE = "reconstruction by the generator"
THREAT_MODEL = "model"
SMOOTHING_MM = (4.0, 10.0)
VOXELS_PER_CASE = 20_000
RIDGE = 1e-2


def reconstruction(targets: Targets, release: Release, reference: Reference) -> NDArray[np.float64]:
    """Score each target: (n_targets,), float64, higher = member."""
    errors = reconstruction_errors(targets, release.generator, reference)
    return predictability_errors(targets, reference) - errors


def reconstruction_errors(targets: Targets, generator: Generator, reference: Reference) -> NDArray[np.float64]:
    """Return the mean absolute error, in units of the intensity range, of the best of some renderings per target."""
    errors = np.empty(len(targets))
    with progress("reconstruct", len(targets)) as task:
        for index, case in enumerate(targets):
            condition = case.condition(reference.scheme)
            brain = condition > 0
            real = read_brain(case, reference, brain)
            draws = []
            for draw in range(reference.n_style_draws):
                # The same styles for every target: no target is given better luck.
                rendered = render_volume(generator, condition, torch_stream(reference.seed, "style", draw))
                draws.append(float(np.abs((rendered[:, brain] + 1) / 2 - real).mean()))
            errors[index] = min(draws)
            task.advance()
    return errors


def predictability_errors(targets: Targets, reference: Reference) -> NDArray[np.float64]:
    """Return the mean absolute error of a generic model per target: (n_targets,)."""
    known = reference.predictability
    if all(case.subject in known for case in targets):
        return np.array([known[case.subject] for case in targets])
    weights = fit_generic_model(reference)
    errors = np.empty(len(targets))
    with progress("predict", len(targets)) as task:
        for index, case in enumerate(targets):
            condition = case.condition(reference.scheme)
            brain = condition > 0
            features = context_features(condition, reference.scheme, case)[:, brain]
            errors[index] = np.abs(weights @ features - read_brain(case, reference, brain)).mean()
            task.advance()
    return errors


def fit_generic_model(reference: Reference) -> NDArray[np.float64]:
    """Fit intensities to the label map's surroundings by ridge regression on val patients: (modalities, features)."""
    inputs, outputs = [], []
    for index, case in enumerate(reference.cases):
        condition = case.condition(reference.scheme)
        brain = condition > 0
        features = context_features(condition, reference.scheme, case)[:, brain]
        stream = numpy_stream(reference.seed, "generic", index)
        picks = stream.integers(features.shape[1], size=min(VOXELS_PER_CASE, features.shape[1]))
        inputs.append(features[:, picks])
        outputs.append(read_brain(case, reference, brain)[:, picks])
    x, y = np.concatenate(inputs, axis=1), np.concatenate(outputs, axis=1)
    gram = x @ x.T + RIDGE * x.shape[1] * np.eye(len(x))
    weights: NDArray[np.float64] = np.linalg.solve(gram, x @ y.T).T
    return weights


def context_features(condition: NDArray[np.uint8], scheme: LabelScheme, case: Case) -> NDArray[np.float64]:
    """Return each voxel's class and the shares of classes around it at two scales: (features, x, y, z)."""
    code = one_hot(condition, scheme.n_condition_classes).astype(np.float64)
    spacing_mm = abs(float(case.affine[0, 0]))
    around = [ndimage.gaussian_filter(code, (0, *[s / spacing_mm] * 3)) for s in SMOOTHING_MM]
    return np.concatenate([code, *around])


def read_brain(case: Case, reference: Reference, brain: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the intensities within the brain: (modalities, voxels), in [0, 1]."""
    return np.stack([np.asarray(case.image(name))[brain] for name in reference.modalities]) / INTENSITY_MAX
