"""A user's table of attributes: groups get into the cohort, what tells single patients does not."""

import pytest

from pipeline.errors import ConfigError
from pipeline.ingest.attributes_file import add_attributes, read_attributes_file

SUBJECTS = ["Doe_01", "Doe_02", "Roe_01", "Poe_01"]
TABLE = "subject\tsource\tsex\nDoe_01\tnorth\tF\nDoe_02\tnorth\t\nRoe_01\tsouth\tM\nelsewhere\twest\tM\n"


def write_table(folder, text):
    path = folder / "attributes.tsv"
    path.write_text(text)
    return path


def test_attributes_are_read_by_subject_and_what_is_not_said_is_not_known(tmp_path):
    assert read_attributes_file(write_table(tmp_path, TABLE), SUBJECTS) == {
        "Doe_01": {"source": "north", "sex": "F"},
        "Doe_02": {"source": "north", "sex": "n/a"},
        "Roe_01": {"source": "south", "sex": "M"},
        "Poe_01": {"source": "n/a", "sex": "n/a"},
    }


def test_a_source_that_is_known_replaces_the_name_of_the_data_set():
    row = {"participant_id": "sub-1", "source": "Set", "split": "train"}
    told = add_attributes(row, {"source": "north", "sex": "F"})
    assert told == {"participant_id": "sub-1", "source": "north", "split": "train", "sex": "F"}
    assert add_attributes(row, {"source": "n/a", "sex": "n/a"})["source"] == "Set"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("subject", "patient", "expected a column subject and others"),
        ("\tsex", "\tSex of patient", "column 2 beside subject; expected a name of"),
        ("\tsex", "\tsplit", "column split is ingest's own"),
        ("\tsex", "\tvolume_ml", "column volume_ml is ingest's own"),
        ("Doe_02", "Doe_01", "line 3: a subject for the second time"),
        ("south\tM", "south\tM\tmore", "line 4: expected 3 values"),
        ("south\tM", f"south\t{'M' * 41}", "line 4: expected 3 values of up to 40"),
        ("north\t\n", "north\tX\n", "column sex has 3 values for 3 subjects; expected at most 2"),
    ],
)
def test_a_wrong_table_is_refused_without_naming_a_subject(tmp_path, old, new, words):
    with pytest.raises(ConfigError, match=words) as caught:
        read_attributes_file(write_table(tmp_path, TABLE.replace(old, new)), SUBJECTS)
    assert not any(name in str(caught.value) for name in (*SUBJECTS, "elsewhere"))


def test_dates_and_names_are_no_groups(tmp_path):
    subjects = [f"s{number:02d}" for number in range(40)]
    bands = "".join(f"{name}\t{number // 10}0 to {number // 10}9\n" for number, name in enumerate(subjects))
    told = read_attributes_file(write_table(tmp_path, "subject\tage\n" + bands), subjects)
    assert {values["age"] for values in told.values()} == {"00 to 09", "10 to 19", "20 to 29", "30 to 39"}
    dates = "".join(f"{name}\t2019-01-{number % 28 + 1:02d}\n" for number, name in enumerate(subjects))
    with pytest.raises(ConfigError, match="column born has 28 values for 40 subjects; expected at most 8: groups, no"):
        read_attributes_file(write_table(tmp_path, "subject\tborn\n" + dates), subjects)


@pytest.mark.parametrize("text", ["", "subject\n", "subject\tsex\n", "subject\tsex\nelsewhere\tF\n"])
def test_a_table_that_tells_nothing_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"ingest\.attributes_file: "):
        read_attributes_file(write_table(tmp_path, text), SUBJECTS)


def test_a_table_that_is_no_text_or_not_there_is_refused(tmp_path):
    path = tmp_path / "attributes.tsv"
    with pytest.raises(ConfigError, match="no such file"):
        read_attributes_file(path, SUBJECTS)
    path.write_bytes("subject\tsex\nM\u00fcller\tF\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_attributes_file(path, SUBJECTS)
