"""What the sections of a config have in common: immutable, closed, and the kinds of numbers in them."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveShare = Annotated[float, Field(gt=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
Shape = tuple[PositiveInt, PositiveInt, PositiveInt]


class Section(BaseModel):
    """Base of all sections: immutable, closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def expand_home(value: object) -> object:
    """Take ``~`` for the home folder: a shell does not, behind ``--set key=``."""
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~") else value
