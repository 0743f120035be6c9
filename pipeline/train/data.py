"""Batches of conditions and scans, drawn from memory-mapped cases.

A step's batch depends on the seed and the step only: a resumed training sees what an undisturbed one sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cohort import INTENSITY_MAX, Case, Int16Array
from pipeline.config import TrainSection
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.train.style import encode_styles, measure_style

TUMOR_SHARE = 0.5

Where = tuple[slice | int, ...]
# Condition, scan, style code, and which modalities there are; see Batch.
Sample = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]


@dataclass(frozen=True)
class Batch:
    """Conditions and scans of a step.

    Parameters
    ----------
    condition : Tensor, (N, channels, *spatial), float32
        One-hot, see :func:`one_hot_slices`.
    scan : Tensor, (N, modalities, *spatial), float32 in [-1, 1]
        -1 in modalities that the person lacks.
    style : Tensor, (N, entries), float32
        First entries of the style code of the person whose scan it is, see :mod:`pipeline.train.style`.
    present : Tensor, (N, modalities), bool
        Which modalities the person has.
    """

    condition: Tensor
    scan: Tensor
    style: Tensor
    present: Tensor


@dataclass(frozen=True)
class OpenCase:
    """A case whose files are mapped once, for many small reads.

    Parameters
    ----------
    images : tuple of ndarray, (x, y, z), int16, or None
        One for each modality; None for one that the case lacks.
    tissue_map, tumor_map : ndarray, (x, y, z), uint8
    """

    images: tuple[Int16Array | None, ...]
    tissue_map: UInt8Array
    tumor_map: UInt8Array

    @classmethod
    def open(cls, case: Case, modalities: Sequence[str]) -> Self:
        """Map a case's files; nothing is read yet."""
        has = set(case.modalities)
        images = tuple(case.image(name) if name in has else None for name in modalities)
        return cls(images, case.tissue_map(), case.tumor_map())

    @property
    def present(self) -> NDArray[np.bool_]:
        """Return which modalities the case has: (modalities,)."""
        return np.array([image is not None for image in self.images])

    def read_scan(self, where: Where) -> NDArray[np.float32]:
        """Read part of the scan: (modalities, *spatial), float32 in [-1, 1]; -1 in modalities that the case lacks."""
        empty = np.zeros(self.tumor_map[where].shape, np.float32)
        parts = [empty if image is None else np.asarray(image[where], np.float32) for image in self.images]
        scan: NDArray[np.float32] = np.stack(parts) * np.float32(2.0 / INTENSITY_MAX) - np.float32(1.0)
        return scan

    def read_condition(self, where: Where, scheme: LabelScheme) -> UInt8Array:
        """Read part of the condition: (*spatial), uint8."""
        return scheme.combine(self.tissue_map[where], self.tumor_map[where])


