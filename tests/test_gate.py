"""The gate: when it opens, and what no reason can lift."""

import pytest

from pipeline.audit.policy import load_policy
from pipeline.errors import GateRefused
from pipeline.export.gate import MIN_REASON_CHARACTERS, decide, read_audit, release_digests

RELEASED = {"generator": "a" * 64, "synthetic": "b" * 64, "policy": "d" * 64}
POLICY = load_policy("default")
REASON = "phantoms only, shown for teaching"
NOT_PASSED = ("fail", "unresolved", "invalid")


def audit_with(verdict, **changes):
    audit = {"verdict": verdict, "reasons": ["3 patients a side are too few"], "bound_to": RELEASED}
    return {**audit, "policy": POLICY.model_dump(mode="json"), **changes}


def test_pass_opens_the_gate_without_a_reason():
    decision = decide(audit_with("pass"), RELEASED, "")
    assert (decision.verdict, decision.overridden, decision.reason) == ("pass", False, "")
    assert decision.in_words == "pass under policy 'default', the shipped one"


def test_pass_needs_no_reason_and_records_none():
    decision = decide(audit_with("pass"), RELEASED, REASON)
    assert not decision.overridden
    assert decision.reason == ""


@pytest.mark.parametrize("verdict", NOT_PASSED)
def test_anything_but_pass_is_refused_without_a_reason(verdict):
    with pytest.raises(GateRefused) as caught:
        decide(audit_with(verdict), RELEASED, "")
    message = str(caught.value)
    assert verdict in message
    assert "3 patients a side are too few" in message
    for way_out in ("larger cohort", "audit.n_references", "export.override_reason"):
        assert way_out in message


@pytest.mark.parametrize("verdict", NOT_PASSED)
def test_a_written_reason_lifts_a_verdict_and_is_recorded(verdict):
    decision = decide(audit_with(verdict), RELEASED, f"  {REASON}\n")
    assert (decision.verdict, decision.overridden, decision.reason) == (verdict, True, REASON)


def test_invalid_is_said_to_prove_nothing():
    with pytest.raises(GateRefused, match="says nothing about privacy"):
        decide(audit_with("invalid"), RELEASED, "")


@pytest.mark.parametrize(
    "reason", ["because", " " * 40, "\n\t" * 30, "x" * (MIN_REASON_CHARACTERS - 1), "a" + " " * 30]
)
def test_a_short_or_blank_reason_is_refused(reason):
    with pytest.raises(GateRefused, match="at least 20 characters"):
        decide(audit_with("unresolved"), RELEASED, reason)


@pytest.mark.parametrize("key", ["generator", "synthetic", "policy"])
@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_an_audit_of_other_files_is_refused_whatever_the_reason(key, verdict):
    with pytest.raises(GateRefused, match="other files"):
        decide(audit_with(verdict), {**RELEASED, key: "c" * 64}, REASON)


@pytest.mark.parametrize(
    "bound_to", [None, "a" * 64, {}, {"generator": "a" * 64}, {"generator": "a" * 64, "synthetic": "b" * 64}]
)
def test_an_audit_that_is_bound_to_nothing_is_refused_whatever_the_reason(bound_to):
    with pytest.raises(GateRefused):
        decide(audit_with("pass", bound_to=bound_to), RELEASED, REASON)


def test_an_audit_bound_to_nothing_does_not_fit_a_release_of_nothing():
    nothing = dict.fromkeys(RELEASED, "")
    with pytest.raises(GateRefused, match="other files"):
        decide(audit_with("pass", bound_to=nothing), nothing, REASON)


@pytest.mark.parametrize("policy", [None, {}, "default", {"name": "default", "auc_limit": 0.6}])
def test_an_audit_that_names_no_policy_is_refused_whatever_the_reason(policy):
    with pytest.raises(GateRefused, match="does not say under which policy"):
        decide(audit_with("pass", policy=policy), RELEASED, REASON)


@pytest.mark.parametrize("verdict", [None, "", "Pass", "passed", True, ["pass"], {}])
def test_an_unknown_verdict_is_refused_whatever_the_reason(verdict):
    with pytest.raises(GateRefused, match="unknown verdict"):
        decide(audit_with(verdict), RELEASED, REASON)


def test_malformed_reasons_are_refused():
    with pytest.raises(GateRefused, match="malformed"):
        decide(audit_with("fail", reasons="too few"), RELEASED, REASON)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "[" * 100_000])
def test_a_missing_or_damaged_audit_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "audit.json").write_text(content, encoding="utf-8")
    with pytest.raises(GateRefused, match=r"audit\.json"):
        read_audit(tmp_path / "audit.json")


def test_missing_files_have_no_digests(tmp_path):
    weights, policy = tmp_path / "generator.safetensors", tmp_path / "policy.yaml"
    policy.write_text("a policy")
    with pytest.raises(GateRefused, match="no generator"):
        release_digests(weights, tmp_path, policy)
    weights.write_bytes(b"weights")
    assert set(release_digests(weights, tmp_path, policy)) == set(RELEASED)
    policy.unlink()
    with pytest.raises(GateRefused, match=r"policy policy\.yaml not found"):
        release_digests(weights, tmp_path, policy)
