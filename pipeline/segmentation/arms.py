"""The arms: what each segmenter is trained on, and how its batches are drawn.

Arms differ in nothing but their scans and their augmentation: same network, steps, seeds, validation patients.

References
----------
Shin et al. 2018, "Medical image synthesis for data augmentation and anonymization using GANs",
doi:10.1007/978-3-030-00536-8_1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cohort import INTENSITY_MAX, Case
from pipeline.config import ArmName, EvaluateSection
from pipeline.errors import DataError
from pipeline.labels import UInt8Array
from pipeline.seeds import numpy_stream

TUMOR_SHARE = 0.5
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Recipe:
    """What an arm is made of.

    Parameters
    ----------
    uses_real, uses_synthetic : bool
    augments : bool
        Whether ordinary augmentation is on.
    """

    uses_real: bool
    uses_synthetic: bool
    augments: bool


RECIPES: dict[ArmName, Recipe] = {
    "real": Recipe(uses_real=True, uses_synthetic=False, augments=False),
    "real-aug": Recipe(uses_real=True, uses_synthetic=False, augments=True),
    "real-syn": Recipe(uses_real=True, uses_synthetic=True, augments=False),
    "real-syn-aug": Recipe(uses_real=True, uses_synthetic=True, augments=True),
    "syn": Recipe(uses_real=False, uses_synthetic=True, augments=False),
}


@dataclass(frozen=True)
class Arm:
    """One arm, ready to be trained.

    Parameters
    ----------
    name : str
    real_cases, synthetic_cases : tuple of Case
        Empty where the arm does not use them.
    synthetic_share : float
        Share of the slices in a batch that are synthetic.
    augmentation_strength : float
        0 without ordinary augmentation.
    """

    name: ArmName
    real_cases: tuple[Case, ...]
    synthetic_cases: tuple[Case, ...]
    synthetic_share: float
    augmentation_strength: float


def choose_real_cases(cases: Sequence[Case], share: float, seed: int) -> tuple[Case, ...]:
    """Choose the share of real training patients that every arm uses.

    Parameters
    ----------
    cases : sequence of Case
        The train side.
    share : float
        In (0, 1]; a smaller share is a subset of a larger one.
    seed : int

    Returns
    -------
    tuple of Case
        All scans of the chosen patients, at least of one, in the order given.
    """
    persons = sorted({case.person for case in cases})
    order = numpy_stream(seed, "real cases").permutation(len(persons))
    chosen = {persons[int(index)] for index in order[: max(1, round(share * len(persons)))]}
    return tuple(case for case in cases if case.person in chosen)


def make_arm(
    name: ArmName, real_cases: Sequence[Case], synthetic_cases: Sequence[Case], config: EvaluateSection
) -> Arm:
    """Put an arm together.

    Parameters
    ----------
    name : str
    real_cases : sequence of Case
        Real training patients, as :func:`choose_real_cases` gives them.
    synthetic_cases : sequence of Case
        The synthetic cohort.
    config : EvaluateSection

    Returns
    -------
    Arm

    Raises
    ------
    DataError
        If there are no cases of a kind that the arm uses.
    """
    recipe = RECIPES[name]
    real = tuple(real_cases) if recipe.uses_real else ()
    synthetic = tuple(synthetic_cases) if recipe.uses_synthetic else ()
    for kind, uses, cases in (("real", recipe.uses_real, real), ("synthetic", recipe.uses_synthetic, synthetic)):
        if uses and not cases:
            raise DataError(f"arm {name}: expected {kind} training cases, got none; run the stages before again")
    mixed_share = config.synthetic_share if recipe.uses_real else 1.0
    return Arm(
        name=name,
        real_cases=real,
        synthetic_cases=synthetic,
        synthetic_share=mixed_share if recipe.uses_synthetic else 0.0,
        augmentation_strength=config.augmentation_strength if recipe.augments else 0.0,
    )


class OpenScan:
    """A training case whose files stay memory-mapped: opening them costs more than reading a slice.

    Parameters
    ----------
    case : Case
    modalities : sequence of str
    """

    def __init__(self, case: Case, modalities: Sequence[str]) -> None:
        self._images = [np.asarray(case.image(name)) for name in modalities]
        self._tumor_map = np.asarray(case.tumor_map())
        # One modality is enough to find the brain, and a quarter of the reading.
        brain = np.asarray(self._images[0] > 0, np.bool_)
        tumor = self._tumor_map > 0
        self.extent: NDArray[np.bool_] = np.any(brain | tumor, axis=2)
        self._brain_slices = np.flatnonzero(np.any(brain, axis=(0, 1)))
        self._tumor_slices = np.flatnonzero(tumor.any(axis=(0, 1)))

    def choose_slice(self, wants_tumor: bool, stream: np.random.Generator) -> int:
        """Draw an axial slice with tumour, or any with brain; one of the other kind where there is none."""
        pools = (self._tumor_slices, self._brain_slices)
        first, second = pools if wants_tumor else pools[::-1]
        pool = first if len(first) else second
        return int(stream.choice(pool)) if len(pool) else self._tumor_map.shape[2] // 2

    def read_slice(self, index: int, window: Window) -> tuple[NDArray[np.int16], UInt8Array]:
        """Read one slice within a window: (modalities, x, y), int16, and its tumour map (x, y), uint8."""
        where = (*window, index)
        return np.stack([image[where] for image in self._images]), self._tumor_map[where]


class ScanPool:
    """Open scans, each opened once however many arms use it.

    Parameters
    ----------
    modalities : sequence of str
    """

    def __init__(self, modalities: Sequence[str]) -> None:
        self._modalities = tuple(modalities)
        self._open: dict[Path, OpenScan] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave open scans behind when a worker gets the pool: it opens what it needs."""
        return {"_modalities": self._modalities, "_open": {}}

    def __getitem__(self, case: Case) -> OpenScan:
        """Return a case's scan, opened now if it was not."""
        if case.folder not in self._open:
            self._open[case.folder] = OpenScan(case, self._modalities)
        return self._open[case.folder]

    def extent(self, cases: Sequence[Case]) -> NDArray[np.bool_]:
        """Return where along x and y any of the cases has brain in any slice: (x, y), bool."""
        extent: NDArray[np.bool_] = np.any([self[case].extent for case in cases], axis=0)
        return extent


