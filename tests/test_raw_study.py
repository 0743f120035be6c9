"""A raw study: skull on, every scan on its own grid and in its own pose; aligned, stripped and labelled by ingest."""

from types import SimpleNamespace

import numpy as np
import pytest
from raw_study import make_raw_study, write_raw_study
from scipy import ndimage

from pipeline.config import IngestSection
from pipeline.ingest import preprocess
from pipeline.ingest.discover import discover_nifti
from pipeline.ingest.manifest import load_manifest
from pipeline.labels import MODALITIES
from pipeline.resampling import resample_labels, resample_mask
from pipeline.volumes import Volume

CONFIG = IngestSection(spacing_mm=2.0, size_voxels=(96, 112, 96), bias_correction=True)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    study = make_raw_study(1)
    manifest = load_manifest(str(write_raw_study(study, folder)))
    (case,) = discover_nifti(folder, manifest)
    kept = {}

    def keep(name):
        function = getattr(preprocess, name)

        def kept_function(*arguments):
            kept[name] = function(*arguments)
            return kept[name]

        return kept_function

    with pytest.MonkeyPatch.context() as patch:
        for name in ("place_scans", "brain_grid"):
            patch.setattr(preprocess, name, keep(name))
        found = preprocess.preprocess_case(case, "abc", manifest, CONFIG)
    return SimpleNamespace(study=study, placement=kept["place_scans"], found=found, grid=kept["brain_grid"])


def test_every_scan_is_placed_to_within_half_a_voxel(raw):
    brain = raw.study.brain
    points = brain.affine @ np.vstack([np.argwhere(brain.array)[::50].T, np.ones(len(np.argwhere(brain.array)[::50]))])
    for name in MODALITIES:
        error_mm = np.linalg.norm(((raw.placement.to_scan[name] - raw.study.to_modality[name]) @ points)[:3], axis=0)
        assert error_mm.max() <= 0.5 * CONFIG.spacing_mm, name


def test_the_tumour_map_comes_out_where_the_tumour_was_grown(raw):
    truth = resample_labels(raw.study.true_tumor, raw.grid, 4).array
    found = raw.found.data.tumor_map
    assert 2 * ((truth > 0) & (found > 0)).sum() / ((truth > 0).sum() + (found > 0).sum()) >= 0.9
    for value in range(1, 4):
        both = 2 * ((truth == value) & (found == value)).sum() / ((truth == value).sum() + (found == value).sum())
        assert both >= 0.8, value


def test_the_brain_is_found_within_its_skull(raw):
    filled = ndimage.binary_fill_holes(raw.study.brain.array)
    truth = resample_mask(Volume(filled, raw.study.brain.affine), raw.grid)
    overlap = 2 * (truth & raw.found.brain).sum() / (truth.sum() + raw.found.brain.sum())
    assert overlap >= 0.95
    for image in raw.found.data.images.values():
        assert not image[~raw.found.brain & (raw.found.data.tumor_map == 0)].any()


def test_what_was_done_stands_in_the_sidecar(raw):
    sidecar = raw.found.data.sidecars["t2"]
    assert sidecar["CoRegistration"] == {"Method": "rigid, Mattes mutual information", "Reference": "t1"}
    assert "ICBM 2009a" in sidecar["BrainExtraction"]["Method"]
    assert sidecar["BiasCorrection"]["Method"].startswith("N4")
    assert "AtlasRegistration" not in sidecar
