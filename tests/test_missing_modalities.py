"""Cases that lack a modality: they train the generator in those that they have, and are on no other side."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, rng, write_source, write_toy_cohort
from ingest_builders import file_of, ingest, subject_of

from pipeline.cohort import Cohort, open_cohort, read_tsv
from pipeline.config import TrainSection, parse_config
from pipeline.errors import CaseError, ConfigError, DataError
from pipeline.generate.curation import find_near_duplicates
from pipeline.ingest.discover import discover_nifti
from pipeline.ingest.load import load_case
from pipeline.ingest.manifest import load_manifest
from pipeline.ingest.stage import name_missing
from pipeline.layout import FOLDERS, STAGES, read_done
from pipeline.runner import run_stages
from pipeline.train.data import Batch, OpenCase, Sampler, style_codes
from pipeline.train.plan import TrainingPlan
from pipeline.train.players import OrdinaryGame

N = 10


def write_lacking(root: Path) -> Path:
    """Write ten cases, of which one lacks T2 and another T1 and FLAIR."""
    source = write_source(root / "source", N)
    for number, role in ((2, "t2"), (7, "t1"), (7, "flair")):
        file_of(source, number, role).unlink()
    return source


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder of all stages on a source of which two cases lack modalities."""
    root = tmp_path_factory.mktemp("lacking")
    ingest(write_lacking(root), root / "run")
    (root / "pseudonym.key").rename(root / "key")
    section = {"manifest": "brats2021", "min_cases": 5, "source": str(root / "source"), "key_file": str(root / "key")}
    content = {**TINY, "ingest": {**TINY["ingest"], **section}, "export": {"override_reason": "A test with toy brains"}}
    run_stages(parse_config(content, "tests"), root / "run")
    return root / "run"


def test_whoever_lacks_a_modality_trains_and_is_on_no_other_side(run_dir: Path) -> None:
    rows = {row["participant_id"]: row for row in read_tsv(run_dir / "cohort" / "participants.tsv")}
    lacking = {f"sub-{subject_of(2)}": "t2", f"sub-{subject_of(7)}": "t1,flair"}
    for name, row in rows.items():
        assert row["missing"] == lacking.get(name, "n/a")
        assert name not in lacking or row["split"] == "train"
    cohort = open_cohort(run_dir / "cohort")
    assert cohort.modalities == ("t1", "t1ce", "t2", "flair")
    assert len(cohort.complete(cohort.cases)) == N - 2
    assert {row["split"] for name, row in rows.items() if name not in lacking} == {"train", "val", "test"}
    assert not read_tsv(run_dir / "cohort" / "quarantine.tsv")


def test_every_stage_goes_on_with_them_and_the_report_says_so(run_dir: Path) -> None:
    summaries = {stage: (read_done(run_dir / FOLDERS[stage]) or {})["summary"] for stage in STAGES}
    assert summaries["ingest"]["lacking_a_modality"] == 2
    assert summaries["train"]["members"] == summaries["ingest"]["train"]
    assert open_cohort(run_dir / "synthetic").modalities == ("t1", "t1ce", "t2", "flair")
    # Their scores would tell what is missing, so they get none; and what was not attacked cannot pass.
    scores = (run_dir / "audit" / "scores.csv").read_text()
    assert not any(subject_of(number) in scores for number in (2, 7))
    audit = json.loads((run_dir / "audit" / "audit.json").read_text())
    assert audit["members_not_attacked"] == 2
    assert audit["verdict"] != "pass"
    assert "2 cases lack a modality" in (run_dir / "report.html").read_text()


def test_they_are_not_used_where_the_config_says_so(tmp_path: Path) -> None:
    cohort = ingest(write_lacking(tmp_path), tmp_path / "run", missing_modalities="quarantine")
    reasons = {row["pseudonym"]: row["reason"] for row in read_tsv(cohort / "quarantine.tsv")}
    assert set(reasons) == {subject_of(2), subject_of(7)}
    assert reasons[subject_of(7)].startswith("no file for t1, flair; expected one for each of t1, t1ce, t2, flair")
    assert {row["missing"] for row in read_tsv(cohort / "participants.tsv")} == {"n/a"}


