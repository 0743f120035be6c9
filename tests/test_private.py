"""Differential privacy: the promise is the one accounted for, one patient moves one clipped gradient, nothing else."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import OVERRIDE_REASON, TINY, write_toy_cohort
from numpy.typing import NDArray

from pipeline.audit.attacks.registry import ATTACKS
from pipeline.audit.canaries import CanaryFinding, guess
from pipeline.audit.conclusions import Evidence
from pipeline.audit.promise import check_promise, with_broken_promise
from pipeline.audit.verdict import Verdict
from pipeline.cohort import Cohort, digest_file, open_cohort
from pipeline.config import PrivacySection, RunConfig, parse_config
from pipeline.errors import ConfigError
from pipeline.generate.public_labels import public_labels
from pipeline.guarantee_text import describe_guarantee
from pipeline.layout import WEIGHTS_FILE
from pipeline.runner import fingerprint, run_stages
from pipeline.train import loop, private
from pipeline.train.data import one_hot_slices
from pipeline.train.generator import Generator
from pipeline.train.loop import guarantee_of, train_generator
from pipeline.train.plan import TrainingPlan
from pipeline.train.private import (
    PrivateGame,
    draw_patients,
    group_by_person,
    promise,
    read_noise_key,
    secret_stream,
)
from pipeline.train.stage import refuse_smaller_trainings

PRIVATE: dict[str, dict[str, Any]] = {
    "ingest": {"missing_modalities": "quarantine"},
    "train": {
        "style": "random",
        "class_balance": 0.0,
        "feature_matching_weight": 0.0,
        "privacy": {"epsilon": 8.0, "patients_per_step": 2, "discriminator_steps": 2, "label_maps": 3},
    },
    "generate": {"label_sources": {"atlas": 1.0}, "curation": {"drop_near_duplicates": False}},
}
KEY = 12345


def private_config(**changes: dict[str, Any]) -> RunConfig:
    content: dict[str, dict[str, Any]] = {name: dict(section) for name, section in TINY.items()}
    for extra in (PRIVATE, changes):
        for name, section in extra.items():
            content.setdefault(name, {}).update(section)
    return parse_config(content, "tests")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(write_toy_cohort(tmp_path_factory.mktemp("private") / "cohort", {"train": 6, "val": 2}))


@pytest.fixture(scope="module")
def plan(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> TrainingPlan:
    config = private_config()
    labels = public_labels(config, config.compute, cohort, 1, tmp_path_factory.mktemp("labels") / "labels.npy")
    members = cohort.split("train")
    return TrainingPlan(members, cohort.scheme, cohort.modalities, config.train, config.compute, 1, public=labels)


@pytest.mark.parametrize(("epsilon", "sigma"), [(1.0, 14.2), (5.0, 3.64), (10.0, 2.17)])
def test_noise_is_what_the_prv_accountant_asks_for(epsilon: float, sigma: float) -> None:
    section = PrivacySection(epsilon=epsilon, patients_per_step=32, discriminator_steps=5)
    made = promise(section, 300, 375)
    assert made.n_steps == 1875
    assert made.delta == pytest.approx(300**-1.5)
    # The search for the noise stops within .01 of epsilon.
    assert made.noise_multiplier == pytest.approx(sigma, rel=0.015)
    assert epsilon - 0.02 <= made.epsilon <= epsilon


def test_more_steps_or_fewer_patients_ask_for_more_noise() -> None:
    section = PrivacySection(epsilon=3.0, patients_per_step=8, delta=1e-4)
    noise = promise(section, 100, 100).noise_multiplier
    assert promise(section, 100, 400).noise_multiplier > 1.3 * noise
    assert promise(section, 50, 100).noise_multiplier > 1.3 * noise


def test_fewer_patients_than_a_step_draws_are_refused() -> None:
    with pytest.raises(ConfigError, match="patients_per_step: expected fewer than there are members, got 32 of 20"):
        promise(PrivacySection(epsilon=3.0), 20, 100)


def test_patients_are_drawn_apart_from_each_other_with_the_same_probability() -> None:
    drawn = np.zeros((4000, 6), bool)
    for turn in range(4000):
        drawn[turn, draw_patients(6, 0.3, np.random.default_rng(turn))] = True
    # Binomial(4000, .3): SD of the share .0072.
    np.testing.assert_allclose(drawn.mean(axis=0), 0.3, atol=0.03)
    # Poisson: numbers vary as those of six coins do, and pairs are not tied.
    assert drawn.sum(axis=1).var() == pytest.approx(6 * 0.3 * 0.7, rel=0.15)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(6)).max() < 0.06


def test_several_scans_of_one_person_are_one_unit(cohort: Cohort) -> None:
    first, second, third = cohort.split("train")[:3]
    again = type(second)(**{**second.__dict__, "attributes": {**second.attributes, "person": first.person}})
    assert group_by_person((first, third, again)) == [[0, 2], [1]]


@pytest.fixture(params=["as shipped", "none"])
def augmented(plan: TrainingPlan, request: pytest.FixtureRequest) -> TrainingPlan:
    """Return the plan with the augmentation that a config has unless it says otherwise, and with none."""
    if request.param == "as shipped":
        assert set(plan.config.augmentation) == {"colour", "translation", "cutout", "flip"}
        return plan
    return replace(plan, config=plan.config.model_copy(update={"augmentation": ()}))


@dataclass(frozen=True)
class Turn:
    """What a first step of the discriminator made: the sum of clipped gradients, before noise, and each gradient."""

    summed: NDArray[np.float64]
    of_patients: dict[int, NDArray[np.float64]]
    of_generated: NDArray[np.float64]


def play_turn(plan: TrainingPlan, patients: list[int], monkeypatch: pytest.MonkeyPatch, gain: float = 3.0) -> Turn:
    """Play a first step that draws these patients.

    With a discriminator three times as strong its gradients are far beyond the norm, so that clipping must act.
    """
    game = PrivateGame(plan, KEY)
    with torch.no_grad():
        for parameter in game.discriminator.parameters():
            parameter.mul_(gain)
    monkeypatch.setattr(private, "draw_patients", lambda n, rate, stream: np.array(patients, np.int64))
    game._play_discriminator(0)
    optimizer = game._private_optimizer
    single = torch.cat([one.flatten(1) for one in optimizer.grad_samples], dim=1).double().numpy()
    summed = torch.cat([one.summed_grad.flatten() for one in optimizer.params]).double().numpy()
    n = len(patients)
    return Turn(summed, dict(zip(patients, single[:n], strict=True)), single[n:])


def assert_same_gradients(found: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    """Hold gradients against each other, but for rounding, which may depend on the size of the batch."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


