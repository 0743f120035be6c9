"""The privacy gate: a release needs a passed audit of exactly these files, or a written reason that goes with it.

The reason can lift a verdict. It can lift neither an audit that is missing or damaged, nor one that looked at other
files than those to be released: then there is nothing that the reason could be about.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cohort import digest_file, digest_of, digest_tree
from pipeline.errors import GateRefused

VERDICTS = ("pass", "fail", "unresolved", "invalid")
MIN_REASON_CHARACTERS = 20
BOUND_NAMES = {"generator": "the generator", "synthetic": "the synthetic cohort"}
MEANINGS = {
    "fail": "an attack tells who was trained on",
    "unresolved": "the audit could not tell, which is not a pass",
    "invalid": "the audit's own controls failed: it says nothing about privacy, in either direction",
}


@dataclass(frozen=True)
class GateDecision:
    """Why a release may be written.

    Parameters
    ----------
    verdict : str
        The audit's, one of :data:`VERDICTS`.
    overridden : bool
        Whether the verdict is not ``pass`` and a written reason lifts it.
    reason : str
        That reason on one line, empty where none was needed.
    """

    verdict: str
    overridden: bool
    reason: str


def release_digests(weights: Path, synthetic: Path) -> dict[str, str]:
    """Return the sha256 of the generator and of the synthetic cohort: what an audit must be bound to.

    Parameters
    ----------
    weights : Path
        ``generator.safetensors``.
    synthetic : Path
        Folder of the synthetic cohort.

    Returns
    -------
    dict of str to str
        Under the keys of :data:`BOUND_NAMES`.

    Raises
    ------
    GateRefused
        If either is missing.
    """
    if not weights.is_file() or not synthetic.is_dir():
        raise GateRefused(
            "privacy gate: no generator or no synthetic cohort; expected those that were audited; run the stages again"
        )
    return {"generator": digest_file(weights), "synthetic": digest_of(digest_tree(synthetic))}


def read_audit(path: Path) -> dict[str, Any]:
    """Read ``audit.json``.

    Raises
    ------
    GateRefused
        If it is missing or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GateRefused(f"privacy gate: {path.name} not found; expected a finished audit; run the audit") from error
    except (OSError, ValueError, RecursionError) as error:
        raise GateRefused(f"privacy gate: {path.name} is damaged; expected JSON; run the audit again") from error
    if not isinstance(content, dict):
        raise GateRefused(f"privacy gate: {path.name} is no JSON object; run the audit again")
    return content


def decide(audit: Mapping[str, Any], released: Mapping[str, str], override_reason: str) -> GateDecision:
    """Decide whether a release may be written.

    Parameters
    ----------
    audit : mapping
        Content of ``audit.json``.
    released : mapping of str to str
        What would be released; see :func:`release_digests`.
    override_reason : str
        ``export.override_reason``.

    Returns
    -------
    GateDecision

    Raises
    ------
    GateRefused
        If the audit is malformed or bound to other files, whatever the reason says; or if its verdict is not ``pass``
        and there is no reason of at least :data:`MIN_REASON_CHARACTERS` characters.
    """
    verdict = audit.get("verdict")
    if verdict not in VERDICTS:
        raise GateRefused(
            f"privacy gate: unknown verdict; expected one of {', '.join(VERDICTS)}, got {verdict!r:.40}; "
            "run the audit again"
        )
    reasons = _check_reasons(audit.get("reasons", []))
    _check_bound(audit.get("bound_to"), released)
    if verdict == "pass":
        return GateDecision("pass", overridden=False, reason="")
    reason = one_line(override_reason)
    if not is_reason(reason):
        raise GateRefused(_refusal(verdict, reasons, reason))
    return GateDecision(verdict, overridden=True, reason=reason)


def one_line(text: str) -> str:
    """Return a text with each run of white space as one space, none at the ends."""
    return " ".join(text.split())


def is_reason(text: object) -> bool:
    """Tell whether a text is long enough to be a reason; white space does not count."""
    return isinstance(text, str) and len(one_line(text)) >= MIN_REASON_CHARACTERS


def _check_reasons(reasons: object) -> list[str]:
    if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
        raise GateRefused("privacy gate: malformed `reasons` in the audit; expected a list of texts; run it again")
    return reasons


def _check_bound(bound_to: object, released: Mapping[str, str]) -> None:
    if not isinstance(bound_to, dict):
        raise GateRefused("privacy gate: the audit does not say which files it looked at; run the audit again")
    others = [title for key, title in BOUND_NAMES.items() if bound_to.get(key) != released[key]]
    if others:
        raise GateRefused(
            f"privacy gate: the audit looked at other files: {' and '.join(others)} changed since; expected an audit "
            "of what is released; run the audit again (no override lifts this)"
        )


def _refusal(verdict: str, reasons: list[str], given: str) -> str:
    said = "".join(f"\n  - {reason}" for reason in reasons) or "\n  (the audit gives no reasons)"
    short = f" The reason given has {len(given)} characters." if given else ""
    return (
        f"privacy gate: nothing is released; expected the verdict pass, got {verdict}: {MEANINGS[verdict]}. "
        f"The audit says:{said}\n"
        "What to do: train on a larger cohort; or audit with more references (audit.n_references); or, if you answer "
        f"for it, set export.override_reason to a written reason of at least {MIN_REASON_CHARACTERS} characters: it is "
        f"recorded in the release for every receiver to read.{short}"
    )
