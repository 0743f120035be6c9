"""The arms: what each segmenter is trained on.

Arms differ in nothing but their scans and their augmentation: same network, steps, seeds, validation patients, and the
same slices of real patients at each step (:mod:`pipeline.segmentation.sampling`).

References
----------
Shin et al. 2018, "Medical image synthesis for data augmentation and anonymization using GANs",
doi:10.1007/978-3-030-00536-8_1 (all but the last two arms).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.cohort import Case
from pipeline.config_evaluate import ArmName, AugmentationSection, EvaluateSection, Schedule
from pipeline.errors import DataError
from pipeline.seeds import numpy_stream

AUGMENTED = "varied at random (turned, scaled, blurred, brightened and the like)"


@dataclass(frozen=True)
class ArmDesign:
    """What an arm is made of.

    Parameters
    ----------
    meaning : str
        In words, for a reader of the report.
    uses_real : bool
    synthetic : str
        ``none``, ``scans``, or ``label maps``, which are rendered with random contrasts.
    pretrains : bool
        Whether synthetic scans come first and real ones after, whatever the schedule of the mixed arms.
    pastes : bool
        Whether tumours of real patients are pasted into other real patients.
    augments : bool
        Whether ordinary augmentation is on.
    """

    meaning: str
    uses_real: bool = True
    synthetic: Literal["none", "scans", "label maps"] = "none"
    pretrains: bool = False
    pastes: bool = False
    augments: bool = False


DESIGNS: dict[ArmName, ArmDesign] = {
    "real": ArmDesign("real scans, as they are"),
    "real-aug": ArmDesign(f"real scans, {AUGMENTED}", augments=True),
    "real-syn": ArmDesign("real and synthetic scans, as they are", synthetic="scans"),
    "real-syn-aug": ArmDesign(f"real and synthetic scans, {AUGMENTED}", synthetic="scans", augments=True),
    "syn": ArmDesign("synthetic scans alone, as they are", uses_real=False, synthetic="scans"),
    "syn-aug": ArmDesign(f"synthetic scans alone, {AUGMENTED}", uses_real=False, synthetic="scans", augments=True),
    "syn-ft": ArmDesign("synthetic scans first, then real ones, as they are", synthetic="scans", pretrains=True),
    "syn-ft-aug": ArmDesign(
        f"synthetic scans first, then real ones, {AUGMENTED}", synthetic="scans", pretrains=True, augments=True
    ),
    "copypaste-aug": ArmDesign(
        f"real scans, with tumours of other patients pasted in, {AUGMENTED}; no generator", pastes=True, augments=True
    ),
    "random-contrast-aug": ArmDesign(
        f"real scans, and synthetic label maps painted in random contrasts, {AUGMENTED}; no generator of scans",
        synthetic="label maps",
        augments=True,
    ),
}


# Of each thing that is mixed into real scans, the arm whose search decides for all arms with it.
DECIDING_ARMS: dict[str, ArmName] = {"scans": "real-syn-aug", "label maps": "random-contrast-aug"}
PASTING_ARM: ArmName = "copypaste-aug"


def deciding_arm(name: ArmName) -> ArmName | None:
    """Return the arm whose search decides what is mixed into an arm; None where nothing is."""
    return PASTING_ARM if DESIGNS[name].pastes else DECIDING_ARMS.get(DESIGNS[name].synthetic)


@dataclass(frozen=True)
class Mixing:
    """What is mixed into real scans; one choice for all arms that mix in the same.

    Parameters
    ----------
    synthetic_share : float
        Share of the slices that are synthetic, over the whole training.
    schedule : str
        ``mixed``: that share of every batch; ``synthetic-first``: whole batches for that share of the steps, and real
        ones after.
    n_synthetic : int or None
        Number of synthetic cases; None: all.
    paste_share : float
        Share of the real slices into which another patient's tumour is to be pasted.
    """

    synthetic_share: float = 0.0
    schedule: Schedule = "mixed"
    n_synthetic: int | None = None
    paste_share: float = 0.0

    def share_at(self, progress: float) -> float:
        """Return the synthetic share of a batch, at a point of the training in [0, 1)."""
        if self.schedule == "mixed":
            return self.synthetic_share
        return 1.0 if progress < self.synthetic_share else 0.0


UNMIXED = Mixing()


@dataclass(frozen=True)
class Arm:
    """One arm at one share of the real patients, of one draw of them, with the scans of one generator; to be trained.

    Parameters
    ----------
    name : str
    share : float
        Of the real training patients; 0 for an arm that uses none.
    real_cases : tuple of Case
        Of that share.
    augmentation : AugmentationSection
        Off in arms without.
    synthetic_cases : tuple of Case
        Empty where the arm does not use them.
    number : int
        Of the draw of real patients, and of the generator that was trained on them and made the synthetic cases.
    mixing : Mixing
    is_rendered : bool
        Whether of the synthetic cases only the label maps are used, rendered with random contrasts.
    """

    name: ArmName
    share: float
    real_cases: tuple[Case, ...]
    augmentation: AugmentationSection
    synthetic_cases: tuple[Case, ...] = ()
    number: int = 0
    mixing: Mixing = UNMIXED
    is_rendered: bool = False

    @property
    def title(self) -> str:
        """Name and share, as folders and curves are called."""
        return f"{self.name}-{self.share:g}"


def list_arms(config: EvaluateSection) -> tuple[tuple[ArmName, float], ...]:
    """Return the arms to train, each with each share of the real patients; those without real scans once, with 0."""
    everything = [(name, share if DESIGNS[name].uses_real else 0.0) for name in config.arms for share in config.shares]
    return tuple(dict.fromkeys(everything))


def choose_real_cases(cases: Sequence[Case], share: float, seed: int, number: int = 0) -> tuple[Case, ...]:
    """Draw the share of real training patients that every arm uses.

    Parameters
    ----------
    cases : sequence of Case
        The train side.
    share : float
        In (0, 1]; of one draw a smaller share is a subset of a larger one.
    seed : int
    number : int
        Of the draw.

    Returns
    -------
    tuple of Case
        All scans of the chosen patients, at least of one, in the order given.
    """
    persons = sorted({case.person for case in cases})
    order = numpy_stream(seed, "real cases", number).permutation(len(persons))
    chosen = {persons[int(index)] for index in order[: max(1, round(share * len(persons)))]}
    return tuple(case for case in cases if case.person in chosen)


def choose_synthetic_cases(cases: Sequence[Case], n: int | None, seed: int) -> tuple[Case, ...]:
    """Choose n synthetic cases, fewer being a subset of more; all for None.

    Raises
    ------
    DataError
        If there are fewer.
    """
    if n is None:
        return tuple(cases)
    if n > len(cases):
        raise DataError(
            f"evaluate.search.n_synthetic: expected at most the {len(cases)} synthetic cases that there are, got {n}; "
            "ask for fewer, or raise generate.n_cases"
        )
    chosen = sorted(numpy_stream(seed, "synthetic cases").permutation(len(cases))[:n])
    return tuple(cases[int(index)] for index in chosen)


def make_arm(
    name: ArmName,
    share: float,
    real_cases: Sequence[Case],
    synthetic_cases: Sequence[Case],
    mixing: Mixing,
    config: EvaluateSection,
    number: int = 0,
) -> Arm:
    """Put an arm together.

    Parameters
    ----------
    name : str
    share : float
        Of the real training patients, as :func:`list_arms` gives it.
    real_cases : sequence of Case
        As :func:`choose_real_cases` gives them for the share; not looked at in an arm without.
    synthetic_cases : sequence of Case
        As :func:`choose_synthetic_cases` gives them.
    mixing : Mixing
        As the search of its :func:`deciding_arm` chose; not looked at in an arm that mixes nothing in.
    config : EvaluateSection
    number : int
        Of the draw of real patients, and of the generator that made the synthetic cases.

    Returns
    -------
    Arm

    Raises
    ------
    DataError
        If there are no cases of a kind that the arm uses, or only one patient where tumours are to be pasted.
    """
    design = DESIGNS[name]
    real = tuple(real_cases) if design.uses_real else ()
    synthetic = tuple(synthetic_cases) if design.synthetic != "none" else ()
    for kind, uses, cases in (("real", design.uses_real, real), ("synthetic", design.synthetic != "none", synthetic)):
        if uses and not cases:
            raise DataError(f"arm {name}: expected {kind} training cases, got none; run the stages before again")
    if design.pastes and len({case.person for case in real}) < 2:
        raise DataError(
            f"arm {name} at share {share:g}: expected at least two real training patients, one to paste from, got one; "
            "leave the share or the arm out"
        )
    if not design.uses_real:
        mixing = Mixing(1.0, n_synthetic=mixing.n_synthetic)
    elif design.pretrains:
        mixing = Mixing(config.pretraining_share, "synthetic-first", mixing.n_synthetic)
    return Arm(
        name=name,
        share=share,
        real_cases=real,
        augmentation=config.augmentation if design.augments else AugmentationSection.off(),
        synthetic_cases=synthetic,
        number=number,
        mixing=mixing if synthetic or design.pastes else UNMIXED,
        is_rendered=design.synthetic == "label maps",
    )
