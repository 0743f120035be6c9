"""The ingest stage on whole cases of generated sources: what comes out, and how a data set may be laid out."""

import errno
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import SOURCE_SHAPE, toy_brain, write_source
from ingest_builders import KEY, file_of, ingest, subject_of

from pipeline.cohort import digest_tree, open_cohort, read_tsv
from pipeline.config import GenerateSection, IngestSection
from pipeline.errors import ConfigError, DataError
from pipeline.evaluate.grouping import group_patients, list_groups
from pipeline.ingest.files import count_unreadable
from pipeline.ingest.pseudonym import pseudonym
from pipeline.layout import read_done
from pipeline.volumes import Grid, Volume, save_volume

SPACING_MM = 8.0


# What goes in: eight whole cases --------------------------------------------------------------------------------------


def test_all_whole_cases_come_out_under_pseudonyms_with_their_attributes(good):
    rows = read_tsv(good.cohort / "participants.tsv")
    assert {row["participant_id"] for row in rows} == {f"sub-{subject_of(n)}" for n in range(8)}
    assert list(rows[0]) == [
        "participant_id",
        "source",
        "split",
        "person",
        "missing",
        "volume_ml",
        "hemisphere",
        "lobe",
        "enhancing_share",
        "n_foci",
        "contrast",
    ]
    assert {row["source"] for row in rows} == {"BraTS 2021"}
    # .6, .15 and .25 of 8 are 4.8, 1.2 and 2.
    assert sorted(row["split"] for row in rows) == ["test"] * 2 + ["train"] * 5 + ["val"]
    assert read_tsv(good.cohort / "quarantine.tsv") == []
    described = json.loads((good.cohort / "participants.json").read_text())
    assert set(described) - {"Description"} == set(rows[0]) - {"participant_id"}


def test_images_are_int16_in_0_to_1000_and_background_is_0(good):
    cohort = open_cohort(good.cohort)
    assert cohort.modalities == ("t1", "t1ce", "t2", "flair")
    for case in cohort.cases:
        brain = case.condition(cohort.scheme) > 0
        assert 0.05 < brain.mean() < 0.6
        for modality in cohort.modalities:
            image = case.image(modality)
            assert image.dtype == np.int16
            assert image.shape == (24, 24, 24)
            assert (image.min(), image.max()) == (0, 1000)
            assert not image[~brain].any()
            assert np.median(image[brain]) > 100
        assert case.tumor_map().dtype == case.tissue_map().dtype == np.uint8
        assert not (case.tissue_map()[case.tumor_map() > 0]).any()
        assert set(np.unique(case.tissue_map())) == {0, 1, 2, 3}


def test_the_grid_is_ras_centred_and_the_tumour_lies_where_it_lay_in_the_source(good):
    for number, case in (
        (n, c) for n in range(8) for c in open_cohort(good.cohort).cases if c.subject == subject_of(n)
    ):
        np.testing.assert_allclose(case.affine, Grid((24, 24, 24), SPACING_MM).affine)
        np.testing.assert_allclose(case.affine @ [11.5, 11.5, 11.5, 1], [0, 0, 0, 1])
        seg = nib.Nifti1Image.from_filename(file_of(good.source, number, "seg"))
        t1 = nib.Nifti1Image.from_filename(file_of(good.source, number, "t1"))
        box = np.argwhere(np.asarray(t1.dataobj) > 0)
        middle = nib.affines.apply_affine(t1.affine, (box.min(axis=0) + box.max(axis=0)) / 2)
        labels = np.asarray(seg.dataobj)
        # BraTS' values 1, 2, 4 become 1, 2, 3.
        for value, ours in ((1, 1), (2, 2), (4, 3)):
            expected = nib.affines.apply_affine(seg.affine, np.argwhere(labels == value)).mean(axis=0) - middle
            got = nib.affines.apply_affine(case.affine, np.argwhere(case.tumor_map() == ours)).mean(axis=0)
            assert np.abs(got - expected).max() < 0.5 * SPACING_MM
        source_ml, ours_ml = (labels > 0).sum() * 0.125, (case.tumor_map() > 0).sum() * 0.512
        assert ours_ml == pytest.approx(source_ml, rel=0.15)
        assert float(case.attributes["volume_ml"]) == pytest.approx(ours_ml, abs=0.06)
        x = nib.affines.apply_affine(case.affine, np.argwhere(case.tumor_map() > 0)).mean(axis=0)[0]
        assert case.attributes["hemisphere"] == ("left" if x < 0 else "right")


