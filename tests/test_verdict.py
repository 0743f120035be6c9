"""The verdict follows its table, and every gap has its name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.audit.controls import Control
from pipeline.audit.copies import CopyFinding, nothing_copied
from pipeline.audit.exposure import Exposure
from pipeline.audit.paired import PairedFigure
from pipeline.audit.policy import DEFAULT_FILE, AtLeast, Policy, load_policy
from pipeline.audit.verdict import AttackFigure, Findings, Planned, Verdict, _find_copy_gaps, decide
from pipeline.errors import ConfigError
from pipeline.statistics import Estimate

POLICY = load_policy("default")
LEVELS = ("scan", "tumor", "labels")
CLEAN_COPIES = nothing_copied(100)
DATASET, MODEL = "nearest-neighbour", "reconstruction"
WELL = Control("c", "control", "x", "x", behaved=True)
ILL = Control("c", "control", "AUC of at least .8", "AUC .5", behaved=False)


def attack_figure(
    value: float, error: float = 0.03, n: int = 24, name: str = DATASET, p_adjusted: float = 1.0
) -> AttackFigure:
    ci = (value - 1.96 * error, value + 1.96 * error)
    return AttackFigure(name, Estimate(value, ci, error), n, n, 1.0, p_adjusted)


def paired(value: float, error: float = 0.02, n: int = 48, k: int = 16, name: str = DATASET) -> PairedFigure:
    ci = (value - 1.96 * error, value + 1.96 * error)
    return PairedFigure(name, Estimate(value, ci, error), n, k, k >= 8)


def decided_on(
    attacks: list[AttackFigure],
    figures: list[PairedFigure],
    controls: list[Control],
    copies: dict[str, CopyFinding],
    planned: Planned = "dataset",
    n_not_attacked: int = 0,
    exposed: tuple[float, ...] = (1.0,),
    policy: Policy = POLICY,
) -> Verdict:
    exposure = Exposure((DATASET,), np.array([exposed]))
    return decide(planned, Findings(attacks, figures, exposure, controls, copies, n_not_attacked), policy)


def all_levels(found: CopyFinding) -> dict[str, CopyFinding]:
    return dict.fromkeys(LEVELS, found)


@pytest.mark.parametrize(
    ("attack", "figure", "control", "found", "verdict", "reason"),
    [
        (attack_figure(0.52), paired(0.51), WELL, CLEAN_COPIES, "pass", "whole intervals"),
        (attack_figure(0.52), paired(0.51), ILL, CLEAN_COPIES, "invalid", "got AUC .5"),
        # A control that misbehaves outweighs a leak: the figure is not to be believed.
        (attack_figure(0.95), paired(0.95), ILL, CLEAN_COPIES, "invalid", "expected AUC of at least .8"),
        # .75 is five standard errors above .60.
        (attack_figure(0.75), paired(0.51), WELL, CLEAN_COPIES, "fail", "on the release: AUC"),
        (attack_figure(0.25), paired(0.51), WELL, CLEAN_COPIES, "fail", "on the release: AUC"),
        (attack_figure(0.52), paired(0.75), WELL, CLEAN_COPIES, "fail", "paired: AUC"),
        (attack_figure(0.52), paired(0.25), WELL, CLEAN_COPIES, "fail", "paired: AUC"),
        # 1.33 standard errors above: p = .09 and, by Holm over two figures, .18.
        (attack_figure(0.64), paired(0.51), WELL, CLEAN_COPIES, "pass", "whole intervals"),
        # 1.83 standard errors: p = .034 alone, .067 by Holm.
        (attack_figure(0.655), paired(0.51), WELL, CLEAN_COPIES, "pass", "whole intervals"),
        # Too few persons for the figure to gate anything.
        (attack_figure(0.95, n=11), paired(0.51), WELL, CLEAN_COPIES, "pass", "whole intervals"),
        (attack_figure(0.52), paired(0.51), WELL, replace(CLEAN_COPIES, excess_p=0.001), "fail", "near-duplicates"),
        # One exact copy, far below any excess.
        (
            attack_figure(0.52),
            paired(0.51),
            WELL,
            replace(CLEAN_COPIES, n_copies=1),
            "fail",
            "1 released cases are copies",
        ),
        (attack_figure(0.52), paired(0.51), WELL, replace(CLEAN_COPIES, n_near_duplicates=1), "unresolved", "near-dup"),
        # .58 + 1.96 * .02 = .619.
        (attack_figure(0.52), paired(0.58), WELL, CLEAN_COPIES, "unresolved", "0.54 to 0.62 reaches beyond"),
        (attack_figure(0.52), paired(0.42), WELL, CLEAN_COPIES, "unresolved", "0.38 to 0.46 reaches beyond"),
        (attack_figure(0.52), paired(0.51, n=19), WELL, CLEAN_COPIES, "unresolved", "19 persons"),
        (attack_figure(0.52), paired(0.51, k=8), WELL, CLEAN_COPIES, "unresolved", "8 reference generators"),
        (attack_figure(0.52), None, WELL, CLEAN_COPIES, "unresolved", "no paired figure"),
    ],
)
def test_verdict_follows_its_table(
    attack: AttackFigure,
    figure: PairedFigure | None,
    control: Control,
    found: CopyFinding,
    verdict: str,
    reason: str,
) -> None:
    decided = decided_on([attack], [] if figure is None else [figure], [WELL, control], all_levels(found))
    assert decided.verdict == verdict
    assert any(reason in text for text in decided.reasons)


def test_an_unresolved_verdict_names_every_gap() -> None:
    decided = decided_on([], [paired(0.55, 0.1, n=10, k=2), paired(0.5)], [WELL], all_levels(CLEAN_COPIES))
    assert len(decided.reasons) == 3


def test_members_who_were_not_attacked_stand_in_the_way_of_a_pass() -> None:
    figures = [paired(0.5), paired(0.5)]
    assert decided_on([], figures, [WELL], all_levels(CLEAN_COPIES)).verdict == "pass"
    decided = decided_on([], figures, [WELL], all_levels(CLEAN_COPIES), n_not_attacked=3)
    assert decided.verdict == "unresolved"
    assert decided.reasons[0].startswith("3 members lack a modality and were not attacked")


def test_a_single_exposed_person_fails_whatever_the_figures_say() -> None:
    figures = [paired(0.5), paired(0.5, name=MODEL)]
    attacks = [attack_figure(0.5)]
    for p, verdict in ((0.001, "fail"), (0.03, "pass")):
        # A third of .05 each for figures, single persons and copies.
        decided = decided_on(attacks, figures, [WELL], all_levels(CLEAN_COPIES), exposed=(1.0, p, 1.0))
        assert decided.verdict == verdict
    decided = decided_on(attacks, figures, [WELL], all_levels(CLEAN_COPIES), exposed=(0.001, 0.001, 1.0))
    assert decided.reasons[0].startswith("'nearest synthetic neighbour' tells apart 2 persons when in from when out")


def test_a_target_that_stands_out_above_the_limit_does_not_pass() -> None:
    figures = [paired(0.5)]
    for value, p, verdict in ((0.64, 0.01, "unresolved"), (0.64, 0.2, "pass"), (0.58, 0.01, "pass")):
        attacks = [attack_figure(value, error=0.08, p_adjusted=p)]
        assert decided_on(attacks, figures, [WELL], all_levels(CLEAN_COPIES)).verdict == verdict


def test_an_attack_without_a_paired_figure_and_idle_controls_stand_in_the_way_of_a_pass() -> None:
    attacks = [attack_figure(0.5), attack_figure(0.5, name="nearest-tumor")]
    decided = decided_on(attacks, [paired(0.5)], [WELL], all_levels(CLEAN_COPIES))
    assert decided.verdict == "unresolved"
    assert "no paired figure of 'nearest synthetic tumour'" in decided.reasons[0]
    idle = replace(WELL, able=False)
    decided = decided_on(attacks[:1], [paired(0.5)], [WELL, idle], all_levels(CLEAN_COPIES))
    assert decided.reasons == (
        "1 negative controls could not have misbehaved with so few persons or references, and vouch for nothing",
    )


def test_no_policy_lets_intervals_pass_that_leave_out_the_spread_between_generators() -> None:
    lax = POLICY.model_copy(
        update={"min_references_to_pass": AtLeast(value=2, reason="a house that trains few of them")}
    )
    for n_references, verdict in ((2, "unresolved"), (6, "unresolved"), (8, "pass")):
        figures = [paired(0.5, k=n_references)]
        decided = decided_on([], figures, [WELL], all_levels(CLEAN_COPIES), policy=lax)
        assert decided.verdict == verdict
        if verdict == "unresolved":
            assert "do not cover the spread between generators" in decided.reasons[0]


def test_an_attacker_may_turn_the_sign() -> None:
    assert attack_figure(0.1).auc_either_sign == pytest.approx(0.9)
    assert attack_figure(0.6).auc_either_sign == pytest.approx(0.6)


def test_a_useless_search_for_copies_and_near_duplicates_stand_in_the_way_of_a_pass() -> None:
    blind = replace(CLEAN_COPIES, n_found=50)
    assert "search for copies" in " ".join(_find_copy_gaps(all_levels(blind), POLICY))
    duplicates = replace(CLEAN_COPIES, n_near_duplicates=3)
    assert "3 synthetic cases" in " ".join(_find_copy_gaps(all_levels(duplicates), POLICY))
    assert not _find_copy_gaps(all_levels(CLEAN_COPIES), POLICY)
    assert "no search for copies of level 'tumor'" in " ".join(_find_copy_gaps({"scan": CLEAN_COPIES}, POLICY))


@pytest.mark.parametrize(
    ("n_persons", "n_missed", "n_alarmed", "is_certified"),
    [
        # 29 persons without a fault: .9^29 = .047; of 100, eight missed and four alarms leave the bounds within.
        (29, 0, 0, True),
        (28, 0, 0, False),
        (100, 8, 4, True),
        (100, 9, 0, False),
        (100, 0, 5, False),
    ],
)
def test_a_search_is_certified_by_persons(n_persons: int, n_missed: int, n_alarmed: int, is_certified: bool) -> None:
    found = replace(nothing_copied(n_persons), n_found=n_persons - n_missed, n_alarmed=n_alarmed)
    gaps = _find_copy_gaps(all_levels(found), POLICY)
    assert (not gaps) == is_certified
    assert ("fewer than 29 persons cannot certify" in " ".join(gaps)) == (n_persons < 29)


def test_attacks_on_the_generator_gate_a_release_of_the_generator_only() -> None:
    figures = [paired(0.5), paired(0.9, name=MODEL)]
    found = all_levels(CLEAN_COPIES)
    assert decided_on([], figures, [WELL], found).verdict == "pass"
    decided = decided_on([], figures, [WELL], found, "generator")
    assert decided.verdict == "fail"
    assert "reconstruction" in decided.reasons[0]


def policy_with(tmp_path: Path, attack: str) -> str:
    """Write the shipped policy with a limit of .7 for one attack."""
    policy = yaml.safe_load(DEFAULT_FILE.read_text(encoding="utf-8"))
    policy["auc_limit"]["attacks"] = {attack: {"value": 0.7, "reason": "A reason that is long enough to be one."}}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy), encoding="utf-8")
    return str(tmp_path / "policy.yaml")


def test_an_attack_may_have_a_limit_of_its_own(tmp_path: Path) -> None:
    policy = load_policy(policy_with(tmp_path, DATASET))
    assert [policy.limit(name) for name in (DATASET, "nearest-tumor", MODEL)] == [0.7, 0.6, 0.6]
    for name, verdict in ((DATASET, "pass"), ("nearest-tumor", "unresolved")):
        # .62 + 1.96 * .02 = .66: within .7, beyond .6.
        decided = decided_on([], [paired(0.62, name=name)], [WELL], all_levels(CLEAN_COPIES), policy=policy)
        assert decided.verdict == verdict


@pytest.mark.parametrize("name", ["nearest-tumour", "discriminator"])
def test_a_limit_of_an_attack_that_is_not_gated_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"expected names of gated attacks .* got {name}"):
        load_policy(policy_with(tmp_path, name))


def test_the_discriminator_warns_and_gates_nothing() -> None:
    attacks = [attack_figure(0.99, name="discriminator")]
    for planned in ("dataset", "generator"):
        figures = [paired(0.5), paired(0.5, name=MODEL)]
        assert decided_on(attacks, figures, [WELL], all_levels(CLEAN_COPIES), planned).verdict == "pass"


def test_a_paired_figure_whose_interval_leaves_out_generators_fails_nothing() -> None:
    decided = decided_on([], [paired(0.9, k=6)], [WELL], all_levels(CLEAN_COPIES))
    assert decided.verdict == "unresolved"
