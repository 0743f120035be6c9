"""The part of the audit that receivers get: figures of groups, nothing of a single patient."""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import DataError

Audit = Mapping[str, Any]
# Allow-list of audit.json: a mapping names the keys that pass below a key; None lets figures and texts pass.
ATTACK_KEYS = dict.fromkeys(
    (
        *("name", "title", "threat_model", "n_members", "n_nonmembers"),
        *("auc", "auc_ci", "auc_either_sign", "reliable", "p_value"),
        *("tpr_at_fpr", "epsilon_lower", "epsilon_resolvable"),
    )
)
PAIRED_KEYS = dict.fromkeys(
    (
        *("attack", "title", "threat_model", "n_patients", "n_references", "auc", "auc_ci", "limit", "reliable"),
        "interval_covers_generators",
    )
)
CONTROL_KEYS = dict.fromkeys(("name", "expected", "observed", "behaved"))
COPIES_KEYS = dict.fromkeys(
    (
        *("n_near_duplicates", "n_copies", "excess_p", "recall", "recall_ci", "false_alarms", "false_alarms_ci"),
        *("n_persons", "n_honest", "by_transformation"),
    )
)
PUBLIC_AUDIT: dict[str, Any] = {
    "verdict": None,
    "reasons": None,
    "release": None,
    "policy": None,
    "unit": None,
    "attacks": ATTACK_KEYS,
    "paired": PAIRED_KEYS,
    "controls": {"negative": CONTROL_KEYS, "positive": CONTROL_KEYS},
    "copies": {**COPIES_KEYS, "levels": dict.fromkeys(("scan", "tumor", "labels"), COPIES_KEYS)},
    "privacy": None,
    "canaries": None,
    "power": None,
    "patients_needed": None,
    "bound_to": dict.fromkeys(("generator", "synthetic", "policy")),
}
PRIVATE_KEYS = frozenset({"patients", "patient", "persons", "subjects", "subject", "cases", "scores", "nearest_pairs"})


def public_audit(audit: Audit) -> dict[str, Any]:
    """Return the part of ``audit.json`` that receivers get: figures of groups, nothing of a single patient.

    Raises
    ------
    DataError
        If a table of the audit is none.
    """
    return {key: _pass_public(audit[key], shape) for key, shape in PUBLIC_AUDIT.items() if audit.get(key) is not None}


def _pass_public(value: object, shape: Mapping[str, Any] | None) -> object:
    if isinstance(value, list):
        return [_pass_public(item, shape) for item in value]
    if not isinstance(value, dict):
        if shape is not None:
            raise DataError("audit.json is malformed; expected a table, got a single value; run the audit again")
        return value
    known = shape if shape is not None else dict.fromkeys(value)
    return {k: _pass_public(v, known[k]) for k, v in value.items() if k in known and k not in PRIVATE_KEYS}
