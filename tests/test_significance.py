from dataclasses import replace

import numpy as np
import pytest
from campaigns.gain_families import count_false_claims, draw_null_plan, list_claims, plan_of
from scipy import stats

from pipeline.evaluate.comparison import compare_planned, is_significant
from pipeline.evaluate.intervals import Statistics, t_interval
from pipeline.evaluate.scores import Score, ScoreTable
from pipeline.evaluate.significance import cochran_cox_p, combined_p, holm, rank_biserial, strict_p, wilcoxon_p


def test_holm_multiplies_by_the_tests_left_and_never_decreases():
    # .01 * 3 = .03; .02 * 2 = .04; .03 * 1 = .03, raised to .04
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])


def test_holm_counts_tests_that_could_not_be_computed():
    assert holm([0.01, None]) == [pytest.approx(0.02), None]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_wilcoxon_of_equal_arms_has_no_p():
    found = wilcoxon_p(np.array([[0.0] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]]))
    assert np.isnan(found[0])
    # Five positive differences: both all-plus and all-minus of 2^5 sign patterns are as extreme: 2 / 32
    assert found[1] == pytest.approx(2 / 32)


def test_rank_biserial_weighs_signs_by_ranks():
    # Sizes .1, .2, .3, .4 have ranks 1 to 4; plus: 1 + 3 + 4 = 8, minus: 2; (8 - 2) / 10. The zero is left out.
    assert rank_biserial(np.array([0.1, -0.2, 0.0, 0.3, 0.4])) == pytest.approx(0.6)
    assert rank_biserial(np.zeros(4)) is None
    assert rank_biserial(np.array([-0.1, -0.5])) == -1.0


def test_the_strict_p_has_the_degrees_of_freedom_of_the_smaller_sample():
    table = np.array([[0.0, 0.2], [0.1, 0.3], [0.2, 0.4]])
    # Mean .2; patients .1, .2, .3 and trainings .1, .3: variance .01 / 3 + .02 / 2; one degree of freedom.
    error = (0.01 / 3 + 0.02 / 2) ** 0.5
    assert strict_p(table[None])[0] == pytest.approx(2 * stats.t.sf(0.2 / error, 1))


def test_the_interval_at_the_level_of_the_primary_p_ends_at_0():
    table = np.random.default_rng(1).normal(0.5, 1.0, (12, 3))
    p = float(cochran_cox_p(table[None])[0])
    low, high = t_interval(table, p)
    assert min(abs(low), abs(high)) == pytest.approx(0.0, abs=1e-9)
    assert 0 < p < strict_p(table[None])[0] < 1


def test_p_is_the_larger_of_both_and_there_is_none_with_one_training():
    tables = np.random.default_rng(2).normal(0.3, 1.0, (5, 12, 3))
    of_patients = wilcoxon_p(tables.mean(axis=2))
    assert combined_p(tables, "secondary") == pytest.approx(np.maximum(of_patients, strict_p(tables)))
    assert combined_p(tables, "primary") == pytest.approx(np.maximum(of_patients, cochran_cox_p(tables)))
    assert np.isnan(combined_p(tables, "reported")).all()
    assert np.isnan(combined_p(tables[:, :, :1], "primary")).all()
    assert np.isnan(combined_p(np.zeros((1, 5, 3)), "secondary")).all()


def test_equal_gains_of_all_patients_and_trainings_have_no_luck():
    assert strict_p(np.full((1, 5, 3), 0.5))[0] == 0.0
    assert cochran_cox_p(np.full((1, 5, 3), 0.5))[0] < 1e-12
    assert strict_p(np.zeros((1, 5, 3)))[0] == cochran_cox_p(np.zeros((1, 5, 3)))[0] == 1.0


@pytest.mark.parametrize(("size", "seed_sd"), [((20, 3), 0.03), ((20, 3), 0.05), ((20, 2), 0.05), ((100, 5), 0.03)])
def test_plans_of_identical_arms_claim_nothing_but_at_the_level(size, seed_sd):
    counts = count_false_claims(plan_of("gain"), size, seed_sd, 60, np.random.default_rng(5))
    # Of 60 with a probability of .05, 8 or fewer with more than 99%; patients alone claim in a third or more.
    assert counts.primary <= 8 / 60
    assert counts.secondary <= 4 / 60
    assert counts.patients_alone > 0.3


def test_the_campaign_claims_what_the_stage_claims():
    planned = [plan for plan in plan_of("gain") if plan.role != "reported" and plan.share == 1.0]
    stream, quick = np.random.default_rng(8), Statistics(n_bootstrap=50, alpha=0.05, seed=1)
    n_claims = 0
    for gain in (0.0, 0.05, 0.5):
        tables = draw_null_plan(planned, (20, 3), 0.01, stream) + gain
        scores = []
        for plan, table in zip(planned, tables, strict=True):
            for (patient, seed), value in np.ndenumerate(table):
                key = (seed, f"p{patient:02d}", plan.region, plan.metric)
                pair = f"{plan.arm}>{plan.baseline}"
                scores += [Score(pair, *key, float(value)), Score("nothing", *key, 0.0)]
        renamed = [replace(plan, arm=f"{plan.arm}>{plan.baseline}", baseline="nothing") for plan in planned]
        comparisons = compare_planned(ScoreTable(scores), renamed, quick)
        claimed = [number for number, one in enumerate(comparisons) if is_significant(one, 0.05)]
        assert claimed == list_claims(tables, [plan.role for plan in planned])
        n_claims += len(claimed)
    assert n_claims > len(planned)
