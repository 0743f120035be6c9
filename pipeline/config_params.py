"""A config as flat parameters for tracking: nothing that names a person or a place."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import RunConfig

NOT_TRACKED = frozenset({"tracking.uri", "export.contact"})
PATH_VALUED = frozenset(
    {
        "ingest.source",
        "ingest.manifest",
        "ingest.key_file",
        "ingest.split_file",
        "ingest.attributes_file",
        "ingest.brain_weights",
        "train.perceptual_weights",
        "audit.policy",
        "evaluate.received_release",
        "compute.scheduler",
    }
)


def flatten_config(config: RunConfig) -> dict[str, str]:
    """Return the resolved config as ``section.key`` to text; paths and addresses as digests.

    Returns
    -------
    dict of str to str
        Empty values are left out: they say nothing, and a key that is set later is then new, not changed. So are the
        contact, which names a person, and where the tracking itself goes.
    """
    flat = dict(_flatten("", config.model_dump(mode="json")))
    shown = {key: text for key, text in flat.items() if key not in NOT_TRACKED and text not in ("", "None")}
    return {
        key: _digest_path(text) if key in PATH_VALUED and not _is_name(key, text) else text
        for key, text in shown.items()
    }


def _is_name(key: str, text: str) -> bool:
    """Tell whether a value is a word of the product's own: the built-in cohort, what ships with it, this machine."""
    if key == "ingest.manifest":
        return re.fullmatch(r"[a-z0-9-]+", text) is not None and not Path(text).exists()
    return (key, text) in {("ingest.source", "phantom"), ("audit.policy", "default"), ("compute.scheduler", "local")}


def _digest_path(text: str) -> str:
    """Return a path or an address as a digest."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _flatten(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(f"{prefix}.{key}" if prefix else str(key), item)
    elif isinstance(value, list):
        yield prefix, ", ".join(map(str, value))
    else:
        yield prefix, str(value)
