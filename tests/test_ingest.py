"""The ingest stage on generated sources: what comes out, what is quarantined, what never leaks."""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from conftest import SOURCE_SHAPE, TINY, toy_brain, write_source

from pipeline.cohort import digest_tree, open_cohort, read_tsv
from pipeline.config import parse_config
from pipeline.errors import CaseError, ConfigError, DataError
from pipeline.ingest.discover import SourceCase
from pipeline.ingest.manifest import load_manifest
from pipeline.ingest.preprocess import find_brain, scale_intensity
from pipeline.ingest.pseudonym import pseudonym
from pipeline.ingest.tissue import classify_tissue
from pipeline.runner import run_stages
from pipeline.volumes import Grid, Volume, save_volume

KEY = b"the key of these tests"
SPACING_MM = 8.0


def ingest(source, run_dir, workers=1, **settings):
    """Run the stage on a source; return the cohort's folder."""
    key_file = Path(run_dir).parent / "pseudonym.key"
    key_file.write_bytes(KEY)
    section = {"manifest": "brats2021", "min_cases": 4, "source": str(source), "key_file": str(key_file)}
    content = {
        **TINY,
        "ingest": {**TINY["ingest"], **section, **settings},
        "compute": {"accelerator": "cpu", "workers": workers},
    }
    run_stages(parse_config(content, "tests"), run_dir, last="ingest")
    return run_dir / "cohort"


def subject_of(number, dataset="BraTS 2021", identifier="BraTS2021_{:05d}"):
    return pseudonym(KEY, dataset, identifier.format(number))


def file_of(source, number, role):
    name = f"BraTS2021_{number:05d}"
    return source / name / f"{name}_{role}.nii.gz"


def change(path, function, dtype=None):
    """Rewrite the voxels of a NIfTI file."""
    image = nib.Nifti1Image.from_filename(path)
    array = np.asarray(image.dataobj)
    dtype = dtype or array.dtype
    nib.save(nib.Nifti1Image(function(array).astype(dtype), image.affine, dtype=dtype), path)


# What goes in: eight whole cases -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Ingest eight whole cases once; three of them have label maps that are written in other ways."""
    root = tmp_path_factory.mktemp("good")
    source = write_source(root / "Hospital_Secret", 8)
    change(file_of(source, 0, "seg"), lambda labels: labels, np.int64)
    change(file_of(source, 1, "seg"), lambda labels: labels, np.float32)
    turned = nib.as_closest_canonical(nib.Nifti1Image.from_filename(file_of(source, 2, "seg")))
    nib.save(turned, file_of(source, 2, "seg"))
    return SimpleNamespace(root=root, source=source, cohort=ingest(source, root / "run"))


def test_all_whole_cases_come_out_under_pseudonyms_with_their_attributes(good):
    rows = read_tsv(good.cohort / "participants.tsv")
    assert {row["participant_id"] for row in rows} == {f"sub-{subject_of(n)}" for n in range(8)}
    assert list(rows[0]) == [
        "participant_id",
        "source",
        "split",
        "person",
        "volume_ml",
        "hemisphere",
        "enhancing_share",
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


# What is turned away --------------------------------------------------------------------------------------------------


def truncate(source, number):
    path = file_of(source, number, "t2")
    path.write_bytes(path.read_bytes()[:3000])


def shift_labels(source, number):
    path = file_of(source, number, "seg")
    image = nib.Nifti1Image.from_filename(path)
    affine = image.affine.copy()
    affine[0, 3] += 2.5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)


def crop_labels(source, number):
    path = file_of(source, number, "seg")
    nib.save(nib.Nifti1Image.from_filename(path).slicer[:, :, :-8:2], path)


def put_nan(source, number):
    def damage(array):
        array = array.astype(np.float32)
        array[10, 10, 10:13] = np.nan
        return array

    change(file_of(source, number, "t1"), damage, np.float32)


def cut_slices(source, number):
    for role in ("t1", "t1ce", "t2", "flair", "seg"):
        path = file_of(source, number, role)
        nib.save(nib.Nifti1Image.from_filename(path).slicer[:, :, 8:20], path)


def enlarge(source, number):
    for role in ("t1", "t1ce", "t2", "flair", "seg"):
        path = file_of(source, number, role)
        image = nib.Nifti1Image.from_filename(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([2.0, 2.0, 2.0, 1.0])), path)


