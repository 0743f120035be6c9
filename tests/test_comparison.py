import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.evaluate.comparison import (
    Planned,
    compare_planned,
    comparison_json,
    describe,
    describe_finding,
    is_significant,
    plan_comparisons,
)
from pipeline.evaluate.intervals import Statistics
from pipeline.evaluate.scores import Score, ScoreTable
from pipeline.evaluate.significance import wilcoxon_p

STATISTICS = Statistics(n_bootstrap=500, alpha=0.05, seed=1)


def scores_of(arm, values, metric="dice", share=1.0):
    """Scores of one region from a (patients, seeds) table."""
    return [
        Score(arm, seed, f"p{patient:03d}", "WT", metric, float(value), share)
        for patient, row in enumerate(np.asarray(values))
        for seed, value in enumerate(row)
    ]


def compare(real, other, metric="dice", role="primary"):
    both = scores_of("real", real, metric) + scores_of("real-syn", other, metric)
    return compare_planned(ScoreTable(both), [Planned("real-syn", "real", 1.0, "WT", metric, role)], STATISTICS)[0]


@pytest.fixture
def noise():
    return np.random.default_rng(3)


def test_delta_is_the_mean_of_paired_differences_by_patient():
    comparison = compare([[0.5, 0.7], [0.2, 0.2]], [[0.6, 0.8], [0.6, 0.4]])
    # Patient means: .6 -> .7 and .2 -> .5: differences .1 and .3, mean .2; by seed: (.1 + .4) / 2 and (.1 + .2) / 2
    assert comparison.delta == pytest.approx(0.2)
    assert comparison.seed_deltas == pytest.approx((0.25, 0.15))
    assert comparison.n_patients == 2


def test_planted_gain_is_found(noise):
    real = noise.uniform(0.4, 0.8, (30, 3))
    comparison = compare(real, real + 0.05 + noise.normal(0, 0.02, (30, 3)))
    assert comparison.ci[0] > 0
    assert is_significant(comparison, 0.05)
    assert "significantly better" in describe(comparison, 0.05)
    assert "Unreliable" not in describe(comparison, 0.05)


def test_planted_harm_is_found(noise):
    real = noise.uniform(0.4, 0.8, (30, 3))
    comparison = compare(real, real - 0.05 + noise.normal(0, 0.02, (30, 3)))
    assert comparison.ci[1] < 0
    assert "significantly worse" in describe(comparison, 0.05)


def test_an_interval_that_crosses_zero_is_called_not_significant(noise):
    real = noise.uniform(0.4, 0.8, (12, 1))
    comparison = compare(real, real + np.resize([0.05, -0.05], (12, 1)))
    sentence = describe(comparison, 0.05)
    assert "not significant: the interval crosses 0" in sentence
    assert "Unreliable: 12 test patients, fewer than 20" in sentence
    assert "One training per arm" in sentence


def test_a_gain_in_one_seed_only_is_not_significant():
    # Every patient gains .1 with one seed and loses .08 with the other: patients alone would call it a gain.
    real = np.full((25, 2), 0.5) + np.linspace(0, 0.01, 25)[:, None]
    other = real + np.array([0.1, -0.08]) + np.linspace(0, 0.002, 25)[:, None]
    comparison = compare(real, other)
    sentence = describe(comparison, 0.05)
    assert comparison.ci[0] < 0 < comparison.ci[1]
    assert "not significant" in sentence
    assert "disagree in sign" in sentence


def test_one_patient_gives_no_interval():
    comparison = compare([[0.5]], [[0.7]])
    assert comparison.ci is None
    assert "not significant: one patient says nothing of others" in describe(comparison, 0.05)


def test_less_distance_counts_as_better(noise):
    real = noise.uniform(5, 9, (30, 2))
    scores = scores_of("real", real, "hd95") + scores_of("real-syn", real - 2 + noise.normal(0, 0.1, (30, 2)), "hd95")
    distance = compare_planned(ScoreTable(scores), [Planned("real-syn", "real", 1.0, "WT", "hd95")], STATISTICS)[0]
    assert distance.p_holm is not None
    assert "significantly better" in describe(distance, 0.05)


def test_a_gain_with_one_training_is_never_significant(noise):
    real = noise.uniform(0.4, 0.8, (30, 1))
    comparison = compare(real, real + 0.1 + noise.normal(0, 0.01, (30, 1)))
    assert comparison.ci[0] > 0
    # One p holds both kinds of luck: of one training there is none.
    assert comparison.p is None
    assert not is_significant(comparison, 0.05)
    assert "not significant: better in one training of each arm, it may be luck" in describe(comparison, 0.05)


