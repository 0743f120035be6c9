"""Finding cases by file names, as the shipped manifests tell."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pipeline.errors import DataError
from pipeline.ingest.discover import compile_pattern, discover_nifti
from pipeline.ingest.manifest import load_manifest

ROLES = ("t1", "t1ce", "t2", "flair", "tumor")
BRATS_ENDINGS = dict(zip(ROLES, ("_t1", "_t1ce", "_t2", "_flair", "_seg"), strict=True))
ENDINGS_2023 = dict(zip(ROLES, ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"), strict=True))


def touch_all(root, subject, endings, folder=""):
    """Make empty files of one subject below ``root/folder/subject``."""
    for ending in endings.values():
        path = root / folder / subject / f"{subject}{ending}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("manifest", "endings", "folder", "subjects", "persons"),
    [
        ("brats2021", BRATS_ENDINGS, "", ["BraTS2021_00000", "BraTS2021_01666"], None),
        ("brats2021", BRATS_ENDINGS, "deep/down", ["BraTS2021_00000"], None),
        (
            "brats2018",
            BRATS_ENDINGS,
            "HGG",
            ["Brats18_TCIA01_147_1", "Brats18_TCIA01_147_2", "Brats18_CBICA_AAB_1"],
            ["Brats18_TCIA01_147", "Brats18_TCIA01_147", "Brats18_CBICA_AAB"],
        ),
        (
            "brats2023",
            ENDINGS_2023,
            "",
            ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"],
            ["BraTS-GLI-00005", "BraTS-GLI-00005", "BraTS-GLI-00006"],
        ),
    ],
)
def test_the_names_of_a_data_set_are_understood(tmp_path, manifest, endings, folder, subjects, persons):
    for subject in subjects:
        touch_all(tmp_path, subject, endings, folder)
    (tmp_path / "name_mapping.csv").touch()
    cases = discover_nifti(tmp_path, load_manifest(manifest))
    person_of = dict(zip(subjects, persons or subjects, strict=True))
    assert {case.subject: case.person for case in cases} == person_of
    assert [case.number for case in cases] == list(range(1, len(subjects) + 1))
    assert [case.subject for case in cases] == sorted(subjects)
    for case in cases:
        assert case.problem == ""
        for role in ROLES:
            names = [path.name for path in case.files[role]]
            assert names == [f"{case.subject}{endings[role]}.nii.gz"]


def test_the_decathlon_has_one_file_with_four_volumes(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "Task01_BrainTumour" / folder).mkdir(parents=True)
        (tmp_path / "Task01_BrainTumour" / folder / "BRATS_001.nii.gz").touch()
        # What a Mac leaves behind.
        (tmp_path / "Task01_BrainTumour" / folder / "._BRATS_001.nii.gz").touch()
    manifest = load_manifest("msd-task01")
    (case,) = discover_nifti(tmp_path, manifest)
    assert case.problem == ""
    assert {len(case.files[name]) for name in ROLES} == {1}
    assert case.files["t1"] == case.files["flair"]
    assert case.files["tumor"][0].parent.name == "labelsTr"
    assert sorted(rule.volume for rule in manifest.images.values()) == [0, 1, 2, 3]


@pytest.mark.parametrize("missing", ROLES)
def test_a_missing_file_is_a_problem_of_that_case_alone(tmp_path, missing):
    touch_all(tmp_path, "BraTS2021_00000", BRATS_ENDINGS)
    touch_all(tmp_path, "BraTS2021_00001", {k: v for k, v in BRATS_ENDINGS.items() if k != missing})
    whole, broken = discover_nifti(tmp_path, load_manifest("brats2021"))
    assert whole.problem == whole.lacks == ""
    # Without its tumour a case is of no use; without a modality it may be.
    said, silent = (broken.problem, broken.lacks) if missing == "tumor" else (broken.lacks, broken.problem)
    assert said.startswith(f"no file for {missing};")
    assert silent == ""
    assert "BraTS2021" not in said


def test_a_label_map_alone_is_no_case(tmp_path):
    touch_all(tmp_path, "BraTS2021_00001", {"tumor": BRATS_ENDINGS["tumor"]})
    (case,) = discover_nifti(tmp_path, load_manifest("brats2021"))
    assert case.problem.startswith("no file for t1, t1ce, t2, flair;")


def test_two_files_for_one_role_are_a_problem(tmp_path):
    touch_all(tmp_path, "BraTS2021_00000", BRATS_ENDINGS)
    (tmp_path / "BraTS2021_00000" / "BraTS2021_00000_t2.nii").touch()
    (case,) = discover_nifti(tmp_path, load_manifest("brats2021"))
    assert case.problem.startswith("several files for t2;")
    assert "BraTS2021" not in case.problem


def test_a_folder_where_nothing_fits_is_refused_with_an_example_of_a_name(tmp_path):
    touch_all(tmp_path, "BraTS-GLI-00005-000", ENDINGS_2023)
    with pytest.raises(DataError, match="no file fits the manifest `BraTS 2021`") as caught:
        discover_nifti(tmp_path, load_manifest("brats2021"))
    assert "{subject}_t1.nii" in str(caught.value)
    assert "GLI" not in str(caught.value)


def test_a_subject_stands_for_the_same_text_at_each_place():
    pattern = compile_pattern("**/{subject}/{subject}_t1.nii*", r"S\d")
    assert pattern.fullmatch("a/b/S1/S1_t1.nii.gz")["subject"] == "S1"
    assert pattern.fullmatch("S1/S1_t1.nii")
    assert pattern.fullmatch("S1/S2_t1.nii") is None
    assert pattern.fullmatch("xS1/S1_t1.nii") is None


WORDS = st.text("abcXYZ019_-. ", min_size=1, max_size=6).filter(lambda text: text.strip(". "))


@given(st.lists(WORDS, max_size=3), WORDS, WORDS)
def test_a_star_stops_at_a_folder_and_two_stars_do_not(folders, subject, rest):
    path = "/".join([*folders, subject])
    assert compile_pattern("**/{subject}", "[^/]+").fullmatch(path)["subject"] == subject
    assert (compile_pattern("*/{subject}", "[^/]+").fullmatch(path) is not None) == (len(folders) == 1)
    assert compile_pattern(f"{{subject}}{rest}*", "S").fullmatch(f"S{rest}{subject}")
    assert compile_pattern(f"{{subject}}{rest}*", "S").fullmatch(f"S{rest}{subject}/x") is None


@given(st.permutations(list(itertools.islice("+().[]^$|?", 10))))
def test_other_signs_in_a_pattern_mean_themselves(signs):
    text = "".join(signs)
    assert compile_pattern("{subject}" + text, "S").fullmatch("S" + text)
    assert compile_pattern("{subject}" + text, "S").fullmatch("S" + text[1:]) is None