def test_sidecars_state_what_was_done(good):
    (folder,) = (good.cohort / f"sub-{subject_of(0)}").iterdir()
    assert len(list(folder.glob("*.nii"))) == len(list(folder.glob("*.json"))) == 6
    image = json.loads((folder / f"sub-{subject_of(0)}_T1w.json").read_text())
    assert image["SkullStripped"] is True
    assert image["IntensityScaling"]["Percentiles"] == [0.5, 99.8]
    assert image["IntensityScaling"]["Range"] == [0, 1000]
    assert image["Resampling"]["SpacingMillimetres"] == SPACING_MM
    assert json.loads((folder / f"sub-{subject_of(0)}_desc-tumor_dseg.json").read_text())["Manual"] is True
    tissue = json.loads((folder / f"sub-{subject_of(0)}_desc-tissue_dseg.json").read_text())
    assert (tissue["Manual"], tissue["Reference"]) == (False, "t1")


def test_each_case_has_a_picture_of_its_own(good):
    pictures = {path.name: path.read_bytes() for path in (good.cohort / "figures").glob("*.png")}
    assert set(pictures) == {f"sub-{subject_of(n)}.png" for n in range(8)}
    assert len(set(pictures.values())) == 8


def test_two_workers_and_a_moved_source_give_the_same_bytes(good):
    moved = shutil.copytree(good.source, good.root / "elsewhere" / "scans")
    again = ingest(moved, good.root / "elsewhere" / "run", workers=2)
    assert digest_tree(again) == digest_tree(good.cohort)


def test_a_second_call_skips_the_stage(good):
    before = (good.cohort / "done.json").read_bytes()
    ingest(good.source, good.root / "run")
    assert (good.cohort / "done.json").read_bytes() == before


def test_a_second_call_skips_the_stage_when_the_default_key_was_made_by_the_first(good, tmp_path):
    for _ in range(2):
        ingest(good.source, tmp_path / "run", key_file=None)
        finished = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert [event["event"] for event in finished if event["event"] == "stage_start"] == ["stage_start"]


# What is refused as a whole -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "settings", "error", "words"),
    [
        (lambda source: None, {}, ConfigError, "is no folder"),
        (lambda source: source.mkdir(), {}, ConfigError, "is empty"),
        (lambda source: source.touch(), {}, ConfigError, "is no folder"),
        (lambda source: write_source(source, 1), {"manifest": "brats2023"}, DataError, "no file fits the manifest"),
        (lambda source: write_source(source, 1), {"manifest": "dicom"}, DataError, "no DICOM file"),
        (lambda source: write_source(source, 1), {"manifest": "brats21"}, ConfigError, "brats2018, brats2021"),
        (lambda source: write_source(source, 1), {"split_file": "absent.tsv"}, ConfigError, "ingest.split_file"),
        (lambda source: write_source(source, 1), {"key_file": "absent.key"}, ConfigError, "ingest.key_file"),
        (lambda source: write_source(source, 1), {"key_file": str(Path.cwd())}, ConfigError, "key_file: a folder"),
    ],
    ids=["missing", "empty", "a file", "other names", "no dicom", "no manifest", "no split file", "no key", "a folder"],
)
def test_a_source_that_cannot_be_read_is_refused_in_words(tmp_path, prepare, settings, error, words):
    prepare(tmp_path / "source")
    with pytest.raises(error, match=words):
        ingest(tmp_path / "source", tmp_path / "run", **settings)
    assert not (tmp_path / "run" / "cohort").exists()


