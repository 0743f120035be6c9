"""Views of a scan that attacks compare: the whole scan, its texture, the tumour, the label map. Nothing is fitted.

Each view is a vector of length 1, so that the brightness of a scanner does not count, and the Euclidean distance of
two grows as their correlation falls. Which embedding stands for texture was a measured choice, on constructed copies
of phantoms that no figure of an audit uses: ``benchmarks/audit_embedding.py``.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pipeline.audit.setting import Setting
from pipeline.audit.targets import Targets, Vectors, unlabelled
from pipeline.cohort import Case
from pipeline.embedding import average_blocks, embed_scan, read_case, standardise_scan
from pipeline.labels import UInt8Array
from pipeline.progress import progress

LEVELS = ("scan", "texture", "tumor", "labels")
TUMOR_BOX_MM, TUMOR_BLOCK_MM, LABEL_BLOCK_MM = 64.0, 6.0, 12.0
TEXTURE_STEP_MM, TEXTURE_BLOCK_MM, TEXTURE_SCALES = 3.0, 24.0, 2
N_FILTERS, FILTER_SEED = 16, 20_180

Scan = NDArray[np.float32]
Brain = NDArray[np.bool_]


def view_targets(cases: Sequence[Case], setting: Setting) -> Targets:
    """View scans both ways round, without what the cohort's table says of them.

    Parameters
    ----------
    cases : sequence of Case
    setting : Setting
    """
    rows: dict[str, list[Vectors]] = {level: [] for level in LEVELS}
    with progress("view", len(cases)) as task:
        for case in cases:
            images, brain = read_case(case, setting.modalities)
            condition = case.condition(setting.scheme)
            for level in LEVELS:
                ways = [(images, brain, condition), (images[:, ::-1], brain[::-1], condition[::-1])]
                rows[level].append(np.stack([view(level, *way, setting) for way in ways]))
            task.advance()
    return Targets(
        tuple(case.subject for case in cases), {level: np.stack(rows[level]) for level in LEVELS}, unlabelled(cases)
    )


def view_synthetic(cases: Sequence[Case], setting: Setting) -> dict[str, Vectors]:
    """View synthetic scans as they are: for each level (n, dimensions), float32."""
    rows: dict[str, list[Vectors]] = {level: [] for level in LEVELS}
    with progress("view synthetic", len(cases)) as task:
        for case in cases:
            images, brain = read_case(case, setting.modalities)
            condition = case.condition(setting.scheme)
            for level in LEVELS:
                rows[level].append(view(level, images, brain, condition, setting))
            task.advance()
    return {level: np.stack(rows[level]) for level in LEVELS}


def view(level: str, images: Scan, brain: Brain, condition: UInt8Array, setting: Setting) -> Vectors:
    """View a scan.

    Parameters
    ----------
    level : str
        One of :data:`LEVELS`.
    images : ndarray, (modalities, x, y, z), float32
    brain : ndarray, (x, y, z), bool
    condition : ndarray, (x, y, z), uint8
        Label map of tissue and tumour joined.
    setting : Setting

    Returns
    -------
    ndarray, (dimensions,), float32
        Of length 1, or 0 where there is nothing to see (a tumour of a scan without one).
    """
    return _VIEWS[level](images, brain, condition, setting)


def _scan(images: Scan, brain: Brain, condition: UInt8Array, setting: Setting) -> Vectors:
    del condition
    return embed_scan(images, brain, setting.spacing_mm)


def _texture(images: Scan, brain: Brain, condition: UInt8Array, setting: Setting) -> Vectors:
    """Answers of random filters at two scales, rectified, averaged over blocks."""
    del condition
    step = max(1, round(TEXTURE_STEP_MM / setting.spacing_mm))
    standard = np.stack([average_blocks(image, step) for image in standardise_scan(images, brain)])
    features = torch.from_numpy(standard)[None]
    filters = _random_filters(len(images))
    parts = []
    for scale in range(TEXTURE_SCALES):
        answers = F.relu(F.conv3d(features, filters, padding=1))[0].numpy()
        block = max(1, round(TEXTURE_BLOCK_MM / (setting.spacing_mm * step * 2**scale)))
        parts.append(np.stack([average_blocks(answer, block) for answer in answers]).ravel())
        features = F.avg_pool3d(features, 2, ceil_mode=True)
    return _unit(np.concatenate([_unit(part) for part in parts]))


def _random_filters(n_modalities: int) -> torch.Tensor:
    """Return filters (N_FILTERS, n_modalities, 3, 3, 3) of sum 0: what is even gives no answer."""
    stream = torch.Generator().manual_seed(FILTER_SEED)
    filters = torch.randn(N_FILTERS, n_modalities, 3, 3, 3, generator=stream)
    filters -= filters.mean(dim=(2, 3, 4), keepdim=True)
    lengths: torch.Tensor = torch.linalg.vector_norm(filters, dim=(1, 2, 3, 4), keepdim=True)
    return filters / lengths


def _tumor(images: Scan, brain: Brain, condition: UInt8Array, setting: Setting) -> Vectors:
    """Standardised intensities of a box around the tumour's centre, averaged over blocks."""
    _, tumor_map = setting.scheme.split(condition)
    side = round(TUMOR_BOX_MM / setting.spacing_mm)
    block = max(1, round(TUMOR_BLOCK_MM / setting.spacing_mm))
    if not tumor_map.any():
        return np.zeros(len(images) * (-(-side // block)) ** 3, np.float32)
    centre = np.rint(np.argwhere(tumor_map > 0).mean(axis=0)).astype(int)
    padded = np.pad(standardise_scan(images, brain), ((0, 0), *[(side, side)] * 3))
    box = [slice(c + side - side // 2, c + side - side // 2 + side) for c in centre]
    return _unit(np.stack([average_blocks(image[tuple(box)], block) for image in padded]).ravel())


def _labels(images: Scan, brain: Brain, condition: UInt8Array, setting: Setting) -> Vectors:
    """Shares of classes in blocks; tissue and tumour count alike, however small the tumour."""
    del images, brain
    block = max(1, round(LABEL_BLOCK_MM / setting.spacing_mm))
    n_classes, n_tumor = setting.scheme.n_condition_classes, len(setting.scheme.tumor)
    shares = [average_blocks((condition == value).astype(np.float32), block).ravel() for value in range(1, n_classes)]
    tissue, tumor = np.concatenate(shares[:-n_tumor]), np.concatenate(shares[-n_tumor:])
    return _unit(np.concatenate([_unit(tissue), _unit(tumor)]))


_VIEWS: dict[str, Callable[[Scan, Brain, UInt8Array, Setting], Vectors]] = {
    "scan": _scan,
    "texture": _texture,
    "tumor": _tumor,
    "labels": _labels,
}


def _unit(vector: NDArray[np.float32]) -> Vectors:
    found: Vectors = vector / np.float32(max(float(np.linalg.norm(vector)), 1e-6))
    return found.astype(np.float32)
