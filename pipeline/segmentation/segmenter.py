"""The segmenter: MONAI's SegResNet on axial slices; training that goes on bit-identical after a kill, and prediction.

References
----------
Myronenko 2019, "3D MRI brain tumor segmentation using autoencoder regularization",
doi:10.1007/978-3-030-11726-9_28 (the network). Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (Dice with
cross-entropy; Dice over the batch, background left out).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from monai.losses.dice import DiceCELoss
from monai.networks.nets.segresnet import SegResNet
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.cohort import Case
from pipeline.config import ComputeSection, SegmenterSection
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.parallel import training_device
from pipeline.progress import progress
from pipeline.seeds import derive_seed, numpy_stream, torch_stream
from pipeline.segmentation.arms import Arm, ArmSampler, ScanPool, Window, fit_window
from pipeline.segmentation.augmentation import augment
from pipeline.segmentation.metrics import dice
from pipeline.train.checkpoint import load_checkpoint, save_checkpoint
from pipeline.train.data import read_scan

# Three halvings of resolution.
SIZE_MULTIPLE = 8
WEIGHT_DECAY = 1e-2
PREDICTION_BATCH = 16
# Of the steps; the step size rises over them.
WARM_UP_SHARE = 0.1
# In cross-entropy, tumour counting 1. Most voxels are background: at 1, short trainings of some seeds never leave the
# answer that all of it is.
BACKGROUND_WEIGHT = 0.1
# At full resolution, more below. With one channel a group, as MONAI's default has it for narrow networks, a layer
# forgets how bright a channel is.
CHANNELS_PER_GROUP = 4


@dataclass(frozen=True)
class SegmenterPlan:
    """What one training needs to know.

    Parameters
    ----------
    arm : Arm
    val_cases : tuple of Case
        Real patients on whom the checkpoint is chosen.
    scheme : LabelScheme
    modalities : tuple of str
    config : SegmenterSection
    compute : ComputeSection
    window : tuple of slice
        Field of view in training, along x and y.
    seed : int
        Root of the training's streams; the same in every arm, so that arms start from the same weights.
    description : str
        Shown with the progress; empty: the arm's name.
    """

    arm: Arm
    val_cases: tuple[Case, ...]
    scheme: LabelScheme
    modalities: tuple[str, ...]
    config: SegmenterSection
    compute: ComputeSection
    window: Window
    seed: int
    description: str = ""

    @property
    def validation_steps(self) -> tuple[int, ...]:
        """Steps after which Dice on val is taken: every so many, and the last."""
        steps, every = self.config.steps, self.config.validate_every
        return (*range(every, steps, every), steps)


class Segmenter(nn.Module):
    """SegResNet for slices of any size: padded with background to what the network takes, and cut back.

    Parameters
    ----------
    n_modalities, n_classes : int
        Background counts as a class.
    filters : int
        At full resolution.
    """

    def __init__(self, n_modalities: int, n_classes: int, filters: int) -> None:
        super().__init__()
        self.network = SegResNet(
            spatial_dims=2,
            init_filters=filters,
            in_channels=n_modalities,
            out_channels=n_classes,
            norm=("GROUP", {"num_groups": filters // CHANNELS_PER_GROUP}),
        )

    def encode(self, scan: Tensor) -> Tensor:
        """Return the deepest features of scans (N, modalities, x, y): (N, features, x / 8, y / 8)."""
        features: Tensor = self.network.encode(_pad(scan))[0]
        return features

    def forward(self, scan: Tensor) -> Tensor:
        """Return logits.

        Parameters
        ----------
        scan : Tensor, (N, modalities, x, y), float32 in [-1, 1]

        Returns
        -------
        Tensor, (N, classes, x, y), float32
        """
        x, y = scan.shape[2:]
        logits: Tensor = self.network(_pad(scan))
        return logits[:, :, :x, :y]


def _pad(scan: Tensor) -> Tensor:
    x, y = scan.shape[2:]
    if x % SIZE_MULTIPLE or y % SIZE_MULTIPLE:
        return F.pad(scan, (0, -y % SIZE_MULTIPLE, 0, -x % SIZE_MULTIPLE), value=-1.0)
    return scan


class BestSegmenter(nn.Module):
    """The weights that did best on val so far, with the whole curve; part of every checkpoint.

    Parameters
    ----------
    segmenter : Segmenter
        Of the right shape; becomes the copy's home.
    n_validations : int
    """

    curve: Tensor
    losses: Tensor

    def __init__(self, segmenter: Segmenter, n_validations: int) -> None:
        super().__init__()
        self.segmenter = segmenter.requires_grad_(False)
        self.register_buffer("curve", torch.full((n_validations,), -1.0, dtype=torch.float64))
        self.register_buffer("losses", torch.zeros(n_validations, dtype=torch.float64))

    def offer(self, segmenter: Segmenter, number: int, dice_val: float, loss: float) -> None:
        """Note the Dice of a validation and the mean loss before it; keep the weights if they beat all before."""
        if dice_val > float(self.curve.max()):
            self.segmenter.load_state_dict(segmenter.state_dict())
        self.curve[number], self.losses[number] = dice_val, loss


def train_segmenter(plan: SegmenterPlan, scans: ScanPool, folder: Path) -> BestSegmenter:
    """Train one segmenter.

    Parameters
    ----------
    plan : SegmenterPlan
    scans : ScanPool
        Training scans, shared among arms.
    folder : Path
        For ``checkpoints/``; one found there is gone on from.

    Returns
    -------
    BestSegmenter
        The best weights on val, on the training's device.
    """
    config = plan.config
    fabric = Fabric(accelerator=training_device(plan.compute), devices=1, precision=plan.compute.precision)
    segmenter, best = make_segmenters(plan)
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=config.learning_rate, weight_decay=WEIGHT_DECAY)
    train_step, optimizer = fabric.setup(segmenter, optimizer)
    best.to(fabric.device)
    state = {"segmenter": segmenter, "best": best}
    step = load_checkpoint(folder / "checkpoints", state, {"segmenter": optimizer})
    sampler = ArmSampler(plan.arm, scans, plan.window)
    weight = torch.ones(1 + len(plan.scheme.tumor), device=fabric.device)
    weight[0] = BACKGROUND_WEIGHT
    criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, weight=weight)
    loss_sum, n_summed = torch.zeros((), device=fabric.device), 0
    with progress(plan.description or f"segmenter {plan.arm.name}", config.steps) as task:
        task.advance(step)
        while step < config.steps:
            scan, labels = fabric.to_device(draw_batch(plan, sampler, step))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            step_loss = criterion(train_step(scan), labels)
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(step_loss)
            optimizer.step()
            step, n_summed = step + 1, n_summed + 1
            loss_sum += step_loss.detach()
            if step in plan.validation_steps:
                with fabric.autocast():
                    dice_val = validate(segmenter, plan)
                best.offer(segmenter, plan.validation_steps.index(step), dice_val, float(loss_sum) / n_summed)
                loss_sum, n_summed = torch.zeros_like(loss_sum), 0
                save_checkpoint(folder / "checkpoints", step, state, {"segmenter": optimizer})
            task.advance()
    return best


def make_segmenters(plan: SegmenterPlan) -> tuple[Segmenter, BestSegmenter]:
    """Return the network at its starting weights and the keeper of the best ones."""
    shape = (len(plan.modalities), 1 + len(plan.scheme.tumor), plan.config.filters)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(plan.seed, "weights"))
        segmenter = Segmenter(*shape)
    return segmenter, BestSegmenter(Segmenter(*shape), len(plan.validation_steps))


def draw_batch(plan: SegmenterPlan, sampler: ArmSampler, step: int) -> tuple[Tensor, Tensor]:
    """Return the batch of a step, augmented; it depends on the seed and the step only."""
    scan, labels = sampler.draw(plan.config.batch_size, numpy_stream(plan.seed, "batch", step))
    stream = torch_stream(plan.seed, "augment", step)
    return augment(scan, labels, plan.arm.augmentation_strength, stream)


def learning_rate(config: SegmenterSection, step: int) -> float:
    """Return the step size: up to half a cosine that falls from the config's to 0."""
    rise = min(1.0, (step + 1) / (WARM_UP_SHARE * config.steps))
    return config.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / config.steps))


