import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.evaluate.comparison import (
    Planned,
    compare_planned,
    comparison_json,
    describe,
    describe_finding,
    holm,
    is_significant,
    plan_comparisons,
    rank_biserial,
    wilcoxon_p,
)
from pipeline.evaluate.intervals import Statistics
from pipeline.evaluate.scores import Score, ScoreTable

STATISTICS = Statistics(n_bootstrap=500, alpha=0.05, seed=1)


def scores_of(arm, values, metric="dice", share=1.0):
    """Scores of one region from a (patients, seeds) table."""
    return [
        Score(arm, seed, f"p{patient:03d}", "WT", metric, float(value), share)
        for patient, row in enumerate(np.asarray(values))
        for seed, value in enumerate(row)
    ]


def compare(real, other):
    both = scores_of("real", real) + scores_of("real-syn", other)
    return compare_planned(ScoreTable(both), [Planned("real-syn", "real", 1.0, "WT", "dice")], STATISTICS)[0]


@pytest.fixture
def noise():
    return np.random.default_rng(3)


def test_delta_is_the_mean_of_paired_differences_by_patient():
    comparison = compare([[0.5, 0.7], [0.2, 0.2]], [[0.6, 0.8], [0.6, 0.4]])
    # Patient means: .6 -> .7 and .2 -> .5: differences .1 and .3, mean .2; by seed: (.1 + .4) / 2 and (.1 + .2) / 2
    assert comparison.delta == pytest.approx(0.2)
    assert comparison.seed_deltas == pytest.approx((0.25, 0.15))
    assert comparison.n_patients == 2


def test_holm_multiplies_by_the_tests_left_and_never_decreases():
    # .01 * 3 = .03; .02 * 2 = .04; .03 * 1 = .03, raised to .04
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])


def test_holm_counts_tests_that_could_not_be_computed():
    assert holm([0.01, None]) == [pytest.approx(0.02), None]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_wilcoxon_of_equal_arms_has_no_p():
    assert wilcoxon_p(np.zeros(5)) is None
    # Five positive differences: both all-plus and all-minus of 2^5 sign patterns are as extreme: 2 / 32
    assert wilcoxon_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(2 / 32)


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
    assert "significantly better" in describe(distance, 0.05)


def test_a_gain_with_one_training_is_never_significant(noise):
    real = noise.uniform(0.4, 0.8, (30, 1))
    comparison = compare(real, real + 0.1 + noise.normal(0, 0.01, (30, 1)))
    assert comparison.ci[0] > 0
    assert comparison.p_holm < 0.05
    assert not is_significant(comparison, 0.05)
    assert "better in one training of each arm, not significant: it may be luck" in describe(comparison, 0.05)


def test_rank_biserial_weighs_signs_by_ranks():
    # Sizes .1, .2, .3, .4 have ranks 1 to 4; plus: 1 + 3 + 4 = 8, minus: 2; (8 - 2) / 10. The zero is left out.
    assert rank_biserial(np.array([0.1, -0.2, 0.0, 0.3, 0.4])) == pytest.approx(0.6)
    assert rank_biserial(np.zeros(4)) is None
    assert rank_biserial(np.array([-0.1, -0.5])) == -1.0


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
    assert "against real with 25% of the real patients, which is significantly better." in sentence
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
