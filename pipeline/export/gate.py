"""The privacy gate: a release needs a passed audit of exactly these files, or a written reason that goes with it.

The reason can lift a verdict. It can lift neither an audit that is missing or damaged, nor one that looked at other
files than those to be released: then there is nothing that the reason could be about.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.audit.policy import Policy, describe_policy
from pipeline.cohort import digest_file, digest_of, digest_tree
from pipeline.errors import GateRefused
from pipeline.layout import FOLDERS

VERDICTS = ("pass", "fail", "unresolved", "invalid")
MIN_REASON_CHARACTERS = 20
BOUND_NAMES = {"generator": "the generator", "synthetic": "the synthetic cohort", "policy": "the policy"}
# What an audit reads, and in its record names by digest.
AUDITED_STAGES = ("ingest", "train", "generate")
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
    policy : Policy
        What the verdict was reached under.
    """

    verdict: str
    overridden: bool
    reason: str
    policy: Policy

    @property
    def in_words(self) -> str:
        """The verdict with the policy's name and each of its numbers that is weaker than the shipped one."""
        return f"{self.verdict} under {describe_policy(self.policy)}"


def release_digests(weights: Path, synthetic: Path, policy: Path) -> dict[str, str]:
    """Return the sha256 of the generator, the synthetic cohort and the policy: what an audit must be bound to.

    Parameters
    ----------
    weights : Path
        ``generator.safetensors``.
    synthetic : Path
        Folder of the synthetic cohort.
    policy : Path
        The policy that the config names now.

    Returns
    -------
    dict of str to str
        Under the keys of :data:`BOUND_NAMES`.

    Raises
    ------
    GateRefused
        If one is missing.
    """
    if not weights.is_file() or not synthetic.is_dir():
        raise GateRefused(
            "privacy gate: no generator or no synthetic cohort; expected those that were audited; run the stages again"
        )
    if not policy.is_file():
        raise GateRefused(f"privacy gate: policy {policy.name} not found; expected the audit's; set audit.policy")
    return {
        "generator": digest_file(weights),
        "synthetic": digest_of(digest_tree(synthetic)),
        "policy": digest_file(policy),
    }


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


def check_record(
    path: Path, audited: Mapping[str, Any] | None, records: Mapping[str, Mapping[str, Any] | None]
) -> None:
    """Refuse an audit that is not what the stage wrote, or that it made of another cohort, generator or release.

    The checksums in the records find edits and mix-ups, not forgers.

    Parameters
    ----------
    path : Path
        ``audit.json``.
    audited : mapping, optional
        The record of the audit, its ``done.json``.
    records : mapping of str to mapping, optional
        Records of :data:`AUDITED_STAGES`, as they are now.

    Raises
    ------
    GateRefused
        If ``audit.json`` has changed since, a record is missing or names nothing to compare, or the audit read other
        folders than those that are there.
    """
    if audited is None or not isinstance(audited["files"], dict) or path.name not in audited["files"]:
        raise GateRefused(f"privacy gate: no record of how {path.name} was written; run the audit again")
    if not path.is_file() or digest_file(path) != audited["files"][path.name]:
        raise GateRefused(f"privacy gate: {path.name} was changed after the audit wrote it; run the audit again")
    upstream = audited["upstream"] if isinstance(audited["upstream"], dict) else {}
    for stage in AUDITED_STAGES:
        record = records.get(stage)
        if record is None or not record["digest"] or upstream.get(stage) != record["digest"]:
            raise GateRefused(
                f"privacy gate: the audit was made with another {FOLDERS[stage]}/ than the one that is there, or one "
                "of them has no record; run the stages again (no override lifts this)"
            )


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
        If the audit is malformed, names no policy or is bound to other files, whatever the reason says; or if its
        verdict is not ``pass`` and there is no reason of at least :data:`MIN_REASON_CHARACTERS` characters.
    """
    verdict = audit.get("verdict")
    if verdict not in VERDICTS:
        raise GateRefused(
            f"privacy gate: unknown verdict; expected one of {', '.join(VERDICTS)}, got {verdict!r:.40}; "
            "run the audit again"
        )
    reasons = _check_reasons(audit.get("reasons", []))
    _check_bound(audit.get("bound_to"), released)
    policy = _read_policy(audit.get("policy"))
    if verdict == "pass":
        return GateDecision("pass", overridden=False, reason="", policy=policy)
    reason = one_line(override_reason)
    if not is_reason(reason):
        raise GateRefused(_refusal(verdict, reasons, reason))
    return GateDecision(verdict, overridden=True, reason=reason, policy=policy)


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
    others = [title for key, title in BOUND_NAMES.items() if not released[key] or bound_to.get(key) != released[key]]
    if others:
        raise GateRefused(
            f"privacy gate: the audit looked at other files: {' and '.join(others)} changed since; expected an audit "
            "of what is released; run the audit again (no override lifts this)"
        )


def _read_policy(content: object) -> Policy:
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        raise GateRefused("privacy gate: the audit does not say under which policy; run the audit again") from error


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