DRAWN = [0, 2, 3, 5]


@pytest.mark.parametrize("patient", [0, 3, 5], ids=["first", "middle", "last"])
def test_one_patient_moves_the_sum_by_the_clipping_norm_at_most_and_nobody_elses_gradient(
    augmented: TrainingPlan, patient: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is left out, as shipped and without augmentation: nothing of the others may be drawn by position.

    Where augmentation was, the sum moved by 2.6 norms.
    """
    rest = [other for other in DRAWN if other != patient]
    more, fewer = (play_turn(augmented, drawn, monkeypatch) for drawn in (DRAWN, rest))
    assert 0.9 < np.linalg.norm(more.summed - fewer.summed) <= 1.0 + 1e-4
    for other in rest:
        assert_same_gradients(fewer.of_patients[other], more.of_patients[other])
    assert_same_gradients(fewer.of_generated, more.of_generated)


def test_where_nobody_is_drawn_the_generated_samples_are_as_beside_patients(
    augmented: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, nobody = (play_turn(augmented, drawn, monkeypatch) for drawn in ([0, 1], []))
    assert np.linalg.norm(few.summed - nobody.summed) <= 2.0 + 1e-4
    assert_same_gradients(nobody.of_generated, few.of_generated)


def test_two_scans_of_one_person_move_it_no_further_than_one(
    augmented: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a person with all six scans one is drawn at a step: drawn or not, the gradient moves by the norm at most."""
    cases = tuple(
        replace(case, attributes={**case.attributes, "person": "one" if number else "other"})
        for number, case in enumerate(augmented.cases)
    )
    plan = replace(augmented, cases=cases, n_accounted=6)
    assert plan.n_members == 2
    few, more = (play_turn(plan, drawn, monkeypatch).summed for drawn in ([0], [0, 1]))
    assert 0.9 < np.linalg.norm(more - few) <= 1.0 + 1e-4


def noise_of(game: PrivateGame, turn: int) -> NDArray[np.float64]:
    """Return what a turn adds to the sums of clipped gradients."""
    game._play_discriminator(turn)
    scale = 2 * game._privacy.patients_per_step
    parts = [one.grad * scale - one.summed_grad.view_as(one) for one in game._private_optimizer.params]
    return torch.cat([one.flatten() for one in parts]).double().numpy()


def test_noise_has_the_spread_that_was_promised_and_is_new_at_each_turn(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "draw_patients", lambda n, rate, stream: np.array([], np.int64))
    game = PrivateGame(plan, KEY)
    first, second = noise_of(game, 0), noise_of(game, 1)
    sigma = guarantee_of(plan)["noise_multiplier"]
    n = len(first)
    assert n > 5000
    for values in (first, second):
        assert values.std() == pytest.approx(sigma, rel=0.05)
        assert abs(values.mean()) < 5 * sigma / n**0.5
    # Correlations of so many normal numbers have deviation n^-1/2.
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / n**0.5
    # It is the key's, all of it, and not the config's seed.
    for key, same in ((KEY, True), (KEY + 1, False), (KEY + (1 << 200), False)):
        again = noise_of(PrivateGame(replace(plan, seed=2), key), 0)
        assert (abs(np.corrcoef(first, again)[0, 1]) > 0.99) == same


@pytest.mark.parametrize("bit", [0, 33, 62, 64, 127, 255])
def test_every_bit_of_the_key_counts(bit: int) -> None:
    streams = [secret_stream(key, "noise", 3).standard_normal(8) for key in (KEY, KEY ^ (1 << bit))]
    assert not np.isclose(*streams).any()


def test_a_training_draws_as_often_and_as_many_as_is_accounted_for(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, float]] = []
    steps: list[float] = []
    draw, step = private.draw_patients, private.KeyedOptimizer.add_noise

    def watch_draw(n: int, rate: float, stream: np.random.Generator) -> NDArray[np.int64]:
        asked.append((n, rate))
        return draw(n, rate, stream)

    def watch_step(optimizer: Any) -> None:
        steps.append(optimizer.noise_multiplier * optimizer.max_grad_norm)
        step(optimizer)

    monkeypatch.setattr(private, "draw_patients", watch_draw)
    monkeypatch.setattr(private.KeyedOptimizer, "add_noise", watch_step)
    game = PrivateGame(plan, KEY)
    for number in range(plan.config.steps):
        game.play(number)
    promised = guarantee_of(plan)
    assert len(asked) == len(steps) == promised["n_steps"]
    assert set(asked) == {(promised["n_patients"], promised["sample_rate"])}
    assert set(steps) == {promised["noise_multiplier"] * promised["clip_norm"]}


