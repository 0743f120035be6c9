"""Leakage guard: the same anatomy under two identifiers is one person, on one side of the split."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from ingest_builders import change, ingest, subject_of

from pipeline.cohort import open_cohort, read_tsv
from pipeline.errors import ConfigError
from pipeline.ingest.leakage import SamePerson, find_same_persons, merge_persons
from pipeline.phantom.cohort import make_subject, write_subject

GUARDED = {"manifest": "phantom", "leakage_guard": True, "spacing_mm": 4.0, "size_voxels": [48, 56, 48]}
N = 6


def phantom_of(number):
    return subject_of(number, "synthcohort phantom", "Phantom_{:05d}")


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Write six phantoms, and two of them again under other identifiers: cropped, brighter, on a shifted grid."""
    source = tmp_path_factory.mktemp("twice") / "source"
    for index in range(1, N + 1):
        write_subject(make_subject(index, 3, 3.0), index, source, "nifti")
    for index, again in ((1, N + 1), (2, N + 2)):
        (old,) = {path.parent for path in source.rglob(f"*{index:05d}*t1.nii.gz")}
        new = old.with_name(old.name.replace(f"{index:05d}", f"{again:05d}"))
        shutil.copytree(old, new)
        for path in sorted(new.iterdir()):
            image = nib.Nifti1Image.from_filename(path)
            affine = image.affine.copy()
            affine[:3, 3] += 11.0
            cropped = np.asarray(image.dataobj)[2:-1, 3:, 1:-2]
            affine[:3, 3] += affine[:3, :3] @ [2, 3, 1]
            path.unlink()
            renamed = path.with_name(path.name.replace(f"{index:05d}", f"{again:05d}"))
            nib.save(nib.Nifti1Image(cropped, affine), renamed)
            if "seg" not in path.name:
                change(renamed, lambda voxels: voxels * 1.7)
    return source


def test_subjects_that_are_one_person_share_person_and_side_and_are_listed(twice, tmp_path):
    cohort = ingest(twice, tmp_path / "run", **GUARDED)
    pairs = {frozenset((row["first"], row["second"])) for row in read_tsv(cohort / "same_person.tsv")}
    assert pairs == {frozenset((phantom_of(n), phantom_of(again))) for n, again in ((1, N + 1), (2, N + 2))}
    cases = {case.subject: case for case in open_cohort(cohort).cases}
    assert len(cases) == N + 2
    for one, other in pairs:
        assert cases[one].person == cases[other].person
        assert cases[one].split == cases[other].split
    assert len({case.person for case in cases.values()}) == N
    page = (cohort / "quality.html").read_text()
    assert all(subject in page for pair in pairs for subject in pair)


def test_a_split_file_that_parts_one_person_is_refused(twice, tmp_path):
    sides = {1: "train", 2: "test", 3: "val", 4: "train", 5: "train", 6: "train", N + 1: "test", N + 2: "test"}
    rows = [f"Phantom_{number:05d}\t{side}" for number, side in sides.items()]
    (tmp_path / "split.tsv").write_text("subject\tsplit\n" + "\n".join(rows) + "\n")
    settings = {**GUARDED, "split_file": str(tmp_path / "split.tsv")}
    with pytest.raises(ConfigError, match=r"two subjects that look like one person .* on two sides"):
        ingest(twice, tmp_path / "run", **settings)
    ingest(twice, tmp_path / "unguarded", **{**settings, "leakage_guard": False})


def unit(*values):
    return np.array(values, np.float32) / np.linalg.norm(values)


def test_pairs_above_the_threshold_are_found_unless_the_source_says_that_they_are_one_person():
    anatomies = {"a": unit(1, 0, 0), "b": unit(1, 0.1, 0), "c": unit(0, 1, 0), "d": unit(0, 1, 0.3), "e": unit(0, 1, 0)}
    person_of = {"a": "a", "b": "b", "c": "c", "d": "d", "e": "c"}
    found = find_same_persons(anatomies, person_of, 0.9)
    assert [(pair.first, pair.second) for pair in found] == [("a", "b"), ("c", "d"), ("d", "e")]
    assert found[0].correlation == pytest.approx(1 / np.sqrt(1.01))
    assert find_same_persons({"a": anatomies["a"]}, person_of, 0.0) == []


def test_all_that_are_connected_become_one_person():
    person_of = {name: name for name in "abcdef"}
    pairs = [SamePerson("d", "e", 0.9), SamePerson("c", "d", 0.9), SamePerson("a", "b", 0.9), SamePerson("e", "c", 0.9)]
    assert merge_persons(person_of, pairs) == {"a": "a", "b": "a", "c": "c", "d": "c", "e": "c", "f": "f"}
    assert merge_persons(person_of, []) == person_of
