"""Hundreds of invented identities in a source: none of them comes out, in no encoding, anywhere a run writes."""

import contextlib
import io
import json
import logging
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import pytest
from byte_search import search_tree
from conftest import OVERRIDE_REASON, TINY
from planting import DATE_VALUE, NIFTI_MANIFEST, TIME_VALUE, WORD, plant_dicom, plant_nifti

from pipeline.cohort import open_cohort, read_tsv
from pipeline.config import IngestSection, parse_config
from pipeline.deid_check.scan import check_path
from pipeline.errors import DataError
from pipeline.ingest.dicom import HEADER_TAGS
from pipeline.ingest.manifest import load_manifest
from pipeline.ingest.sidecars import build_sidecars
from pipeline.runner import run_stages

# What the phantom's own writer puts into headers, and numbers that carry no token.
PLAIN_IDENTITIES = ("Invented", "PHANTOM WORKSTATION", "MRN100", "Referrer", "2.25.", TIME_VALUE, "SN-0042", "ALT-0000")
# A run of digits in a checksum or a decimal is no date.
DATE_PATTERN = re.compile(rb"(?<![0-9A-Za-z.])%s(?![0-9A-Za-z])" % DATE_VALUE.encode())


@contextlib.contextmanager
def everything_said(path):
    """Write to a file what this process and its children print, and what is logged at any level."""
    logged = io.StringIO()
    handler = logging.StreamHandler(logged)
    root = logging.getLogger()
    level = root.level
    saved = os.dup(1), os.dup(2)
    with path.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            with contextlib.redirect_stdout(logged), contextlib.redirect_stderr(logged):
                yield
        finally:
            root.setLevel(level)
            root.removeHandler(handler)
            for number, copy in enumerate(saved, start=1):
                os.dup2(copy, number)
                os.close(copy)
            file.write(logged.getvalue())


def make_config(place, manifest, tracking="none", **ingest):
    key_file = place / "key"
    key_file.write_bytes(b"the key of these tests")
    section = {"source": str(place / "source"), "manifest": str(manifest), "key_file": str(key_file), "min_cases": 5}
    content = {name: dict(settings) for name, settings in TINY.items()}
    content["ingest"] |= section | ingest
    content["train"] |= {"steps": 2, "checkpoint_every": 2, "monitor_every": 2}
    content["generate"] |= {"n_cases": 2}
    content["export"] = {"override_reason": OVERRIDE_REASON}
    content["tracking"] = {"uri": tracking}
    return parse_config(content, "tests")


def run_planted(place, config, last):
    """Run on a planted source; return the folder with all that was written."""
    written = place / "written"
    written.mkdir()
    with everything_said(written / "said.txt"):
        run_stages(config, written / "run", last=last)
    return written


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """Run all stages on planted DICOM studies, tracked by MLflow."""
    place = tmp_path_factory.mktemp("planted-dicom")
    tokens = plant_dicom(place / "source", 6)
    # MLflow's data base beside the run, as by default.
    written = run_planted(place, make_config(place, "phantom-dicom", tracking=""), "export")
    return SimpleNamespace(place=place, tokens=tokens, written=written, run=written / "run")


@pytest.fixture(scope="module")
def nifti(tmp_path_factory):
    """Ingest planted NIfTI files."""
    place = tmp_path_factory.mktemp("planted-nifti")
    tokens = plant_nifti(place / "source", 6)
    (place / "manifest.yaml").write_text(NIFTI_MANIFEST)
    written = run_planted(place, make_config(place, place / "manifest.yaml"), "ingest")
    return SimpleNamespace(place=place, tokens=tokens, written=written, run=written / "run")


@pytest.fixture(params=["dicom", "nifti"])
def planted(request):
    return request.getfixturevalue(request.param)


def test_hundreds_of_tokens_of_all_kinds_are_planted_and_can_be_found(dicom, nifti):
    assert len(dicom.tokens.kinds) >= 300
    assert len(nifti.tokens.kinds) >= 300
    kinds = dicom.tokens.count()
    assert min(kinds[kind] for kind in ("text VR", "nested 3 deep", "private", "overlay", "curve", "folder name")) >= 10
    kinds = nifti.tokens.count()
    assert min(kinds[kind] for kind in ("NIfTI field", "NIfTI extension", "gzip name", "sidecar", "table")) >= 10
    for source in (dicom.place / "source", nifti.place / "source"):
        n_files = sum(path.is_file() for path in source.rglob("*"))
        found_in = {line.split(": ")[0] for line in search_tree(WORD, source) if not line.endswith(": name")}
        # The label maps that were cut off keep nothing but their gzip header.
        assert len(found_in) >= 0.9 * n_files


def test_the_sources_can_be_used_in_spite_of_all_that_is_planted(dicom, nifti):
    for planted in (dicom, nifti):
        assert len(open_cohort(planted.run / "cohort").cases) == 6
    assert (dicom.run / "release" / "manifest.json").is_file()


