"""Cohorts of phantoms with a gain that is planted: what synthetic scans do to a segmenter is known beforehand.

Real patients are few. The synthetic cohort is made on purpose, without any generator: more phantoms like the real ones
with their own label maps help whoever has few; the same images with label maps of others teach what is wrong; copies of
the training patients bring nothing that was not there. An evaluation that is worth its name finds the first two, and
does not find the third. Everything lies on the working grid at once, so that no ingest is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.cohort import INTENSITY_MAX, CaseData, Int16Array, write_case, write_cohort_files
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.layout import FOLDERS
from pipeline.phantom.cohort import PhantomSubject, make_subject

# An evaluation's section, but for lengths: the smallest that shows what the synthetic cohort does.
EVALUATION: dict[str, Any] = {
    "arms": ["real", "real-syn"],
    "baseline": "real",
    "search": {"synthetic_shares": [0.5]},
    "filters": 8,
    "levels": 2,
    "learning_rate": 3e-3,
}
Effect = Literal["gain", "harm", "none"]
# Of the brain's intensities, the one that becomes white.
WHITE_PERCENTILE = 99.5


@dataclass(frozen=True)
class PlantedSizes:
    """Numbers of patients on each side of the split, and of synthetic cases.

    Parameters
    ----------
    n_train, n_val, n_test, n_synthetic : int
    spacing_mm : float
        Of the phantoms.
    """

    n_train: int = 1
    n_val: int = 2
    n_test: int = 10
    n_synthetic: int = 12
    spacing_mm: float = 6.0

    @property
    def splits(self) -> tuple[str, ...]:
        """Side of each real patient."""
        return ("train",) * self.n_train + ("val",) * self.n_val + ("test",) * self.n_test


def write_planted(run_dir: Path, effect: Effect, sizes: PlantedSizes, seed: int) -> None:
    """Write the folders of a run that an evaluation reads: the real cohort, and a synthetic one with a known effect.

    Parameters
    ----------
    run_dir : Path
    effect : str
        ``gain``: other phantoms with their own label maps; ``harm``: with those of one another; ``none``: the training
        patients themselves, again and again.
    sizes : PlantedSizes
    seed : int
        Of the phantoms; real patients are the same whatever the effect.
    """
    real = [_make(number, seed, sizes) for number in range(len(sizes.splits))]
    _write(run_dir / FOLDERS["ingest"], real, sizes.splits)
    if effect == "none":
        synthetic = [real[number % sizes.n_train] for number in range(sizes.n_synthetic)]
    else:
        synthetic = [_make(len(real) + number, seed, sizes) for number in range(sizes.n_synthetic)]
    if effect == "harm":
        others = synthetic[-1:] + synthetic[:-1]
        synthetic = [_with_labels_of(one, other) for one, other in zip(synthetic, others, strict=True)]
    _write(run_dir / FOLDERS["generate"], synthetic, ("n/a",) * len(synthetic))


def _make(number: int, seed: int, sizes: PlantedSizes) -> PhantomSubject:
    return make_subject(number, seed, sizes.spacing_mm)


def _with_labels_of(subject: PhantomSubject, other: PhantomSubject) -> PhantomSubject:
    """Return a subject's images with the label maps of another one."""
    return replace(subject, tumor=other.tumor, tissue=other.tissue)


def _write(folder: Path, subjects: Sequence[PhantomSubject], splits: Sequence[str]) -> None:
    rows = []
    for number, (subject, split) in enumerate(zip(subjects, splits, strict=True)):
        name = f"{number:03d}"
        images = {modality: _scale(volume.array) for modality, volume in subject.images.items()}
        labels: tuple[UInt8Array, UInt8Array] = (subject.tissue.array, subject.tumor.array)
        write_case(folder, CaseData(name, images, *labels, subject.tumor.affine, {}))
        rows.append({"participant_id": f"sub-{name}", "source": "phantom", "split": split})
    write_cohort_files(folder, "planted", LabelScheme(), rows, "Phantoms with a planted gain.")


def _scale(image: Int16Array) -> Int16Array:
    """Bring an image to [0, 1000], 0 outside the brain and nowhere else."""
    brain = image > 0
    scaled = image * (INTENSITY_MAX / np.percentile(image[brain], WHITE_PERCENTILE))
    return np.where(brain, np.clip(np.rint(scaled), 1, INTENSITY_MAX), 0).astype(np.int16)
