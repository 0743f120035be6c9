"""Whole audits in toy worlds whose leak is known; the long campaign is ``benchmarks/audit_verdicts.py``."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.conclusions import Conclusions, conclude, persons_to_pass
from pipeline.audit.policy import load_policy
from pipeline.audit.simulation import ToyAudit, World
from pipeline.config import AuditSection

N_AUDITS = 20
SECTION = AuditSection(n_references=8, n_bootstrap=200)
POLICY = load_policy("default")


def audit(world: World, seed: int) -> Conclusions:
    return ToyAudit(world, SECTION.n_references, seed).conclude(POLICY, SECTION)


def test_planted_leaks_are_seen_and_an_audit_without_a_leak_is_rarely_called_one() -> None:
    fired, verdicts = Counter[str](), Counter[str]()
    for seed in range(N_AUDITS):
        conclusions = audit(World(50, n_synthetic=30), seed)
        fired.update(control.name for control in conclusions.positive if control.behaved)
        verdicts[conclusions.verdicts["generator"].verdict] += 1
    assert len(fired) == 2 * 5 + 1 + 10
    assert min(fired.values()) >= 19
    assert verdicts["fail"] + verdicts["invalid"] <= 2
    assert sum(verdicts.values()) == N_AUDITS


def test_a_generator_that_remembers_fails_and_its_scans_alone_are_not_blamed() -> None:
    verdicts = [audit(World(50, n_synthetic=30, remembered=1.0), seed).verdicts for seed in range(N_AUDITS // 2)]
    assert sum(one["generator"].verdict == "fail" for one in verdicts) >= 8
    assert all(one["dataset"].verdict != "fail" for one in verdicts)


def test_a_single_person_fully_remembered_fails_though_the_figures_look_random() -> None:
    """The aggregate cannot see one of fifty; only the test of single persons can."""
    section = SECTION.model_copy(update={"n_references": 16})
    for seed in range(3):
        world = World(50, n_synthetic=30, remembered=12.0, n_remembered=1)
        conclusions = ToyAudit(world, 16, seed).conclude(POLICY, section)
        verdict = conclusions.verdicts["generator"]
        assert verdict.verdict == "fail"
        assert "tells apart 1 person when in from when out" in " ".join(verdict.reasons)
        assert conclusions.verdicts["dataset"].verdict != "fail"


def test_who_was_in_mixed_up_is_told_by_the_planted_references() -> None:
    toy = ToyAudit(World(50, n_synthetic=30, remembered=1.0), SECTION.n_references, 1)
    evidence = toy.evidence()
    order = np.random.default_rng(1).permutation(50)
    verdict = conclude(replace(evidence, is_in=evidence.is_in[:, order]), POLICY, SECTION, 1).verdicts["generator"]
    assert verdict.verdict == "invalid"
    assert "made to tell everything" in verdict.reasons[0]


def test_a_target_that_leaks_where_its_references_do_not_never_passes() -> None:
    """As if it had not been made by the recipe: paired figures of the references say nothing of it."""
    for seed in range(4):
        toy = ToyAudit(World(100, n_synthetic=60), 16, seed)
        evidence = toy.evidence()
        leaking = {name: scores + 1.2 * toy.is_member * scores.std() for name, scores in evidence.target.items()}
        section = SECTION.model_copy(update={"n_references": 16})
        verdict = conclude(replace(evidence, target=leaking), POLICY, section, seed).verdicts["dataset"]
        assert verdict.verdict in ("fail", "unresolved")


@pytest.mark.parametrize(("n_persons", "n_references"), [(24, 2), (50, 16), (100, 10)])
def test_persons_said_to_be_needed_are_about_those_of_the_campaign(n_persons: int, n_references: int) -> None:
    """With 16 references half of the audits of 50 persons pass, with 10 of 100 (benchmarks/results/audit.jsonl)."""
    needed = []
    for seed in range(6):
        conclusions = ToyAudit(World(n_persons, n_synthetic=30), n_references, seed).conclude(POLICY, SECTION)
        needed.append(persons_to_pass(conclusions.paired, max(10, n_references), POLICY))
    expected = 50 if n_references == 16 else 80
    assert 0.6 * expected < np.median(needed) < 1.7 * expected


def test_an_audit_with_a_blind_attack_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = replace(BY_NAME["nearest-tumor"], run=lambda asked, *_: np.zeros(len(asked)))
    monkeypatch.setitem(BY_NAME, "nearest-tumor", blind)
    verdicts = audit(World(24, n_synthetic=14), 0).verdicts
    assert {one.verdict for one in verdicts.values()} == {"invalid"}
    assert "nearest synthetic tumour" in verdicts["dataset"].reasons[0]


def test_an_audit_that_sees_membership_where_there_is_none_is_invalid() -> None:
    toy = ToyAudit(World(50, n_synthetic=30), SECTION.n_references, 1)
    evidence = toy.evidence()
    # On every reference, whoever is in it: the sides of the split differ by themselves.
    peeking = {name: scores + 3.0 * toy.is_member for name, scores in evidence.references.items()}
    verdicts = conclude(replace(evidence, references=peeking), POLICY, SECTION, 1).verdicts
    assert {one.verdict for one in verdicts.values()} == {"invalid"}
    assert "references that saw neither side" in verdicts["dataset"].reasons[0]