def test_mean_and_ranks_that_disagree_are_not_significant(noise):
    # Of 300 patients 27 improve by 60 mm and 273 worsen by 1 mm: the mean is better, most patients are worse.
    real = noise.uniform(70, 90, (300, 3))
    change = np.where(np.arange(300) < 27, -60.0, 1.0)[:, None] + noise.normal(0, 0.1, (300, 3))
    comparison = compare(real, real + change, "hd95", "secondary")
    assert comparison.ci[1] < 0
    assert comparison.p_holm < 0.05
    assert comparison.effect_size > 0.5
    assert not is_significant(comparison, 0.05)
    assert "not significant: mean and ranks disagree, few patients decide it" in describe(comparison, 0.05)


def test_the_luck_of_trainings_that_moves_all_patients_is_no_gain(noise):
    # Three trainings of the arm were lucky by .02 to .08: patients agree, trainings do not exclude 0 at a small level.
    luck = np.array([0.02, 0.05, 0.08])
    real = noise.uniform(0.4, 0.8, (30, 3))
    others = [real + luck + noise.normal(0, 0.01, (30, 3)) for _ in range(4)]
    scores = scores_of("real", real)
    scores += [score for n, values in enumerate(others) for score in scores_of(f"arm {n}", values)]
    planned = [Planned(f"arm {n}", "real", 1.0, "WT", "dice") for n in range(4)]
    comparisons = compare_planned(ScoreTable(scores), planned, STATISTICS)
    assert all(wilcoxon_p(np.mean(values - real, axis=1)[None])[0] < 1e-4 for values in others)
    assert not any(is_significant(comparison, 0.05) for comparison in comparisons)


def test_the_primary_comparison_is_tested_alone_and_secondary_ones_among_themselves(noise):
    real = noise.uniform(0.4, 0.8, (30, 4))
    names = ("real-syn-aug", "real-syn", "syn")
    scores = scores_of("real", real)
    scores += [score for name in names for score in scores_of(name, real + noise.normal(0.02, 0.03, (30, 4)))]
    roles = ("primary", "secondary", "secondary")
    planned = [Planned(name, "real", 1.0, "WT", "dice", role) for name, role in zip(names, roles, strict=True)]
    first, second, third = compare_planned(ScoreTable(scores), planned, STATISTICS)
    assert first.p_holm is None
    assert min(second.p_holm, third.p_holm) == pytest.approx(2 * min(second.p, third.p))


def test_what_is_only_reported_claims_nothing(noise):
    real = noise.uniform(5, 9, (30, 3))
    comparison = compare(real, real - 2 + noise.normal(0, 0.1, (30, 3)), "hd95", "reported")
    assert comparison.ci[1] < 0
    assert (comparison.p, comparison.p_holm) == (None, None)
    assert not is_significant(comparison, 0.05)
    assert "not significant: reported only, no claim was planned" in describe(comparison, 0.05)


def test_a_distance_is_told_with_the_share_of_patients_in_whom_the_region_is_missed():
    real, other = np.full((4, 2), 20.0), np.full((4, 2), 21.0)
    scores = scores_of("real", real, "hd95") + scores_of("real-syn", other, "hd95")
    # The arm misses it in two of eight, the other never.
    scores += scores_of("real", np.zeros((4, 2)), "missed") + scores_of("real-syn", np.eye(4, 2), "missed")
    # Of two who lack it the baseline finds some in one, in both trainings.
    alarms = np.array([[1.0, 1.0], [0.0, 0.0]])
    scores += scores_of("real", alarms, "false_alarm") + scores_of("real-syn", np.zeros((2, 2)), "false_alarm")
    comparison = compare_planned(ScoreTable(scores), [Planned("real-syn", "real", 1.0, "WT", "hd95")], STATISTICS)[0]
    assert comparison.missed_shares == (0.25, 0.0)
    assert "missed entirely by real-syn in 25.0% of the patients who have it, by real in 0.0%" in describe(
        comparison, 0.05
    )
    assert comparison.false_alarm_shares == (0.0, 0.5)
    sentence = describe(comparison, 0.05)
    assert "found falsely by real-syn in 0.0% of the patients who lack it, by real in 50.0%" in sentence
    assert "changes whole tumour HD95 (mm), lower being better, by +1.000" in sentence
    assert "; better in 0 of 4 patients, worse in 4; better in 0 of 2 trainings, worse in 2." in sentence
    assert "a single patient can decide it" in sentence


