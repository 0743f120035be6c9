"""RunConfig: one frozen section per stage, read from YAML, every field described, unknown keys refused.

Defaults are those of a real data set; the presets in ``configs/`` say what they change and why.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.config_base import PositiveFloat, PositiveInt, Section, Shape, Share, expand_home
from pipeline.config_evaluate import EvaluateSection, SegmenterSection
from pipeline.config_privacy import list_conflicts
from pipeline.config_problems import describe_problem
from pipeline.errors import ConfigError

PerceptualNetwork = Literal["resnet10", "resnet18", "resnet34", "resnet50"]
LabelSource = Literal["recombine", "atlas"]
Attribute = Literal["volume", "hemisphere", "lobe", "enhancing", "foci", "contrast"]


class RunSection(Section):
    """What concerns the run as a whole."""

    seed: int = Field(0, ge=0, description="Root of every random stream.")


class SplitShares(Section):
    """Shares of persons on each side of the split."""

    train: Share = Field(0.6, description="The generator's members.")
    val: Share = Field(0.15, description="Every choice is made here.")
    test: Share = Field(0.25, description="The audit's non-members and the segmenter's test patients.")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        if abs(self.train + self.val + self.test - 1.0) > 1e-6:
            raise ValueError("expected shares that sum to 1")
        return self


class IngestSection(Section):
    """From a folder of scans to a pseudonymous, harmonised cohort."""

    source: str = Field("phantom", description="Folder with the data set, or `phantom` for the built-in cohort.")
    manifest: str = Field("phantom", description="Name of a shipped data manifest, or path of your own.")
    key_file: Path | None = Field(
        None, description="Secret key of the pseudonyms; made on first use in your config folder if not given."
    )
    split_file: Path | None = Field(None, description="TSV with columns subject (as in the source) and split.")
    attributes_file: Path | None = Field(
        None,
        description="TSV with columns subject and others, such as site or sex: groups of patients in which the "
        "evaluation shows the gain. Give it before the first run: everything follows from ingest.",
    )
    split: SplitShares = SplitShares()
    spacing_mm: PositiveFloat = Field(1.0, description="Isotropic spacing of the working grid, mm.")
    size_voxels: Shape = Field((160, 192, 160), description="Shape of the working grid, voxels along x, y, z.")
    min_cases: Annotated[int, Field(ge=5)] = Field(
        6, description="Fewer persons with a usable scan than this: the stage fails."
    )
    min_slices: PositiveInt = Field(16, description="A volume with fewer slices is no brain and is refused.")
    missing_modalities: Literal["train", "quarantine"] = Field(
        "train",
        description="Persons with a scan that lacks a modality: they train the generator in those that they have, and "
        "are on no other side; or such scans are not used.",
    )
    intensity_percentiles: tuple[float, float] = Field(
        (0.5, 99.8), description="Within the brain mask, these percentiles become 0 and 1000; beyond is clipped."
    )
    coregister: bool | None = Field(
        None, description="Register modalities rigidly to the first; if not given, unless the manifest says it is done."
    )
    brain_extraction: Literal["atlas", "synthstrip", "hd-bet", "none"] = Field(
        "atlas", description="How the brain is found where scans have a skull and no mask is given."
    )
    brain_weights: Path | None = Field(None, description="Weights of synthstrip (a file) or hd-bet (a folder).")
    atlas_registration: bool = Field(False, description="Bring each brain onto the ICBM 2009a atlas (affine).")
    bias_correction: bool = Field(False, description="Even out brightness by N4 before scaling.")
    leakage_guard: bool = Field(
        True, description="Look for one person under two identifiers; such subjects share a side of the split."
    )
    same_person_correlation: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.78, description="Likeness of anatomy from which two subjects are taken for one person (docs/leakage.md)."
    )
    tissue_smoothness: PositiveFloat = Field(0.1, description="Beta of the hidden Markov random field.")
    phantom_cases: PositiveInt = Field(40, description="Number of phantoms, where source is `phantom`.")
    phantom_spacing_mm: Annotated[float, Field(ge=1.0, le=6.0)] = Field(
        2.0, description="Spacing at which phantoms are made, mm."
    )

    @field_validator("source", "key_file", "split_file", "attributes_file", "brain_weights", mode="before")
    @classmethod
    def _home(cls, value: object) -> object:
        return expand_home(value)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if min(self.split.train, self.split.val, self.split.test) <= 0:
            raise ValueError("split: expected persons on each side, every share above 0")
        low, high = self.intensity_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"intensity_percentiles: expected 0 <= lower < upper <= 100, got {low} and {high}")
        if self.brain_extraction in ("synthstrip", "hd-bet") and self.brain_weights is None:
            raise ValueError(f"brain_extraction: {self.brain_extraction} needs its weights; name brain_weights")
        return self


class PrivacySection(Section):
    """Differential privacy of the generator, patient by patient (`dp` extra); see docs/differential-privacy.md."""

    epsilon: PositiveFloat = Field(description="Bound of what one patient may change: odds by exp(epsilon) at most.")
    delta: Annotated[float, Field(gt=0.0, lt=0.1)] | None = Field(
        None, description="Probability that the bound does not hold; if not given, members to the power of -1.5."
    )
    clip_norm: PositiveFloat = Field(1.0, description="Norm to which each patient's gradient is clipped.")
    patients_per_step: PositiveInt = Field(32, description="Patients that a discriminator step draws on average.")
    discriminator_steps: PositiveInt = Field(5, description="Steps of the discriminator for one of the generator.")
    label_maps: PositiveInt = Field(64, description="Label maps of nobody that the generator learns on.")


class TrainSection(Section):
    """The conditional GAN."""

    dimensions: Literal[2, 3] = Field(2, description="2: slices with their neighbours as context; 3: volumes.")
    channels: PositiveInt = Field(32, description="Generator channels at full resolution.")
    levels: Annotated[int, Field(ge=1, le=6)] = Field(3, description="Halvings of resolution in the generator.")
    style_size: PositiveInt = Field(16, description="Length of the style code.")
    style: Literal["measured", "random"] = Field(
        "measured",
        description="Whether the style code of a training scan begins with its own brightness of tissues and noise, so "
        "that drawn styles look different, or is drawn like all of it.",
    )
    context_slices: Annotated[int, Field(ge=0)] = Field(
        1, description="Label slices on each side that a 2D generator sees beside its own."
    )
    steps: PositiveInt = Field(20000, description="Optimiser steps of generator and discriminator each.")
    batch_size: PositiveInt = Field(8, description="Slices (2D) or patches (3D) in a step.")
    patch_voxels: Shape | None = Field(None, description="Training patch in 3D; the whole volume if not given.")
    learning_rate_generator: PositiveFloat = Field(1e-4, description="Adam step size of the generator.")
    learning_rate_discriminator: PositiveFloat = Field(4e-4, description="Adam step size of the discriminator.")
    discriminator_channels: PositiveInt = Field(
        32, description="Discriminator channels in its first layer; half as many for its grain."
    )
    discriminator_layers: PositiveInt = Field(
        3, description="Layers of each of the two discriminators that see the scan; that of its grain has one."
    )
    class_balance: Share = Field(
        0.5,
        description="How much more the rare classes of a batch count in what both players learn: a place by its "
        "class's share of the batch to the power of minus this; 0: all places alike.",
    )
    feature_matching_weight: Annotated[float, Field(ge=0.0)] = Field(10.0, description="Weight of feature matching.")
    reconstruction_weight: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Weight of L1 to the real scan; 0 leaves it out."
    )
    perceptual_weight: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Weight of the perceptual loss, on a network that was trained elsewhere; 0 leaves it out."
    )
    perceptual_network: PerceptualNetwork = Field("resnet10", description="MONAI's name of that network.")
    perceptual_weights: Path | None = Field(
        None, description="Its weights, of one input channel: safetensors, or as torch.save writes them (MedicalNet)."
    )
    ema_decay: Share = Field(0.999, description="Decay per step of the averaged generator that samples are drawn from.")
    augmentation: tuple[Literal["colour", "translation", "cutout", "flip"], ...] = Field(
        ("colour", "translation", "cutout", "flip"), description="DiffAugment policies, seen by the discriminator."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute the generator's blocks again instead of keeping them: less memory, more time."
    )
    privacy: PrivacySection | None = Field(None, description="Train with differential privacy; null: without.")
    monitor_every: PositiveInt = Field(500, description="Steps between figures and sample grids on val patients.")
    checkpoint_every: PositiveInt = Field(500, description="Steps between checkpoints.")

    @field_validator("perceptual_weights", mode="before")
    @classmethod
    def _home(cls, value: object) -> object:
        return expand_home(value)

    @model_validator(mode="after")
    def _weights_named(self) -> Self:
        if self.perceptual_weight > 0 and self.perceptual_weights is None:
            raise ValueError("perceptual_weight: needs a network's weights; name perceptual_weights")
        return self


class CurationSection(Section):
    """Which synthetic cases are kept; the audit's references choose theirs the same way."""

    candidates: Annotated[int, Field(ge=1, le=20)] = Field(
        1,
        description="Candidates made for each case asked for; the best are kept. 1: no choice, the default: no gain "
        "was measured (benchmarks/results).",
    )
    criteria: tuple[Literal["fidelity", "realism", "diversity"], ...] = Field(
        ("fidelity", "realism"),
        min_length=1,
        description="What candidates compete in: whether a segmenter finds the label asked for, whether their "
        "features lie where those of val patients do, how far they lie from other candidates (which prefers accidents: "
        "benchmarks/results).",
    )
    drop_near_duplicates: bool = Field(
        True,
        description="Refuse candidates as like a person of train or val as constructed copies are; only other "
        "candidates replace them, so with one for each case there are fewer cases.",
    )


