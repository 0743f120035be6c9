"""Random contrasts: label maps rendered without any generator, as SynthSeg does.

Each class of a label map (tissues and tumour) has a mean and a standard deviation of its own in each modality, drawn
anew for each sample; intensities are Gaussian about them. Then come a blur, a smooth bias field and a gamma, and each
modality is stretched to its full range within the brain. Nothing is learnt from any scan: what a segmenter gains from
these is the label maps' doing, so a generator must beat them to be worth its training.

References
----------
Billot et al. 2023, "SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without retraining",
doi:10.1016/j.media.2023.102789 (which the ranges are modelled on).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.segmentation.augmentation import blur

# On a scale on which black is 0 and white 1.
MEAN_RANGE, SD_RANGE = (0.1, 0.9), (0.02, 0.1)
BLUR_SIGMA_VOXELS = (0.3, 1.0)
# Of the logarithm of the bias field, at its nodes.
BIAS_SD, BIAS_NODES = 0.3, 4
# Of the logarithm of the exponent.
GAMMA_SD = 0.3


def render(condition: Tensor, n_classes: int, n_modalities: int, stream: torch.Generator) -> Tensor:
    """Render label maps with random contrasts.

    Parameters
    ----------
    condition : Tensor, (N, *spatial), uint8
        Tissue and tumour joined, background 0; two or three spatial axes.
    n_classes : int
        Background counts.
    n_modalities : int
    stream : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor, (N, n_modalities, *spatial), float32 in [-1, 1]
        -1 in the background.
    """
    n, spatial = len(condition), condition.shape[1:]
    means = _draw((n, n_modalities, n_classes), MEAN_RANGE, stream)
    deviations = _draw((n, n_modalities, n_classes), SD_RANGE, stream)
    classes = condition.long()
    expected, spread = (
        torch.stack([one[:, labels] for one, labels in zip(values, classes, strict=True)])
        for values in (means, deviations)
    )
    brain = (condition > 0)[:, None]
    scan = (expected + spread * torch.randn(expected.shape, generator=stream)).clamp(min=0.0) * brain
    scan = blur(scan, _draw((n,), BLUR_SIGMA_VOXELS, stream))
    nodes = torch.randn(n, n_modalities, *[BIAS_NODES] * len(spatial), generator=stream) * BIAS_SD
    mode = "bilinear" if len(spatial) == 2 else "trilinear"
    scan = scan * F.interpolate(nodes, list(spatial), mode=mode, align_corners=True).exp()
    exponents = torch.exp(torch.randn(n, n_modalities, *[1] * len(spatial), generator=stream) * GAMMA_SD)
    return torch.where(brain, 2.0 * _stretch(scan, brain) ** exponents, 0.0) - 1.0


def _stretch(scan: Tensor, brain: Tensor) -> Tensor:
    """Bring the darkest voxel of the brain to 0 and the brightest to 1, by sample and modality."""
    axes = tuple(range(2, scan.ndim))
    lowest = torch.where(brain, scan, torch.inf).amin(dim=axes, keepdim=True)
    highest = torch.where(brain, scan, -torch.inf).amax(dim=axes, keepdim=True)
    return ((scan - lowest) / (highest - lowest).clamp(min=1e-6)).clamp(0.0, 1.0)


def _draw(shape: tuple[int, ...], limits: tuple[float, float], stream: torch.Generator) -> Tensor:
    low, high = limits
    return low + torch.rand(shape, generator=stream) * (high - low)
