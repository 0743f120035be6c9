"""The sections of segmenters and of the evaluation: which arms are trained, on what, and what is compared."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config_base import PositiveFloat, PositiveInt, PositiveShare, Section, Share, expand_home

ArmName = Literal[
    "real",
    "real-aug",
    "real-syn",
    "real-syn-aug",
    "syn",
    "syn-aug",
    "syn-ft",
    "syn-ft-aug",
    "copypaste-aug",
    "random-contrast-aug",
]
PlannedPair = tuple[ArmName, ArmName]
Schedule = Literal["mixed", "synthetic-first"]
DEFAULT_ARMS: tuple[ArmName, ...] = ("real", "real-aug", "real-syn", "real-syn-aug", "syn")
# Compared beside what the config's baseline is compared with: synthetic scans without ordinary augmentation.
PLAIN_PAIR: PlannedPair = ("real-syn", "real")
# The arm that the verdict is about, where it is trained, and what a generator must beat.
MAIN_ARM: ArmName = "real-syn-aug"
RIVALS: tuple[ArmName, ...] = ("copypaste-aug", "random-contrast-aug")


class AugmentationSection(Section):
    """Ordinary augmentation, nnU-Net's list: strengths scale probability and range; 0: off, 1: as nnU-Net has it."""

    rotation: Share = Field(1.0, description="Rotation, up to 30 degrees.")
    scaling: Share = Field(1.0, description="Scaling, by .7 to 1.4.")
    mirroring: Share = Field(1.0, description="Mirroring, left to right.")
    noise: Share = Field(1.0, description="Gaussian noise.")
    blur: Share = Field(1.0, description="Gaussian blur.")
    brightness: Share = Field(1.0, description="Brightness, times .75 to 1.25.")
    contrast: Share = Field(1.0, description="Contrast about the brain's mean, times .75 to 1.25.")
    low_resolution: Share = Field(1.0, description="Simulated low resolution, down to half.")
    gamma: Share = Field(1.0, description="Gamma, .7 to 1.5, of intensities and of inverted ones.")

    @classmethod
    def off(cls) -> Self:
        """Return a section that changes nothing."""
        return cls(**dict.fromkeys(cls.model_fields, 0.0))


class SegmenterSection(Section):
    """How a segmenter is trained."""

    dimensions: Literal[2, 3] = Field(2, description="2: axial slices; 3: volumes.")
    network: Literal["segresnet", "dynunet"] = Field(
        "segresnet",
        description="MONAI's SegResNet (with normalisation over groups), or its DynUNet, nnU-Net's network (over "
        "instances, with deep supervision).",
    )
    filters: Annotated[int, Field(ge=8, multiple_of=8)] = Field(16, description="Filters at full resolution.")
    levels: Annotated[int, Field(ge=2, le=6)] = Field(3, description="Halvings of resolution.")
    patch_voxels: tuple[PositiveInt, ...] | None = Field(
        None,
        description="Training patch along the axes that the network sees; prediction then slides such a window, "
        "weighted by a Gaussian. If not given: the whole field of view.",
    )
    steps: PositiveInt = Field(4000, description="Optimiser steps, the same in every arm.")
    batch_size: PositiveInt = Field(8, description="Slices (2D) or patches (3D) in a step.")
    learning_rate: PositiveFloat = Field(
        1e-3, description="AdamW step size; rises over the first tenth of the steps, then decays by a cosine."
    )
    augmentation: AugmentationSection = AugmentationSection()
    test_time_flips: bool = Field(
        False, description="Average the prediction with that of the mirrored scan, left to right as in training."
    )
    validate_every: PositiveInt = Field(500, description="Steps between Dice on val; the best checkpoint is kept.")

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        patch, smallest = self.patch_voxels, 2 ** (self.levels + 1)
        if patch is not None and len(patch) != self.dimensions:
            raise ValueError(f"patch_voxels: expected {self.dimensions} numbers, one for each axis, got {len(patch)}")
        if patch is not None and any(side % 2**self.levels or side < smallest for side in patch):
            raise ValueError(
                f"patch_voxels: expected multiples of 2^levels = {2**self.levels}, at least {smallest}, got {patch}"
            )
        return self