class PlanRow(Section):
    """Tumours that a plan's table asks for."""

    n: PositiveInt = Field(description="Number of cases.")
    volume: Literal["small", "medium", "large"] | None = Field(None, description="See volume_edges_ml.")
    hemisphere: Literal["left", "right"] | None = Field(None, description="Where its centre lies.")
    lobe: Literal["frontal", "parietal", "temporal", "occipital", "deep", "infratentorial"] | None = Field(
        None, description="Where most of it lies."
    )
    enhancing: Literal["none", "some", "strong"] | None = Field(None, description="See enhancing_edges.")
    foci: Literal["one", "several"] | None = Field(None, description="Whether it has parts that are not connected.")
    contrast: Literal["low", "middle", "high"] | None = Field(None, description="See contrast_edges.")

    @property
    def cell(self) -> dict[str, str]:
        """Stratum of each attribute that is named."""
        return {name: value for name, value in self.model_dump(exclude={"n"}).items() if value is not None}


class GenerateSection(Section):
    """The synthetic cohort."""

    n_cases: PositiveInt = Field(200, description="Synthetic cases to make.")
    label_sources: dict[LabelSource, Share] = Field(
        {"recombine": 0.5, "atlas": 0.5}, description="Share of cases whose label map comes from each source."
    )
    balance: Literal["uniform", "fill-gaps", "like-source", "table"] = Field(
        "uniform",
        description="Cases asked for in each stratum: all alike; so that members and synthetic cases together are as "
        "even as can be; as among the members; or as in `table`.",
    )
    strata: tuple[Attribute, ...] = Field(
        ("volume", "hemisphere"), description="Attributes whose strata, combined, the plan fills."
    )
    table: tuple[PlanRow, ...] = Field(
        (), description="For `balance: table`: rows that name each of `strata`, and n; n sums to n_cases."
    )
    volume_edges_ml: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        (5.0, 25.0, 60.0, 120.0), description="Edges of the strata small, medium, large of whole-tumour volume, ml."
    )
    enhancing_edges: tuple[PositiveFloat, PositiveFloat] = Field(
        (0.02, 0.2), description="Shares of the whole tumour from which it enhances at all, and strongly."
    )
    contrast_edges: tuple[float, float] | None = Field(
        None,
        description="Brightness of white less that of grey matter in the first modality (the range is 1000) from which "
        "contrast is middling, and high; if not given, a third of the members lies in each.",
    )
    look: Literal["sampled", "fixed"] = Field(
        "sampled", description="Whether each case has a style of its own, as from many scanners, or all have one."
    )
    judge: SegmenterSection = Field(
        SegmenterSection(), description="Segmenter, trained on real training patients, that synthetic scans are shown."
    )
    curation: CurationSection = CurationSection()
    two_sample_steps: PositiveInt = Field(
        300, description="Steps of each small network that tries to tell synthetic slices from real ones."
    )
    max_attempts: PositiveInt = Field(
        8, description="Label maps tried for a case until one meets its plan; styles too, if contrasts are asked for."
    )

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        if abs(sum(self.label_sources.values()) - 1.0) > 1e-6:
            raise ValueError("label_sources: expected shares that sum to 1")
        if list(self.volume_edges_ml) != sorted(set(self.volume_edges_ml)):
            raise ValueError("volume_edges_ml: expected four increasing volumes")
        if self.judge.dimensions != 2:
            raise ValueError("judge: expected dimensions 2; what it is shown for realism are slices")
        if not self.enhancing_edges[0] < self.enhancing_edges[1] <= 0.5:
            raise ValueError("enhancing_edges: expected two increasing shares of at most .5")
        if self.contrast_edges and not self.contrast_edges[0] < self.contrast_edges[1]:
            raise ValueError("contrast_edges: expected two increasing contrasts")
        if self.look == "fixed" and "contrast" in self.strata:
            raise ValueError("look: expected `sampled` where strata ask for contrasts; one style has one contrast")
        if not self.strata or len(set(self.strata)) < len(self.strata):
            raise ValueError("strata: expected attributes, each once")
        if (self.balance == "table") != bool(self.table):
            raise ValueError("table: expected with `balance: table`, and only with it")
        if any(set(row.cell) != set(self.strata) for row in self.table):
            raise ValueError(f"table: expected rows that name {', '.join(self.strata)} (strata) and n")
        if self.table and sum(row.n for row in self.table) != self.n_cases:
            raise ValueError(f"table: expected n that sum to n_cases, {self.n_cases}")
        return self


