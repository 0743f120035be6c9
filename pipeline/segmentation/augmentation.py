"""Ordinary augmentation: nnU-Net's list, for slices and volumes, a whole batch at a time.

A weak ordinary augmentation would sell any GAN, so probabilities and ranges are nnU-Net's (as of its version 2), each
change with a strength of its own, which scales its probability, and its range towards no change.

nnU-Net changes z-scored intensities: mean 0 and standard deviation 1 over the brain. Here intensities are on [-1, 1],
so that noise is in units of the brain's standard deviation, brightness and contrast stretch about the brain's mean,
contrast and gamma keep to the brain's own range; each by sample and modality. Nothing is cut off at white: what is
brighter or darker than the scan was stays so, and the network sees a little more than [-1, 1].

The differences to nnU-Net:

- Mean, standard deviation and range are those of the brain in the slice or patch that is drawn, not of the scan.
- Rotation in 2D goes to 30 degrees as it does in 3D, not to 180: a brain is never upside down.
- Mirroring is left to right only.
- Factors of scaling and gamma are drawn on a logarithmic scale, as often below 1 as above.
- Blur, brightness, contrast, low resolution and gamma are drawn by sample, one factor for all modalities; nnU-Net draws
  by modality, and blurs and coarsens half of these by chance.
- Means and ranges are taken over the brain; those of nnU-Net's contrast and gamma hold the background, at the brain's
  mean, as well.
- A low resolution is upsampled linearly; nnU-Net did so cubically up to its version 2.4.

References
----------
Isensee et al. 2021, "nnU-Net", doi:10.1038/s41592-020-01008-z.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config_evaluate import AugmentationSection

ROTATION_PROBABILITY, ROTATION_DEGREES = 0.2, 30.0
SCALE_PROBABILITY, SCALE_RANGE = 0.2, (0.7, 1.4)
FLIP_PROBABILITY = 0.5
# At most, of the brain's standard deviation; nnU-Net calls it a variance and uses it so.
NOISE_PROBABILITY, NOISE_BRAIN_SDS = 0.1, 0.1
BLUR_PROBABILITY, BLUR_SIGMA_VOXELS = 0.2, (0.5, 1.0)
BRIGHTNESS_PROBABILITY, BRIGHTNESS_RANGE = 0.15, (0.75, 1.25)
CONTRAST_PROBABILITY, CONTRAST_RANGE = 0.15, (0.75, 1.25)
LOW_RESOLUTION_PROBABILITY, LOW_RESOLUTION_ZOOM = 0.25, (0.5, 1.0)
GAMMA_PROBABILITY, INVERTED_GAMMA_PROBABILITY, GAMMA_RANGE = 0.3, 0.1, (0.7, 1.5)
BLUR_RADIUS_VOXELS = 3


def augment(
    scan: Tensor, labels: Tensor, config: AugmentationSection, stream: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augment a batch.

    Parameters
    ----------
    scan : Tensor, (N, modalities, *spatial), float32 in [-1, 1]
        Two or three spatial axes, the first of them left to right; background is -1 in every modality.
    labels : Tensor, (N, 1, *spatial), float32
        Class values; moved along with the scan, nearest neighbour.
    config : AugmentationSection
        Strengths; with all at 0 the very tensors come back.
    stream : torch.Generator
        On the CPU, wherever the batch is; all of the chance comes from here.

    Returns
    -------
    tuple of Tensor
        New scan and labels, shapes and types as given; the background stays at -1, and intensities of the brain may
        lie a little outside of [-1, 1].
    """
    if config == AugmentationSection.off():
        return scan, labels
    # From here to the end on [0, 2] with background 0, so that what zero padding brings in is background.
    shifted, labels = scan + 1.0, labels.clone()
    shifted, labels = _move(shifted, labels, config, stream)
    brain = (shifted > 0).any(dim=1, keepdim=True)
    for name, probability, change in _INTENSITY_CHANGES:
        strength = getattr(config, name)
        chosen = _choose(len(scan), probability * strength, stream)
        if len(chosen):
            shifted[chosen] = change(shifted[chosen], brain[chosen], strength, stream)
    return torch.where(brain, shifted, 0.0) - 1.0, labels


