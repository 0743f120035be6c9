"""Ingest goes on case by case: after a kill, on two workers, on a Dask cluster; with fewer modalities and one class."""

import errno
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import toy_brain
from ingest_builders import ingest

from pipeline import volumes
from pipeline.cohort import digest_tree, open_cohort, read_tsv
from pipeline.errors import DataError
from pipeline.ingest import case as case_module
from pipeline.ingest import stage
from pipeline.ingest.files import check_readable, walk_files
from pipeline.ingest.fingerprint import list_source

STACKS = """
name: stacks
license: none
citation: none
format: nifti
subject: 'P\\d+'
images: {t1ce: "{subject}_gd.nii", flair: "{subject}_fl.nii"}
tumor: "{subject}_mask.nii"
labels: {enhancing: 1}
prepared: {skull_stripped: true, coregistered: true, resampled: true}
"""


def same_cohort(first, second):
    """Tell whether two cohorts hold the same bytes, but for when they were made."""
    ours, theirs = ({k: v for k, v in digest_tree(c).items() if k != "done.json"} for c in (first, second))
    return ours == theirs


def test_a_killed_ingest_goes_on_with_the_cases_it_has_not_done(good, tmp_path, monkeypatch):
    done = []

    def count(case, *rest):
        done.append(case.number)
        return real(case, *rest)

    def stop_at_the_fifth(task):
        if len(done) == 4:
            raise KeyboardInterrupt
        return ingest_case(task)

    real, ingest_case = case_module.preprocess_case, stage.ingest_case
    monkeypatch.setattr(case_module, "preprocess_case", count)
    monkeypatch.setattr(stage, "ingest_case", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        ingest(good.source, tmp_path / "run")
    assert not (tmp_path / "run" / "cohort").exists()
    assert len(done) == 4
    monkeypatch.setattr(stage, "ingest_case", ingest_case)
    cohort = ingest(good.source, tmp_path / "run")
    n_cases = len(open_cohort(cohort).cases) + len(read_tsv(cohort / "quarantine.tsv"))
    assert len(done) == len(set(done)) == n_cases
    assert same_cohort(cohort, good.cohort)


class Share:
    """A network share: from some time on, whatever is opened below it fails."""

    def __init__(self, monkeypatch, root, number, n_good):
        self.root, self.number, self.n_left = root, number, n_good
        self.real_open, self.real_stat = Path.open, Path.stat
        monkeypatch.setattr(Path, "open", lambda path, *rest, **options: self.look(path, "open", *rest, **options))
        monkeypatch.setattr(Path, "stat", lambda path, **options: self.look(path, "stat", **options))
        read = volumes.nib.Nifti1Image.from_filename
        monkeypatch.setattr(
            volumes.nib.Nifti1Image, "from_filename", lambda path, **options: self.fail(path) or read(path, **options)
        )

    def fail(self, path):
        if self.root in Path(path).parents:
            self.n_left -= 1
            if self.n_left < 0:
                raise OSError(self.number, "gone", str(path))

    def look(self, path, what, *rest, **options):
        if self.n_left < 0:
            self.fail(path)
        return getattr(self, f"real_{what}")(path, *rest, **options)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ESTALE, "storage does not answer .ESTALE.*type the same command again"),
        (errno.EIO, "storage does not answer .EIO"),
        (errno.ENOENT, "a file that was there is gone"),
    ],
)
def test_a_share_that_goes_away_stops_the_run_and_is_no_fault_of_the_case(good, tmp_path, monkeypatch, number, says):
    with monkeypatch.context() as patch:
        Share(patch, good.source, number, 30)
        with pytest.raises(DataError, match=says) as caught:
            ingest(good.source, tmp_path / "run")
    assert str(good.source) not in str(caught.value)
    n_done = len(list((tmp_path / "run").rglob(".outcomes/*.json")))
    assert n_done > 0
    assert same_cohort(ingest(good.source, tmp_path / "run"), good.cohort)


def test_a_share_that_is_gone_before_the_start_throws_nothing_away(good, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        Share(patch, good.source, errno.ESTALE, -1)
        with pytest.raises(DataError, match="storage does not answer"):
            list_source(good.source)
        with pytest.raises(DataError, match="storage does not answer"):
            walk_files(good.source)


def test_a_file_that_may_not_be_read_is_the_cases_fault(tmp_path, monkeypatch):
    path = tmp_path / "scan.nii"
    path.write_bytes(b"x")

    def refuse(path, *rest):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    check_readable([path])


def test_one_config_line_moves_the_cases_to_a_dask_cluster(good, tmp_path):
    distributed = pytest.importorskip("distributed")
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**settings, host="127.0.0.1") as cluster:
        cohort = ingest(good.source, tmp_path / "run", scheduler=cluster.scheduler_address)
    assert same_cohort(cohort, good.cohort)


def test_stacks_of_thick_slices_with_two_modalities_and_one_class_make_a_cohort(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    affine = np.diag([-4.0, -4.0, 7.0, 1.0])
    for number in range(6):
        images, _, tumor = toy_brain((38, 42, 20), np.random.default_rng(number))
        for name, array in {
            "gd": images["t1ce"].astype(np.int16),
            "fl": images["flair"].astype(np.float64),
            "mask": (tumor > 0).astype(np.float32),
        }.items():
            nib.save(nib.Nifti1Image(array, affine), source / f"P{number}_{name}.nii")
    (tmp_path / "stacks.yaml").write_text(STACKS)
    cohort = open_cohort(ingest(source, tmp_path / "run", manifest=str(tmp_path / "stacks.yaml")))
    assert cohort.modalities == ("t1ce", "flair")
    assert cohort.scheme.tumor == ("enhancing",)
    assert len(cohort.cases) == 6
    for case in cohort.cases:
        assert set(np.unique(case.tumor_map())) == {0, 1}
        assert set(np.unique(case.tissue_map())) == {0, 1, 2, 3}