class AuditSection(Section):
    """Membership-inference attacks, their controls, and the limits of the gate."""

    policy: str = Field(
        "default", description="Limits, each with its reason: `default`, or the path of a copy of the shipped policy."
    )
    release: Literal["dataset", "generator"] = Field(
        "dataset", description="What is to leave: the synthetic cohort, or the generator too; more attacks gate then."
    )
    n_references: PositiveInt = Field(
        8, description="Reference generators, trained on balanced random halves; attacks with shadows take four."
    )
    n_style_draws: PositiveInt = Field(4, description="Styles that the reconstruction attack tries.")
    overtrained_members: Annotated[int, Field(ge=0)] = Field(
        0, description="Members of one more generator, a positive control that costs a training; 0: none."
    )
    canaries: Annotated[int, Field(ge=0, le=1000)] = Field(
        0,
        description="Invented persons, of whom a coin each puts half into one more training, for a bound of epsilon by "
        "one run; 0: none. Fewer than 12 show nothing.",
    )
    n_permutations: Annotated[int, Field(ge=1000)] = Field(1000, description="Permutations of the negative control.")
    n_bootstrap: Annotated[int, Field(ge=200)] = Field(2000, description="Bootstrap samples of each interval.")

    @model_validator(mode="after")
    def _even_references(self) -> Self:
        if self.n_references % 2:
            raise ValueError("n_references: expected an even number, since halves come in complementary pairs")
        return self


