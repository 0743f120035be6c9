"""DiffAugment: differentiable augmentation of what the discriminator sees, for small data sets.

Scan and condition move together; colour changes the scan only. Real and generated scan of a pair get the same change,
so that feature matching still compares like with like.

References
----------
Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training", arXiv:2006.10738.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TRANSLATION_SHARE = 0.125
CUTOUT_SHARE = 0.4
COLOUR_SHIFT = 0.3


class DiffAugment:
    """One draw of an augmentation for a batch; call it on each set of scans of that batch.

    Parameters
    ----------
    policies : sequence of str
        Some of ``colour``, ``translation``, ``cutout`` (``flip`` is the sampler's).
    spatial : sequence of int
    draws : sequence of (int, torch.Generator)
        Streams, on the CPU, each with the number of samples it draws for, in the order of the batch. Who needs samples
        apart from each other gives each a stream of its own.
    device : torch.device
    """

    def __init__(
        self,
        policies: Sequence[str],
        spatial: Sequence[int],
        draws: Sequence[tuple[int, torch.Generator]],
        device: torch.device,
    ) -> None:
        parts = [_draw(n, spatial, stream) for n, stream in draws]
        colours, shifts, centres = (torch.cat(column) for column in zip(*parts, strict=True))
        ones = [1] * len(spatial)
        self._brightness = ((colours[:, 0] - 0.5) * 2 * COLOUR_SHIFT).reshape(-1, 1, *ones).to(device)
        self._contrast = (1 + (colours[:, 1] - 0.5) * 2 * COLOUR_SHIFT).reshape(-1, 1, *ones).to(device)
        self._colour = "colour" in policies
        self._shifts = shifts if "translation" in policies else None
        self._keep = _cutout_mask(centres, spatial).to(device) if "cutout" in policies else None

    def __call__(self, scan: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Augment scans in [-1, 1] with their conditions; shapes stay."""
        if self._colour:
            # By the label map: a real scan has voxels at -1 within the brain too, and they would stay where they are.
            outside = condition[:, :1] >= 1.0
            changed = ((scan + 1.0) * self._contrast - 1.0) + self._brightness
            scan = torch.where(outside, scan, changed)
        if self._shifts is not None:
            scan = _translate(scan + 1.0, self._shifts) - 1.0
            condition = _translate(condition, self._shifts)
        if self._keep is not None:
            scan = (scan + 1.0) * self._keep - 1.0
            condition = condition * self._keep
        return scan, condition


def _draw(n: int, spatial: Sequence[int], stream: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw colour (n, 2), shifts (n, axes) in voxels, and centres of boxes (n, axes), as shares, of n samples."""
    colours = torch.rand(n, 2, generator=stream)
    limits = [max(1, round(size * TRANSLATION_SHARE)) for size in spatial]
    shifts = torch.stack([torch.randint(-m, m + 1, (n,), generator=stream) for m in limits], dim=1)
    return colours, shifts, torch.rand(n, len(spatial), generator=stream)


def _cutout_mask(centres: Tensor, spatial: Sequence[int]) -> Tensor:
    """Return 0 within a random box per sample and 1 elsewhere: (N, 1, *spatial)."""
    inside = torch.ones(len(centres), 1, *spatial, dtype=torch.bool)
    for axis, n in enumerate(spatial):
        shape = [1] * (len(spatial) + 2)
        shape[axis + 2] = n
        position = torch.arange(n).reshape(shape)
        centre = (centres[:, axis] * n).reshape(-1, *[1] * (len(spatial) + 1))
        inside = inside & ((position - centre).abs() < n * CUTOUT_SHARE / 2)
    return (~inside).float()


def _translate(batch: Tensor, shifts: Tensor) -> Tensor:
    """Shift each sample by whole voxels; zeros come in."""
    moved = []
    for whole, shift in zip(batch, shifts.tolist(), strict=True):
        part = whole
        pads: list[int] = []
        for axis, n in enumerate(batch.shape[2:], start=1):
            step = shift[axis - 1]
            part = part.narrow(axis, max(-step, 0), n - abs(step))
            # F.pad counts from the last axis.
            pads = [max(step, 0), max(-step, 0), *pads]
        moved.append(F.pad(part, pads))
    return torch.stack(moved)