def validate(segmenter: nn.Module, plan: SegmenterPlan) -> float:
    """Return the mean Dice over val patients and regions."""
    values = []
    for case in plan.val_cases:
        predicted = predict_case(segmenter, case, plan.modalities, plan.window)
        truth = np.asarray(case.tumor_map())
        for region in plan.scheme.regions:
            values.append(dice(plan.scheme.region_mask(predicted, region), plan.scheme.region_mask(truth, region)))
    return float(np.mean(values))


@torch.no_grad()
def predict_case(segmenter: nn.Module, case: Case, modalities: tuple[str, ...], window: Window) -> UInt8Array:
    """Segment a whole volume, slice by slice in batches.

    Parameters
    ----------
    segmenter : Module
        (N, modalities, x, y) in, logits out.
    case : Case
        Nothing but its images is read.
    modalities : tuple of str
    window : tuple of slice
        Field of view in training; widened here where the brain reaches beyond it.

    Returns
    -------
    ndarray, (x, y, z), uint8
        Tumour map; 0 in slices without brain.
    """
    scan = read_scan(case, modalities, (slice(None), slice(None), slice(None)))
    brain: NDArray[np.bool_] = np.any(scan > -1.0, axis=0)
    extent: NDArray[np.bool_] = np.any(brain, axis=2)
    extent[window] = True
    view = fit_window(extent, SIZE_MULTIPLE)
    slices = np.flatnonzero(np.any(brain, axis=(0, 1)))
    result = np.zeros(brain.shape, np.uint8)
    device = next(segmenter.parameters()).device
    for start in range(0, len(slices), PREDICTION_BATCH):
        chosen = slices[start : start + PREDICTION_BATCH]
        batch = np.ascontiguousarray(np.moveaxis(scan[:, view[0], view[1]][..., chosen], 3, 0))
        classes = segmenter(torch.from_numpy(batch).to(device)).argmax(dim=1)
        result[view[0], view[1], chosen] = np.moveaxis(classes.cpu().numpy().astype(np.uint8), 0, 2)
    return result