def one_voxel_tumour(source, number):
    def shrink(labels):
        small = np.zeros_like(labels)
        small[tuple(np.argwhere(labels == 4)[0])] = 4
        return small

    change(file_of(source, number, "seg"), shrink)


def change_role(role, function, dtype=None):
    return lambda source, number: change(file_of(source, number, role), function, dtype)


BAD_CASES = {
    "truncated NIfTI": (truncate, "unreadable NIfTI file"),
    "label map between voxels": (shift_labels, "label map on another grid"),
    "label map with other spacing": (crop_labels, "label map on another grid"),
    "NaN voxels": (put_nan, "t1 has 3 voxels that are not finite"),
    "empty label map": (change_role("seg", np.zeros_like), "empty label map"),
    "missing modality": (lambda source, number: file_of(source, number, "flair").unlink(), "no file for flair"),
    "unknown label value": (change_role("seg", lambda a: np.where(a == 4, 7, a)), r"label values \[7\]"),
    "labels between classes": (change_role("seg", lambda a: a * 0.9, np.float32), "not whole numbers"),
    "too few slices": (cut_slices, "t1 has 12 slices; expected at least 16"),
    "one value everywhere": (change_role("t1ce", lambda a: np.full_like(a, 9)), "t1ce has one value everywhere"),
    "no contrast": (change_role("flair", lambda a: (a > 0).astype(np.int16)), "flair has one value in the whole brain"),
    "brain beyond the grid": (enlarge, "of the brain outside the working grid"),
    "modality on another grid": (change_role("t2", lambda a: a[:-1]), "t2 on another grid"),
    "all brain is tumour": (change_role("seg", np.ones_like), "voxels of healthy brain"),
    "tumour below the resolution": (one_voxel_tumour, "tumour smaller than a voxel"),
    "two files for one role": (
        lambda source, number: shutil.copy(
            file_of(source, number, "t1"), file_of(source, number, "t1").with_name(f"BraTS2021_{number:05d}_t1.nii")
        ),
        "several files for t1",
    ),
}
N_GOOD = 6


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Ingest six whole cases and one of each bad kind."""
    root = tmp_path_factory.mktemp("mixed")
    source = write_source(root / "Hospital_Secret", N_GOOD + len(BAD_CASES))
    for number, (damage, _) in enumerate(BAD_CASES.values(), start=N_GOOD):
        damage(source, number)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        cohort = ingest(source, root / "run")
    reasons = {row["pseudonym"]: row["reason"] for row in read_tsv(cohort / "quarantine.tsv")}
    return SimpleNamespace(root=root, source=source, cohort=cohort, said=said.getvalue(), reasons=reasons)


@pytest.mark.parametrize("kind", BAD_CASES)
def test_a_case_that_cannot_be_used_is_quarantined_with_its_reason(mixed, kind):
    number = N_GOOD + list(BAD_CASES).index(kind)
    reason = mixed.reasons[subject_of(number)]
    assert re.search(BAD_CASES[kind][1], reason), reason
    # What; expected what; what to do.
    assert reason.count(";") >= 2
    assert "expected" in reason
    assert f"case {number + 1} quarantined: {reason}" in mixed.said


def test_the_other_cases_go_on(mixed):
    assert {case.subject for case in open_cohort(mixed.cohort).cases} == {subject_of(n) for n in range(N_GOOD)}
    assert set(mixed.reasons) == {subject_of(N_GOOD + n) for n in range(len(BAD_CASES))}
    assert sorted(path.name for path in mixed.cohort.glob("sub-*")) == sorted(
        f"sub-{subject_of(n)}" for n in range(N_GOOD)
    )


@pytest.mark.parametrize("which", ["good", "mixed"])
def test_no_identifier_and_no_source_path_leaks(request, which):
    run = request.getfixturevalue(which)
    files = [path for path in run.cohort.rglob("*") if path.is_file()]
    files += [run.cohort.parent / "journal.jsonl", run.cohort.parent / "report.html"]
    assert len(files) > 80
    for secret in (b"BraTS2021_0", b"Hospital_Secret", str(run.root).encode()):
        assert [path.name for path in files if secret in path.read_bytes()] == []
    if which == "mixed":
        said = run.said.replace(str(run.root / "run"), "")
        assert "BraTS2021_0" not in said
        assert "Hospital_Secret" not in said


def test_file_names_carry_no_identifier(mixed):
    assert [path for path in mixed.cohort.rglob("*") if "BraTS" in path.name] == []


def test_the_journal_holds_no_absolute_path(mixed):
    def texts(value):
        if isinstance(value, dict):
            for item in (*value.keys(), *value.values()):
                yield from texts(item)
        elif isinstance(value, list):
            for item in value:
                yield from texts(item)
        else:
            yield str(value)

    events = [json.loads(line) for line in (mixed.cohort.parent / "journal.jsonl").read_text().splitlines()]
    assert {event["event"] for event in events} >= {"run_start", "stage_start", "dataset", "image", "stage_end"}
    assert [text for event in events for text in texts(event) if text.startswith("/")] == []


def test_with_too_few_usable_cases_the_stage_fails_with_the_reasons(tmp_path):
    source = write_source(tmp_path / "Hospital_Secret", 5)
    truncate(source, 1)
    change(file_of(source, 3, "seg"), np.zeros_like)
    with pytest.raises(DataError, match="3 usable cases of 5; expected at least 4") as caught:
        ingest(source, tmp_path / "run")
    message = str(caught.value)
    assert "unreadable NIfTI file" in message
    assert "empty label map" in message
    assert "BraTS2021" not in message
    assert "Secret" not in message
    assert not (tmp_path / "run" / "cohort").exists()
    # Repaired, the same command works.
    shutil.rmtree(source)
    write_source(source, 5)
    assert len(open_cohort(ingest(source, tmp_path / "run")).cases) == 5


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
    ],
    ids=["missing", "empty", "a file", "other names", "no dicom", "no manifest", "no split file", "no key file"],
)
def test_a_source_that_cannot_be_read_is_refused_in_words(tmp_path, prepare, settings, error, words):
    prepare(tmp_path / "source")
    with pytest.raises(error, match=words):
        ingest(tmp_path / "source", tmp_path / "run", **settings)
    assert not (tmp_path / "run" / "cohort").exists()


# Other ways to lay out a data set -------------------------------------------------------------------------------------


def test_a_four_dimensional_source_gives_the_same_cohort_as_four_files(good, tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "msd" / folder).mkdir(parents=True)
    affine = np.diag([-5.0, -5.0, 5.0, 1.0])
    for number in range(4):
        images, _, tumor = toy_brain(SOURCE_SHAPE, np.random.default_rng(number))
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
    for number in range(4):
        case = cases[subject_of(number, dataset, "BRATS_{:03d}")]
        for name in ("t1", "t1ce", "t2", "flair", "tumor", "tissue"):
            assert case.path(name).read_bytes() == reference[subject_of(number)].path(name).read_bytes(), name


@pytest.fixture(scope="module")
def two_visits(tmp_path_factory):
    """Write three persons with two time points each, named as BraTS 2023 does."""
    root = tmp_path_factory.mktemp("visits")
    endings = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
    for number in range(6):
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
    assert len(rows) == 6
    sides = {}
    for row in rows:
        sides.setdefault(row["person"], []).append(row["split"])
    assert set(sides) == {pseudonym(KEY, "BraTS 2023 adult glioma", f"BraTS-GLI-{n:05d}") for n in range(3)}
    assert all(len(both) == 2 and both[0] == both[1] for both in sides.values())
    assert {side for side, _ in sides.values()} == {"train", "val", "test"}


def test_a_split_file_decides(two_visits, tmp_path):
    wanted = {0: "test", 1: "val", 2: "train"}
    lines = [f"BraTS-GLI-{person:05d}-{visit:03d}\t{wanted[person]}" for person in wanted for visit in (0, 1)]
    table = tmp_path / "split.tsv"
    table.write_text("subject\tsplit\n" + "\n".join(lines) + "\n")
    cohort = ingest(two_visits / "scans", tmp_path / "run", manifest="brats2023", split_file=str(table))
    expected = {pseudonym(KEY, "BraTS 2023 adult glioma", f"BraTS-GLI-{n:05d}"): side for n, side in wanted.items()}
    assert {row["person"]: row["split"] for row in read_tsv(cohort / "participants.tsv")} == expected


# The steps by themselves ----------------------------------------------------------------------------------------------


def test_intensities_are_scaled_between_percentiles_within_the_brain():
    array = np.arange(-50, 151, dtype=np.float32)
    brain = (array >= 0) & (array <= 100)
    # Within the brain 0 to 100: percentiles 10 and 90 are 10 and 90.
    scaled = scale_intensity(array, brain, "t1", (10.0, 90.0))
    assert scaled.dtype == np.int16
    assert not scaled[~brain].any()
    at = {value: int(scaled[array == value][0]) for value in (0, 10, 30, 50, 90, 100)}
    assert at == {0: 0, 10: 0, 30: 250, 50: 500, 90: 1000, 100: 1000}


def test_an_image_with_one_value_in_the_brain_cannot_be_scaled():
    with pytest.raises(CaseError, match="t2 has no contrast"):
        scale_intensity(np.ones((4, 4, 4), np.float32), np.ones((4, 4, 4), bool), "t2", (0.5, 99.8))


def mask_case(tmp_path, mask):
    path = tmp_path / "mask.nii.gz"
    save_volume(Volume(mask.astype(np.uint8), np.diag([-1.0, 1.0, 1.0, 1.0])), path)
    return SourceCase(1, "s", "s", {"brain_mask": (path,)})


def test_a_given_brain_mask_is_used_with_its_holes_filled_and_its_islands_dropped(tmp_path):
    mask = np.zeros((12, 12, 12), bool)
    mask[3:9, 3:9, 3:9] = True
    solid = mask.copy()
    mask[5, 5, 5] = False
    mask[0, 0, 0] = True
    head = Volume(np.ones((12, 12, 12), np.float32), np.diag([1.0, 1.0, 1.0, 1.0]))
    head.affine[0, 3] = -11.0
    found = find_brain(mask_case(tmp_path, mask), load_manifest("brats2021"), {"t1": head})
    np.testing.assert_array_equal(found.array, solid[::-1])


def test_a_brain_that_can_not_be_found_is_a_case_error(tmp_path):
    manifest = load_manifest("brats2021")
    head = Volume(np.ones((12, 12, 12), np.float32), np.eye(4))
    head.affine[0, 3] = -11.0
    with pytest.raises(CaseError, match="empty brain mask"):
        find_brain(mask_case(tmp_path, np.zeros((12, 12, 12))), manifest, {"t1": head})
    unprepared = manifest.model_copy(
        update={"prepared": manifest.prepared.model_copy(update={"skull_stripped": False})}
    )
    with pytest.raises(CaseError, match="skull and no brain mask"):
        find_brain(SourceCase(1, "s", "s", {}), unprepared, {"t1": head})


@pytest.mark.parametrize("modality", ["t1", "t2"])
def test_tissue_is_told_apart_whatever_the_order_of_brightness(modality):
    images, tissue, tumor = toy_brain((24, 24, 24), np.random.default_rng(0))
    # A field that makes one side a third brighter than the other.
    field = np.linspace(0.85, 1.15, 24)[:, None, None]
    brain = (tissue > 0) | (tumor > 0)
    arguments = ((images[modality] * field).astype(np.float32), modality, brain, tumor > 0, 0.1)
    found = classify_tissue(*arguments)
    assert not found[~brain].any()
    assert not found[tumor > 0].any()
    assert (found[tissue > 0] > 0).all()
    for value in (1, 2, 3):
        overlap = 2 * ((found == value) & (tissue == value)).sum()
        assert overlap / ((found == value).sum() + (tissue == value).sum()) > 0.9
    np.testing.assert_array_equal(classify_tissue(*arguments), found)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:dipy")
def test_an_image_without_tissue_contrast_is_a_case_error():
    _, tissue, _ = toy_brain((24, 24, 24), np.random.default_rng(0))
    flat, none = (tissue > 0).astype(np.float32), np.zeros(tissue.shape, bool)
    with pytest.raises(CaseError, match="expected tissue contrast"):
        classify_tissue(flat, "t1", tissue > 0, none, 0.1)


def test_a_brain_of_hardly_any_voxels_is_a_case_error():
    images, tissue, _ = toy_brain((24, 24, 24), np.random.default_rng(0))
    none = np.zeros(tissue.shape, bool)
    flat, dot = none.copy(), none.copy()
    flat[4:20, 4:20, 12], dot[10:13, 10:13, 10:13] = True, True
    for brain in (flat, dot):
        with pytest.raises(CaseError, match="voxels of healthy brain"):
            classify_tissue(images["t1"], "t1", brain, none, 0.1)
