"""Runs of the ingest stage on generated sources, and what is done to a source before."""

from pathlib import Path

import nibabel as nib
import numpy as np
from conftest import TINY

from pipeline.config import parse_config
from pipeline.ingest.pseudonym import pseudonym
from pipeline.runner import run_stages

KEY = b"the key of these tests"


def ingest(source, run_dir, workers=1, scheduler="local", **settings):
    """Run the stage on a source; return the cohort's folder."""
    key_file = Path(run_dir).parent / "pseudonym.key"
    key_file.write_bytes(KEY)
    section = {"manifest": "brats2021", "min_cases": 5, "source": str(source), "key_file": str(key_file)}
    content = {
        **TINY,
        "ingest": {**TINY["ingest"], **section, **settings},
        "compute": {"accelerator": "cpu", "workers": workers, "scheduler": scheduler},
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