class ExportSection(Section):
    """The release, behind the privacy gate."""

    override_reason: str = Field(
        "", description="Written reason to release although the verdict is not pass; recorded in the release."
    )
    title: str = Field("Synthetic brain-tumour MRI cohort", description="Title on the card.")
    license: str = Field("CC-BY-4.0", description="SPDX identifier of the release's licence.")
    contact: str = Field("", description="Whom receivers may ask; printed on the card. Leave empty to print nothing.")


class TrackingSection(Section):
    """MLflow."""

    uri: str = Field("", description="Tracking server; empty: a sqlite store beside the runs; `none`: journal only.")
    experiment: str = Field("synthcohort", description="MLflow experiment.")


class ComputeSection(Section):
    """Where the work runs. On CPUs nothing here but `precision` changes results; a GPU sums in another order."""

    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="Device of the trainings.")
    devices: PositiveInt = Field(1, description="Devices of a training, per node; one so far.")
    nodes: PositiveInt = Field(1, description="Nodes of a training; one so far.")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="Arithmetic of trainings.")
    workers: Annotated[int, Field(ge=0)] = Field(0, description="Processes for work on cases; 0: one per core.")
    scheduler: str = Field("local", description="`local`, or address of a Dask scheduler (`cluster` extra).")

    @model_validator(mode="after")
    def _one_device(self) -> Self:
        if self.devices > 1 or self.nodes > 1:
            raise ValueError(
                "devices, nodes: a training runs on one device so far, got "
                f"{self.devices} x {self.nodes}; use compute.scheduler to spread cases and trainings"
            )
        return self


