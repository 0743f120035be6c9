"""Which comparison the verdict speaks of, what may be claimed beside it, and how cheap rivals do."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from segment_builders import tiny_evaluation

from pipeline.evaluate.comparison import Planned
from pipeline.evaluate.findings import Findings, find_main, list_planned
from pipeline.evaluate.gain import describe_main, describe_rivals
from pipeline.evaluate.intervals import Statistics
from pipeline.evaluate.mixing import list_edge_cautions, list_search_cautions, list_searches
from pipeline.evaluate.scores import Score
from pipeline.segmentation.arms import Mixing

ARMS = ["real-aug", "real-syn-aug", "copypaste-aug", "random-contrast-aug"]


def findings_of(means, config, n_seeds=3):
    """Findings of whole-tumour Dice in 30 patients, by mean of each arm."""
    noise = np.random.default_rng(1)
    scores = [
        Score(arm, seed, f"p{patient}", "WT", metric, mean + noise.normal(0, 0.002))
        for arm, mean in means.items()
        for seed in range(n_seeds)
        for patient in range(30)
        for metric in ("dice", "hd95")
    ]
    cases = {"real-syn-aug": ("case",), "random-contrast-aug": ("case",)}
    arms = tuple(SimpleNamespace(name=name, share=1.0, synthetic_cases=cases.get(name, ())) for name in means)
    planned = list_planned(config, ("WT",))
    experiment = SimpleNamespace(real=SimpleNamespace(shape=(40, 52, 44), spacing_mm=4.0))
    return Findings(experiment, arms, (SimpleNamespace(scores=scores),), Statistics(200, 0.05, 1), planned)


def test_the_primary_comparison_is_that_with_the_baseline_whatever_is_named_first():
    pairs = [["real-syn-aug", "copypaste-aug"], ["real-syn-aug", "real-aug"]]
    config = tiny_evaluation(arms=ARMS, comparisons=pairs, shares=[0.25, 1.0]).evaluate
    planned = list_planned(config, ("WT", "ET"))
    assert [plan for plan in planned if plan.role == "primary"] == [
        Planned("real-syn-aug", "real-aug", 1.0, "WT", "dice", "primary")
    ]
    # 2 pairs, 2 shares, 2 regions by Dice, one of them primary; the same by HD95.
    assert Counter(plan.role for plan in planned) == {"primary": 1, "secondary": 7, "reported": 8}


def test_metrics_are_planned_by_the_config():
    config = tiny_evaluation(arms=ARMS[:2], planned_metrics=["dice", "hd95"]).evaluate
    assert Counter(plan.role for plan in list_planned(config, ("WT", "ET"))) == {"primary": 1, "secondary": 3}


def test_another_comparison_stands_in_for_one_that_was_not_planned():
    plans = [Planned(arm, other, 1.0, "WT", "dice") for arm, other in (("syn", "real"), ("real-syn-aug", "real"))]
    assert find_main(plans, "real-aug") == plans[1]
    assert find_main(plans[:1], "real-aug") == plans[0]
    assert find_main([], "real-aug") is None


def test_a_stand_in_is_told_in_the_summary():
    means = {"real-aug": 0.7, "real-syn-aug": 0.75, "copypaste-aug": 0.7}
    config = tiny_evaluation(arms=list(means), comparisons=[["real-syn-aug", "copypaste-aug"]]).evaluate
    said = describe_main(findings_of(means, config), config)
    assert said.startswith(
        "real-syn-aug against real-aug was not planned, another comparison stands in its place: real-syn-aug changes"
    )
    planned = tiny_evaluation(arms=list(means)).evaluate
    assert describe_main(findings_of(means, planned), planned).startswith("real-syn-aug changes whole tumour Dice by")


def test_a_rival_that_ties_or_wins_stands_beside_the_summary():
    means = {"real-aug": 0.7, "real-syn-aug": 0.75, "copypaste-aug": 0.75, "random-contrast-aug": 0.8}
    config = tiny_evaluation(arms=ARMS).evaluate
    findings = findings_of(means, config)
    assert "significantly better" in describe_main(findings, config)
    said = describe_rivals(findings)
    copied, contrast = said.removesuffix(".").split(". ")
    assert copied.startswith("real-syn-aug changes whole tumour Dice by ")
    assert "against copypaste-aug with all real scans, which is not significant: the interval crosses 0; " in copied
    assert "-0.050 (95% CI " in contrast
    assert contrast.endswith(
        "against random-contrast-aug with all real scans, which is significantly worse; better in 0 of 30 patients, "
        "worse in 30; better in 0 of 3 trainings, worse in 3"
    )


def test_arms_without_synthetic_scans_have_no_rivals_and_a_baseline_with_them_needs_no_stand_in():
    means = {"real-aug": 0.7, "copypaste-aug": 0.8}
    config = tiny_evaluation(arms=list(means)).evaluate
    assert describe_rivals(findings_of(means, config)) == ""
    means = {"real-syn-aug": 0.7, "real-aug": 0.8}
    config = tiny_evaluation(arms=list(means), baseline="real-syn-aug").evaluate
    assert describe_main(findings_of(means, config), config).startswith("real-aug changes whole tumour Dice by")


def test_an_arm_without_real_scans_claims_nothing_against_a_share_that_its_generator_went_beyond(tmp_path):
    arms = {"arms": ["real-aug", "syn"], "shares": [0.25, 1.0]}
    planned = list_planned(tiny_evaluation(**arms).evaluate, ("WT",))
    roles = {plan.share: plan.role for plan in planned if plan.metric == "dice"}
    assert roles == {0.25: "reported", 1.0: "primary"}
    received = list_planned(tiny_evaluation(**arms, received_release=tmp_path).evaluate, ("WT",))
    assert {plan.share: plan.role for plan in received if plan.metric == "dice"}[0.25] == "secondary"


def test_an_uneven_comparison_never_becomes_the_claim():
    only_quarter = tiny_evaluation(arms=["real-aug", "syn"], shares=[0.25]).evaluate
    assert {plan.role for plan in list_planned(only_quarter, ("WT",))} == {"reported"}
    means = {"real-aug": 0.7, "syn": 0.8}
    config = tiny_evaluation(arms=list(means)).evaluate
    findings = findings_of(means, config)
    uneven = tuple(replace(plan, role="reported") for plan in findings.planned)
    said = describe_main(replace(findings, planned=uneven), config)
    assert said.startswith("No claim was planned: of one arm of each comparison the generator saw more patients")
    # What is fair stands in: two arms without real scans, whose generator is one.
    changes = {"arms": ["real-aug", "syn", "syn-aug"], "comparisons": [["syn", "real-aug"], ["syn-aug", "syn"]]}
    planned = list_planned(tiny_evaluation(shares=[0.5], **changes).evaluate, ("WT",))
    assert [(plan.arm, plan.baseline, plan.share) for plan in planned if plan.role == "primary"] == [
        ("syn-aug", "syn", 0.0)
    ]


def test_a_region_that_some_lack_is_also_compared_over_those_who_have_it():
    means = {"real-aug": 0.7, "real-syn-aug": 0.6}
    findings = findings_of(means, tiny_evaluation(arms=list(means)).evaluate)
    assert len(findings.comparisons) == len(findings.planned) == 2
    # 28 of 30 have it; of the two others a single voxel makes a Dice of 0 or 1.
    present = [
        replace(score, metric="dice_present")
        for score in findings.results[0].scores
        if score.metric == "dice" and score.patient not in ("p3", "p4")
    ]
    scores = [
        replace(score, value=float(score.arm == "real-syn-aug")) if score.patient in ("p3", "p4") else score
        for score in findings.results[0].scores
    ]
    found = replace(findings, results=(SimpleNamespace(scores=[*scores, *present]),)).comparisons
    dice, present_only = found[0], found[-1]
    assert (dice.metric, dice.n_patients, dice.role) == ("dice", 30, "primary")
    assert dice.delta == pytest.approx((28 * -0.1 + 2 * 1.0) / 30, abs=0.002)
    assert (present_only.metric, present_only.n_patients, present_only.role) == ("dice_present", 28, "reported")
    assert present_only.delta == pytest.approx(-0.1, abs=0.002)


def test_a_single_training_that_has_not_learnt_a_region_is_counted():
    means = {"real-aug": 0.7, "real-syn-aug": 0.7}
    findings = findings_of(means, tiny_evaluation(arms=list(means)).evaluate)
    present = [
        replace(score, metric="dice_present", value=0.0 if (score.arm, score.seed) == ("real-aug", 1) else score.value)
        for score in findings.results[0].scores
        if score.metric == "dice"
    ]
    found = replace(findings, results=(SimpleNamespace(scores=present),))
    assert [found.count_unlearnt(arm, "WT") for arm in found.arms] == [1, 0]
    assert [findings.count_unlearnt(arm, "WT") for arm in findings.arms] == [0, 0]


def test_a_rival_that_was_tried_with_fewer_settings_is_told():
    search = {"synthetic_shares": [0.125, 0.25, 0.5], "n_seeds": 2}
    assert list_search_cautions(tiny_evaluation(arms=ARMS, search=search).evaluate) == [
        "copypaste-aug was tried with 1 setting on val, real-syn-aug with 3."
    ]
    even = {**search, "paste_shares": [0.25, 0.5, 0.75]}
    assert list_search_cautions(tiny_evaluation(arms=ARMS, search=even).evaluate) == []


def test_a_choice_by_one_training_each_is_told_where_there_was_a_choice():
    search = {"synthetic_shares": [0.125, 0.25], "paste_shares": [0.25, 0.5]}
    (said,) = list_search_cautions(tiny_evaluation(arms=ARMS, search=search).evaluate)
    assert said.startswith("Each setting was tried on val in one training")
    assert list_search_cautions(tiny_evaluation(arms=ARMS).evaluate) == []


def test_a_choice_at_the_end_of_what_was_tried_is_told():
    search = {"synthetic_shares": [0.125, 0.25, 0.5], "contrast_shares": [0.1, 0.2], "paste_shares": [0.5, 1.0]}
    config = tiny_evaluation(arms=ARMS, search=search).evaluate
    shares = {arm: [one.synthetic_share for one in candidates] for arm, candidates in list_searches(config).items()}
    assert shares == {"real-syn-aug": [0.125, 0.25, 0.5], "copypaste-aug": [0, 0], "random-contrast-aug": [0.1, 0.2]}

    def cautions(scans, contrast, paste):
        mixings = (None, Mixing(scans), Mixing(paste_share=paste), Mixing(contrast))
        arms = [SimpleNamespace(name=name, mixing=mixing) for name, mixing in zip(ARMS, mixings, strict=True)]
        return list_edge_cautions(config, arms)

    # All is the largest share that there is, and nothing lies beyond it.
    assert cautions(0.25, 0.1, 1.0) == [
        "Of random-contrast-aug the smallest share that was tried, 0.1, did best on val: one beyond it may do better."
    ]
    assert [said.split(", ")[0] for said in cautions(0.5, 0.2, 0.5)] == [
        "Of real-syn-aug the largest share that was tried",
        "Of copypaste-aug the smallest share that was tried",
        "Of random-contrast-aug the largest share that was tried",
    ]
    assert list_edge_cautions(tiny_evaluation(arms=ARMS).evaluate, []) == []


def test_a_rival_that_was_trained_but_not_planned_claims_nothing():
    means = {"real-aug": 0.7, "real-syn-aug": 0.75, "copypaste-aug": 0.8}
    config = tiny_evaluation(arms=list(means), comparisons=[["real-syn-aug", "real-aug"]]).evaluate
    said = describe_rivals(findings_of(means, config))
    assert "which is not significant: reported only, no claim was planned; better in 0 of 30 patients" in said


def test_without_a_rival_that_is_said():
    config = tiny_evaluation(arms=ARMS[:2]).evaluate
    said = describe_rivals(findings_of({"real-aug": 0.7, "real-syn-aug": 0.75}, config))
    assert said == (
        "real-syn-aug was not compared with any rival that needs no generator (copypaste-aug, random-contrast-aug)."
    )