@pytest.mark.parametrize("key", ["key_file", "manifest"])
def test_a_named_file_that_may_not_be_read_is_an_error_in_words(tmp_path, monkeypatch, key):
    write_source(tmp_path / "source", 1)
    path = tmp_path / "closed"
    path.write_bytes(b"secret secret secret")
    for name in ("read_bytes", "read_text", "open"):
        real = getattr(Path, name)

        def refuse(self, *rest, real=real, **options):
            if self == path:
                raise PermissionError(errno.EACCES, "Permission denied", str(self))
            return real(self, *rest, **options)

        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(ConfigError, match=f"ingest.{key}: cannot be read .permission denied."):
        ingest(tmp_path / "source", tmp_path / "run", **{key: str(path)})


def test_a_source_below_home_may_be_named_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    section = IngestSection(source="~/scans", key_file="~/key")
    assert (section.source, section.key_file) == (str(tmp_path / "scans"), tmp_path / "key")


def test_what_of_the_source_may_not_be_read_is_in_summary_and_report(good, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("_t1.nii.gz"))
    assert count_unreadable(good.source) == 8
    cohort = ingest(good.source, tmp_path / "run")
    assert read_done(cohort)["summary"]["source_files_not_readable"] == 8
    assert "8 files or folders of the source may not be read" in (tmp_path / "run" / "report.html").read_text()


# Other ways to lay out a data set -------------------------------------------------------------------------------------


def test_a_four_dimensional_source_gives_the_same_cohort_as_four_files(good, tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "msd" / folder).mkdir(parents=True)
    affine = np.diag([-5.0, -5.0, 5.0, 1.0])
    for number in range(5):
        images, _, tumor = toy_brain(SOURCE_SHAPE, np.random.default_rng(number), individual=True)
        stack = np.stack([images[name] for name in ("flair", "t1", "t1ce", "t2")], axis=3).astype(np.int16)
        nib.save(nib.Nifti1Image(stack, affine), tmp_path / f"msd/imagesTr/BRATS_{number:03d}.nii.gz")
        # 1 oedema, 2 necrotic core, 3 enhancing.
        labels = np.array([0, 2, 1, 3], np.uint8)[tumor]
        nib.save(nib.Nifti1Image(labels, affine), tmp_path / f"msd/labelsTr/BRATS_{number:03d}.nii.gz")
    cases = {
        case.subject: case
        for case in open_cohort(ingest(tmp_path / "msd", tmp_path / "run", manifest="msd-task01")).cases
    }
    reference = {case.subject: case for case in open_cohort(good.cohort).cases}
    dataset = "Medical Segmentation Decathlon, Task01 BrainTumour"
    for number in range(5):
        case = cases[subject_of(number, dataset, "BRATS_{:03d}")]
        for name in ("t1", "t1ce", "t2", "flair", "tumor", "tissue"):
            assert case.path(name).read_bytes() == reference[subject_of(number)].path(name).read_bytes(), name


@pytest.fixture(scope="module")
def two_visits(tmp_path_factory):
    """Write five persons with two time points each, named as BraTS 2023 does."""
    root = tmp_path_factory.mktemp("visits")
    endings = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
    for number in range(10):
        images, _, tumor = toy_brain(SOURCE_SHAPE, np.random.default_rng(number))
        name = f"BraTS-GLI-{number // 2:05d}-{number % 2:03d}"
        for modality, image in images.items():
            save_volume(
                Volume(image.astype(np.int16), np.diag([5.0, 5, 5, 1])),
                root / "scans" / name / f"{name}-{endings[modality]}.nii.gz",
            )
        save_volume(Volume(tumor, np.diag([5.0, 5, 5, 1])), root / "scans" / name / f"{name}-seg.nii.gz")
    return root


def test_two_time_points_of_one_person_are_on_the_same_side(two_visits, tmp_path):
    rows = read_tsv(ingest(two_visits / "scans", tmp_path / "run", manifest="brats2023") / "participants.tsv")
    assert len(rows) == 10
    sides = {}
    for row in rows:
        sides.setdefault(row["person"], []).append(row["split"])
    assert set(sides) == {pseudonym(KEY, "BraTS 2023 adult glioma", f"BraTS-GLI-{n:05d}") for n in range(5)}
    assert all(len(both) == 2 and both[0] == both[1] for both in sides.values())
    assert {side for side, _ in sides.values()} == {"train", "val", "test"}


