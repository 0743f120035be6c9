"""Batches of an arm, with the same sampling of real patients in every arm of a share.

Same sampling means: which slices (or patches) of which real patients come at a step follows from the seed, the step and
the share alone, one for each place in the batch. Synthetic slices are drawn by a stream of their own and take the first
places of the batch, so that they displace what was drawn for these and change nothing of the others; ordinary
augmentation is drawn by place too. So a real slice that two arms of a share show at a step is the same in both, and so
is its augmentation.
"""

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


@dataclass(frozen=True)
class Drawn:
    """A slice or patch that was drawn and is not read yet."""

    scan: OpenScan
    place: Place


class ArmSampler:
    """Draws the batches of an arm: half of the slices with tumour, every case equally often within its kind.

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
        self._real = [scans[case] for case in arm.real_cases]
        self._synthetic = [scans[case] for case in arm.synthetic_cases]

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

    def _choose(self, scans: list[OpenScan], n: int, stream: np.random.Generator) -> list[Drawn]:
        drawn = []
        for _ in range(n):
            scan = scans[int(stream.integers(len(scans)))]
            wants_tumor = bool(stream.random() < TUMOR_SHARE)
            drawn.append(Drawn(scan, scan.choose_place(wants_tumor, self._view, stream)))
        return drawn

    def _paste(
        self, item: Drawn, image: Int16Array, tumor_map: UInt8Array, stream: np.random.Generator
    ) -> tuple[Int16Array, UInt8Array]:
        """Paste another patient's tumour into some of the real slices, in an arm that does."""
        if stream.random() >= self._arm.paste_share:
            return image, tumor_map
        person = item.scan.case.person
        donors = [scan for scan in self._real if scan.has_tumor and scan.case.person != person]
        if not donors:
            return image, tumor_map
        donor = donors[int(stream.integers(len(donors)))]
        piece = donor.read(donor.choose_tumor(tumor_map.ndim, MARGIN_VOXELS, stream))
        return paste_tumor(image, tumor_map, *piece, stream)

    def _read_rendered(self, drawn: list[Drawn], step: int) -> tuple[Tensor, Tensor]:
        """Render the label maps of synthetic cases with random contrasts."""
        conditions = np.stack([item.scan.read_condition(item.place, self._scheme) for item in drawn])
        stream = torch_stream(self._seed, "contrast", step)
        n_classes = self._scheme.n_condition_classes
        scan = render(torch.from_numpy(conditions), n_classes, self._n_modalities, stream)
        return scan, torch.from_numpy(self._scheme.split(conditions)[1][:, None]).float()


def _to_batch(images: tuple[Int16Array, ...], tumor_maps: tuple[UInt8Array, ...]) -> tuple[Tensor, Tensor]:
    scan = torch.from_numpy(np.stack(images)).float().mul_(2.0 / INTENSITY_MAX).sub_(1.0)
    return scan, torch.from_numpy(np.stack(tumor_maps)[:, None]).float()