class Sampler:
    """Draws batches from cases: every case equally often, half of the slices or patches with tumour.

    Parameters
    ----------
    cases : sequence of OpenCase
    scheme : LabelScheme
    config : TrainSection
        2D: axial slices with their context; 3D: patches, or whole volumes; mirrored if augmentation has `flip`.
    styles : ndarray, (cases, entries), float32, optional
        Style code of each case; none if not given.
    """

    def __init__(
        self,
        cases: Sequence[OpenCase],
        scheme: LabelScheme,
        config: TrainSection,
        styles: NDArray[np.float32] | None = None,
    ) -> None:
        self._styles = np.zeros((len(cases), 0), np.float32) if styles is None else styles
        self._cases = cases
        self._scheme = scheme
        self._dimensions, self._context, self._patch = config.dimensions, config.context_slices, config.patch_voxels
        self._flips = "flip" in config.augmentation
        self._brain_slices: list[NDArray[np.int64]] = []
        self._tumor_slices: list[NDArray[np.int64]] = []
        for case in self._cases:
            tumor = np.asarray(case.tumor_map)
            brain = (np.asarray(case.tissue_map) > 0) | (tumor > 0)
            self._brain_slices.append(np.flatnonzero(brain.any(axis=(0, 1))))
            self._tumor_slices.append(np.flatnonzero(tumor.any(axis=(0, 1))))

    def draw(self, batch_size: int, stream: np.random.Generator) -> Batch:
        """Draw a batch; each sample's case is drawn too."""
        return _join([self._draw_one(int(stream.integers(len(self._cases))), stream) for _ in range(batch_size)])

    def draw_from(self, indices: Sequence[int], streams: Sequence[np.random.Generator]) -> Batch:
        """Draw one sample from each of these cases, at least one, each by a stream of its own."""
        return _join([self._draw_one(index, stream) for index, stream in zip(indices, streams, strict=True)])

    def _draw_one(self, index: int, stream: np.random.Generator) -> Sample:
        for_tumor = bool(stream.random() < TUMOR_SHARE)
        slices = self._tumor_slices if for_tumor else self._brain_slices
        centre = int(stream.choice(slices[index]))
        if self._dimensions == 2:
            condition = self._condition_slices(self._cases[index], centre)
            scan = self._cases[index].read_scan((slice(None), slice(None), centre))
        else:
            condition, scan = self._cut(self._cases[index], centre, for_tumor, stream)
        if self._flips and stream.random() < 0.5:
            condition, scan = condition[:, ::-1], scan[:, ::-1]
        return condition, scan, self._styles[index], self._cases[index].present

    def _cut(
        self, case: OpenCase, centre: int, for_tumor: bool, stream: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cut a patch somewhere around a voxel of tumour, or of brain, in a slice."""
        shape = case.tumor_map.shape
        patch = self._patch or shape
        inside = np.asarray(case.tumor_map[:, :, centre]) > 0
        if not for_tumor:
            inside |= np.asarray(case.tissue_map[:, :, centre]) > 0
        column, row = np.argwhere(inside)[stream.integers(np.count_nonzero(inside))]
        starts = [
            int(np.clip(voxel - stream.integers(p), 0, n - p))
            for voxel, n, p in zip((column, row, centre), shape, patch, strict=True)
        ]
        where = tuple(slice(start, start + p) for start, p in zip(starts, patch, strict=True))
        labels = case.read_condition(where, self._scheme)
        return one_hot(labels, self._scheme.n_condition_classes), case.read_scan(where)

    def _condition_slices(self, case: OpenCase, centre: int) -> NDArray[np.float32]:
        first, last = centre - self._context, centre + self._context + 1
        n_slices = case.tumor_map.shape[2]
        inner = (slice(None), slice(None), slice(max(first, 0), min(last, n_slices)))
        labels = case.read_condition(inner, self._scheme)
        labels = np.pad(labels, ((0, 0), (0, 0), (max(-first, 0), max(last - n_slices, 0))))
        code: NDArray[np.float32] = one_hot_slices(labels, self._scheme.n_condition_classes, self._context)[0]
        return code


def _join(samples: Sequence[Sample]) -> Batch:
    """Return samples as a batch."""
    return Batch(*(torch.from_numpy(np.stack(arrays)) for arrays in zip(*samples, strict=True)))


def style_codes(cases: Sequence[Case], modalities: Sequence[str], n_most: int) -> NDArray[np.float32]:
    """Return the style code of each case, fitted on all of them: (cases, entries), float32."""
    figures = []
    for case in cases:
        opened = OpenCase.open(case, modalities)
        figures.append(measure_style(opened.images, np.asarray(opened.tissue_map)))
    codes = encode_styles(np.stack(figures), len({case.person for case in cases}), n_most)
    return codes.astype(np.float32)


def read_scan(case: Case, modalities: Sequence[str], where: Where) -> NDArray[np.float32]:
    """Read part of a case's scan: (modalities, *spatial), float32 in [-1, 1]."""
    return OpenCase.open(case, modalities).read_scan(where)


def one_hot(labels: UInt8Array, n_classes: int) -> NDArray[np.float32]:
    """Return the one-hot code of a label map: (n_classes, *shape), float32."""
    values = np.arange(n_classes, dtype=np.uint8).reshape(-1, *[1] * labels.ndim)
    code: NDArray[np.float32] = (labels[None] == values).astype(np.float32)
    return code


def one_hot_slices(labels: UInt8Array, n_classes: int, context: int) -> NDArray[np.float32]:
    """Return what a 2D generator sees of each slice that has all its neighbours.

    Parameters
    ----------
    labels : ndarray, (x, y, slices), uint8
        With ``context`` more slices on each side than are asked for.
    n_classes : int
    context : int

    Returns
    -------
    ndarray, (slices - 2 * context, (2 * context + 1) * n_classes, x, y), float32
        Channels go slice by slice, from below to above.
    """
    codes = np.moveaxis(one_hot(labels, n_classes), 3, 0)
    n_inner = codes.shape[0] - 2 * context
    return np.concatenate([codes[offset : offset + n_inner] for offset in range(2 * context + 1)], axis=1)
