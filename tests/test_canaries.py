"""Auditing by one run: the bound against its formula and by simulation, canaries as said, the guesses, a whole run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, rng, write_toy_cohort
from scipy import stats

from pipeline.audit import canaries as module
from pipeline.audit.canaries import audit_by_canaries, guess, make_canaries, toss
from pipeline.audit.setting import Setting
from pipeline.cohort import Cohort, digest_tree, open_cohort
from pipeline.config import parse_config
from pipeline.export.public_audit import public_audit
from pipeline.statistics import one_run_epsilon
from pipeline.train.loop import train_generator
from pipeline.train.plan import TrainingPlan
from pipeline.train.weights import load_generator


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(write_toy_cohort(tmp_path_factory.mktemp("canaries") / "cohort", {"train": 4, "val": 2}))


@pytest.mark.parametrize(("n", "right"), [(20, 20), (32, 30), (100, 70), (100, 51)])
def test_the_bound_is_where_so_many_right_guesses_have_the_level_as_probability(n: int, right: int) -> None:
    bound = one_run_epsilon(n, n, right, 0.05)
    weight = np.exp(bound) / (1 + np.exp(bound))
    if right == 51:
        assert bound == 0.0
    else:
        assert stats.binom.sf(right - 1, n, weight) == pytest.approx(0.05, rel=1e-4)


def test_all_right_of_n_show_what_can_be_computed_by_hand() -> None:
    # p^n = .05 with p = e^eps / (1 + e^eps).
    p = 0.05 ** (1 / 64)
    assert one_run_epsilon(64, 64, 64, 0.05) == pytest.approx(np.log(p / (1 - p)), abs=1e-6)
    assert one_run_epsilon(4, 4, 4, 0.05) == 0.0


def test_delta_lowers_the_bound_and_more_canaries_raise_it() -> None:
    exact = one_run_epsilon(100, 50, 48, 0.05)
    assert 0 < one_run_epsilon(100, 50, 48, 0.05, delta=1e-3) < exact
    assert one_run_epsilon(100, 100, 96, 0.05) > exact
    assert one_run_epsilon(100, 50, 48, 0.05, delta=1.0) == 0.0


def test_the_term_in_delta_is_as_by_hand() -> None:
    """Two canaries, both guessed right: p^2 + 4 delta max(2 p (1 - p), (1 - p^2) / 2) with p = 1 / (1 + e^-eps)."""
    delta, alpha = 0.05, 0.9
    p = 1 / (1 + np.exp(-one_run_epsilon(2, 2, 2, alpha, delta)))
    assert p**2 + 4 * delta * max(2 * p * (1 - p), (1 - p**2) / 2) == pytest.approx(alpha, abs=1e-6)
    assert one_run_epsilon(2, 2, 2, alpha, delta) < one_run_epsilon(2, 2, 2, alpha)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_the_bound_holds_for_randomised_response_whose_epsilon_is_known(epsilon: float) -> None:
    """Each coin is told rightly with probability e^eps / (1 + e^eps): nothing leaks more at that epsilon."""
    stream = rng(3)
    right = stream.binomial(64, 1 / (1 + np.exp(-epsilon)), 4000)
    bounds = {int(n): one_run_epsilon(64, 64, int(n), 0.05) for n in np.unique(right)}
    found = np.array([bounds[int(n)] for n in right])
    # At most 5 % above, with three standard errors of 4,000 (.0034) to spare; and not far below either.
    assert (found > epsilon).mean() <= 0.06
    assert np.median(found) > epsilon - 0.9


def test_canaries_are_alike_to_nobody_and_the_same_each_time(cohort: Cohort, tmp_path: Path) -> None:
    config = parse_config(TINY, "tests")
    made = make_canaries(cohort, config.generate, config.compute, 6, 5, tmp_path / "a")
    make_canaries(cohort, config.generate, config.compute, 6, 5, tmp_path / "b")
    assert digest_tree(tmp_path / "a") == digest_tree(tmp_path / "b")
    assert len({case.person for case in made}) == 6
    looks = []
    for case in made:
        condition = case.condition(cohort.scheme)
        images = [np.asarray(case.image(name)) for name in cohort.modalities]
        assert all(image.shape == cohort.shape and image.max() <= 1000 for image in images)
        assert all(((image > 0) == (condition > 0)).all() for image in images)
        assert (np.asarray(case.tumor_map()) > 0).any()
        looks.append([np.median(image[condition == value]) for image in images for value in (1, 2, 3)])
    # Brightness of the tissues is each canary's own: uniform over .8 of the range, deviation 231.
    assert np.std(looks, axis=0).mean() > 120


def test_coins_are_fair_and_apart() -> None:
    tosses = np.array([toss(64, seed) for seed in range(200)])
    assert tosses.mean() == pytest.approx(0.5, abs=0.015)
    # Not balanced: as many heads as coins fall.
    assert tosses.sum(axis=1).std() == pytest.approx(4.0, rel=0.2)


def test_guesses_are_the_outermost_quarters() -> None:
    is_in = np.array([False, False, True, True, False, True, True, True])
    found = guess(np.arange(8.0), is_in, 0.05)
    assert (found.n_canaries, found.n_guesses, found.n_correct) == (8, 4, 4)
    assert found.epsilon_lower == found.epsilon_resolvable
    turned = guess(-np.arange(8.0), is_in, 0.05)
    assert turned.n_correct == 0
    assert turned.epsilon_lower == 0.0


def test_without_canaries_nothing_is_trained(cohort: Cohort, tmp_path: Path) -> None:
    config = parse_config(TINY, "tests")
    setting = Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, 1, 1)
    assert audit_by_canaries(cohort, None, config, setting, 0.05, tmp_path) is None  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_generator_that_remembers_its_canaries_is_found_and_one_that_does_not_is_not(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training real, errors made up: those of canaries that were in are lower, or are not."""
    config = parse_config({**TINY, "audit": {**TINY["audit"], "canaries": 40}}, "tests")
    setting = Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, 1, 7)
    plan = TrainingPlan(cohort.split("train"), cohort.scheme, cohort.modalities, config.train, config.compute, 1)
    train_generator(plan, tmp_path / "target")
    target = load_generator(tmp_path / "target")
    is_in = toss(40, setting.seed)
    seen: list[TrainingPlan] = []
    monkeypatch.setattr(module, "train_generator", lambda plan, folder: seen.append(plan))
    monkeypatch.setattr(module, "load_generator", lambda folder: torch.nn.Identity())
    noise = rng(2).normal(size=40)

    def errors(leak: float, targets: object, generator: object, setting: Setting) -> np.ndarray:
        return np.zeros(40) if generator is target else noise - leak * is_in

    for leak, low, high in ((10.0, 1.8, 2.5), (0.0, 0.0, 0.6)):
        monkeypatch.setattr(module, "reconstruction_errors", lambda t, g, s, leak=leak: errors(leak, t, g, s))
        found = audit_by_canaries(cohort, target, config, setting, 0.05, tmp_path / "canaries")
        assert found is not None
        assert low <= found.epsilon_lower <= high
        assert public_audit({"verdict": "pass", "canaries": found.as_json()})["canaries"]["n_guesses"] == 20
    trained_on = {case.subject for case in seen[0].cases}
    assert {name for name in trained_on if name.startswith("canary")} == {
        f"canary{number:04d}" for number in np.flatnonzero(is_in)
    }
    assert len(trained_on) == 4 + int(is_in.sum())


def test_a_whole_audit_tells_of_its_canaries(tmp_path: Path) -> None:
    from pipeline.runner import run_stages

    content = {**TINY, "audit": {**TINY["audit"], "canaries": 16}}
    run_stages(parse_config(content, "tests"), tmp_path / "run", last="audit")
    audit = json.loads((tmp_path / "run" / "audit" / "audit.json").read_text())
    assert audit["canaries"]["n_canaries"] == 16
    assert audit["canaries"]["n_guesses"] == 8
    assert not (tmp_path / "run" / "audit" / "canaries" / "checkpoints").exists()
    assert "guesses about the coins" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
