"""Training of a segmenter, that goes on bit-identical after a kill; its checkpoint is chosen on val.

References
----------
Isensee et al. 2021, "nnU-Net", doi:10.1038/s41592-020-01008-z (Dice with cross-entropy; Dice over the batch, background
left out; gradients clipped at a norm of 12).
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from monai.losses.dice import DiceCELoss
from torch import Tensor, nn

from pipeline.cohort import Case
from pipeline.config import ComputeSection
from pipeline.config_evaluate import SegmenterSection
from pipeline.errors import DataError
from pipeline.labels import LabelScheme
from pipeline.parallel import training_device
from pipeline.progress import progress
from pipeline.seeds import derive_seed
from pipeline.segmentation.arms import Arm
from pipeline.segmentation.inference import Inference, predict_case
from pipeline.segmentation.metrics import dice
from pipeline.segmentation.networks import Segmenter, supervised_loss
from pipeline.segmentation.sampling import ArmSampler
from pipeline.segmentation.scans import FieldOfView, ScanPool, Window
from pipeline.train.checkpoint import load_checkpoint, save_checkpoint

WEIGHT_DECAY = 1e-2
# Of the steps; the step size rises over them.
WARM_UP_SHARE = 0.1
MAX_GRADIENT_NORM = 12.0


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
        Field of view in training, along x and y, and z in 3D.
    seed : int
        Root of the training's streams; the same in every arm, so that arms start from the same weights.
    description : str
        Shown with the progress; empty: the arm's title.
    section : str
        Config section of the training, for errors.
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
    section: str = "evaluate"

    @property
    def title(self) -> str:
        """What the training is called."""
        return self.description or f"segmenter {self.arm.title}"

    @property
    def validation_steps(self) -> tuple[int, ...]:
        """Steps after which Dice on val is taken: every so many, and the last."""
        steps, every = self.config.steps, self.config.validate_every
        return (*range(every, steps, every), steps)

    @property
    def n_classes(self) -> int:
        """Number of classes, background included."""
        return 1 + len(self.scheme.tumor)

    @property
    def inference(self) -> Inference:
        """How the trained segmenter is applied, on val and on test alike.

        Mirrored scans are shown only to a segmenter that was trained on such.
        """
        config = self.config
        return Inference(
            self.modalities,
            self.n_classes,
            self.window,
            2**config.levels,
            config.patch_voxels,
            flips=config.test_time_flips and self.arm.augmentation.mirroring > 0.0,
            is_half=self.compute.precision == "bf16-mixed",
        )


class BestSegmenter(nn.Module):
    """The weights that did best on val so far, with the whole curve; part of every checkpoint.

    Parameters
    ----------
    segmenter : Segmenter
        Of the right shape; becomes the copy's home, in evaluation mode.
    n_validations : int
    """

    curve: Tensor
    losses: Tensor

    def __init__(self, segmenter: Segmenter, n_validations: int) -> None:
        super().__init__()
        self.segmenter = segmenter.requires_grad_(False).eval()
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

    Raises
    ------
    DataError
        If no patient of val has a tumour, or the training diverged.
    """
    config = plan.config
    check_val(plan.val_cases)
    fabric = Fabric(accelerator=training_device(plan.compute), devices=1, precision=plan.compute.precision)
    segmenter, best = make_segmenters(plan)
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=config.learning_rate, weight_decay=WEIGHT_DECAY)
    train_step, optimizer = fabric.setup(segmenter, optimizer)
    best.to(fabric.device)
    state = {"segmenter": segmenter, "best": best}
    step = load_checkpoint(folder / "checkpoints", state, {"segmenter": optimizer})
    sampler = make_sampler(plan, scans)
    criterion = make_criterion(plan.n_classes, config.background_weight).to(fabric.device)
    loss_sum, n_summed = torch.zeros((), device=fabric.device), 0
    with progress(plan.title, config.steps) as task:
        task.advance(step)
        while step < config.steps:
            scan, labels = sampler.draw(config.batch_size, step, config.steps, fabric.device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            step_loss = supervised_loss(criterion, train_step(scan), labels)
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(step_loss)
            # What is not finite shows at the next validation.
            fabric.clip_gradients(
                train_step, optimizer, max_norm=MAX_GRADIENT_NORM, norm_type=2.0, error_if_nonfinite=False
            )
            optimizer.step()
            step, n_summed = step + 1, n_summed + 1
            loss_sum += step_loss.detach()
            if step in plan.validation_steps:
                loss = float(loss_sum) / n_summed
                check_finite(plan, segmenter, loss, step)
                dice_val = validate(segmenter.eval(), plan)
                best.offer(segmenter.train(), plan.validation_steps.index(step), dice_val, loss)
                loss_sum, n_summed = torch.zeros_like(loss_sum), 0
                save_checkpoint(folder / "checkpoints", step, state, {"segmenter": optimizer})
            task.advance()
    return best


def check_finite(plan: SegmenterPlan, segmenter: nn.Module, loss: float, step: int) -> None:
    """Raise DataError where the mean loss or a weight is not finite any more: nothing of that may be saved."""
    if math.isfinite(loss) and all(bool(weight.isfinite().all()) for weight in segmenter.parameters()):
        return
    raise DataError(
        f"{plan.title}: diverged by step {step} of {plan.config.steps}; expected a finite loss and weights, got a mean "
        f"loss of {loss:g}; lower {plan.section}.learning_rate ({plan.config.learning_rate:g}) and run again"
    )


def time_step(config: SegmenterSection, n_modalities: int, n_classes: int, size: tuple[int, ...], device: str) -> float:
    """Return the seconds that a step of one sample of a size takes, the first left out; nothing is kept."""
    network = Segmenter(n_modalities, n_classes, config).to(device)
    criterion = make_criterion(n_classes, config.background_weight).to(device)
    scan, labels = torch.zeros(1, n_modalities, *size, device=device), torch.zeros(1, 1, *size, device=device)
    for run in range(3):
        if run == 1:
            started = time.perf_counter()
        loss = supervised_loss(criterion, network(scan), labels)
        torch.autograd.backward(loss)
    # Waits for a GPU.
    float(loss.detach())
    return (time.perf_counter() - started) / 2


def make_segmenters(plan: SegmenterPlan) -> tuple[Segmenter, BestSegmenter]:
    """Return the network at its starting weights and the keeper of the best ones."""
    shape = (len(plan.modalities), plan.n_classes, plan.config)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(plan.seed, "weights"))
        segmenter = Segmenter(*shape)
    return segmenter, BestSegmenter(Segmenter(*shape), len(plan.validation_steps))