def test_label_maps_of_nobody_belong_to_the_training(plan: TrainingPlan) -> None:
    """What the plan of the synthetic cohort says decides them: a training with others is no longer the same."""
    other = {"generate": {**PRIVATE["generate"], "volume_edges_ml": [2.0, 20.0, 60.0, 150.0]}}
    made = {name: fingerprint("train", private_config(**change), {}) for name, change in (("a", {}), ("b", other))}
    assert made["a"] != made["b"]
    plain = [
        fingerprint("train", parse_config({**TINY, "generate": {**TINY["generate"], **change}}, "tests"), {})
        for change in ({}, {"volume_edges_ml": [2.0, 20.0, 60.0, 150.0]})
    ]
    assert plain[0] == plain[1]


def test_the_generator_sees_label_maps_of_nobody_alone(
    plan: TrainingPlan, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patched at the network: no condition that it is ever given is a slice of a patient's label map."""
    seen: list[NDArray[np.float32]] = []
    forward = Generator.forward

    def watch(self: Generator, condition: torch.Tensor, style: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
        seen.extend(condition.numpy())
        return forward(self, condition, style, noise)

    monkeypatch.setattr(Generator, "forward", watch)
    game = PrivateGame(plan, KEY)
    for step in range(4):
        game.play(step)
    assert len(seen) >= 4 * 2
    shown = {code.tobytes() for code in seen}

    def codes_of(condition: NDArray[np.uint8]) -> set[bytes]:
        padded = np.pad(condition, ((0, 0), (0, 0), (1, 1)))
        codes = one_hot_slices(padded, cohort.scheme.n_condition_classes, 1)
        return {np.ascontiguousarray(code[:, ::turn]).tobytes() for code in codes for turn in (1, -1)}

    patients = [codes_of(case.condition(cohort.scheme)) for case in cohort.cases]
    assert not shown & set().union(*patients)
    public = [codes_of(cohort.scheme.combine(case.tissue_map, case.tumor_map)) for case in plan.public]
    assert shown <= set().union(*public)


def test_the_discriminators_answer_is_all_that_ties_generator_to_patients(
    plan: TrainingPlan, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its gradient is noise and nothing else, other patients train the same generator, to the byte."""
    monkeypatch.setattr(private.DPOptimizer, "clip_and_accumulate", _forget)

    def weights(cases: tuple[Any, ...]) -> list[torch.Tensor]:
        game = PrivateGame(
            TrainingPlan(cases, plan.scheme, plan.modalities, plan.config, plan.compute, 1, public=plan.public), KEY
        )
        for step in range(2):
            game.play(step)
        return [parameter.detach().clone() for parameter in game.generator.parameters()]

    members = cohort.split("train")
    ours, theirs = weights(members[:5]), weights(members[1:6])
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def _forget(optimizer: Any) -> None:
    for parameter in optimizer.params:
        parameter.summed_grad = torch.zeros_like(parameter)


class KilledError(Exception):
    """Stands for a kill."""


class Killer:
    def __init__(self, at: int) -> None:
        self._at = at

    def record_losses(self, step: int, losses: dict[str, float]) -> None:
        """Look at nothing."""

    def record_samples(self, step: int, generator: Generator) -> None:
        if step == self._at:
            raise KilledError


def test_killed_and_resumed_ends_with_the_same_bytes_and_another_key_with_others(
    plan: TrainingPlan, tmp_path: Path
) -> None:
    straight, killed, other = tmp_path / "straight", tmp_path / "killed", tmp_path / "other"
    with pytest.raises(KilledError):
        train_generator(plan, killed, Killer(3))
    key_file = killed / "checkpoints" / "noise.key"
    assert key_file.stat().st_mode & 0o077 == 0
    key = read_noise_key(killed / "checkpoints")
    assert key.bit_length() > 200
    (straight / "checkpoints").mkdir(parents=True)
    (straight / "checkpoints" / "noise.key").write_text(f"{key:x}\n")
    train_generator(plan, straight)
    train_generator(plan, killed)
    assert digest_file(killed / WEIGHTS_FILE) == digest_file(straight / WEIGHTS_FILE)
    # Finished: nobody needs the key any more, and whoever had it could take the noise away.
    assert not key_file.exists()
    # Same seed, own key: whoever knows the config cannot make the noise again.
    train_generator(plan, other)
    assert digest_file(other / WEIGHTS_FILE) != digest_file(straight / WEIGHTS_FILE)


def test_both_players_learn_where_noise_is_small(plan: TrainingPlan) -> None:
    """A discriminator that learned nothing by DP-SGD would leave its loss where it began."""
    section = plan.config.model_copy(
        update={
            "privacy": PrivacySection(epsilon=500.0, patients_per_step=5, discriminator_steps=4, label_maps=3),
            "learning_rate_discriminator": 2e-3,
        }
    )
    game = PrivateGame(
        TrainingPlan(plan.cases, plan.scheme, plan.modalities, section, plan.compute, 1, public=plan.public), KEY
    )
    losses = [game._play_discriminator(turn) for turn in range(60)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


CONFLICTS: list[tuple[str, dict[str, Any], str]] = [
    ("train", {"reconstruction_weight": 1.0}, "reconstruction_weight: expected 0, got 1: an L1"),
    ("train", {"class_balance": 0.5}, "class_balance: expected 0, got 0.5: weights by the batch"),
    ("train", {"feature_matching_weight": 10.0}, "feature_matching_weight: expected 0, got 10: features of real"),
    ("train", {"perceptual_weight": 1.0, "perceptual_weights": "w"}, "perceptual_weight: expected 0, got 1"),
    ("train", {"style": "measured"}, "style: expected random, got measured: style codes are fitted"),
    ("generate", {"label_sources": {"recombine": 0.2, "atlas": 0.8}}, "label_sources: expected {atlas: 1}, got"),
    ("generate", {"balance": "like-source"}, "balance: expected uniform or table, got like-source: it copies"),
    ("generate", {"balance": "fill-gaps"}, "balance: expected uniform or table, got fill-gaps"),
    ("generate", {"strata": ["volume", "contrast"]}, "contrast_edges: expected two numbers, got none"),
    ("generate", {"curation": {"candidates": 2, "drop_near_duplicates": False}}, "candidates: expected 1, got 2"),
    ("generate", {"curation": {"candidates": 1}}, "drop_near_duplicates: expected false, got true: which"),
    ("ingest", {"missing_modalities": "train"}, "missing_modalities: expected quarantine, got train"),
    ("compute", {"precision": "bf16-mixed"}, "precision: expected 32-true, got bf16-mixed: gradients"),
]


@pytest.mark.parametrize(("section", "change", "message"), CONFLICTS)
def test_what_would_break_the_promise_is_a_config_error_that_says_why(
    section: str, change: dict[str, Any], message: str
) -> None:
    private_config()
    with pytest.raises(ConfigError) as raised:
        private_config(**{section: change})
    assert message in str(raised.value)


def test_all_conflicts_are_listed_at_once_and_keys_of_the_section_are_known() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config({"train": {"privacy": {"epsilon": 5}}}, "tests")
    assert str(raised.value).count("expected") >= 5
    with pytest.raises(ConfigError, match="did you mean `clip_norm`"):
        private_config(train={"privacy": {"epsilon": 5.0, "clipnorm": 1.0}})


def test_without_the_extra_the_error_says_what_to_install(plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(loop.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'synthcohort\[dp\]'"):
        guarantee_of(plan)


def test_a_guarantee_is_put_beside_what_the_audit_could_have_shown() -> None:
    guarantee = promise(PrivacySection(epsilon=2.0, patients_per_step=10), 100, 20).to_json()

    def text(shown: float, resolvable: float) -> str:
        return describe_guarantee({"privacy": {**guarantee, "shown": shown, "resolvable": resolvable}})

    assert "largest epsilon that its canaries could have shown is 3.1, and they show 0.4" in text(0.4, 3.1)
    assert "beyond" not in text(0.4, 3.1)
    assert "something is wrong" not in text(0.4, 3.1)
    assert "something is wrong" in text(2.6, 3.1)
    assert "beyond what its canaries resolve" in text(0.0, 0.9)
    # The noise of another training may keep an epsilon that is larger by a hundredth.
    assert "something is wrong" not in text(guarantee["epsilon"] + 0.009, 3.1)
    assert "had none, or too few" in text(0.0, 0.0)
    assert "could have shown" not in text(0.0, 0.0)
    assert describe_guarantee({"privacy": None}) == ""


def test_more_than_was_promised_fails_by_the_canaries_and_by_nothing_else() -> None:
    promised = {"epsilon": 1.0, "delta": 1e-5}
    n, stream = 60, np.random.default_rng(4)
    is_member = np.arange(n) < n // 2
    nothing = {attack.name: stream.normal(size=n) for attack in ATTACKS}

    def check(scores: dict[str, NDArray[np.float64]], canaries: CanaryFinding | None = None) -> dict[str, Any]:
        evidence = Evidence(is_member, scores, {}, np.zeros((0, n), bool), [], {}, [], {})
        found = check_promise(promised, evidence, canaries, 0.05)
        assert found is not None
        return found

    verdicts = {"dataset": Verdict("pass", ("all well",)), "generator": Verdict("unresolved", ("too few",))}
    quiet = check(nothing)
    assert (quiet["shown"], quiet["resolvable"]) == (0.0, 0.0)
    assert quiet["indicative"]["shown"] <= 0.3
    assert 1.0 < quiet["indicative"]["resolvable"] < 3.0
    assert with_broken_promise(verdicts, quiet) == verdicts
    # An attack that tells all members apart: nobody tossed coins for the split, so it is reported and proves nothing.
    loud = check({**nothing, "discriminator": is_member + 0.01 * stream.normal(size=n)})
    assert loud["indicative"]["shown"] == loud["indicative"]["resolvable"] > 1.0
    assert with_broken_promise(verdicts, loud) == verdicts
    # Canaries, 32 of 32 right, and at all of the level.
    sure = guess(np.arange(64.0), np.arange(64) >= 32, 0.05, 1e-5)
    shown = check(nothing, sure)
    assert shown["shown"] == shown["resolvable"] == sure.epsilon_lower > 1.0
    broken = with_broken_promise(verdicts, shown)
    assert {one.verdict for one in broken.values()} == {"fail"}
    assert "by the canaries, and 1.00 was promised" in broken["dataset"].reasons[0]
    assert broken["generator"].reasons[1:] == ("too few",)
    chance = guess(stream.normal(size=64), np.arange(64) >= 32, 0.05, 1e-5)
    assert with_broken_promise(verdicts, check(nothing, chance)) == verdicts
    empty = Evidence(is_member, nothing, {}, np.zeros((0, n), bool), [], {}, [], {})
    assert check_promise(None, empty, None, 0.05) is None
    assert with_broken_promise(verdicts, None) == verdicts


def test_a_promise_that_is_kept_is_called_broken_at_the_level_at_most() -> None:
    """Coins told as rightly as epsilon allows, by scores of which the outermost quarters are guessed."""
    epsilon, stream = 1.0, np.random.default_rng(8)
    verdicts = {"dataset": Verdict("pass", ()), "generator": Verdict("pass", ())}
    attack = {"reconstruction": stream.normal(size=8)}
    evidence = Evidence(np.arange(8) < 4, attack, {}, np.zeros((0, 8), bool), [], {}, [], {})
    broken = 0
    for _ in range(600):
        is_in = stream.random(64) < 0.5
        is_right = stream.random(64) < 1 / (1 + np.exp(-epsilon))
        scores = np.where(is_in == is_right, 1.0, -1.0) + 0.01 * stream.normal(size=64)
        privacy = check_promise({"epsilon": epsilon, "delta": 1e-6}, evidence, guess(scores, is_in, 0.05, 1e-6), 0.05)
        broken += with_broken_promise(verdicts, privacy) != verdicts
    # Three standard errors of 600 at .05 are .027.
    assert broken / 600 <= 0.05 + 0.027


@pytest.fixture(scope="module")
def private_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    content: dict[str, dict[str, Any]] = {name: dict(section) for name, section in TINY.items()}
    for name, section in PRIVATE.items():
        content[name] = {**content[name], **section}
    content["export"] = {"override_reason": OVERRIDE_REASON}
    folder = tmp_path_factory.mktemp("private-run") / "run"
    run_stages(parse_config(content, "tests"), folder)
    yield folder


def test_a_whole_run_tells_the_promise_in_model_audit_report_and_card(private_run: Path) -> None:
    said = json.loads((private_run / "model" / "model.json").read_text())["privacy"]
    assert said["epsilon"] <= 8.0
    assert said["n_patients"] == 6
    audit = json.loads((private_run / "audit" / "audit.json").read_text())
    assert {name: audit["privacy"][name] for name in said} == said
    assert 0 <= audit["privacy"]["shown"] <= audit["privacy"]["resolvable"]
    sentence = f"epsilon {said['epsilon']:.2f} at delta {said['delta']:.1e}"
    for page in (private_run / "report.html", private_run / "release" / "README.md"):
        assert sentence in page.read_text(encoding="utf-8"), page.name
    # No key is left anywhere: of the generator, of the references.
    assert (private_run / "model" / "checkpoints").is_dir()
    assert not list(private_run.rglob("noise.key"))


def test_a_run_without_it_promises_nothing(finished_run: Path) -> None:
    assert json.loads((finished_run / "model" / "model.json").read_text())["privacy"] is None
    for page in (finished_run / "report.html", finished_run / "release" / "README.md"):
        assert "differential privacy: epsilon" not in page.read_text(encoding="utf-8")


def test_trainings_of_the_audit_too_small_for_a_private_step_are_refused_before_the_first(cohort: Cohort) -> None:
    def config(patients_per_step: int, few: int = 0) -> RunConfig:
        train = {**PRIVATE["train"], "privacy": {"epsilon": 5.0, "patients_per_step": patients_per_step}}
        return private_config(train=train, audit={"overtrained_members": few})

    # Six of train, none of test: halves of three.
    refuse_smaller_trainings(config(2), cohort)
    with pytest.raises(ConfigError, match="got 3, and its references, half of train and test persons, are 3; draw"):
        refuse_smaller_trainings(config(3), cohort)
    with pytest.raises(ConfigError, match=r"got 2, and audit\.overtrained_members are 2; draw"):
        refuse_smaller_trainings(config(2, few=2), cohort)
