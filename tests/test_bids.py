"""A release's images and tables: marked as synthetic, without a patient, accepted by the validator."""

import json
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
from export_builders import build_run, export

from pipeline.cohort import read_tsv
from pipeline.errors import DataError
from pipeline.export.bids import DESCRIPTION

BIDS_VALIDATOR = shutil.which("bids-validator-deno")


@pytest.mark.parametrize("options", [{"name": "sub-p{:04d}"}, {"split": "train"}])
def test_cases_that_do_not_look_synthetic_are_not_exported(tmp_path, options):
    build_run(tmp_path, n_cases=1, **options)
    with pytest.raises(DataError, match="does not look like one"):
        export(tmp_path)


def test_every_nifti_says_that_it_is_synthetic_and_keeps_its_voxels(passed_run):
    paths = sorted((passed_run / "release").rglob("*.nii.gz"))
    assert len(paths) == 3 * 6
    for path in paths:
        image = nib.Nifti1Image.from_filename(path)
        assert image.header["descrip"].item().decode() == DESCRIPTION
        relative = path.relative_to(passed_run / "release" / "bids").with_suffix("")
        original = nib.Nifti1Image.from_filename(passed_run / "synthetic" / relative)
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(original.dataobj))
        np.testing.assert_array_equal(image.affine, original.affine)
        assert image.get_data_dtype() == original.get_data_dtype()


def test_compressed_files_hold_no_time_and_no_name(passed_run):
    for path in (passed_run / "release").rglob("*.nii.gz"):
        assert path.read_bytes()[3:8] == bytes(5)  # flags (a name would set one), modification time


def test_every_sidecar_says_that_its_file_is_synthetic_and_copies_nothing(passed_run):
    paths = list((passed_run / "release" / "bids").glob("sub-*/anat/*.json"))
    assert len(paths) == 3 * 6
    for path in paths:
        content = json.loads(path.read_text())
        assert content["Synthetic"] is True
        assert "Donor" not in content


def test_participants_have_public_columns_only(passed_run):
    rows = read_tsv(passed_run / "release" / "bids" / "participants.tsv")
    columns = "participant_id source volume_ml hemisphere lobe enhancing_share n_foci asked_volume asked_hemisphere"
    assert list(rows[0]) == columns.split()
    assert [row["participant_id"] for row in rows] == ["sub-syn0001", "sub-syn0002", "sub-syn0003"]


@pytest.mark.skipif(BIDS_VALIDATOR is None, reason="bids-validator-deno is not installed")
def test_the_bids_validator_accepts_a_release(passed_run):
    command = [BIDS_VALIDATOR, "--format", "json", str(passed_run / "release" / "bids")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    codes = {issue["code"] for issue in json.loads(done.stdout)["issues"]["issues"]}
    assert codes <= {"TOO_FEW_AUTHORS"}
