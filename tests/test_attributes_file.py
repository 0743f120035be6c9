"""A user's table of attributes: groups get into the cohort, what tells single persons does not."""

import pytest

from pipeline.errors import ConfigError
from pipeline.ingest.attributes_file import describe_attributes, group_attributes, read_attributes_file

# Sixteen persons; the first two have two scans each.
PERSONS = {f"Doe{number:02d}_{visit}": f"Doe{number:02d}" for number in range(16) for visit in range(1 + (number < 2))}


def read_groups(path, persons):
    return group_attributes(read_attributes_file(path), persons)


def write_table(folder, columns, value_of, names=tuple(PERSONS)):
    path = folder / "attributes.tsv"
    lines = ["\t".join([name, *value_of(int(name[3:5]))]) for name in names]
    path.write_text("\n".join(["\t".join(["subject", *columns]), *lines]) + "\n")
    return path


def values_of(told, column):
    """By person; all scans of one say the same."""
    by_person = {}
    for subject, values in told.items():
        assert by_person.setdefault(PERSONS[subject], values[column]) == values[column]
    return list(by_person.values())


def test_attributes_are_read_by_subject_or_by_person(tmp_path):
    def value_of(number):
        return ("north" if number < 9 else "south", "F" if number % 2 else "M")

    by_subject = read_groups(write_table(tmp_path, ("site", "sex"), value_of), PERSONS)
    by_person = read_groups(write_table(tmp_path, ("site", "sex"), value_of, sorted(set(PERSONS.values()))), PERSONS)
    assert by_subject == by_person
    assert set(by_subject) == set(PERSONS)
    assert values_of(by_subject, "site") == ["north"] * 9 + ["south"] * 7
    assert by_subject["Doe01_1"] == {"site": "north", "sex": "F"}


def test_whom_the_table_does_not_name_is_not_known(tmp_path):
    some = [f"{name} " for name in PERSONS if int(name[3:5]) < 6]
    told = read_groups(write_table(tmp_path, ["sex"], lambda number: ["F" if number else ""], some), PERSONS)
    assert values_of(told, "sex") == ["n/a", *["F"] * 5, *["n/a"] * 10]


def test_what_few_persons_share_is_joined_or_left_out(tmp_path):
    def site_of(number):
        return ["north" if number < 9 else "west" if number < 13 else "hut"]

    told = read_groups(write_table(tmp_path, ["site"], site_of), PERSONS)
    assert values_of(told, "site") == ["north"] * 9 + ["other"] * 7
    # Of four persons together nothing is said.
    told = read_groups(
        write_table(tmp_path, ["site"], lambda number: ["north" if number < 12 else f"hut {number}"]), PERSONS
    )
    assert values_of(told, "site") == ["north"] * 12 + ["n/a"] * 4


def test_two_scans_of_one_person_do_not_make_a_value_common(tmp_path):
    # Four persons, of whom two have two scans: six scans.
    told = read_groups(write_table(tmp_path, ["site"], lambda number: ["hut" if number < 4 else "north"]), PERSONS)
    assert values_of(told, "site") == ["n/a"] * 4 + ["north"] * 12


def test_what_became_of_a_table_is_said_in_counts(tmp_path):
    table = write_table(
        tmp_path,
        ("site", "sex"),
        lambda number: ["north" if number < 9 else f"hut {number}", "F" if number > 3 else ""],
        [*PERSONS, "Doe99_0"],
    )
    told = read_groups(table, PERSONS)
    assert describe_attributes(read_attributes_file(table), PERSONS, told) == (
        "`ingest.attributes_file`: site of 18 of 18 scans, of which 7 joined as other and 0 left out (shared by fewer "
        "than 5); sex of 12 of 18 scans; 1 lines of nobody in the source"
    )


@pytest.mark.parametrize(
    "value_of",
    [
        lambda number: [f"Jane Doe 19{number}"],
        lambda number: [f"Jane Doe 19{number}" if number < 3 else ""],
        lambda number: [f"2019-01-{number:02d}"],
    ],
    ids=["names", "names of few", "dates"],
)
def test_a_column_that_tells_single_persons_is_refused_without_its_values(tmp_path, value_of):
    with pytest.raises(ConfigError, match="column note has 0 values that 5 persons or more share") as caught:
        read_groups(write_table(tmp_path, ["note"], value_of), PERSONS)
    assert "Jane" not in str(caught.value)
    assert "2019" not in str(caught.value)


def test_more_groups_than_can_be_compared_are_refused(tmp_path):
    persons = {f"Doe{number:02d}": f"Doe{number:02d}" for number in range(45)}
    table = write_table(tmp_path, ["site"], lambda number: [f"site {number // 5}"], persons)
    with pytest.raises(ConfigError, match="column site has 9 values that 5 persons or more share; expected 1 to 8"):
        read_groups(table, persons)


TABLE = "subject\tsite\tsex\nDoe00_0\tnorth\tF\nDoe02_0\tnorth\tM\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("subject", "patient", "expected a column subject and others"),
        ("subject\tsite\tsex", "subject", "expected a column subject and others"),
        ("\tsex", "\tSex of patient", "column 2 beside subject; expected a name of"),
        ("\tsex", "\tsite", "column site is there twice"),
        *(
            ("\tsex", f"\t{name}", f"column {name} is made by ingest or evaluate itself")
            for name in ("split", "source", "volume_ml", "volume", "size")
        ),
        ("Doe02_0", "Doe00_0", "line 3: a subject for the second time"),
        ("north\tM", "north\tM\tmore", "line 3: expected 3 values"),
        ("north\tM", "north", "line 3: expected 3 values"),
        ("north\tM", f"north\t{'M' * 41}", "line 3: expected 3 values of up to 40"),
        ("Doe0", "elsewhere", "no line is of a subject of the source"),
        (TABLE, "", "expected a column subject and others"),
        (TABLE, TABLE.replace("\t", ","), "got one column, with commas or semicolons in it"),
        ("subject", "Subject", "got 3 columns, 0 of them called subject"),
        (TABLE, "subject\tsex\n", "no line is of a subject of the source"),
    ],
)
def test_a_wrong_table_is_refused_without_naming_a_subject(tmp_path, old, new, words):
    path = tmp_path / "attributes.tsv"
    path.write_text(TABLE.replace(old, new))
    with pytest.raises(ConfigError, match=words) as caught:
        read_groups(path, PERSONS)
    assert "Doe" not in str(caught.value)
    assert "elsewhere" not in str(caught.value)


def test_a_table_that_is_no_text_or_not_there_is_refused(tmp_path):
    path = tmp_path / "attributes.tsv"
    with pytest.raises(ConfigError, match="no such file"):
        read_groups(path, PERSONS)
    path.write_bytes("subject\tsex\nM\u00fcller\tF\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_groups(path, PERSONS)