class ArmSampler:
    """Draws the batches of an arm: half of the slices with tumour, every case equally often within its kind.

    Parameters
    ----------
    arm : Arm
    scans : ScanPool
        Shared among arms.
    window : tuple of slice
        Field of view along x and y.
    """

    def __init__(self, arm: Arm, scans: ScanPool, window: Window) -> None:
        self._real = [scans[case] for case in arm.real_cases]
        self._synthetic = [scans[case] for case in arm.synthetic_cases]
        self._share, self._window = arm.synthetic_share, window

    def draw(self, batch_size: int, stream: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch.

        Parameters
        ----------
        batch_size : int
        stream : numpy.random.Generator

        Returns
        -------
        tuple of Tensor
            Scan, (N, modalities, x, y), float32 in [-1, 1]; class values, (N, 1, x, y), float32.
        """
        # Rounded up or down by chance, so that the share holds on average whatever the size of the batch.
        n_synthetic = int(self._share * batch_size + stream.random())
        images, tumor_maps = [], []
        for number in range(batch_size):
            scans = self._synthetic if number < n_synthetic else self._real
            scan = scans[int(stream.integers(len(scans)))]
            index = scan.choose_slice(bool(stream.random() < TUMOR_SHARE), stream)
            image, tumor_map = scan.read_slice(index, self._window)
            images.append(image)
            tumor_maps.append(tumor_map)
        scan_batch = torch.from_numpy(np.stack(images)).float().mul_(2.0 / INTENSITY_MAX).sub_(1.0)
        return scan_batch, torch.from_numpy(np.stack(tumor_maps)[:, None]).float()


def fit_window(extent: NDArray[np.bool_], multiple: int) -> Window:
    """Return the smallest field of view that holds an extent and suits the network.

    Parameters
    ----------
    extent : ndarray, (x, y), bool
    multiple : int
        Each side is a multiple of it, or the whole side where the image is too small for that.

    Returns
    -------
    tuple of slice
        Along x and y, centred on the extent as far as the image allows.
    """
    sides = []
    for axis, size in enumerate(extent.shape):
        inside = np.flatnonzero(extent.any(axis=1 - axis))
        first, last = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, size)
        length = min(-(-(last - first) // multiple) * multiple, size)
        start = min(max((first + last - length) // 2, 0), size - length)
        sides.append(slice(start, start + length))
    return sides[0], sides[1]
