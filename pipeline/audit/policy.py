"""The policy of an audit: limits by threat model and attack, each with its reason; see ``policy.yaml``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.errors import ConfigError

DEFAULT = "default"
DEFAULT_FILE = Path(__file__).with_name("policy.yaml")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Level(_Part):
    """A level of tests and intervals, with its reason."""

    value: Annotated[float, Field(gt=0.0, lt=0.5)]
    reason: Annotated[str, Field(min_length=20)]


class AucLimit(_Part):
    """The largest AUC that is accepted, with its reason."""

    value: Annotated[float, Field(gt=0.5, lt=1.0)]
    reason: Annotated[str, Field(min_length=20)]


class AtLeast(_Part):
    """A number of persons or references, with its reason."""

    value: Annotated[int, Field(ge=2)]
    reason: Annotated[str, Field(min_length=20)]


class ShareLimit(_Part):
    """A share, with its reason."""

    value: Annotated[float, Field(ge=0.0, le=1.0)]
    reason: Annotated[str, Field(min_length=20)]


class AucLimits(_Part):
    """Limits by threat model, and of single attacks where these have one of their own."""

    dataset: AucLimit
    model: AucLimit
    attacks: dict[str, AucLimit] = Field(default_factory=dict)

    @field_validator("attacks")
    @classmethod
    def _known(cls, attacks: dict[str, AucLimit]) -> dict[str, AucLimit]:
        if not attacks:
            return attacks
        from pipeline.audit.attacks.registry import BY_NAME  # heavy, and who only verifies a release needs none of it

        gated = [name for name, attack in BY_NAME.items() if attack.threat_model != "warning"]
        if unknown := sorted(set(attacks) - set(gated)):
            raise ValueError(f"expected names of gated attacks ({', '.join(gated)}), got {', '.join(unknown)}")
        return attacks


class CopiesPolicy(_Part):
    """What the search for copies must be able to see, and where it looks."""

    levels: tuple[Literal["scan", "tumor", "labels"], ...] = Field(min_length=1)
    min_recall: ShareLimit
    max_false_alarms: ShareLimit


class Policy(_Part):
    """What is gated, and where the limits lie.

    Parameters
    ----------
    name : str
    alpha : Level
        Of intervals, and of what makes an audit fail.
    control_alpha : Level
        Of negative controls.
    auc_limit : AucLimits
    min_patients_a_side : AtLeast
        With fewer an interval is called unreliable and gates nothing.
    min_references_to_pass : AtLeast
    copies : CopiesPolicy
    planted_auc : AucLimit
        What a positive control must reach.
    """

    name: Annotated[str, Field(min_length=1)]
    alpha: Level
    control_alpha: Level
    auc_limit: AucLimits
    min_patients_a_side: AtLeast
    min_references_to_pass: AtLeast
    copies: CopiesPolicy
    planted_auc: AucLimit

    def limit(self, attack: str) -> float:
        """Return the largest AUC that is accepted of an attack: its own limit, or that of its threat model."""
        if attack in self.auc_limit.attacks:
            return self.auc_limit.attacks[attack].value
        from pipeline.audit.attacks.registry import BY_NAME

        threat_model = BY_NAME[attack].threat_model
        return self.auc_limit.dataset.value if threat_model == "dataset" else self.auc_limit.model.value


def policy_file(name: str) -> Path:
    """Return the file of a policy: of the shipped one for ``default``, else the path itself."""
    return DEFAULT_FILE if name == DEFAULT else Path(name)


def load_policy(name: str) -> Policy:
    """Read a policy.

    Parameters
    ----------
    name : str
        ``default``, or the path of a YAML file.

    Raises
    ------
    ConfigError
        If the file is not there, is no YAML, or a number or its reason is missing or out of range.
    """
    path = policy_file(name)
    try:
        return Policy.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(
            f"audit.policy: {path.name} cannot be read; expected 'default' or a policy's path; copy the shipped one"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"audit.policy: {path.name} is no YAML; mend it or use 'default'") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"audit.policy: {path.name}: {where}: {first['msg']}; see the shipped policy") from error


def weaker_than_shipped(policy: Policy) -> list[str]:
    """Say in words in which numbers a policy lets more through than the shipped one.

    Returns
    -------
    list of str
        One text for each such number, with both values; empty if there is none.
    """
    shipped = load_policy(DEFAULT)
    numbers = [
        *((title, value, usual) for title, value, usual in _at_most(policy, shipped) if value > usual),
        *((title, value, usual) for title, value, usual in _at_least(policy, shipped) if value < usual),
    ]
    return [
        *(f"{title} {value} instead of {usual}" for title, value, usual in numbers),
        *(
            f"no search for copies of level '{level}'"
            for level in shipped.copies.levels
            if level not in policy.copies.levels
        ),
    ]


def _at_most(policy: Policy, shipped: Policy) -> Iterator[tuple[str, float, float]]:
    """Yield title, value and shipped value of each number that lets more through where it is higher."""
    limits, usual = policy.auc_limit, shipped.auc_limit
    yield "AUC limit of attacks on the data set", limits.dataset.value, usual.dataset.value
    yield "AUC limit of attacks on the generator", limits.model.value, usual.model.value
    for attack in sorted({*limits.attacks, *usual.attacks}):
        yield f"AUC limit of '{attack}'", policy.limit(attack), shipped.limit(attack)
    yield "alpha", policy.alpha.value, shipped.alpha.value
    yield (
        "false alarms of the search for copies",
        policy.copies.max_false_alarms.value,
        shipped.copies.max_false_alarms.value,
    )


def _at_least(policy: Policy, shipped: Policy) -> Iterator[tuple[str, float, float]]:
    """Yield title, value and shipped value of each number that lets more through where it is lower."""
    yield "persons a side", policy.min_patients_a_side.value, shipped.min_patients_a_side.value
    yield "reference generators", policy.min_references_to_pass.value, shipped.min_references_to_pass.value
    yield "recall of the search for copies", policy.copies.min_recall.value, shipped.copies.min_recall.value
    yield "AUC that a planted leak must reach", policy.planted_auc.value, shipped.planted_auc.value
    # The level at which a control counts as misbehaving: the lower, the less makes an audit invalid.
    yield "alpha of negative controls", policy.control_alpha.value, shipped.control_alpha.value


def describe_policy(policy: Policy) -> str:
    """Name a policy in words, on one line, with each number that is weaker than in the shipped one."""
    name = f"policy '{' '.join(policy.name.split())}'"
    if weaker := weaker_than_shipped(policy):
        return f"{name}, weaker than the shipped one in: {'; '.join(weaker)}"
    return f"{name}, {'the shipped one' if policy == load_policy(DEFAULT) else 'nowhere weaker than the shipped one'}"
