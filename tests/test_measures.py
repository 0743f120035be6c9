"""Measures of a synthetic cohort: as good as real for real scans, bad for wrong labels and for what is no brain."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_toy_cohort

from pipeline.cohort import CaseData, Cohort, open_cohort, write_case, write_cohort_files
from pipeline.config import ComputeSection, SegmenterSection, parse_config
from pipeline.generate.cases import redraw
from pipeline.generate.judge import Judge, train_judge
from pipeline.generate.measures import (
    SLICES_PER_CASE,
    Look,
    count_clean,
    mean_dice,
    mean_with_interval,
    measure_draws,
    measure_fidelity,
    measure_realism,
    read_sample,
)
from pipeline.scratch import SCRATCH, temporary_files_in
from pipeline.train.generator import Generator, GeneratorConfig

CPU = ComputeSection(accelerator="cpu", workers=1)
LEARNING = SegmenterSection(steps=80, batch_size=8, filters=8, learning_rate=4e-3, validate_every=40)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("real") / "cohort"
    return open_cohort(write_toy_cohort(folder, {"train": 14, "val": 7, "test": 3}, individual=False))


@pytest.fixture(scope="module")
def judge(real: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return train_judge(real, real.split("train"), LEARNING, CPU, 1, tmp_path_factory.mktemp("judge"))


def change_cohort(real: Cohort, folder: Path, change) -> Cohort:
    """Write the val and test cases anew, each changed; return them as a cohort."""
    rows = []
    for case in (*real.split("val"), *real.split("test")):
        images = {name: np.array(case.image(name)) for name in real.modalities}
        data = CaseData(case.subject, images, np.array(case.tissue_map()), np.array(case.tumor_map()), case.affine, {})
        write_case(folder, change(data))
        rows.append({"participant_id": f"sub-{case.subject}", "source": "test", "split": "n/a", **case.attributes})
    write_cohort_files(folder, "changed", real.scheme, rows, "Changed.")
    return open_cohort(folder)


def test_a_sample_is_of_slices_with_brain_that_stay_with_their_tissue(real: Cohort) -> None:
    sample = read_sample(real.cases[0], real.modalities)
    assert sample.scans.shape == (SLICES_PER_CASE, 4, *real.shape[:2])
    assert sample.tissue_maps.shape == (SLICES_PER_CASE, *real.shape[:2])
    for scan, tissue_map in zip(sample.scans, sample.tissue_maps, strict=True):
        assert (tissue_map > 0).sum() > 20
        assert (scan[:, tissue_map > 0] > 0).mean() > 0.9


def test_scans_that_show_their_labels_are_found_and_others_are_not(real: Cohort, judge: Judge, tmp_path: Path) -> None:
    same = change_cohort(real, tmp_path / "same", lambda data: data)
    test = real.patients("test")
    regions, seen = measure_fidelity(judge, same.cases, test, iter(test), 1)
    assert set(regions) == {"WT", "TC", "ET"}
    assert regions["WT"]["synthetic"] > 0.6
    assert regions["WT"]["ratio"] == pytest.approx(regions["WT"]["synthetic"] / regions["WT"]["real_test"])
    assert len(seen) == len(same.cases)
    assert regions["ET"]["redrawn"] == regions["ET"]["real_test"]
    assert regions["ET"]["redrawn_less_real"] == {"value": 0.0, "ci": [0.0, 0.0]}
    assert regions["ET"]["n"] == {"synthetic": 10, "real_test": 3, "redrawn": 3}
    assert regions["ET"]["clean"] == {"synthetic": [0, 0], "real_test": [0, 0], "redrawn": [0, 0]}
    # The tumour on the other side than the label says.
    moved = change_cohort(real, tmp_path / "moved", lambda data: replace(data, tumor_map=data.tumor_map[::-1].copy()))
    assert measure_fidelity(judge, moved.cases, test, test, 1)[0]["WT"]["ratio"] < 0.7

    def without_tumor(data: CaseData) -> CaseData:
        return replace(data, images={name: np.zeros_like(image) for name, image in data.images.items()})

    empty = change_cohort(real, tmp_path / "empty", without_tumor)
    regions, seen = measure_fidelity(judge, empty.cases, test, empty.cases[-3:], 1)
    assert regions["WT"]["synthetic"] == 0.0
    assert regions["WT"]["redrawn"] == 0.0
    assert regions["WT"]["redrawn_less_real"]["ci"][1] < 0
    assert seen == [None] * len(empty.cases)


def test_cases_without_a_region_are_counted_apart() -> None:
    """Dice of nothing is 1 or 0 for a single voxel: in a mean it would say how many cases have none."""
    looks = [
        Look({"ET": 0.8}, frozenset({"ET"}), None),
        Look({"ET": 0.6}, frozenset({"ET"}), None),
        Look({"ET": 1.0}, frozenset(), None),
        Look({"ET": 0.0}, frozenset(), None),
    ]
    assert mean_dice(looks) == {"ET": pytest.approx(0.7)}
    assert count_clean(looks) == {"ET": (1, 2)}
    assert mean_dice(looks[2:]) == {"ET": None}


def test_redrawn_cases_have_the_patients_maps_and_scans_of_their_own(real: Cohort, tmp_path: Path) -> None:
    config = GeneratorConfig(
        dimensions=2,
        n_classes=real.scheme.n_condition_classes,
        n_modalities=4,
        channels=8,
        levels=2,
        style_size=4,
        context_slices=1,
    )
    section = parse_config({"generate": {"look": "fixed"}}, "tests").generate
    generator = Generator(config)
    with torch.no_grad():
        # Each modality has its own brightness, whatever the weights, so that one for another shows.
        generator.head.weight *= 0.1
        generator.head.bias += torch.tensor([-1.0, 0.0, 1.0, 2.0])
    seen: list[Path] = []
    with temporary_files_in(tmp_path):
        made = redraw(generator, real.patients("test"), real, section, CPU, 3)
        for case, person in zip(made, real.patients("test"), strict=True):
            np.testing.assert_array_equal(case.condition(real.scheme), person.condition(real.scheme))
            brain = case.brain()
            means = [float(np.asarray(case.image(name))[brain].mean()) for name in real.modalities]
            assert means == sorted(means)
            assert means[0] + 200 < means[3]
            assert person.subject not in case.subject
            # One at a time, and out of other users' sight.
            assert not any(path.exists() for path in seen)
            assert (tmp_path / SCRATCH).stat().st_mode & 0o077 == 0
            seen.append(case.folder)
    assert len(seen) == 3
    assert not any((tmp_path / SCRATCH).iterdir())


def test_a_mean_has_the_spread_of_its_patients() -> None:
    found = mean_with_interval(list(np.random.default_rng(1).normal(0.1, 0.05, 100)), np.random.default_rng(2))
    assert found is not None
    assert found["value"] == pytest.approx(0.1, abs=0.02)
    # Four standard errors of .005 wide.
    assert found["ci"][1] - found["ci"][0] == pytest.approx(0.0196, rel=0.2)
    assert mean_with_interval([0.5], np.random.default_rng(2)) is None


def test_real_scans_measure_like_real_scans_and_washed_out_ones_do_not(
    real: Cohort, judge: Judge, tmp_path: Path
) -> None:
    def wash_out(data: CaseData) -> CaseData:
        stream = np.random.default_rng(1)
        images = {
            name: np.where(image > 0, 500 + 0.2 * (image - 500.0) + stream.normal(0, 60, image.shape), 0)
            for name, image in data.images.items()
        }
        return replace(data, images={name: np.clip(image, 0, 1000).astype(np.int16) for name, image in images.items()})

    same = measure_realism(judge, change_cohort(real, tmp_path / "same", lambda data: data), real, 5, 0)
    washed = measure_realism(judge, change_cohort(real, tmp_path / "washed", wash_out), real, 5, 0)
    # Features of a judge that has seen fourteen toy brains say less than brightness and spectrum do; their kernel
    # distance changes too much from one such judge to the next.
    for name, factor in (
        ("frechet_distance", 1),
        ("histogram_distance", 2),
        ("spectrum_distance", 2),
    ):
        assert washed[name]["synthetic"] > factor * same[name]["synthetic"], name
        assert washed[name]["real"] == pytest.approx(same[name]["real"])
    low, high = same["two_sample_auc_ci"]["real"]
    assert low <= same["two_sample_auc"]["real"] <= high


def test_few_patients_are_no_sample_for_a_classifier(judge: Judge, tmp_path: Path) -> None:
    few = open_cohort(write_toy_cohort(tmp_path / "few", {"train": 4, "val": 2, "test": 1}))
    measured = measure_realism(judge, few, few, 5, 0)
    assert measured["two_sample_auc"] == measured["two_sample_auc_ci"] == {"synthetic": None, "real": None}


def test_two_draws_differ_as_far_as_style_and_noise_reach(real: Cohort) -> None:
    config = GeneratorConfig(
        dimensions=2, n_classes=7, n_modalities=4, channels=8, levels=2, style_size=4, context_slices=1
    )
    generator = Generator(config).eval().requires_grad_(False)
    differing = measure_draws(generator, real.cases, real.scheme, 1)
    assert differing < 0.999
    for block in generator.blocks:
        block.noise_strength.data.zero_()
        block.embedding.of_style.weight.data.zero_()
    generator.stem.of_style.weight.data.zero_()
    assert measure_draws(generator, real.cases, real.scheme, 1) == pytest.approx(1.0, abs=1e-6)
