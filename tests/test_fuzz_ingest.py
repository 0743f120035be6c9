"""Fuzz ingest, the short version: each kind of damage a few times. The long one is campaigns/fuzz_ingest.py."""

import pytest
from campaigns import fuzz_ingest
from campaigns.fuzz_cases import PLANTED, make_manifests, write_good_case
from campaigns.fuzz_ingest import MUTATIONS, list_mutants, run_campaign, summarise

from pipeline.errors import CaseError

ROUNDS = 2
# What long campaigns found, and what has been mended since.
FOUND = {
    "nifti": [("add-extension", 20000049), ("add-extension", 40000009)],
    "dicom": [
        *[("claim-terabytes", 20000000 + n) for n in (7, 51, 59)],
        *[("set-shape", 20000000 + n) for n in (7, 10, 76)],
        *[("set-number", 20000000 + n) for n in (31, 53, 66)],
        ("damage-frames", 30000070),
        ("change-vr", 40000040),
    ],
}


@pytest.mark.parametrize("file_format", MUTATIONS)
def test_damaged_files_are_read_or_quarantined(file_format, tmp_path):
    chosen = [*list_mutants(file_format, ROUNDS * len(MUTATIONS[file_format]), seed=1), *FOUND[file_format]]
    found = run_campaign(file_format, chosen, tmp_path)
    failures = [f"{key}: {outcome.verdict}\n{outcome.detail}" for key, outcome in found if outcome.is_failure]
    assert not failures, "\n".join(failures)
    assert len(found) == len(chosen), summarise(found)
    # The campaign must be able to tell: some mutants are harmless, most are not.
    assert {outcome.verdict for _, outcome in found} == {"read", "quarantined"}, summarise(found)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ZeroDivisionError(), "traceback ZeroDivisionError"),
        (MemoryError(), "memory"),
        (RuntimeWarning("overflow"), "warning"),
        (CaseError(f"scan of {PLANTED[0].title()}"), "identifier"),
    ],
)
def test_the_campaign_notices_what_must_not_be(error, verdict, tmp_path, monkeypatch):
    """Its control: the good case, and an ingest that fails in a way that it may not."""

    def fail(*_):
        raise error

    write_good_case(tmp_path, "nifti")
    manifest = make_manifests()["nifti"]
    assert fuzz_ingest.ingest_folder(tmp_path, manifest).verdict == "read"
    monkeypatch.setattr(fuzz_ingest, "preprocess_case", fail)
    outcome = fuzz_ingest.ingest_folder(tmp_path, manifest)
    assert (outcome.verdict, outcome.is_failure) == (verdict, True)