def test_no_token_is_anywhere_a_run_has_written(planted):
    names = {path.name for path in planted.written.rglob("*")}
    assert {"journal.jsonl", "report.html", "said.txt", "cohort"} <= names
    assert search_tree(WORD, planted.written) == []


def test_what_mlflow_was_sent_and_the_release_are_among_what_is_searched(dicom):
    assert (dicom.written / "mlflow.db").stat().st_size > 100_000
    assert any(path.suffix == ".png" for path in (dicom.written / "mlartifacts").rglob("*"))
    assert list((dicom.run / "release").rglob("*.nii.gz"))


def test_no_date_and_nothing_of_the_phantoms_own_headers_is_there(planted):
    leaks = []
    for path in sorted(path for path in planted.written.rglob("*") if path.is_file()):
        content = path.read_bytes()
        leaks += [(path.name, word) for word in PLAIN_IDENTITIES if word.encode() in content]
        leaks += [(path.name, "date")] if DATE_PATTERN.search(content) else []
    assert leaks == []


def test_quarantined_cases_have_reasons_without_identity(planted):
    rows = read_tsv(planted.run / "cohort" / "quarantine.tsv")
    assert len(rows) == 3
    for row in rows:
        assert "expected" in row["reason"]
        assert re.fullmatch(r"[0-9a-f]{16}", row["pseudonym"])
        assert WORD not in row["reason"].upper()
    said = (planted.written / "said.txt").read_text()
    assert all(row["reason"] in said for row in rows)


def test_a_stage_that_fails_says_so_without_identity(planted, tmp_path):
    manifest = planted.place / "manifest.yaml"
    config = make_config(planted.place, manifest if manifest.is_file() else "phantom-dicom", min_cases=50)
    with everything_said(tmp_path / "said.txt"), pytest.raises(DataError, match="expected at least 50") as caught:
        run_stages(config, tmp_path / "run", last="ingest")
    assert WORD not in str(caught.value).upper()
    assert search_tree(WORD, tmp_path) == []


def test_deid_check_finds_the_planted_sources_and_nothing_in_what_was_made_of_them(dicom, nifti):
    for planted in (dicom, nifti):
        assert check_path(planted.place / "source").n_findings > 300
        assert check_path(planted.run / "cohort").findings == []
    assert check_path(dicom.run / "release").findings == []


# docs/deidentification.md: what it says is kept, read and removed is what ingest keeps, reads and removes.

DOCUMENT = (Path(__file__).parents[1] / "docs" / "deidentification.md").read_text()
# Described in the quality page itself, and computed from voxels.
COMPUTED_TABLES = {"quality.tsv", "desc-tissue_dseg.tsv", "desc-tumor_dseg.tsv"}


def section(title):
    return DOCUMENT.split(f"## {title}\n")[1].split("\n## ")[0]


def last_column(title):
    rows = [line.strip("|").split("|") for line in section(title).splitlines() if line.startswith("| ")]
    return [row[-1].strip() for row in rows[1:]]


def words(text):
    return set(re.findall(r"`([^`]+)`", text))


def kept(place):
    """Return the fields that the first table names for a file."""
    return set.union(
        *(words(cell.split(":", 1)[1].split("; also")[0]) for cell in last_column("Kept") if place in cell)
    )


def test_the_tables_of_the_cohort_have_the_columns_that_are_documented_and_no_others(dicom):
    for path in sorted((dicom.run / "cohort").glob("*.tsv")):
        if path.name not in COMPUTED_TABLES:
            assert set(path.read_text().splitlines()[0].split("\t")) == kept(f"`{path.name}`:"), path.name


def test_sidecars_have_the_documented_keys_and_no_others(dicom, nifti):
    found = set()
    for planted in (dicom, nifti):
        sidecars = list((planted.run / "cohort").glob("sub-*/anat/*.json"))
        assert sidecars
        found |= {key for path in sidecars for key in json.loads(path.read_text())}
    assert found <= kept("sidecar:")
    config = IngestSection(coregister=True, atlas_registration=True, bias_correction=True)
    possible = build_sidecars(load_manifest("dicom"), config, "t1", found_brain=True).values()
    assert found.union(*possible) == kept("sidecar:")


def test_headers_have_the_documented_fields_and_no_others(dicom, nifti):
    for planted in (dicom, nifti):
        for path in sorted((planted.run / "cohort").glob("sub-*/anat/*.nii")):
            header = nib.Nifti1Image.from_filename(path).header
            assert not header.extensions
            assert path.stat().st_size == 352 + header.get_data_dtype().itemsize * math.prod(header.get_data_shape())
            assert {name for name in header if header[name].tobytes().strip(b"\0")} <= kept("NIfTI:") - {"voxels"}


def test_the_attributes_that_are_read_are_documented():
    text = section("Kept").split("Of a DICOM file these attributes are read")[1]
    assert words(text) == set(HEADER_TAGS)


def test_each_place_in_the_second_table_is_one_where_tokens_were_planted(dicom, nifti):
    kinds = set.union(*map(words, last_column("Removed")))
    assert kinds == {*dicom.tokens.count(), *nifti.tokens.count(), "date"}
