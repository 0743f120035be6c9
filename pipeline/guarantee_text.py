"""What differential privacy promises of a generator, in words, for report and card alike."""

from collections.abc import Mapping
from typing import Any


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
        f"An audit cannot confirm it: the largest epsilon that this one could have shown is {largest:.1f}, and it "
        f"shows {shown:.1f}."
    )
    if shown > privacy["epsilon"]:
        resolution += " That is more than was promised: something is wrong."
    elif largest <= privacy["epsilon"]:
        resolution += " A promise as weak as this, broken or kept, is beyond what so few patients resolve."
    return (
        f"The generator was trained with differential privacy: epsilon {privacy['epsilon']:.2f} at delta "
        f"{privacy['delta']:.1e}, patient by patient ({privacy['accountant']} accounting; noise "
        f"{privacy['noise_multiplier']:.2f} times the clipping norm, {privacy['n_steps']} steps that draw a share of "
        f"{privacy['sample_rate']:.2f} of {privacy['n_patients']} patients, whose number is public). The promise "
        "covers the generator and what it draws from label maps of nobody; it does not cover figures that were "
        f"computed on patients, as those of the audit were. {resolution}"
    )