def test_a_plan_names_each_arm_at_each_share_but_two_without_real_scans_once():
    plan = plan_comparisons(
        [("real-syn", "real"), ("syn", "real"), ("syn-aug", "syn")], (0.25, 1.0), ("WT",), ("dice",), ("syn", "syn-aug")
    )
    assert plan == (
        Planned("real-syn", "real", 0.25, "WT", "dice"),
        Planned("real-syn", "real", 1.0, "WT", "dice"),
        Planned("syn", "real", 0.25, "WT", "dice"),
        Planned("syn", "real", 1.0, "WT", "dice"),
        Planned("syn-aug", "syn", 0.0, "WT", "dice"),
    )


def test_arms_are_compared_at_their_share_and_synthetic_ones_at_each():
    scores = scores_of("real", [[0.4], [0.4]], share=0.25) + scores_of("real", [[0.8], [0.8]], share=1.0)
    scores += scores_of("real-syn", [[0.5], [0.5]], share=0.25) + scores_of("real-syn", [[0.8], [0.9]], share=1.0)
    scores += scores_of("syn", [[0.6], [0.6]], share=0.0)
    plan = plan_comparisons([("real-syn", "real"), ("syn", "real")], (0.25, 1.0), ("WT",), ("dice",), ("syn",))
    deltas = {(c.arm, c.share): c.delta for c in compare_planned(ScoreTable(scores), plan, STATISTICS)}
    assert deltas == {
        ("real-syn", 0.25): pytest.approx(0.1),
        ("real-syn", 1.0): pytest.approx(0.05),
        ("syn", 0.25): pytest.approx(0.2),
        ("syn", 1.0): pytest.approx(-0.2),
    }


def test_holm_counts_the_planned_comparisons_only(noise):
    real = noise.uniform(0.4, 0.8, (30, 2))
    other = real + noise.normal(0.01, 0.03, (30, 2))
    scores = [
        score
        for metric in ("dice", "hd95", "sensitivity")
        for score in scores_of("real", real, metric) + scores_of("real-syn", other, metric)
    ]
    planned = [Planned("real-syn", "real", 1.0, "WT", metric) for metric in ("dice", "hd95")]
    comparisons = compare_planned(ScoreTable(scores), planned, STATISTICS)
    # Two tests with the same p: both times two, though three metrics were scored.
    assert [c.p_holm for c in comparisons] == pytest.approx([min(1.0, 2 * comparisons[0].p)] * 2)


def test_the_sentence_names_share_and_effect(noise):
    real = noise.uniform(0.4, 0.8, (30, 3))
    scores = scores_of("real", real, share=0.25) + scores_of("real-syn", real + 0.05 + real * 0.01, share=0.25)
    comparison = compare_planned(ScoreTable(scores), [Planned("real-syn", "real", 0.25, "WT", "dice")], STATISTICS)[0]
    sentence = describe(comparison, 0.05)
    assert sentence.startswith("real-syn changes whole tumour Dice by +0.056 (95% CI ")
    assert "against real with 25% of the real patients, which is significantly better; better in 30" in sentence
    assert describe_finding(comparison, 0.05) == sentence.split(" Rank-biserial")[0]
    # Every patient gains.
    assert "Rank-biserial correlation +1.00." in sentence


def test_a_planned_comparison_without_scores_is_refused():
    table = ScoreTable(scores_of("real", [[0.5], [0.6]]))
    with pytest.raises(DataError, match="same patients and seeds"):
        compare_planned(table, [Planned("real-syn", "real", 1.0, "WT", "dice")], STATISTICS)


def test_a_comparison_is_written_with_what_outsiders_read(noise):
    real = noise.uniform(0.4, 0.8, (30, 3))
    written = comparison_json(compare(real, real + 0.05 + noise.normal(0, 0.01, (30, 3))), 0.05)
    assert {"arm", "baseline", "share", "region", "metric", "delta", "ci", "p_holm", "sentence"} <= written.keys()
    assert written["significant"]
    assert written["effect_size"] == 1.0


def test_an_interval_goes_no_further_than_differences_can():
    # Two trainings that disagree: t with one degree of freedom, 12.7 times the standard error of .3, is far beyond 1.
    real = np.full((4, 2), 0.5)
    other = real + np.array([0.3, -0.3]) + np.linspace(0, 0.01, 4)[:, None]
    assert compare(real, other).ci == (-1.0, 1.0)
    scores = scores_of("real", 10 * real, "hd95") + scores_of("real-syn", 10 * other, "hd95")
    distance = compare_planned(ScoreTable(scores), [Planned("real-syn", "real", 1.0, "WT", "hd95")], STATISTICS)[0]
    assert distance.ci[0] < -10