def _move(scan: Tensor, labels: Tensor, config: AugmentationSection, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip, rotate and scale some samples, in place."""
    n, n_axes = len(scan), scan.ndim - 2
    mirrored = _choose(n, FLIP_PROBABILITY * config.mirroring, stream)
    scan[mirrored], labels[mirrored] = scan[mirrored].flip(2), labels[mirrored].flip(2)
    rotates = torch.rand(n, generator=stream) < ROTATION_PROBABILITY * config.rotation
    scales = torch.rand(n, generator=stream) < SCALE_PROBABILITY * config.scaling
    degrees = (torch.rand(n, 3, generator=stream) * 2 - 1) * ROTATION_DEGREES * config.rotation
    factors = _draw_log(n, SCALE_RANGE, config.scaling, stream)
    chosen = torch.nonzero(rotates | scales)[:, 0]
    if len(chosen):
        radians = torch.deg2rad(degrees * rotates[:, None])[chosen]
        matrices = _rotations(radians, n_axes) / torch.where(scales, factors, 1.0)[chosen].reshape(-1, 1, 1)
        grid = _sampling_grid(matrices.to(scan.device), tuple(scan.shape[2:]))
        scan[chosen] = F.grid_sample(scan[chosen], grid, mode="bilinear", align_corners=False)
        labels[chosen] = F.grid_sample(labels[chosen], grid, mode="nearest", align_corners=False)
    return scan, labels


def _rotations(radians: Tensor, n_axes: int) -> Tensor:
    """Return rotation matrices in array axes: (N, n_axes, n_axes); in 2D the first angle is the angle."""
    result = torch.eye(n_axes).repeat(len(radians), 1, 1)
    planes = [(0, 1)] if n_axes == 2 else [(0, 1), (0, 2), (1, 2)]
    for number, (first, second) in enumerate(planes):
        cosine, sine = radians[:, number].cos(), radians[:, number].sin()
        turn = torch.eye(n_axes).repeat(len(radians), 1, 1)
        turn[:, first, first], turn[:, second, second] = cosine, cosine
        turn[:, first, second], turn[:, second, first] = -sine, sine
        result = result @ turn
    return result


def _sampling_grid(matrices: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """Return torch's sampling grid of matrices that map output voxels to input voxels about the centre."""
    half = torch.tensor(spatial, dtype=torch.float32, device=matrices.device) / 2
    # Torch's axes run the other way and from -1 to 1, so a turn of a non-square image needs the ratio of its sides.
    normalised = (matrices * half[None, None, :] / half[None, :, None]).flip((1, 2))
    theta = torch.cat([normalised, matrices.new_zeros(len(matrices), len(spatial), 1)], dim=2)
    return F.affine_grid(theta, [len(matrices), 1, *spatial], align_corners=False)


def _add_noise(scan: Tensor, brain: Tensor, strength: float, stream: torch.Generator) -> Tensor:
    sds = _as_column(torch.rand(len(scan), generator=stream) * NOISE_BRAIN_SDS * strength, scan)
    return scan + sds * _brain_sd(scan, brain) * torch.randn(scan.shape, generator=stream).to(scan.device)


def _blur(scan: Tensor, brain: Tensor, strength: float, stream: torch.Generator) -> Tensor:
    low, high = BLUR_SIGMA_VOXELS
    return blur(scan, (low + torch.rand(len(scan), generator=stream) * (high - low)) * strength)


def blur(scan: Tensor, sigma_voxels: Tensor) -> Tensor:
    """Blur each sample, (N, modalities, *spatial), with its own Gaussian, (N,), one axis after the other."""
    position = torch.arange(-BLUR_RADIUS_VOXELS, BLUR_RADIUS_VOXELS + 1)
    kernel = torch.exp(-0.5 * (position / sigma_voxels[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(scan.shape[1], dim=0).to(scan.device)
    n_axes = scan.ndim - 2
    convolve = F.conv2d if n_axes == 2 else F.conv3d
    result = scan.reshape(1, -1, *scan.shape[2:])
    for axis in range(n_axes):
        shape = [len(kernel), 1, *[1] * n_axes]
        shape[axis + 2] = kernel.shape[1]
        padding = [BLUR_RADIUS_VOXELS if other == axis else 0 for other in range(n_axes)]
        result = convolve(result, kernel.reshape(shape), padding=padding, groups=len(kernel))
    return result.reshape(scan.shape)


def _brighten(scan: Tensor, brain: Tensor, strength: float, stream: torch.Generator) -> Tensor:
    """Multiply z-scored intensities: stretch them about the brain's mean, by modality, beyond the range if need be."""
    mean = _brain_mean(scan, brain)
    return (scan - mean) * _as_column(_draw_linear(len(scan), BRIGHTNESS_RANGE, strength, stream), scan) + mean


def _change_contrast(scan: Tensor, brain: Tensor, strength: float, stream: torch.Generator) -> Tensor:
    """Stretch intensities about the brain's mean, by modality, within the range that was there."""
    factor = _as_column(_draw_linear(len(scan), CONTRAST_RANGE, strength, stream), scan)
    mean, (lowest, highest) = _brain_mean(scan, brain), _brain_range(scan, brain)
    return torch.minimum(torch.maximum((scan - mean) * factor + mean, lowest), highest)


def _lower_resolution(scan: Tensor, brain: Tensor, strength: float, stream: torch.Generator) -> Tensor:
    low, high = LOW_RESOLUTION_ZOOM
    zooms = 1 - (1 - (low + torch.rand(len(scan), generator=stream) * (high - low))) * strength
    size, mode = scan.shape[2:], "bilinear" if scan.ndim == 4 else "trilinear"
    results = []
    for sample, zoom in zip(scan, zooms.tolist(), strict=True):
        coarse = F.interpolate(sample[None], [max(1, round(n * zoom)) for n in size], mode="nearest-exact")
        results.append(F.interpolate(coarse, list(size), mode=mode, align_corners=False))
    return torch.cat(results)


def _change_gamma(scan: Tensor, brain: Tensor, strength: float, stream: torch.Generator) -> Tensor:
    """Raise intensities to a power within the brain's range, by modality keeping its mean and standard deviation."""
    powers = _as_column(_draw_log(len(scan), GAMMA_RANGE, strength, stream), scan)
    lowest, highest = _brain_range(scan, brain)
    changed = ((scan - lowest) / (highest - lowest).clamp(min=1e-6)).clamp(0.0, 1.0) ** powers
    old_mean, new_mean = _brain_mean(scan, brain), _brain_mean(changed, brain)
    scale = _brain_sd(scan, brain) / _brain_sd(changed, brain).clamp(min=1e-6)
    return (changed - new_mean) * scale + old_mean


def _change_inverted_gamma(scan: Tensor, brain: Tensor, strength: float, stream: torch.Generator) -> Tensor:
    """Raise what lacks to the brightest voxel to a power, as :func:`_change_gamma` does with brightness."""
    return -_change_gamma(-scan, brain, strength, stream)


def _brain_mean(values: Tensor, brain: Tensor) -> Tensor:
    """Return the mean over the brain by sample and modality: (N, modalities, 1, ...)."""
    axes = tuple(range(2, values.ndim))
    return (values * brain).sum(dim=axes, keepdim=True) / brain.sum(dim=axes, keepdim=True).clamp(min=1)


def _brain_sd(values: Tensor, brain: Tensor) -> Tensor:
    """Return the standard deviation over the brain by sample and modality: (N, modalities, 1, ...)."""
    return _brain_mean((values - _brain_mean(values, brain)) ** 2, brain).sqrt()


def _brain_range(values: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest value in the brain by sample and modality, (N, modalities, 1, ...) each."""
    axes = tuple(range(2, values.ndim))
    lowest = torch.where(brain, values, torch.inf).amin(dim=axes, keepdim=True)
    highest = torch.where(brain, values, -torch.inf).amax(dim=axes, keepdim=True)
    return lowest, highest


def _choose(n: int, probability: float, stream: torch.Generator) -> Tensor:
    """Return the indices of the samples that are changed."""
    return torch.nonzero(torch.rand(n, generator=stream) < probability)[:, 0]


def _draw_linear(n: int, limits: tuple[float, float], strength: float, stream: torch.Generator) -> Tensor:
    """Draw factors from a range that the strength narrows towards 1."""
    low, high = (1 + (limit - 1) * strength for limit in limits)
    return low + torch.rand(n, generator=stream) * (high - low)


def _draw_log(n: int, limits: tuple[float, float], strength: float, stream: torch.Generator) -> Tensor:
    """Draw factors evenly below and above 1, each half of the range narrowed towards 1."""
    low, high = (math.log(limit) * strength for limit in limits)
    side, share = torch.rand(2, n, generator=stream)
    return torch.exp(share * torch.where(side < 0.5, low, high))


def _as_column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1)).to(like.device)


_Change = Callable[[Tensor, Tensor, float, torch.Generator], Tensor]
# In nnU-Net's order.
_INTENSITY_CHANGES: tuple[tuple[str, float, _Change], ...] = (
    ("noise", NOISE_PROBABILITY, _add_noise),
    ("blur", BLUR_PROBABILITY, _blur),
    ("brightness", BRIGHTNESS_PROBABILITY, _brighten),
    ("contrast", CONTRAST_PROBABILITY, _change_contrast),
    ("low_resolution", LOW_RESOLUTION_PROBABILITY, _lower_resolution),
    ("gamma", INVERTED_GAMMA_PROBABILITY, _change_inverted_gamma),
    ("gamma", GAMMA_PROBABILITY, _change_gamma),
)
