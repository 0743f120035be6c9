"""What differential privacy promises of a generator, in words, for report and card alike."""

from collections.abc import Mapping
from typing import Any

# The search for the noise stops this far below the epsilon asked for, in one training here and in another there.
SEARCH_TOLERANCE = 0.01


def is_broken(privacy: Mapping[str, Any]) -> bool:
    """Return whether the audit showed more than was promised; see :func:`pipeline.audit.promise.check_promise`."""
    return bool(privacy["shown"] > privacy["epsilon"] + SEARCH_TOLERANCE)


def describe_guarantee(audit: Mapping[str, Any]) -> str:
    """Return the promise that a generator was trained under, beside what the audit could have shown; empty if none.

    Parameters
    ----------
    audit : mapping
        Content of ``audit.json``, or its public part.
    """
    privacy = audit.get("privacy")
    if not privacy:
        return ""
    shown, largest = privacy["shown"], privacy["resolvable"]
    resolution = (
        f"An audit cannot confirm it: the largest epsilon that its canaries could have shown is {largest:.1f}, and "
        f"they show {shown:.1f}."
    )
    if not largest:
        resolution = (
            "An audit cannot confirm it; canaries alone could refute it, and this one had none, or too few to show "
            "anything."
        )
    elif is_broken(privacy):
        resolution += " That is more than was promised: something is wrong."
    elif largest <= privacy["epsilon"]:
        resolution += " A promise as weak as this, broken or kept, is beyond what its canaries resolve."
    return (
        f"The generator was trained with differential privacy: epsilon {privacy['epsilon']:.2f} at delta "
        f"{privacy['delta']:.1e}, patient by patient ({privacy['accountant']} accounting; noise "
        f"{privacy['noise_multiplier']:.2f} times the clipping norm, {privacy['n_steps']} steps that draw a share of "
        f"{privacy['sample_rate']:.2f} of {privacy['n_patients']} patients, whose number is public). The promise "
        "covers the generator and what it draws from label maps of nobody; it does not cover figures that were "
        f"computed on patients, as those of the audit were. {resolution}"
    )