def test_a_modality_that_nobody_has_is_missing_nowhere(tmp_path: Path) -> None:
    assert name_missing([{"missing": "t2"}, {"missing": "t2,flair"}]) == [{"missing": "n/a"}, {"missing": "flair"}]
    source = write_source(tmp_path / "source", 6)
    for number in range(6):
        file_of(source, number, "t2").unlink()
    cohort = open_cohort(ingest(source, tmp_path / "run"))
    assert cohort.modalities == ("t1", "t1ce", "flair")
    assert cohort.complete(cohort.cases) == cohort.cases


def test_a_split_file_or_too_few_whole_persons_are_refused(tmp_path: Path) -> None:
    source = write_lacking(tmp_path)
    sides = ["train"] * 5 + ["val"] * 2 + ["test"] * 3
    lines = [f"BraTS2021_{number:05d}\t{side}" for number, side in enumerate(sides)]
    (tmp_path / "split.tsv").write_text("\n".join(["subject\tsplit", *lines]) + "\n")
    with pytest.raises(ConfigError, match="a person who lacks a modality on val or test"):
        ingest(source, tmp_path / "run", split_file=str(tmp_path / "split.tsv"))
    for number in (0, 1, 3, 4, 5):
        file_of(source, number, "t2").unlink()
    with pytest.raises(DataError, match="3 persons have every modality; expected at least 5"):
        ingest(source, tmp_path / "few")


def lack(cohort: Cohort, index: int, *names: str) -> Cohort:
    """Remove modalities of a case on disk; return the cohort opened anew."""
    for name in names:
        cohort.cases[index].path(name).unlink()
    return open_cohort(cohort.root)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    made = open_cohort(write_toy_cohort(tmp_path / "cohort", {"train": 5, "val": 2}))
    return lack(made, 1, "t2", "flair")


def sampler_of_second(cohort: Cohort) -> Sampler:
    opened = [OpenCase.open(cohort.cases[1], cohort.modalities)]
    return Sampler(opened, cohort.scheme, TrainSection(augmentation=()))


def test_batches_say_what_is_there_and_styles_take_the_rest_for_the_mean(cohort: Cohort) -> None:
    sampler = sampler_of_second(cohort)
    batch = sampler.draw(3, rng())
    assert batch.present.tolist() == [[True, True, False, False]] * 3
    assert (batch.scan[:, 2:] == -1).all()
    assert (batch.scan[:, :2] > -1).any()
    codes = style_codes(cohort.split("train"), cohort.modalities, 4)
    assert np.isfinite(codes).all()
    assert codes.shape[0] == 5


def test_what_is_drawn_in_a_missing_modality_changes_no_loss(cohort: Cohort) -> None:
    config = parse_config({**TINY, "train": {**TINY["train"], "reconstruction_weight": 1.0}}, "tests")
    plan = TrainingPlan(cohort.cases, cohort.scheme, cohort.modalities, config.train, config.compute, 1)
    whole = sampler_of_second(cohort).draw(2, rng())
    seen = Batch(whole.condition, whole.scan, whole.style, torch.ones_like(whole.present))

    def losses(batch: Batch, shift: float) -> dict[str, float]:
        players = OrdinaryGame(plan)
        with torch.no_grad():
            players.generator.head.bias[2:] += shift
        return players.play_batch(batch, 0)

    assert losses(whole, 0.0) == losses(whole, 1.0)
    # The comparison would see it.
    assert losses(seen, 0.0) != losses(seen, 1.0)


def test_a_copy_of_someone_who_lacks_modalities_is_found_all_the_same(cohort: Cohort, tmp_path: Path) -> None:
    train, val = cohort.split("train"), cohort.split("val")
    stranger = open_cohort(write_toy_cohort(tmp_path / "others", {"train": 12})).cases[11]
    other = open_cohort(write_toy_cohort(tmp_path / "again", {"train": 5}))
    # What he looks like where nothing is missing.
    copy = other.cases[1]
    assert copy.modalities == cohort.modalities
    assert find_near_duplicates([copy, stranger], train, val, cohort, 1) == [True, False]


def test_a_label_map_drawn_on_a_missing_scan_is_not_put_onto_another(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", 2)
    for number in range(2):
        file_of(source, number, "flair").unlink()
    prepared = load_manifest("brats2021").prepared.model_copy(update={"coregistered": False})
    manifest = load_manifest("brats2021").model_copy(update={"tumor_on": "flair", "prepared": prepared})
    case = discover_nifti(source, manifest)[0]
    with pytest.raises(CaseError, match="label map drawn on flair, which is missing"):
        load_case(case, manifest, 16)
