"""Flags: what stands out among the cases, and what is wrong in any cohort."""

import numpy as np
import pytest
from conftest import rng, toy_brain

from pipeline.ingest.quality import measure_quality
from pipeline.ingest.quality_flags import (
    CASE_FIGURES,
    SCAN_FIGURES,
    CheckedCase,
    check_cases,
    describe_figure,
    find_outliers,
    quality_rows,
)

CLEAN = {"brain_ml": 1400.0, "tumor_outside_brain": 0.0, "cut_share": 0.002, "t1_coverage": 1.0}


def many(name: str, values: list[float]) -> list[dict[str, float]]:
    return [{name: value} for value in values]


def test_a_clean_cohort_has_next_to_no_flags() -> None:
    shape, rows = (36, 40, 34), []
    for seed in range(20):
        images, tissue, tumor = toy_brain(shape, rng(seed))
        reached = {name: np.ones(shape, bool) for name in images}
        rows.append(measure_quality(images, reached, (tissue > 0) | (tumor > 0), tumor, 5.0))
    flags = find_outliers(rows)
    assert sum(map(len, flags)) < 0.05 * len(rows)
    rows[4] = {**rows[4], "t1_snr": rows[4]["t1_snr"] / 4}
    found = find_outliers(rows)
    assert "t1_snr" in found[4]
    assert "T1 noisier than the others" in found[4]["t1_snr"]


def test_an_outlier_is_farther_than_three_and_a_half_robust_deviations() -> None:
    # Median .80, median absolute deviation .04: flagged below .80 - 3.5 * 1.4826 * .04 = .592.
    values = [0.72, 0.76, 0.76, 0.80, 0.80, 0.84, 0.84, 0.90]
    assert not any(find_outliers(many("t1_contrast", [*values, 0.60])))
    flags = find_outliers(many("t1_contrast", [*values, 0.58]))
    assert flags[-1] == {"t1_contrast": "T1 shaded across the head: local contrast 58%, usually 80%"}
    assert not any(flags[:-1])


def test_where_all_are_alike_only_a_difference_worth_speaking_of_is_flagged() -> None:
    alike = [0.80] * 9
    assert not any(find_outliers(many("t2_contrast", [*alike, 0.78])))
    assert find_outliers(many("t2_contrast", [*alike, 0.60]))[-1]


@pytest.mark.parametrize(
    ("name", "usual", "better", "worse"),
    [
        ("t1_snr", 60.0, 200.0, 15.0),
        ("t1_motion", 0.01, 0.001, 0.1),
        ("t1_blur", 0.45, 0.2, 0.8),
        ("t1_slice_jumps", 0.004, 0.0, 0.05),
        ("asymmetry", 0.05, 0.0, 0.4),
    ],
)
def test_only_the_worse_side_is_flagged(name: str, usual: float, better: float, worse: float) -> None:
    values = [usual * factor for factor in (0.96, 0.98, 1, 1, 1, 1.02, 1.04)]
    flags = find_outliers(many(name, [*values, better, worse]))
    assert [bool(found) for found in flags] == [False] * 8 + [True]


def test_a_brain_volume_is_flagged_on_both_sides() -> None:
    flags = find_outliers(many("brain_ml", [*[1400.0] * 8, 900.0, 1950.0]))
    assert flags[-2:] == [
        {"brain_ml": "brain of 900 ml, usually 1400"},
        {"brain_ml": "brain of 1950 ml, usually 1400"},
    ]


def test_fewer_than_eight_cases_are_not_compared() -> None:
    assert not any(find_outliers(many("t1_snr", [60.0] * 6 + [1.0])))
    assert find_outliers(many("t1_snr", [60.0] * 7 + [1.0]))[-1]


@pytest.mark.parametrize(
    ("name", "value", "phrase"),
    [
        ("t1ce_coverage", 0.62, "T1 with contrast covers 62.0% of the brain"),
        ("cut_share", 0.04, "field of view cuts the brain, at 4.0% of its surface"),
        ("flat_share", 0.04, "brain surface flat over 4.0%, as if cut off"),
        ("tumor_outside_brain", 0.12, "12.0% of the tumour lies outside the brain"),
        ("brain_ml", 540.0, "brain of 540 ml, expected 700 to 2100"),
        ("brain_ml", 2400.0, "brain of 2400 ml, expected 700 to 2100"),
    ],
)
def test_a_limit_holds_for_a_single_case(name: str, value: float, phrase: str) -> None:
    assert find_outliers([CLEAN, {**CLEAN, name: value}]) == [{}, {name: phrase}]


def test_units_of_brightness_and_tumour_volumes_are_not_flagged() -> None:
    rows = [{"t1_low": 10.0, "t1_high": 900.0, "tumor_ml": 30.0}] * 9
    assert not any(find_outliers([*rows, {"t1_low": -3.0, "t1_high": 4.0, "tumor_ml": 300.0}]))


def test_a_figure_that_a_case_lacks_is_not_compared() -> None:
    rows = [*many("t1_snr", [60.0] * 8), {"t1_coverage": 0.0}]
    assert find_outliers(rows) == [{}] * 8 + [{"t1_coverage": "T1 covers 0.0% of the brain"}]


def test_each_phrase_has_a_flag_that_says_it() -> None:
    for figure in (*CASE_FIGURES.values(), *SCAN_FIGURES.values()):
        assert bool(figure.unlike) == (figure.worse != "none")
        assert bool(figure.beyond) == bool(np.isfinite(figure.limits).any())


def test_figures_of_a_scan_are_told_from_those_of_the_case() -> None:
    assert describe_figure("t1ce_slice_jumps") == (SCAN_FIGURES["slice_jumps"], "t1ce")
    assert describe_figure("brain_ml") == (CASE_FIGURES["brain_ml"], "")
    with pytest.raises(KeyError):
        describe_figure("t1_beauty")


def test_rows_have_every_figure_of_any_case_and_the_flags() -> None:
    cases = check_cases(
        {"aa": {"t1_snr": 61.23456789, "brain_ml": 540.0, "cut_share": 0.5}, "bb": {"brain_ml": 1400.0}}
    )
    assert quality_rows(cases) == [
        {
            "participant_id": "sub-aa",
            "brain_ml": "540",
            "cut_share": "0.5",
            "t1_snr": "61.2346",
            "flags": "brain of 540 ml, expected 700 to 2100; field of view cuts the brain, at 50.0% of its surface",
        },
        {"participant_id": "sub-bb", "brain_ml": "1400", "cut_share": "n/a", "t1_snr": "n/a", "flags": "n/a"},
    ]


def test_checked_cases_keep_their_order() -> None:
    cases = check_cases({"zz": CLEAN, "aa": {**CLEAN, "cut_share": 0.3}})
    assert [case.subject for case in cases] == ["zz", "aa"]
    assert cases[0] == CheckedCase("zz", CLEAN, {})
    assert set(cases[1].flags) == {"cut_share"}