class SearchSection(Section):
    """How synthetic scans are mixed with real ones: one candidate of each is taken; several are tried out on val."""

    synthetic_shares: tuple[PositiveShare, ...] = Field(
        (0.25,), min_length=1, description="Share of synthetic slices in what a mixed arm sees."
    )
    schedules: tuple[Schedule, ...] = Field(
        ("mixed",), min_length=1, description="Synthetic and real slices in every batch, or synthetic ones first."
    )
    n_synthetic: tuple[PositiveInt | Literal["all"], ...] = Field(
        ("all",), min_length=1, description="Number of synthetic cases."
    )
    steps: PositiveInt | None = Field(None, description="Steps of each trial; if not given, as many as the arms'.")
    n_seeds: PositiveInt = Field(1, description="Trials of each candidate.")

    @property
    def n_candidates(self) -> int:
        """Number of candidates."""
        return len(self.synthetic_shares) * len(self.schedules) * len(self.n_synthetic)


class EvaluateSection(SegmenterSection):
    """Segmentation with and without synthetic scans."""

    arms: tuple[ArmName, ...] = Field(DEFAULT_ARMS, min_length=1, description="Arms to train.")
    shares: tuple[PositiveShare, ...] = Field(
        (1.0,),
        min_length=1,
        description="Shares of the real training patients, of which arms with real scans are trained on each.",
    )
    n_seeds: PositiveInt = Field(3, description="Trainings of each arm at each share.")
    baseline: ArmName = Field("real-aug", description="Arm that the others are compared with.")
    comparisons: tuple[PlannedPair, ...] = Field(
        (),
        description="Planned comparisons, pairs of an arm and what it is compared with, at each share. If not given: "
        "each other arm with `baseline`, `real-syn` with `real`, and `real-syn-aug` with each cheap rival.",
    )
    planned_metrics: tuple[Literal["dice", "hd95"], ...] = Field(
        ("dice",),
        description="Metrics by which a difference may be called significant: each more makes the correction harder. "
        "Others are reported with intervals.",
    )
    search: SearchSection = SearchSection()
    pretraining_share: PositiveShare = Field(
        0.5, description="Share of the steps in which syn-ft and syn-ft-aug see synthetic scans, before real ones."
    )
    paste_share: PositiveShare = Field(0.5, description="Share of slices or patches that copypaste-aug pastes into.")
    received_release: Path | None = Field(
        None,
        description="Release of another institution, whose cohort is the synthetic one in place of the stage "
        "generate's.",
    )
    n_bootstrap: Annotated[int, Field(ge=200)] = Field(2000, description="Bootstrap samples of each interval.")
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = Field(0.05, description="Level of intervals and tests.")

    @field_validator("received_release", mode="before")
    @classmethod
    def _home(cls, value: object) -> object:
        return expand_home(value)

    @property
    def planned(self) -> tuple[PlannedPair, ...]:
        """Planned comparisons: an arm and what it is compared with, none twice."""
        if self.comparisons:
            return self.comparisons
        pairs: list[PlannedPair] = [(arm, self.baseline) for arm in self.arms if arm != self.baseline]
        further: list[PlannedPair] = [PLAIN_PAIR, *((MAIN_ARM, rival) for rival in RIVALS)]
        pairs += [pair for pair in further if set(pair) <= set(self.arms) and pair[::-1] not in pairs]
        return tuple(dict.fromkeys(pairs))

    @model_validator(mode="after")
    def _plan_holds(self) -> Self:
        if self.baseline not in self.arms:
            raise ValueError(f"baseline: expected one of the arms {', '.join(self.arms)}")
        for key in ("arms", "shares", "comparisons", "planned_metrics"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: expected each once")
        if "dice" not in self.planned_metrics:
            raise ValueError("planned_metrics: expected dice among them, by which the primary comparison is made")
        for arm, baseline in self.comparisons:
            if arm == baseline or not {arm, baseline} <= set(self.arms):
                raise ValueError(
                    f"comparisons: expected pairs of two different arms among {', '.join(self.arms)}, got {arm} and "
                    f"{baseline}"
                )
        return self
