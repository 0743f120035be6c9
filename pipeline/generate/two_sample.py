"""Classifier two-sample test: whether a small network can tell synthetic scans from real ones it has not seen.

Lopez-Paz and Oquab's test with the AUC for the accuracy: .5 says that the two samples could be one, 1 that every scan
is recognised. The unit is the patient: one patient's slices are on one side of a fold, and their mean is one score.

References
----------
Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests", arXiv:1610.06545.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.cohort import INTENSITY_MAX
from pipeline.seeds import derive_seed, numpy_stream
from pipeline.statistics import Estimate, auc_estimate

N_FOLDS = 4
CHANNELS = (16, 32, 32)
BATCH_SIZE = 16
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
N_BOOTSTRAP = 1000
ALPHA = 0.05

Scans = NDArray[np.float32]


def two_sample_auc(
    first: Sequence[Scans], second: Sequence[Scans], steps: int, seed: int, device: torch.device
) -> Estimate:
    """Train classifiers on all but one fold of patients, score the patients of that fold; return the AUC.

    Parameters
    ----------
    first, second : sequence of ndarray, (slices, modalities, x, y), float32 in [0, 1000]
        One for each patient, as many patients on either side.
    steps : int
        Of each fold's network.
    seed : int
    device : torch.device

    Returns
    -------
    Estimate
        Probability that a patient of the second sample scores above one of the first, with its interval.
    """
    stream = numpy_stream(seed, "two-sample folds")
    sides = (first, second)
    folds = [stream.permutation(len(side)) % N_FOLDS for side in sides]
    scores = [np.zeros(len(side)) for side in sides]
    for fold in range(N_FOLDS):
        known = [
            np.concatenate([scans for scans, f in zip(side, of, strict=True) if f != fold])
            for side, of in zip(sides, folds, strict=True)
        ]
        network = _train(known[0], known[1], steps, derive_seed(seed, "two-sample", fold), device)
        for side, of, score in zip(sides, folds, scores, strict=True):
            for index in np.flatnonzero(of == fold):
                score[index] = _judge(network, side[int(index)], device)
    return auc_estimate(scores[1], scores[0], N_BOOTSTRAP, ALPHA, numpy_stream(seed, "two-sample bootstrap"))


def _train(first: Scans, second: Scans, steps: int, seed: int, device: torch.device) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights"))
        network = _make_network(first.shape[1]).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for step in range(steps):
        stream = numpy_stream(seed, "batch", step)
        # Half of a batch from each side, mirrored in half of the cases.
        halves = [side[stream.integers(len(side), size=BATCH_SIZE // 2)] for side in (first, second)]
        batch = np.concatenate(halves)
        flips = stream.random(len(batch)) < 0.5
        batch[flips] = batch[flips][:, :, ::-1]
        truth = torch.arange(BATCH_SIZE, device=device).ge(BATCH_SIZE // 2).float()
        loss = F.binary_cross_entropy_with_logits(network(_to_input(batch, device))[:, 0], truth)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
    return network.eval()


def _make_network(n_modalities: int) -> nn.Module:
    layers: list[nn.Module] = []
    for n_in, n_out in zip((n_modalities, *CHANNELS[:-1]), CHANNELS, strict=True):
        layers += [
            nn.Conv2d(n_in, n_out, 3, padding=1),
            nn.BatchNorm2d(n_out),
            nn.LeakyReLU(0.2),
            nn.AvgPool2d(2),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], 1))


@torch.no_grad()
def _judge(network: nn.Module, scans: Scans, device: torch.device) -> float:
    return float(network(_to_input(scans, device)).mean())


def _to_input(scans: Scans, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(scans)).to(device) * (2.0 / INTENSITY_MAX) - 1.0
