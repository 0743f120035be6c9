"""Prediction of whole volumes, one case at a time: memory does not grow with the number of cases."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.cohort import Case
from pipeline.labels import UInt8Array
from pipeline.segmentation.scans import Window, fit_window, join_boxes
from pipeline.train.data import read_scan
from pipeline.volumes import bounding_box

PREDICTION_BATCH = 16
WINDOW_BATCH = 4
OVERLAP = 0.5

Probabilities = NDArray[np.float32]
Where = tuple[slice | NDArray[np.int64], ...]


@dataclass(frozen=True)
class Inference:
    """How a segmenter is applied.

    Parameters
    ----------
    modalities : tuple of str
    n_classes : int
        Background counts.
    window : tuple of slice
        Field of view in training, along x and y for slices, x, y and z for volumes.
    multiple : int
        What each side of the field of view is a multiple of.
    patch_voxels : tuple of int or None
        Sliding window, weighted by a Gaussian; None: the whole field of view at once.
    flips : bool
        Whether to average with the prediction of the mirrored scan.
    is_half : bool
        Whether the network works in bfloat16, as in a training of that precision; probabilities are float32.
    """

    modalities: tuple[str, ...]
    n_classes: int
    window: Window
    multiple: int
    patch_voxels: tuple[int, ...] | None = None
    flips: bool = False
    is_half: bool = False


@torch.no_grad()
def predict_probabilities(segmenter: nn.Module, case: Case, how: Inference) -> Probabilities:
    """Return the probability of each class in a whole volume.

    Parameters
    ----------
    segmenter : Module
        In evaluation mode: (N, modalities, *spatial) in, logits out.
    case : Case
        Nothing but its images is read.
    how : Inference
        Its window is widened where the brain reaches beyond it.

    Returns
    -------
    ndarray, (classes, x, y, z), float32 in [0, 1]
        Background without doubt where the network was not asked: outside the field of view, in slices without brain.
    """
    everything = (slice(None),) * 3
    scan = read_scan(case, how.modalities, everything)
    result = np.zeros((how.n_classes, *scan.shape[1:]), np.float32)
    result[0] = 1.0
    device = next(segmenter.parameters()).device
    for place, part in _cut(scan, how):
        with torch.autocast(device.type, torch.bfloat16, enabled=how.is_half):
            found = _apply(segmenter, torch.from_numpy(part).to(device), how).float().cpu().numpy()
        result[(slice(None), *place)] = found[0] if len(how.window) == 3 else np.moveaxis(found, 0, 3)
    return result


def predict_case(segmenter: nn.Module, case: Case, how: Inference) -> UInt8Array:
    """Return the tumour map that a segmenter sees, (x, y, z), uint8; see :func:`predict_probabilities`."""
    return most_probable(predict_probabilities(segmenter, case, how))


def most_probable(probabilities: Probabilities) -> UInt8Array:
    """Return the class with the highest probability, (x, y, z), uint8; the lower one of two that are even."""
    classes: UInt8Array = probabilities.argmax(axis=0).astype(np.uint8)
    return classes


def _cut(scan: NDArray[np.float32], how: Inference) -> Iterator[tuple[Where, NDArray[np.float32]]]:
    """Yield the parts of a scan that the network is shown, (N, modalities, *spatial), and where they lie."""
    brain = np.any(scan > -1.0, axis=0)
    if not brain.any():
        return
    box = join_boxes([bounding_box(brain)[: len(how.window)], how.window])
    view = fit_window(box, brain.shape, how.multiple)
    if len(view) == 3:
        yield view, np.ascontiguousarray(scan[(slice(None), *view)])[None]
        return
    slices = np.flatnonzero(np.any(brain, axis=(0, 1)))
    for start in range(0, len(slices), PREDICTION_BATCH):
        chosen = slices[start : start + PREDICTION_BATCH]
        part = scan[:, view[0], view[1]][..., chosen]
        yield (*view, chosen), np.ascontiguousarray(np.moveaxis(part, 3, 0))


def _apply(segmenter: nn.Module, scan: Tensor, how: Inference) -> Tensor:
    """Return probabilities, (N, classes, *spatial); of the scan and its mirror image where flips are asked for."""
    found = _slide(segmenter, scan, how)
    if not how.flips:
        return found
    mirrored = _slide(segmenter, scan.flip(2), how).flip(2)
    return (found + mirrored) / 2


def _slide(segmenter: nn.Module, scan: Tensor, how: Inference) -> Tensor:
    def predict(part: Tensor) -> Tensor:
        logits: Tensor = segmenter(part)
        return logits.float().softmax(dim=1)

    if how.patch_voxels is None:
        return predict(scan)
    probabilities = sliding_window_inference(
        scan, how.patch_voxels, WINDOW_BATCH, predict, overlap=OVERLAP, mode="gaussian", cval=-1.0
    )
    return torch.as_tensor(probabilities)