def test_a_split_file_decides(two_visits, tmp_path):
    wanted = {0: "test", 1: "val", 2: "train", 3: "train", 4: "test"}
    lines = [f"BraTS-GLI-{person:05d}-{visit:03d}\t{wanted[person]}" for person in wanted for visit in (0, 1)]
    table = tmp_path / "split.tsv"
    table.write_text("subject\tsplit\n" + "\n".join(lines) + "\n")
    cohort = ingest(two_visits / "scans", tmp_path / "run", manifest="brats2023", split_file=str(table))
    expected = {pseudonym(KEY, "BraTS 2023 adult glioma", f"BraTS-GLI-{n:05d}"): side for n, side in wanted.items()}
    assert {row["person"]: row["split"] for row in read_tsv(cohort / "participants.tsv")} == expected


def test_what_a_table_tells_of_patients_is_in_the_cohort_and_groups_them(good, tmp_path, capsys):
    lines = [f"BraTS2021_{number:05d}\t{'north' if number < 7 else 'hut'}\tF" for number in range(8)]
    table = tmp_path / "attributes.tsv"
    table.write_text("subject\tsite\tsex\n" + "\n".join(lines) + "\n")
    cohort = ingest(good.source, tmp_path / "run", attributes_file=str(table))
    rows = read_tsv(cohort / "participants.tsv")
    told = {row["participant_id"]: (row["site"], row["sex"]) for row in rows}
    # What one person has alone is left out.
    assert told == {f"sub-{subject_of(n)}": ("north" if n < 7 else "n/a", "F") for n in range(8)}
    assert "hut" not in (cohort / "participants.tsv").read_text()
    said = capsys.readouterr().err
    assert "site of 8 of 8 scans, of which 0 joined as other and 1 left out (shared by fewer than 5); sex" in said
    assert "sex of 8 of 8 scans\n" in said
    cases = open_cohort(cohort).cases
    # All of one group tell nobody apart.
    assert not {"site", "sex"} & set(list_groups(group_patients(cases, cases, GenerateSection())))


def test_a_mistake_in_the_split_file_is_found_before_any_case_is_read(two_visits, tmp_path, monkeypatch):
    table = tmp_path / "split.tsv"
    table.write_text("subject\tsplit\nBraTS-GLI-00000-000\ttrian\n")
    monkeypatch.setattr("pipeline.ingest.stage.map_cases", lambda *_: pytest.fail("cases were read"))
    with pytest.raises(ConfigError, match=r"line 2: expected one of train, val, test"):
        ingest(two_visits / "scans", tmp_path / "run", manifest="brats2023", split_file=str(table))


def test_shares_that_leave_a_side_too_few_persons_fail_before_any_case_is_read(two_visits, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.ingest.stage.ingest_case", lambda task: pytest.fail("a case was read"))
    shares = {"train": 0.4, "val": 0.3, "test": 0.3}
    with pytest.raises(DataError, match=r"1 in train, 2 in val, 2 in test; expected at least 2 in train"):
        ingest(two_visits / "scans", tmp_path / "run", manifest="brats2023", split=shares)


def test_a_side_with_too_few_persons_fails_at_once_and_not_in_the_audit(two_visits, tmp_path):
    sides = {0: "test", 1: "val", 2: "train", 3: "val", 4: "test"}
    lines = [f"BraTS-GLI-{person:05d}-{visit:03d}\t{side}" for person, side in sides.items() for visit in (0, 1)]
    table = tmp_path / "split.tsv"
    table.write_text("subject\tsplit\n" + "\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"1 in train, 2 in val, 2 in test; expected at least 2 in train"):
        ingest(two_visits / "scans", tmp_path / "run", manifest="brats2023", split_file=str(table))
