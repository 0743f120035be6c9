"""Cases that cannot be used: each is quarantined with its reason, the others go on, no identifier leaks."""

import contextlib
import io
import json
import re
import shutil
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from byte_search import search_tree
from conftest import write_source
from ingest_builders import change, file_of, ingest, subject_of

from pipeline.cohort import open_cohort, read_tsv
from pipeline.errors import DataError
from pipeline.ingest import case as case_module


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
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([1.0, 2.0, 1.0, 1.0])), path)


def only_tumour(source, number):
    brain = np.asarray(nib.Nifti1Image.from_filename(file_of(source, number, "t1")).dataobj) > 0
    change(file_of(source, number, "seg"), lambda labels: brain.astype(labels.dtype))


def one_voxel_tumour(source, number):
    def shrink(labels):
        small = np.zeros_like(labels)
        small[tuple(np.argwhere(labels == 4)[0])] = 4
        return small

    change(file_of(source, number, "seg"), shrink)


def forget_orientation(source, number):
    path = file_of(source, number, "t2")
    image = nib.Nifti1Image.from_filename(path)
    again = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    again.set_sform(image.affine, code=0)
    again.set_qform(image.affine, code=0)
    nib.save(again, path)


def label_elsewhere(labels):
    moved = np.zeros_like(labels)
    moved[:4, :4, :6] = 4
    return moved


def change_role(role, function, dtype=None):
    return lambda source, number: change(file_of(source, number, role), function, dtype)


BAD_CASES = {
    "truncated NIfTI": (truncate, "unreadable NIfTI file"),
    "label map between voxels": (shift_labels, "label map on another grid"),
    "label map with other spacing": (crop_labels, "label map on another grid"),
    "NaN voxels": (put_nan, "t1 has 3 voxels that are not finite"),
    "empty label map": (change_role("seg", np.zeros_like), "empty label map"),
    "missing label map": (lambda source, number: file_of(source, number, "seg").unlink(), "no file for tumor"),
    "unknown label value": (change_role("seg", lambda a: np.where(a == 4, 7, a)), r"label values \[7\]"),
    "labels between classes": (change_role("seg", lambda a: a * 0.9, np.float32), "not whole numbers"),
    "no orientation": (forget_orientation, "header that states no orientation"),
    "tumour beside the brain": (change_role("seg", label_elsewhere), "100% of the tumour outside the brain"),
    "too few slices": (cut_slices, "t1 has 12 slices; expected at least 16"),
    "one value everywhere": (change_role("t1ce", lambda a: np.full_like(a, 9)), "t1ce has one value everywhere"),
    "no contrast": (change_role("flair", lambda a: (a > 0).astype(np.int16)), "flair has one value in the whole brain"),
    "brain beyond the grid": (enlarge, "of the brain outside the working grid"),
    "modality on another grid": (change_role("t2", lambda a: a[:-1]), "t2 on another grid"),
    "all brain is tumour": (only_tumour, "voxels of healthy brain"),
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


def test_an_unforeseen_error_is_that_cases_alone_and_not_quoted(tmp_path, monkeypatch):
    def fail(case, *rest):
        if case.number == 2:
            raise ZeroDivisionError("scan of Jane Doe")
        return real(case, *rest)

    real = case_module.preprocess_case
    monkeypatch.setattr(case_module, "preprocess_case", fail)
    cohort = ingest(write_source(tmp_path / "source", 6), tmp_path / "run")
    (row,) = read_tsv(cohort / "quarantine.tsv")
    assert row["case_number"] == "2"
    assert row["reason"].startswith("unforeseen ZeroDivisionError; expected")
    assert not search_tree("Jane", cohort)


def test_with_too_few_usable_cases_the_stage_fails_with_the_reasons(tmp_path):
    source = write_source(tmp_path / "Hospital_Secret", 5)
    truncate(source, 1)
    change(file_of(source, 3, "seg"), np.zeros_like)
    with pytest.raises(DataError, match="3 persons with a usable scan, of 5 cases; expected at least 5") as caught:
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
