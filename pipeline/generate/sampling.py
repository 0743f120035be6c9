"""Render whole volumes: one style for each volume, noise that is as smooth across slices as it is within.

A 2D generator renders slice by slice with the neighbouring label slices as context; since it normalises nothing over
the image, slices that see similar labels, the same style and similar noise come out similar.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from pipeline.cohort import INTENSITY_MAX, Int16Array
from pipeline.labels import UInt8Array
from pipeline.train.data import one_hot, one_hot_slices
from pipeline.train.generator import Generator

SLICES_AT_ONCE = 16
# Of the noise across slices, in the size that a voxel of its level has: the finest differs from slice to slice as grain
# does, the coarsest is shared by many.
NOISE_SMOOTHNESS = 0.5


def render_volume(generator: Generator, condition: UInt8Array, stream: torch.Generator) -> NDArray[np.float32]:
    """Render a scan from a condition, with a style and noise of its own.

    Parameters
    ----------
    generator : Generator
    condition : ndarray, (x, y, z), uint8
        In 2D x and y, in 3D all sizes are multiples of ``2**levels``.
    stream : torch.Generator
        On the CPU.

    Returns
    -------
    ndarray, (modalities, x, y, z), float32 in [-1, 1]
        -1 outside the brain.
    """
    return render_with_style(generator, condition, draw_style(generator, stream), stream)


def draw_style(generator: Generator, stream: torch.Generator) -> Tensor:
    """Draw a style code: (1, style_size)."""
    return torch.randn(1, generator.config.style_size, generator=stream)


@torch.no_grad()
def render_with_style(
    generator: Generator, condition: UInt8Array, style: Tensor, stream: torch.Generator
) -> NDArray[np.float32]:
    """Render a scan with a given style (1, style_size); see :func:`render_volume`."""
    device = next(generator.parameters()).device
    if generator.config.dimensions == 3:
        shapes = generator.noise_shapes(condition.shape)
        noise = [torch.randn(1, 1, *shape, generator=stream).to(device) for shape in shapes]
        code = torch.from_numpy(one_hot(condition, generator.config.n_classes))[None].to(device)
        volume: NDArray[np.float32] = generator(code, style.to(device), noise)[0].float().cpu().numpy()
        return volume
    context, n_slices = generator.config.context_slices, condition.shape[2]
    fields = [
        _slice_noise(n_slices, shape, NOISE_SMOOTHNESS * condition.shape[0] / shape[0], stream).to(device)
        for shape in generator.noise_shapes(condition.shape[:2])
    ]
    padded = np.pad(condition, ((0, 0), (0, 0), (context, context)))
    parts = []
    for start in range(0, n_slices, SLICES_AT_ONCE):
        stop = min(start + SLICES_AT_ONCE, n_slices)
        codes = one_hot_slices(padded[:, :, start : stop + 2 * context], generator.config.n_classes, context)
        styles = style.expand(stop - start, -1).to(device)
        tile = generator(torch.from_numpy(codes).to(device), styles, [field[start:stop] for field in fields])
        parts.append(tile.float().cpu().numpy())
    return np.moveaxis(np.concatenate(parts), 0, 3)


def to_intensity(scan: NDArray[np.float32], brain: NDArray[np.bool_]) -> Int16Array:
    """Turn one modality from [-1, 1] to int16 in [0, 1000], 0 outside the brain."""
    scaled = np.rint((np.clip(scan, -1, 1) + 1) * (INTENSITY_MAX / 2))
    return np.where(brain, scaled, 0).astype(np.int16)


def _slice_noise(n_slices: int, shape: tuple[int, ...], smoothness: float, stream: torch.Generator) -> Tensor:
    """Draw noise (slices, 1, *shape) of unit variance, smooth over so many slices (standard deviation)."""
    noise = torch.randn(n_slices, 1, *shape, generator=stream).numpy()
    smooth = ndimage.gaussian_filter1d(noise, smoothness, axis=0, mode="wrap")
    # An impulse of the same length: where the volume is thinner than the kernel, both are folded alike.
    impulse = np.zeros(n_slices)
    impulse[0] = 1.0
    gain = np.sqrt((ndimage.gaussian_filter1d(impulse, smoothness, mode="wrap") ** 2).sum())
    return torch.from_numpy((smooth / gain).astype(np.float32))
