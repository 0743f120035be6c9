"""The sections of segmenters and of the evaluation: which arms are trained, on what, and what is compared."""

import math
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
# Real and synthetic slices at once, in a proportion that `search` chooses.
MIXED_ARMS: tuple[ArmName, ...] = ("real-syn", "real-syn-aug", "random-contrast-aug")
# Neither all nor nothing: 1 would leave an arm that is told to have real scans without any.
PartialShare = Annotated[float, Field(gt=0.0, lt=1.0)]
# In a step on whole volumes; a training needs about 1.2 kB for each, at 16 filters: 20 GB.
MAX_WHOLE_VOXELS = 2**24
# Compared beside what the config's baseline is compared with: synthetic scans without ordinary augmentation.
PLAIN_PAIR: PlannedPair = ("real-syn", "real")
# The arm that the verdict is about, where it is trained, and what a generator must beat.
MAIN_ARM: ArmName = "real-syn-aug"
RIVALS: tuple[ArmName, ...] = ("copypaste-aug", "random-contrast-aug")


def refuse_repeats(section: Section, *keys: str) -> None:
    """Raise ValueError if a list has something twice; numbers count as folders and curves name them."""
    for key in keys:
        values = getattr(section, key)
        named = [f"{value:g}" if isinstance(value, float) else value for value in values]
        if len(set(named)) < len(named):
            raise ValueError(f"{key}: expected each once, numbers to six digits, got {', '.join(map(str, values))}")


class AugmentationSection(Section):
    """Ordinary augmentation, nnU-Net's list: strengths scale probability and range; 0: off, 1: nnU-Net's."""

    rotation: Share = Field(1.0, description="Rotation, up to 30 degrees.")
    scaling: Share = Field(1.0, description="Scaling, by .7 to 1.4.")
    mirroring: Share = Field(1.0, description="Mirroring, left to right.")
    noise: Share = Field(1.0, description="Gaussian noise, up to .1 of the brain's standard deviation.")
    blur: Share = Field(1.0, description="Gaussian blur.")
    brightness: Share = Field(1.0, description="Brightness, z-scored intensities times .75 to 1.25.")
    contrast: Share = Field(1.0, description="Contrast, the same within the brain's range.")
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
    background_weight: PositiveShare = Field(
        0.1,
        description="Of background in cross-entropy, tumour counting 1. At 1, as nnU-Net has it, short trainings of "
        "few patients may never leave the answer that all is background; below, segmenters see too much tumour.",
    )
    augmentation: AugmentationSection = AugmentationSection()
    test_time_flips: bool = Field(
        False,
        description="Average the prediction with that of the mirrored scan, left to right, in arms that are trained on "
        "mirrored scans.",
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

    def check_volumes(self, key: str, size_voxels: tuple[int, ...]) -> None:
        """Raise ValueError if whole volumes of a size, in a batch, would need more memory than there is."""
        n_voxels = self.batch_size * math.prod(size_voxels)
        if self.dimensions == 3 and self.patch_voxels is None and n_voxels > MAX_WHOLE_VOXELS:
            raise ValueError(
                f"{key}: whole volumes in 3D; expected at most {MAX_WHOLE_VOXELS:,} voxels in a batch, got "
                f"{n_voxels:,} (batch_size {self.batch_size} of {size_voxels}); give {key}.patch_voxels, or a smaller "
                "batch_size"
            )


class SearchSection(Section):
    """What is mixed into real scans: one candidate of each is taken; several are tried out on val, by each rival.

    Keep the numbers of candidates equal: combinations of the first three, these with `contrast_shares`, `paste_shares`.
    """

    synthetic_shares: tuple[PartialShare, ...] = Field(
        (0.25,), min_length=1, description="Share of synthetic slices in what a mixed arm sees, below 1."
    )
    contrast_shares: tuple[PartialShare, ...] = Field(
        (),
        description="The same for random-contrast-aug, whose best is often far smaller. If not given: as "
        "`synthetic_shares`.",
    )
    schedules: tuple[Schedule, ...] = Field(
        ("mixed",), min_length=1, description="Synthetic and real slices in every batch, or synthetic ones first."
    )
    n_synthetic: tuple[PositiveInt | Literal["all"], ...] = Field(
        ("all",), min_length=1, description="Number of synthetic cases."
    )
    paste_shares: tuple[PositiveShare, ...] = Field(
        (0.5,), min_length=1, description="Share of slices or patches that copypaste-aug pastes into."
    )
    steps: PositiveInt | None = Field(None, description="Steps of each trial; if not given, as many as the arms'.")
    n_seeds: PositiveInt = Field(1, description="Trials of each candidate.")

    @property
    def n_candidates(self) -> int:
        """Number of candidates of arms with synthetic scans."""
        return len(self.synthetic_shares) * len(self.schedules) * len(self.n_synthetic)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        refuse_repeats(self, "synthetic_shares", "contrast_shares", "schedules", "n_synthetic", "paste_shares")
        return self


class EvaluateSection(SegmenterSection):
    """Segmentation with and without synthetic scans."""

    arms: tuple[ArmName, ...] = Field(DEFAULT_ARMS, min_length=1, description="Arms to train.")
    shares: tuple[PositiveShare, ...] = Field(
        (1.0,),
        min_length=1,
        description="Shares of the real training patients, of which arms with real scans are trained on each.",
    )
    n_seeds: PositiveInt = Field(3, description="Trainings of each arm at each share.")
    n_generators: PositiveInt = Field(
        1,
        description="Generators at each share, each with a draw of the share's patients of its own, dealt to the "
        "trainings in turn; with `n_seeds` of them intervals hold the luck of a generator too. At all patients the "
        "first is the run's own; evaluate trains the others.",
    )
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
    pretraining_share: PartialShare = Field(
        0.5,
        description="Share of the steps, below 1, in which syn-ft and syn-ft-aug see synthetic scans, then real ones.",
    )
    steps_check: bool = Field(
        False,
        description="Train the baseline at the largest share once more with twice the steps: would more of them help?",
    )
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
        refuse_repeats(self, "arms", "shares", "comparisons", "planned_metrics")
        if self.search.n_candidates > 1 and not set(MIXED_ARMS) & set(self.arms):
            raise ValueError(
                f"search: expected one candidate, as no arm mixes synthetic scans in ({', '.join(MIXED_ARMS)}), got "
                f"{self.search.n_candidates}; give one of each, or add such an arm"
            )
        if len(self.search.paste_shares) > 1 and "copypaste-aug" not in self.arms:
            raise ValueError("search.paste_shares: expected one, as copypaste-aug is no arm; give one, or add the arm")
        if self.search.contrast_shares and "random-contrast-aug" not in self.arms:
            raise ValueError("search.contrast_shares: random-contrast-aug is no arm; leave them out, or add the arm")
        if self.n_generators > self.n_seeds:
            raise ValueError(f"n_generators: expected at most n_seeds, {self.n_seeds}, got {self.n_generators}")
        if self.received_release is not None and self.n_generators > 1:
            raise ValueError(f"n_generators: expected 1 with received_release, one cohort, got {self.n_generators}")
        if "dice" not in self.planned_metrics:
            raise ValueError("planned_metrics: expected dice among them, by which the primary comparison is made")
        for arm, baseline in self.comparisons:
            if arm == baseline or not {arm, baseline} <= set(self.arms):
                raise ValueError(
                    f"comparisons: expected pairs of two different arms among {', '.join(self.arms)}, got {arm} and "
                    f"{baseline}"
                )
        return self
