"""The controls: each behaves where it should, and tells of an attack that is blind."""

from pathlib import Path

import numpy as np
import pytest
from audit_builders import N_OTHERS, reference_of, release_of
from conftest import rng
from numpy.typing import NDArray

from pipeline.audit import controls, reconstruction
from pipeline.audit.controls import (
    MemorisingGenerator,
    permuted_membership,
    planted_copies,
    planted_memory,
    untouched_patients,
)
from pipeline.audit.targets import Release
from pipeline.cohort import Cohort, open_cohort
from pipeline.config import AuditSection
from pipeline.generate.sampling import render_volume
from pipeline.seeds import torch_stream
from pipeline.train.data import read_scan
from pipeline.train.weights import load_generator


def test_permuted_control_misbehaves_only_where_permutations_are_off_one_half() -> None:
    # 1,000 permutations of SD .1: the mean is within 4 * .1 / sqrt(1000) = .0126 of .5.
    permuted = rng().normal(0.5, 0.1, 1000)
    permuted += 0.5 - permuted.mean()
    assert permuted_membership("x", "X", 0.9, permuted).behaved
    assert permuted_membership("x", "X", 0.9, permuted + 0.012).behaved
    assert not permuted_membership("x", "X", 0.9, permuted + 0.013).behaved
    assert not permuted_membership("x", "X", 0.5, permuted - 0.013).behaved


def test_planted_copies_are_seen_and_an_attack_that_cannot_see_them_is_told(
    cohort: Cohort, honest: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = cohort.persons("train"), cohort.persons("test")
    control = planted_copies(*sides, release_of(honest), reference_of(cohort), 0.2)
    assert control.behaved
    assert control.curve is not None
    assert (len(control.curve[0]), len(control.curve[1])) == (3, N_OTHERS)
    assert set(control.as_json()) == {"name", "title", "expected", "observed", "behaved"}

    def noise(
        images: NDArray, brain: NDArray, spacing_mm: float, stream: np.random.Generator
    ) -> tuple[NDArray, NDArray]:
        return stream.normal(size=images.shape).astype(np.float32), brain

    monkeypatch.setattr(controls, "construct_copy", noise)
    assert not planted_copies(*sides, release_of(honest), reference_of(cohort), 0.2).behaved


def test_planted_memory_is_seen_and_a_blind_attack_is_told(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = open_cohort(run_dir / "cohort")
    release = Release(open_cohort(run_dir / "synthetic"), load_generator(run_dir / "model"))
    members, reference = made.persons("train"), reference_of(made)
    clean = reconstruction.reconstruction(made.split("test"), release, reference)
    assert planted_memory(members, clean, release, reference, 0.2).behaved
    # A generator that moves away from what it remembers is worse on those persons: the attack must not call them in.
    monkeypatch.setattr(controls, "MEMORY", -1.0)
    assert not planted_memory(members, clean, release, reference, 0.2).behaved


def test_a_memorising_generator_is_the_generator_where_it_remembers_nothing(run_dir: Path) -> None:
    made, generator = open_cohort(run_dir / "cohort"), load_generator(run_dir / "model")
    remembered, other = made.split("train")[:2]
    memorising = MemorisingGenerator(generator, [remembered], reference_of(made))
    for case, is_remembered in ((remembered, True), (other, False)):
        condition = case.condition(made.scheme)
        plain, mixed = (
            render_volume(network, condition, torch_stream(1, "same")) for network in (generator, memorising)
        )
        scan = read_scan(case, made.modalities, (slice(None),) * 3)
        expected = (plain + scan) / 2 if is_remembered else plain
        assert mixed == pytest.approx(expected, abs=1e-5)


def test_a_difference_between_the_sides_that_no_generator_saw_makes_the_negative_control_misbehave() -> None:
    policy = AuditSection()
    is_train = np.arange(40) < 24
    alike = rng(3).normal(size=40)
    assert untouched_patients("a", "attack", alike, is_train, policy, 1).behaved
    assert not untouched_patients("a", "attack", alike + 2.0 * is_train, is_train, policy, 1).behaved
