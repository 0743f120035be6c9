from pathlib import Path

import pytest

from pipeline.cohort import Case
from pipeline.config import GenerateSection
from pipeline.evaluate.comparison import Planned
from pipeline.evaluate.grouping import Filling, group_patients, list_groups, read_filling
from pipeline.evaluate.intervals import Statistics
from pipeline.evaluate.scores import Score, ScoreTable
from pipeline.evaluate.subgroups import (
    Subgroup,
    SubgroupFindings,
    compare_subgroups,
    describe_fairness,
    describe_filling,
    subgroups_json,
)

STATISTICS = Statistics(n_bootstrap=200, alpha=0.05, seed=1)
PLANNED = Planned("real-syn", "real", 1.0, "WT", "dice")


def case_of(number, volume_ml=10.0, hemisphere="left", source="here", **others):
    attributes = {
        "person": f"x{number}",
        "volume_ml": str(volume_ml),
        "hemisphere": hemisphere,
        "lobe": "frontal",
        "enhancing_share": "0.1",
        "n_foci": "1",
        "contrast": "200",
        **others,
    }
    return Case(f"p{number}", Path(), source, "test", attributes)


def table_of(gains, metric="dice", n_seeds=2):
    """Scores of trainings; gains by patient."""
    scores = []
    for number, gain in enumerate(gains):
        for seed in range(n_seeds):
            key = (seed, f"p{number}", "WT", metric)
            # What changes a little from patient to patient, so that intervals have a width.
            scores += [Score("real", *key, 0.5), Score("real-syn", *key, 0.5 + gain + 0.001 * (number % 3))]
    return ScoreTable(scores)


def sides(n_left, n_right):
    return {f"p{number}": {"hemisphere": "left" if number < n_left else "right"} for number in range(n_left + n_right)}


def test_patients_are_grouped_by_size_strata_source_and_what_the_source_tells():
    patients = [
        case_of(0, 5.0, sex="F"),
        case_of(1, 30.0, "right", sex="M"),
        case_of(2, 90.0, source="there", sex="n/a"),
    ]
    groups = group_patients(patients, [], GenerateSection(volume_edges_ml=(1, 20, 60, 200)))
    assert [groups[f"p{number}"]["size"] for number in range(3)] == ["smallest third", "middle third", "largest third"]
    assert [groups[f"p{number}"]["volume"] for number in range(3)] == ["small", "medium", "large"]
    assert groups["p1"]["hemisphere"] == "right"
    assert groups["p2"]["source"] == "there"
    assert (groups["p0"]["sex"], "sex" in groups["p2"]) == ("F", False)
    assert groups["p0"].keys().isdisjoint({"person", "volume_ml", "n_foci"})


def test_patients_without_attributes_are_grouped_by_source():
    assert group_patients([Case("a", Path(), "here")], [], GenerateSection()) == {"a": {"source": "here"}}


def test_groups_come_in_their_own_order_and_must_tell_patients_apart():
    groups = {
        "a": {"volume": "large", "source": "here", "name": "a"},
        "b": {"volume": "small", "source": "here", "name": "b"},
    }
    assert list_groups(groups) == {"volume": {"small": ("b",), "large": ("a",)}, "name": {"a": ("a",), "b": ("b",)}}
    assert list_groups({str(n): {"name": str(n)} for n in range(20)}) == {}


def test_the_plan_tells_which_strata_it_filled():
    rows = [
        {"volume": "small", "hemisphere": "left", "asked": "3", "obtained": "2", "seen": "2", "source": "0"},
        {"volume": "small", "hemisphere": "right", "asked": "2", "obtained": "2", "seen": "2", "source": "1"},
        {"volume": "large", "hemisphere": "left", "asked": "5", "obtained": "6", "seen": "6", "source": "9"},
    ]
    filling = read_filling(rows)
    # Small: 1 of 10 members, 5 of 10 asked for, 4 of 10 obtained. Left: 9, 8 and 8 of 10.
    assert filling["volume", "small"] == Filling(0.1, 0.5, 0.4)
    assert filling["hemisphere", "left"] == Filling(0.9, 0.8, 0.8)
    assert filling["volume", "small"].is_filled
    assert not filling["hemisphere", "left"].is_filled
    assert read_filling([]) == {}


def test_each_group_has_its_own_gain():
    findings = compare_subgroups(table_of([0.1] * 6 + [-0.1] * 6), PLANNED, sides(6, 6), STATISTICS)
    left, right = findings.groups
    # Six patients: .1 + (0 + .001 + .002 + 0 + .001 + .002) / 6
    assert (left.group, left.n_patients, left.delta) == ("left", 6, pytest.approx(0.101))
    assert right.delta == pytest.approx(-0.099)
    assert left.ci[0] > 0 > right.ci[1]


