"""Batches of an arm, with the same sampling of real patients in every arm of a share.

Same sampling means: which slices (or patches) of which real patients come at a step follows from the seed, the step and
the share alone, one for each place in the batch. Synthetic slices are drawn by a stream of their own and take the first
places of the batch, so that they displace what was drawn for these and change nothing of the others; ordinary
augmentation is drawn by place too. So a real slice that two arms of a share show at a step is the same in both, and so
is its augmentation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.cohort import INTENSITY_MAX, Int16Array
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.seeds import numpy_stream, torch_stream
from pipeline.segmentation.arms import Arm
from pipeline.segmentation.augmentation import augment
from pipeline.segmentation.copy_paste import MARGIN_VOXELS, paste_tumor
from pipeline.segmentation.random_contrast import render
from pipeline.segmentation.scans import FieldOfView, OpenScan, Place, ScanPool

TUMOR_SHARE = 0.5
# Donors tried for a pasting: the first one's tumour may be too large for a patch, or for the brain that is free in it.
N_DONORS = 8
# Over which it is counted how often a place was found.
COUNTED_STEPS = 50


@dataclass(frozen=True)
class Drawn:
    """A slice or patch that was drawn and is not read yet."""

    scan: OpenScan
    place: Place


class ArmSampler:
    """Draws the batches of an arm: half of the slices with tumour, every person equally often within its kind.

    Parameters
    ----------
    arm : Arm
    scans : ScanPool
        Shared among arms.
    view : FieldOfView
    scheme : LabelScheme
    n_modalities : int
    seed : int
        Root of the training's streams, the same in every arm.
    """

    def __init__(
        self, arm: Arm, scans: ScanPool, view: FieldOfView, scheme: LabelScheme, n_modalities: int, seed: int
    ) -> None:
        self._arm, self._view, self._scheme, self._n_modalities, self._seed = arm, view, scheme, n_modalities, seed
        self._real = group_by_person([scans[case] for case in arm.real_cases])
        self._synthetic = group_by_person([scans[case] for case in arm.synthetic_cases])
        with_tumor = [[scan for scan in own if scan.has_tumor] for own in self._real]
        self._donors = [own for own in with_tumor if own]

    def draw(
        self, batch_size: int, step: int, n_steps: int, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """Draw the batch of a step.

        Parameters
        ----------
        batch_size : int
        step, n_steps : int
            Step, from 0, of so many in all.
        device : torch.device or str
            Where the batch goes, and is augmented; what chance decides does not depend on it.

        Returns
        -------
        tuple of Tensor
            Scan, (N, modalities, *spatial), float32 in [-1, 1]; class values, (N, 1, *spatial), float32.
        """
        synthetic, real = self.choose(batch_size, step, n_steps)
        pasting = numpy_stream(self._seed, "paste", step)
        read = [self._paste(item, *item.scan.read(item.place), pasting) for item in real]
        parts = [self._read_rendered(synthetic, step)] if self._arm.is_rendered and synthetic else []
        if not self._arm.is_rendered:
            read = [item.scan.read(item.place) for item in synthetic] + read
        if read:
            parts.append(_to_batch(*zip(*read, strict=True)))
        scan, labels = (torch.cat(tensors).to(device) for tensors in zip(*parts, strict=True))
        return augment(scan, labels, self._arm.augmentation, torch_stream(self._seed, "augment", step))

    def choose(self, batch_size: int, step: int, n_steps: int) -> tuple[list[Drawn], list[Drawn]]:
        """Choose what a step's batch shows: its synthetic slices, then the real ones."""
        share = self._arm.mixing.share_at(step / n_steps)
        # Rounded up or down by chance, so that the share holds on average whatever the size of the batch.
        n_synthetic = int(share * batch_size + numpy_stream(self._seed, "synthetic number", step).random())
        synthetic = self._choose(self._synthetic, n_synthetic, numpy_stream(self._seed, "synthetic", step))
        if n_synthetic == batch_size:
            return synthetic, []
        real = self._choose(self._real, batch_size, numpy_stream(self._seed, "real", step))
        return synthetic, real[n_synthetic:]

    def _choose(self, persons: list[list[OpenScan]], n: int, stream: np.random.Generator) -> list[Drawn]:
        """Draw persons, then a scan of each: whoever has many scans does not count more for that."""
        drawn = []
        for _ in range(n):
            scan = _choose_scan(persons, stream)
            wants_tumor = bool(stream.random() < TUMOR_SHARE)
            drawn.append(Drawn(scan, scan.choose_place(wants_tumor, self._view, stream)))
        return drawn

    def _paste(
        self, item: Drawn, image: Int16Array, tumor_map: UInt8Array, stream: np.random.Generator
    ) -> tuple[Int16Array, UInt8Array]:
        """Paste another patient's tumour into some of the real slices, in an arm that does.

        Those given are returned where no tumour of some donors found a place.
        """
        if stream.random() >= self._arm.mixing.paste_share:
            return image, tumor_map
        person = item.scan.case.person
        donors = [own for own in self._donors if own[0].case.person != person]
        for _ in range(N_DONORS if donors else 0):
            donor = _choose_scan(donors, stream)
            place = donor.choose_tumor(tumor_map.ndim, MARGIN_VOXELS, stream)
            sides = [side.stop - side.start for side in place if isinstance(side, slice)]
            if any(length > room for length, room in zip(sides, tumor_map.shape, strict=True)):
                continue
            pasted, pasted_map = paste_tumor(image, tumor_map, *donor.read(place), stream)
            if pasted is not image:
                return pasted, pasted_map
        return image, tumor_map

    def count_pasted(self, batch_size: int, n_steps: int) -> float:
        """Return the share of the real slices of the first batches into which a tumour was in truth pasted."""
        found = []
        for step in range(min(n_steps, COUNTED_STEPS) if self._arm.mixing.paste_share else 0):
            pasting = numpy_stream(self._seed, "paste", step)
            for item in self.choose(batch_size, step, n_steps)[1]:
                image, tumor_map = item.scan.read(item.place)
                found.append(self._paste(item, image, tumor_map, pasting)[0] is not image)
        return float(np.mean(found)) if found else 0.0

    def _read_rendered(self, drawn: list[Drawn], step: int) -> tuple[Tensor, Tensor]:
        """Render the label maps of synthetic cases with random contrasts."""
        conditions = np.stack([item.scan.read_condition(item.place, self._scheme) for item in drawn])
        stream = torch_stream(self._seed, "contrast", step)
        n_classes = self._scheme.n_condition_classes
        scan = render(torch.from_numpy(conditions), n_classes, self._n_modalities, stream)
        return scan, torch.from_numpy(self._scheme.split(conditions)[1][:, None]).float()


def group_by_person(scans: Sequence[OpenScan]) -> list[list[OpenScan]]:
    """Return the scans of each person, persons in the order of their first scans."""
    persons: dict[str, list[OpenScan]] = {}
    for scan in scans:
        persons.setdefault(scan.case.person, []).append(scan)
    return list(persons.values())


def _choose_scan(persons: list[list[OpenScan]], stream: np.random.Generator) -> OpenScan:
    own = persons[int(stream.integers(len(persons)))]
    return own[int(stream.integers(len(own)))]


def _to_batch(images: tuple[Int16Array, ...], tumor_maps: tuple[UInt8Array, ...]) -> tuple[Tensor, Tensor]:
    scan = torch.from_numpy(np.stack(images)).float().mul_(2.0 / INTENSITY_MAX).sub_(1.0)
    return scan, torch.from_numpy(np.stack(tumor_maps)[:, None]).float()
