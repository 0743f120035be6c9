"""The split by person."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from pipeline.config import SplitShares
from pipeline.errors import ConfigError, DataError
from pipeline.ingest.split import check_sides, read_split_file, split_persons

SIDES = {"train", "val", "test"}


@st.composite
def cohorts(draw):
    """Draw persons, some with several cases, and shares in twentieths."""
    persons = draw(st.lists(st.text("0123456789abcdef", min_size=4, max_size=4), min_size=3, max_size=60, unique=True))
    n_cases = draw(st.lists(st.integers(1, 3), min_size=len(persons), max_size=len(persons)))
    train = draw(st.integers(1, 18))
    val = draw(st.integers(1, 19 - train))
    shares = SplitShares(train=train / 20, val=val / 20, test=(20 - train - val) / 20)
    return [person for person, n in zip(persons, n_cases, strict=True) for _ in range(n)], shares


@given(cohorts(), st.integers(0, 1000))
def test_every_person_is_on_exactly_one_side_and_no_side_is_empty(cohort, seed):
    cases, shares = cohort
    sides = split_persons(cases, shares, np.random.default_rng(seed))
    assert set(sides) == set(cases)
    assert set(sides.values()) == SIDES


@given(cohorts(), st.integers(0, 1000))
def test_sides_are_as_large_as_their_shares_say_up_to_rounding(cohort, seed):
    cases, shares = cohort
    sides = list(split_persons(cases, shares, np.random.default_rng(seed)).values())
    for side in SIDES:
        # Half a person from rounding, and what the largest side makes up for the two others.
        assert abs(sides.count(side) - getattr(shares, side) * len(sides)) <= 2


@given(cohorts(), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_cases(cohort, seed, shuffler):
    cases, shares = cohort
    expected = split_persons(cases, shares, np.random.default_rng(seed))
    shuffled = list(cases)
    shuffler.shuffle(shuffled)
    assert split_persons(shuffled, shares, np.random.default_rng(seed)) == expected


def test_another_seed_gives_another_split():
    persons = [f"{n:04x}" for n in range(40)]
    first, second = (split_persons(persons, SplitShares(), np.random.default_rng(seed)) for seed in (0, 1))
    assert first != second
    assert [list(first.values()).count(side) for side in ("train", "val", "test")] == [24, 6, 10]


def test_a_side_without_a_share_stays_empty():
    sides = split_persons(["a", "b"], SplitShares(train=0.5, val=0.0, test=0.5), np.random.default_rng(0))
    assert sorted(sides.values()) == ["test", "train"]


def test_two_persons_cannot_be_split_three_ways():
    with pytest.raises(DataError, match="2 persons; expected at least one for each of train, val, test"):
        split_persons(["a", "a", "b"], SplitShares(), np.random.default_rng(0))


PERSON_OF = {"Smith_01": "p1", "Smith_02": "p1", "Jones_01": "p2", "Brown_01": "p3"}
WHOLE = "subject\tsplit\nSmith_01\ttrain\nSmith_02\ttrain\nJones_01\tval\nBrown_01\ttest\n"


def write_table(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "split.tsv"
    path.write_text(text, encoding=encoding)
    return path


def test_a_split_file_is_read_by_subject_and_answers_by_person(tmp_path):
    expected = {"p1": "train", "p2": "val", "p3": "test"}
    assert read_split_file(write_table(tmp_path, WHOLE), PERSON_OF) == expected
    # A byte-order mark, another column and subjects that are not in the source do no harm.
    text = WHOLE.replace("subject\t", "subject\tage\t").replace("_01\t", "_01\t7\t").replace("_02\t", "_02\t7\t")
    assert read_split_file(write_table(tmp_path, text + "Doe_01\t7\ttest\n", "utf-8-sig"), PERSON_OF) == expected


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Jones_01\tval", "Jones_01\tvalidation", "line 4: expected one of train, val, test"),
        ("Jones_01\tval", "Jones_01", "line 4: expected one of train, val, test"),
        ("Smith_02\ttrain", "Smith_02\ttest", "line 3: a person on two sides"),
        ("Brown_01\ttest\n", "", "1 persons of the source are not listed"),
        ("subject\tsplit", "subject\tside", "expected columns subject and split"),
        ("subject\tsplit", "subject,split", "expected columns subject and split"),
        (WHOLE, "", "expected columns subject and split"),
        (WHOLE, "subject\tsplit\n", "expected columns subject and split"),
    ],
)
def test_a_wrong_split_file_is_refused_without_naming_a_subject(tmp_path, old, new, words):
    assert old in WHOLE
    with pytest.raises(ConfigError) as caught:
        read_split_file(write_table(tmp_path, WHOLE.replace(old, new)), PERSON_OF)
    message = str(caught.value)
    assert words in message
    for secret in ("Smith", "Jones", "Brown"):
        assert secret not in message


def test_a_split_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "split.tsv"
    path.write_bytes(b"subject\tsplit\nM\xfcller\ttrain\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_split_file(path, {"M\u00fcller": "p1"})


def test_a_missing_split_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file; expected a TSV"):
        read_split_file(tmp_path / "absent.tsv", PERSON_OF)


@pytest.mark.parametrize(
    ("train", "val", "test"), [(1, 1, 3), (3, 0, 2), (3, 1, 0), (2, 1, 1)], ids=["train", "val", "test", "audited"]
)
def test_sides_that_the_stages_to_come_cannot_work_with_are_refused(train, val, test):
    sides = ["train"] * train + ["val"] * val + ["test"] * test
    with pytest.raises(DataError, match=rf"{train} in train, {val} in val, {test} in test; expected at least 2"):
        check_sides(sides)
    check_sides([*sides, "train", "train", "val", "test"])