class RunConfig(Section):
    """A whole run."""

    run: RunSection = RunSection()
    ingest: IngestSection = IngestSection()
    train: TrainSection = TrainSection()
    generate: GenerateSection = GenerateSection()
    audit: AuditSection = AuditSection()
    evaluate: EvaluateSection = EvaluateSection()
    export: ExportSection = ExportSection()
    tracking: TrackingSection = TrackingSection()
    compute: ComputeSection = ComputeSection()

    @model_validator(mode="after")
    def _grid_fits_networks(self) -> Self:
        multiple = 2**self.train.levels
        in_network = self.ingest.size_voxels[: self.train.dimensions]
        if any(n % multiple for n in in_network):
            raise ValueError(
                f"ingest.size_voxels: expected multiples of 2^train.levels = {multiple} along the axes that the "
                f"{self.train.dimensions}D generator sees, got {in_network}"
            )
        self._check_network_sizes(in_network)
        self.evaluate.check_volumes("evaluate", self.ingest.size_voxels)
        return self

    @model_validator(mode="after")
    def _privacy_holds(self) -> Self:
        if conflicts := list_conflicts(self):
            raise ValueError("train.privacy: " + "\n".join(conflicts))
        return self

    def _check_network_sizes(self, in_network: tuple[int, ...]) -> None:
        patch = self.train.patch_voxels if self.train.dimensions == 3 else None
        if patch and any(p > n or p % 2**self.train.levels for p, n in zip(patch, in_network, strict=True)):
            raise ValueError(
                f"train.patch_voxels: expected multiples of 2^train.levels = {2**self.train.levels}, at most "
                f"ingest.size_voxels, got {patch}"
            )
        # Each layer but the last halves, the second discriminator sees half the resolution, and 3 voxels must be left.
        smallest = 3 * 2 ** (self.train.discriminator_layers + 1)
        if min(patch or in_network) < smallest:
            raise ValueError(
                f"train.discriminator_layers: {self.train.discriminator_layers} layers need at least {smallest} voxels "
                f"along each axis, got {patch or in_network}; use fewer layers or a larger grid"
            )


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config file.

    Parameters
    ----------
    path : Path
        YAML; relative paths in it are relative to the working folder.
    overrides : sequence of str
        ``section.key=value`` items that win over the file; values are YAML.

    Returns
    -------
    RunConfig

    Raises
    ------
    ConfigError
        If the file is missing or no YAML mapping, or a key is unknown, or a value does not fit; every problem is
        listed with its path, unknown keys with the nearest known one.
    """
    if not path.is_file():
        raise ConfigError(f"config file {path} not found; expected a YAML file such as configs/demo.yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}; correct the file") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections such as `train:`, got {type(content).__name__}; see configs/")
    # A section whose keys are all commented out.
    content = {name: {} if section is None else section for name, section in content.items()}
    for override in overrides:
        _apply_override(content, override)
    return parse_config(content, f"{path} with --set" if overrides else str(path))


def parse_config(content: Mapping[str, Any], origin: str) -> RunConfig:
    """Validate a config given as nested mappings; see :func:`load_config`."""
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        problems = [describe_problem(dict(item), RunConfig) for item in error.errors()]
        raise ConfigError(f"{origin}: " + "\n".join(problems)) from error


def dump_config(config: RunConfig) -> str:
    """Return the resolved config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _apply_override(content: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or len(keys) < 2 or not all(keys):
        raise ConfigError(f"--set {override}: expected section.key=value, as in --set train.steps=1000")
    target = content
    for key in keys[:-1]:
        child = target.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {key} is a value, not a section; see configs/ for the keys")
        target = child
    try:
        target[keys[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML; put it in quotes") from error