def test_small_groups_are_left_out_and_named():
    findings = compare_subgroups(table_of([0.1] * 6 + [-0.1] * 4), PLANNED, sides(6, 4), STATISTICS)
    assert [subgroup.group for subgroup in findings.groups] == ["left"]
    assert findings.left_out == (("hemisphere", "right", 4),)
    assert "Left out, with fewer than 5 patients: hemisphere right (4)." in describe_fairness([findings], 0.05)
    assert subgroups_json(findings)[1]["ci"] is None


def test_a_subgroup_that_is_made_worse_is_named():
    findings = compare_subgroups(table_of([0.1] * 6 + [-0.1] * 6), PLANNED, sides(6, 6), STATISTICS)
    sentence = describe_fairness([findings], 0.05)
    assert sentence.startswith(
        "Made worse beyond the interval: hemisphere right in whole tumour Dice (real-syn with all real scans, -0.099"
    )
    assert "hemisphere left" not in sentence
    assert "exploratory" in sentence


def test_more_distance_is_worse():
    planned = Planned("real-syn", "real", 1.0, "WT", "hd95")
    findings = compare_subgroups(table_of([2.0] * 6 + [-2.0] * 6, "hd95"), planned, sides(6, 6), STATISTICS)
    assert "hemisphere left in whole tumour HD95 (mm)" in describe_fairness([findings], 0.05)


def test_where_nobody_is_made_worse_the_largest_loss_that_may_be_hidden_is_told():
    # The wide interval of the left gains; the narrower one of the right reaches further into a loss.
    findings = SubgroupFindings(
        PLANNED,
        (
            Subgroup("hemisphere", "left", 6, 0.15, (-0.02, 0.32), 3, None),
            Subgroup("hemisphere", "right", 6, -0.11, (-0.25, 0.03), 3, None),
        ),
        (),
    )
    distance = SubgroupFindings(
        Planned("real-syn", "real", 1.0, "WT", "hd95"),
        (Subgroup("hemisphere", "left", 6, 1.0, (-1.0, 3.0), 3, None),),
        (),
    )
    sentence = describe_fairness([findings, distance], 0.05)
    assert sentence == (
        "No subgroup was shown to be made worse. The largest loss that intervals could hide is 0.250 in whole tumour "
        "Dice (hemisphere right, real-syn with all real scans, 6 patients) and 3.000 in whole tumour HD95 (mm) "
        "(hemisphere left, real-syn with all real scans, 6 patients)."
    )


def test_one_training_of_each_arm_calls_nobody_made_worse_or_helped():
    filling = {("hemisphere", "left"): Filling(0.1, 0.5, 0.4)}
    table = table_of([0.1] * 6 + [-0.1] * 6, n_seeds=1)
    findings = compare_subgroups(table, PLANNED, sides(6, 6), STATISTICS, filling)
    assert findings.groups[1].ci[1] < 0
    assert not any(row["worse"] for row in subgroups_json(findings))
    sentence = describe_fairness([findings], 0.05)
    assert sentence.startswith("No subgroup is called made worse: 2 trainings of each arm or more are needed")
    told = describe_filling(findings, 0.05)
    assert "not shown to be helped, +0.101" in told
    assert "Nothing is called helped or made worse: 2 trainings" in told


def test_without_a_group_that_is_large_enough_nothing_is_claimed():
    findings = compare_subgroups(table_of([0.1] * 4), PLANNED, sides(2, 2), STATISTICS)
    assert "No subgroup is large enough" in describe_fairness([findings], 0.05)


def test_filled_strata_are_told_with_what_came_of_it():
    filling = {("hemisphere", "left"): Filling(0.1, 0.5, 0.4), ("hemisphere", "right"): Filling(0.9, 0.5, 0.6)}
    findings = compare_subgroups(table_of([0.1] * 6 + [-0.1] * 6), PLANNED, sides(6, 6), STATISTICS, filling)
    sentence = describe_filling(findings, 0.05)
    assert "hemisphere left (10% of members, 40% of synthetic cases): helped, +0.101" in sentence
    assert "right" not in sentence
    assert [row["filled"] for row in subgroups_json(findings)] == [True, False]
    assert describe_filling(compare_subgroups(table_of([0.1] * 12), PLANNED, sides(6, 6), STATISTICS), 0.05) == ""
