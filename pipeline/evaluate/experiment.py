"""What the trainings of an evaluation share: cohorts, field of view, and the arms at each share."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from pipeline.cohort import Case, Cohort, open_cohort
from pipeline.config_evaluate import ArmName
from pipeline.errors import DataError
from pipeline.evaluate.cohorts import (
    OWN,
    Origin,
    SyntheticCohort,
    choose_members,
    make_synthetic_cohorts,
    open_own,
    origin_of,
)
from pipeline.evaluate.received import ReceivedRelease
from pipeline.runner import StageContext
from pipeline.segmentation.arms import (
    DESIGNS,
    UNMIXED,
    Arm,
    Mixing,
    choose_synthetic_cases,
    deciding_arm,
    list_arms,
    make_arm,
)
from pipeline.segmentation.scans import ScanPool, Window
from pipeline.segmentation.segmenter import check_val

MAX_PICTURED = 4


@dataclass(frozen=True)
class Experiment:
    """What all trainings share.

    Parameters
    ----------
    real : Cohort
    synthetic : mapping of Origin to SyntheticCohort
        Synthetic cohorts, by share and generator.
    scans : ScanPool
        Training scans, opened once.
    window : tuple of slice
        Field of view that holds every training scan; the same in each arm.
    pictured : tuple of Case
        Test patients that are shown, from the smallest to the largest tumour.
    received : ReceivedRelease, optional
        Whose cohort is the synthetic one.
    """

    real: Cohort
    synthetic: Mapping[Origin, SyntheticCohort]
    scans: ScanPool
    window: Window
    pictured: tuple[Case, ...]
    received: ReceivedRelease | None = None


def open_experiment(context: StageContext) -> Experiment:
    """Open the cohorts, make those of further generators, and fit the field of view.

    Raises
    ------
    DataError
        If the real cohort has no train, val or test patients, an arm has too few cases of a kind, the synthetic cohort
        differs in grid, classes or modalities, or a received release is not intact.
    ConfigError
        If a share has too few persons for a generator.
    """
    config = context.config.evaluate
    real, (own, received) = open_cohort(context.folder("ingest")), open_own(context)
    check_cohorts(real, own, is_received=config.received_release is not None)
    check_arms(context, real, own)
    synthetic = make_synthetic_cohorts(context, real, own)
    scans = ScanPool(real.modalities)
    # Of all training scans, whichever arms are trained: a field of view that differed would be one more difference.
    draws = (choose_real(context, real, max(config.shares), number) for number in range(config.n_generators))
    cases = [
        *{case.subject: case for draw in draws for case in draw}.values(),
        *(case for one in synthetic.values() for case in one.cohort.cases),
    ]
    window = scans.fit_window(cases, config.dimensions, 2**config.levels)
    return Experiment(real, synthetic, scans, window, choose_pictured(real.patients("test")), received)


def choose_real(context: StageContext, real: Cohort, share: float, number: int) -> tuple[Case, ...]:
    """Return the real training cases of a draw of a share that lack no modality."""
    return real.complete(choose_members(real, share, context.seed, number))


def choose_synthetic(
    context: StageContext, experiment: Experiment, share: float, number: int, n: int | None
) -> tuple[Case, ...]:
    """Return the synthetic cases of an arm at a share, made by one of the generators; see :func:`origin_of`.

    Parameters
    ----------
    context : StageContext
    experiment : Experiment
    share : float
    number : int
        Of the generator.
    n : int or None
        Number of cases; None: all. A further generator, more of whose cases were refused, may have fewer.
    """
    origin = origin_of(context.config.evaluate, share, number)
    cases = experiment.synthetic[origin].cohort.cases
    return choose_synthetic_cases(cases, n if n is None or origin == OWN else min(n, len(cases)), context.seed)


def make_arms(
    context: StageContext, experiment: Experiment, chosen: Mapping[ArmName, Mixing]
) -> tuple[tuple[Arm, ...], ...]:
    """Put the arms together, each at each share; those without real scans once, at share 0.

    Parameters
    ----------
    context : StageContext
    experiment : Experiment
    chosen : mapping of str to Mixing
        What the search of each deciding arm chose.

    Returns
    -------
    tuple of tuple of Arm
        Of each arm and share what its trainings take in turn: one for each generator and draw of patients, or one alone
        where all are the same, as in arms of all patients without a synthetic cohort.
    """
    config = context.config.evaluate
    return tuple(
        tuple(
            make_arm_of(context, experiment, name, share, chosen, number)
            for number in range(config.n_generators if share < 1.0 or DESIGNS[name].synthetic != "none" else 1)
        )
        for name, share in list_arms(config)
    )


def make_arm_of(
    context: StageContext,
    experiment: Experiment,
    name: ArmName,
    share: float,
    chosen: Mapping[ArmName, Mixing],
    number: int = 0,
) -> Arm:
    """Put an arm at a share together, of one of the draws of patients and with the scans of their generator."""
    decides = deciding_arm(name)
    mixing = UNMIXED if decides is None else chosen[decides]
    is_synthetic = DESIGNS[name].synthetic != "none"
    synthetic = choose_synthetic(context, experiment, share, number, mixing.n_synthetic) if is_synthetic else ()
    real = choose_real(context, experiment.real, share, number) if DESIGNS[name].uses_real else ()
    return make_arm(name, share, real, synthetic, mixing, context.config.evaluate, number)


def check_cohorts(real: Cohort, synthetic: Cohort, is_received: bool = False) -> None:
    """Raise DataError if arms cannot be trained and compared on these cohorts."""
    cure = "ingest your scans at its spacing_mm and size_voxels" if is_received else "run the stage generate again"
    for side in ("train", "val", "test"):
        if not real.split(side):
            raise DataError(f"no {side} patients; expected at least one; change `ingest.split` or add scans")
    check_val(real.patients("val"))
    for what, of_real, of_synthetic in (
        ("grid", real.shape, synthetic.shape),
        ("spacing in mm", round(real.spacing_mm, 3), round(synthetic.spacing_mm, 3)),
        ("tumour classes", real.scheme.tumor, synthetic.scheme.tumor),
        ("modalities", real.modalities, synthetic.modalities),
    ):
        if of_real != of_synthetic:
            raise DataError(
                f"{what} of the synthetic cohort; expected the real cohort's {of_real}, got {of_synthetic}; {cure}"
            )


def check_arms(context: StageContext, real: Cohort, own: Cohort) -> None:
    """Refuse now what would be refused after hours of training generators: too few cases of a kind for an arm.

    Raises
    ------
    DataError
    """
    config = context.config.evaluate
    n_synthetic = max((n for n in config.search.n_synthetic if n != "all"), default=None)
    synthetic = choose_synthetic_cases(own.cases, n_synthetic, context.seed)
    for (name, share), number in product(list_arms(config), range(config.n_generators)):
        make_arm(name, share, choose_real(context, real, share, number) if share else (), synthetic, UNMIXED, config)


def choose_pictured(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """Choose the patients to show, evenly over tumour size."""
    sizes = [int((case.tumor_map() > 0).sum()) for case in cases]
    order = np.argsort(sizes, kind="stable")
    places = np.unique(np.linspace(0, len(cases) - 1, min(MAX_PICTURED, len(cases))).round().astype(int))
    return tuple(cases[order[place]] for place in places)