def make_sampler(plan: SegmenterPlan, scans: ScanPool) -> ArmSampler:
    """Return what draws the training's batches; they depend on the seed and the step only."""
    view = FieldOfView(plan.window, plan.config.patch_voxels)
    return ArmSampler(plan.arm, scans, view, plan.scheme, len(plan.modalities), plan.seed)


def make_criterion(n_classes: int, background_weight: float) -> DiceCELoss:
    """Return the loss: Dice over the batch, without background, and cross-entropy with background weighted."""
    weight = torch.ones(n_classes)
    weight[0] = background_weight
    return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, weight=weight)


def learning_rate(config: SegmenterSection, step: int) -> float:
    """Return the step size: up to half a cosine that falls from the config's to 0."""
    rise = min(1.0, (step + 1) / (WARM_UP_SHARE * config.steps))
    return config.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / config.steps))


def check_val(cases: Iterable[Case]) -> None:
    """Raise DataError if no patient of val has a tumour: there is nothing to choose a checkpoint by."""
    if not any(np.asarray(case.tumor_map()).any() for case in cases):
        raise DataError(
            "no patient of val has a tumour; expected one at least, to choose a checkpoint by; change "
            "`ingest.split` or `ingest.split_file`"
        )


def validate(segmenter: nn.Module, plan: SegmenterPlan) -> float:
    """Return the mean over val patients of their mean Dice, over the regions that they have; one has a tumour.

    Of a region that a patient lacks the Dice is 0 or 1 for a single voxel: that would choose by chance.
    """
    values = []
    for case in plan.val_cases:
        truth = np.asarray(case.tumor_map())
        masks = {region: plan.scheme.region_mask(truth, region) for region in plan.scheme.regions}
        if truth.any():
            predicted = predict_case(segmenter, case, plan.inference)
            found = [dice(plan.scheme.region_mask(predicted, r), mask) for r, mask in masks.items() if mask.any()]
            values.append(np.mean(found))
    return float(np.mean(values))
