"""Data manifest: teaches ingest a data set without code."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.config_problems import describe_problem
from pipeline.errors import ConfigError, named_file
from pipeline.labels import MODALITIES, TUMOR_CLASSES, LabelScheme


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NiftiFile(_Closed):
    """Where one image of a subject is found."""

    file: str = Field(description="Relative path with `{subject}`; `*` stands for anything but `/`, `**/` for folders.")
    volume: int | None = Field(None, ge=0, description="Index in a four-dimensional file.")


class SeriesRule(_Closed):
    """How one DICOM series of a study is recognised; all that is given must hold."""

    description: str = Field("", description="Regular expression searched in SeriesDescription, case ignored.")
    exclude: str = Field("", description="Regular expression that must not be found there.")
    contrast: bool | None = Field(None, description="Whether a contrast agent must be stated, or must not.")
    echo_time_ms: tuple[float, float] | None = Field(None, description="Least and greatest EchoTime.")
    repetition_time_ms: tuple[float, float] | None = Field(None, description="Least and greatest RepetitionTime.")
    inversion_time_ms: tuple[float, float] | None = Field(None, description="Least and greatest InversionTime.")

    @property
    def times_ms(self) -> dict[str, tuple[float, float]]:
        """Limits that are given, by DICOM keyword."""
        limits = {
            "EchoTime": self.echo_time_ms,
            "RepetitionTime": self.repetition_time_ms,
            "InversionTime": self.inversion_time_ms,
        }
        return {tag: pair for tag, pair in limits.items() if pair is not None}


class Prepared(_Closed):
    """What has already been done to the scans."""

    skull_stripped: bool = Field(False, description="No skull is left: what is not 0 is brain.")
    coregistered: bool = Field(False, description="All modalities of a subject share one world.")
    resampled: bool = Field(False, description="They share one grid too: another one is a mistake.")


class Manifest(_Closed):
    """Everything ingest knows about a data set."""

    name: str = Field(description="Name of the data set.")
    license: str = Field(description="Licence of the data set.")
    citation: str = Field(description="What to cite.")
    format: Literal["nifti", "dicom"]
    subject: str = Field(
        "[^/]+", description="Regular expression of a subject's identifier; a group `person` in it tells the person."
    )
    images: dict[str, NiftiFile] = Field({}, description="NIfTI: file of each modality.")
    tumor: NiftiFile | None = Field(None, description="NIfTI: file of the label map.")
    brain_mask: NiftiFile | None = Field(None, description="NIfTI: file of the brain mask, if there is one.")
    tumor_on: str = Field("", description="Modality that label maps were drawn on; empty: found by its grid.")
    labels: dict[str, list[int]] = Field({}, description="NIfTI: tumour class to the values that mean it.")
    series: dict[str, SeriesRule] = Field({}, description="DICOM: rule of each modality's series.")
    tumor_series: SeriesRule | None = Field(None, description="DICOM: rule of the labels' series (SEG or RTSTRUCT).")
    segments: dict[str, str] = Field(
        {}, description="DICOM: tumour class to a regular expression of SegmentLabel, or ROIName."
    )
    ignore_segments: str = Field(
        "", description="DICOM: regular expression of the segments or structures that are no tumour."
    )
    prepared: Prepared = Prepared()

    @field_validator("images", mode="before")
    @classmethod
    def _allow_plain_paths(cls, value: object) -> object:
        if isinstance(value, dict):
            return {name: {"file": item} if isinstance(item, str) else item for name, item in value.items()}
        return value

    @field_validator("tumor", "brain_mask", mode="before")
    @classmethod
    def _allow_plain_path(cls, value: object) -> object:
        return {"file": value} if isinstance(value, str) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _allow_single_values(cls, value: object) -> object:
        if isinstance(value, dict):
            return {name: [item] if isinstance(item, int) else item for name, item in value.items()}
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        nifti = self.format == "nifti"
        if nifti:
            needed: tuple[str, ...] = ("images", "tumor", "labels")
        else:
            # Labels beside DICOM scans may be NIfTI files.
            needed = ("series", "labels") if self.tumor is not None else ("series", "tumor_series", "segments")
        if not nifti and self.tumor is not None and self.tumor_series is not None:
            raise ValueError("labels: expected tumor (NIfTI) or tumor_series (DICOM), got both")
        missing = [name for name in needed if not getattr(self, name)]
        if missing:
            raise ValueError(f"format {self.format} needs {', '.join(missing)}")
        unknown = [name for name in (self.images if nifti else self.series) if name not in MODALITIES]
        if unknown:
            raise ValueError(f"modalities: expected some of {', '.join(MODALITIES)}, got {', '.join(unknown)}")
        other = ("series", "tumor_series", "segments", "ignore_segments") if nifti else ("images", "brain_mask")
        useless = [name for name in other if getattr(self, name)]
        if useless:
            raise ValueError(f"format {self.format} has no use for {', '.join(useless)}; remove it")
        if self.tumor_on and self.tumor_on not in self.modalities:
            raise ValueError(f"tumor_on: expected one of {', '.join(self.modalities)}, got {self.tumor_on}")
        files = [rule.file for rule in (*self.images.values(), self.tumor, self.brain_mask) if rule is not None]
        if any("{subject}" not in file for file in files):
            raise ValueError(f"files: expected {{subject}} in each, got {', '.join(files)}")
        return self

    @model_validator(mode="after")
    def _classes_known_and_apart(self) -> Self:
        unknown = [name for name in (*self.labels, *self.segments) if name not in TUMOR_CLASSES]
        if unknown:
            raise ValueError(f"classes: expected some of {', '.join(TUMOR_CLASSES)}, got {', '.join(unknown)}")
        values = [value for members in self.labels.values() for value in members]
        if 0 in values:
            raise ValueError("labels: 0 is background, no class")
        double = sorted({value for value in values if values.count(value) > 1})
        if double:
            raise ValueError(f"labels: {double[0]} means two classes; expected one")
        return self

    @model_validator(mode="after")
    def _expressions_compile(self) -> Self:
        rules = [rule for rule in (*self.series.values(), self.tumor_series) if rule is not None]
        in_rules = [expression for rule in rules for expression in (rule.description, rule.exclude)]
        for expression in (self.subject, self.ignore_segments, *self.segments.values(), *in_rules):
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"regular expression {expression!r}: {error}") from error
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that each case must have, in canonical order."""
        given = self.images if self.format == "nifti" else self.series
        return tuple(name for name in MODALITIES if name in given)

    @property
    def scheme(self) -> LabelScheme:
        """Tumour classes of the data set."""
        return LabelScheme(tuple(self.labels or self.segments))


def manifest_path(name: str) -> Path:
    """Return the file of a manifest: a path of the user's, or the name of a shipped one.

    Raises
    ------
    ConfigError
        If there is none; the shipped names are listed.
    """
    given = Path(name)
    if given.is_file():
        return given
    package = Path(str(files("pipeline")))
    # In an installed package the manifests lie inside it, in a checkout beside it.
    shipped = [path for folder in (package, package.parent) for path in (folder / "data_manifests").glob("*.yaml")]
    for path in shipped:
        if path.stem == name:
            return path
    names = ", ".join(sorted(path.stem for path in shipped))
    raise ConfigError(f"ingest.manifest: {name} not found; expected a YAML file or one of {names}")


def load_manifest(name: str) -> Manifest:
    """Read and check a manifest.

    Raises
    ------
    ConfigError
        If it is not found, no YAML, or does not fit; every problem is listed.
    """
    path = manifest_path(name)
    try:
        with named_file("ingest.manifest"):
            text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        return Manifest.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"manifest {name}: not YAML: {' '.join(str(error).split())}; correct the file") from error
    except ValidationError as error:
        problems = "\n".join(describe_problem(dict(item), Manifest) for item in error.errors())
        raise ConfigError(f"manifest {name}:\n{problems}") from error
