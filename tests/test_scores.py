import math

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.evaluate.scores import Score, ScoreTable

SCORES = [
    Score("real", seed, patient, "WT", "dice", value, share)
    for share, seed, patient, value in (
        (0.5, 1, "b", 0.4),
        (0.5, 0, "a", 0.1),
        (0.5, 0, "b", 0.3),
        (0.5, 1, "a", 0.2),
        (1.0, 0, "a", 0.9),
    )
]


def test_values_are_by_patient_and_seed_whatever_the_order():
    table = ScoreTable(SCORES).table("real", 0.5, "WT", "dice")
    assert (table.patients, table.seeds) == (("a", "b"), (0, 1))
    np.testing.assert_array_equal(table.values, [[0.1, 0.2], [0.3, 0.4]])
    np.testing.assert_allclose(table.by_patient(), [0.15, 0.35])


def test_some_patients_can_be_taken():
    table = ScoreTable(SCORES).table("real", 0.5, "WT", "dice").take(["b", "z"])
    assert table.patients == ("b",)
    np.testing.assert_array_equal(table.values, [[0.3, 0.4]])


def test_shares_are_those_of_the_arm():
    assert ScoreTable(SCORES).shares("real") == (0.5, 1.0)
    assert ScoreTable(SCORES).shares("syn") == ()


def test_an_arm_without_real_scans_is_the_same_at_every_share():
    table = ScoreTable([Score("syn", 0, "a", "WT", "dice", 0.7, 0.0)])
    assert table.table("syn", 0.25, "WT", "dice").values == [[0.7]]
    assert table.table("syn", 1.0, "WT", "dice").values == [[0.7]]


def test_what_was_not_scored_gives_an_empty_table():
    assert len(ScoreTable([]).table("real", 1.0, "WT", "dice")) == 0
    assert ScoreTable(SCORES).table("real", 0.5, "WT", "hd95").values.shape == (0, 0)


def test_a_training_that_lacks_a_patient_is_refused():
    table = ScoreTable(SCORES[:3])
    with pytest.raises(DataError, match="every patient with every seed, 2 x 2, got 3"):
        table.table("real", 0.5, "WT", "dice")


def test_arms_with_other_patients_are_not_compared():
    table = ScoreTable([*SCORES, Score("real-syn", 0, "b", "WT", "dice", 0.9, 1.0)])
    with pytest.raises(DataError, match="same patients and seeds"):
        table.difference("real-syn", "real", 1.0, "WT", "dice")


def test_the_difference_is_arm_minus_baseline():
    table = ScoreTable([*SCORES, Score("real-syn", 0, "a", "WT", "dice", 0.7, 1.0)])
    assert table.difference("real-syn", "real", 1.0, "WT", "dice").values == pytest.approx(-0.2)


def test_no_distance_is_beyond_the_diagonal_of_the_image_and_other_metrics_keep_their_bounds():
    table = ScoreTable([], diagonal_mm=80.0)
    assert table.bounds("hd95") == (0.0, 80.0)
    assert table.difference_bounds("lesion_hd95") == (-80.0, 80.0)
    assert table.bounds("dice") == (0.0, 1.0)
    assert table.difference_bounds("volume_error_ml") == (-math.inf, math.inf)
