"""What is wrong with a config or a manifest, in words."""

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel


def describe_problem(problem: dict[str, Any], model: type[BaseModel]) -> str:
    """Return one of pydantic's complaints in words: where, what, and the nearest key to an unknown one.

    Parameters
    ----------
    problem : dict
        As ``ValidationError.errors()`` lists them.
    model : type
        What was validated.
    """
    location = [str(part) for part in problem["loc"]]
    path = ".".join(location) or model.__name__.lower().replace("runconfig", "config")
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1], model)
        nearest = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean `{nearest[0]}`?" if nearest else f"known keys: {', '.join(known)}"
        return f"{path}: unknown key; {hint}"
    if problem["type"] == "value_error":
        return f"{path}: {problem['msg'].removeprefix('Value error, ')}"
    return f"{path}: {problem['msg']}; got {problem['input']!r}"


def _known_keys(location: Sequence[str], outermost: type[BaseModel]) -> list[str]:
    model: Any = outermost
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
        if get_args(model):
            # A section that may be left out.
            model = next((one for one in get_args(model) if hasattr(one, "model_fields")), None)
    return list(getattr(model, "model_fields", {}))
