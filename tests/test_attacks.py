"""The attacks on records whose answer is known: by hand, against analytic curves, with a memory and without one."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from conftest import rng
from numpy.typing import NDArray
from scipy.stats import norm

from pipeline.audit.attacks.classifier import classifier
from pipeline.audit.attacks.density_ratio import density_ratio, log_density
from pipeline.audit.attacks.discriminator import discriminator
from pipeline.audit.attacks.likelihood_ratio import likelihood_ratio
from pipeline.audit.attacks.monte_carlo import monte_carlo
from pipeline.audit.attacks.nearest_neighbour import distances, nearest_distances, nearest_neighbour
from pipeline.audit.attacks.patient_set import patient_set
from pipeline.audit.attacks.reconstruction import reconstruction
from pipeline.audit.attacks.registry import ATTACKS, BY_NAME, ShadowFindings, attack_release
from pipeline.audit.attacks.relative_likelihood import ERRORS, relative_likelihood
from pipeline.audit.dealing import balanced_halves
from pipeline.audit.simulation import ToyAudit, World
from pipeline.audit.targets import Reference, Release, Shadows, Targets, by_person
from pipeline.cohort import Cohort
from pipeline.errors import DataError
from pipeline.statistics import auc


def targets_of(points: NDArray, prefix: str = "t") -> Targets:
    """Return targets whose only view, both ways round the same, is these points (n, dimensions)."""
    views = np.repeat(np.asarray(points, np.float32)[:, None], 2, axis=1)
    return Targets(tuple(f"{prefix}{i}" for i in range(len(points))), {"scan": views})


def release_of(points: NDArray, errors: Callable[[Targets], NDArray] = lambda asked: np.zeros(len(asked))) -> Release:
    return Release({"scan": np.asarray(points, np.float32)}, errors)


def reference_of(
    points: NDArray, predict: Callable[[Targets], NDArray] = lambda asked: np.zeros(len(asked))
) -> Reference:
    return Reference(targets_of(points, "o"), predict, 1)


def test_nearest_neighbour_is_as_by_hand_and_either_way_round_counts() -> None:
    views = np.array([[[0.0, 0.0], [9.0, 9.0]], [[5.0, 5.0], [1.0, 0.0]]], np.float32)
    targets = Targets(("a", "b"), {"scan": views})
    # Nearest synthetic: 1 (as it is) and 0 (mirrored). Nearest other: 2 and sqrt(1 + 4).
    scores = nearest_neighbour(targets, release_of([[1.0, 0.0]]), reference_of([[0.0, 2.0]]), "scan")
    np.testing.assert_allclose(scores, [2 - 1, np.sqrt(5) - 0], atol=1e-6)


def test_distances_are_those_of_all_pairs_whatever_the_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rng(1).normal(size=(5, 2, 7)).astype(np.float32), rng(2).normal(size=(11, 7)).astype(np.float32)
    expected = np.linalg.norm(x[:, :, None] - y[None, None], axis=3)
    np.testing.assert_allclose(distances(x[:, 0], y), expected[:, 0], atol=1e-4)
    np.testing.assert_allclose(nearest_distances(x, y), expected.min(axis=(1, 2)), atol=1e-4)
    monkeypatch.setattr("pipeline.audit.attacks.nearest_neighbour.ROWS_AT_ONCE", 3)
    np.testing.assert_allclose(nearest_distances(x, y), expected.min(axis=(1, 2)), atol=1e-4)


def test_monte_carlo_counts_what_lies_within_the_median_of_nearest_distances() -> None:
    targets = targets_of([[0.0], [10.0], [20.0]])
    # Nearest distances 1, 2 and 5: the radius is 2. Within it: 1 and -2 of the first, 12 of the second, none.
    release = release_of([[1.0], [-2.0], [12.0], [15.0]])
    assert monte_carlo(targets, release, reference_of([[0.0]]), "scan") == pytest.approx([0.5, 0.25, 0.0])


def test_a_kernel_density_is_normal_where_the_sample_is() -> None:
    sample = rng(3).normal(size=(4000, 1))
    points = np.linspace(-2, 2, 9)[:, None]
    # Scott's width of 4,000 points is .19: the estimate is the density of variance 1 + .19^2.
    expected = norm.logpdf(points[:, 0], scale=np.sqrt(1 + 0.19**2)) + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_density(points, sample), expected, atol=0.15)


def test_density_ratio_follows_the_true_ratio() -> None:
    made, people = rng(4).normal(0.0, 1.0, (600, 1)), rng(5).normal(1.5, 1.0, (600, 1))
    points = np.linspace(-1, 2.5, 30)[:, None]
    scores = density_ratio(targets_of(points), release_of(made), reference_of(people), "scan")
    true = norm.logpdf(points[:, 0], 0.0) - norm.logpdf(points[:, 0], 1.5)
    assert np.corrcoef(scores, true)[0, 1] > 0.98


def test_classifier_scores_what_looks_synthetic_higher() -> None:
    made, people = rng(6).normal(0.0, 1.0, (200, 6)), rng(7).normal(1.0, 1.0, (60, 6))
    points = np.concatenate([rng(8).normal(0.0, 1.0, (300, 6)), rng(9).normal(1.0, 1.0, (300, 6))])
    scores = classifier(targets_of(points), release_of(made), reference_of(people), "scan")
    # The best that can be done on six coordinates one deviation apart is Phi(sqrt(6) / sqrt(2)) = .958.
    assert auc(scores[:300], scores[300:]) == pytest.approx(norm.cdf(np.sqrt(3)), abs=0.03)


def test_reconstruction_is_less_what_anyone_could_guess() -> None:
    reference = reference_of([[0.0]], lambda asked: np.array([0.5, 0.2]))
    release = release_of([[0.0]], lambda asked: np.array([0.3, 0.3]))
    assert reconstruction(targets_of([[0.0], [1.0]]), release, reference) == pytest.approx([0.2, -0.1])


@pytest.fixture(scope="module")
def gaussian() -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return a signal on a release, who is in, and the same on 32 shadows; a person's ease hides a leak of 1."""
    stream = rng(10)
    n, n_shadows = 2000, 32
    ease = stream.normal(0, 3, n)
    inside = np.arange(n) < n // 2
    is_in = balanced_halves(["x"] * n, n_shadows, stream)
    return (
        ease + 1.0 * inside + stream.normal(size=n),
        inside,
        ease + 1.0 * is_in + stream.normal(size=is_in.shape),
        is_in,
    )


def test_likelihood_ratio_reaches_the_analytic_curve(gaussian: tuple[NDArray, NDArray, NDArray, NDArray]) -> None:
    observed, inside, before, is_in = gaussian
    reference = replace(reference_of([[0.0]]), shadows=Shadows({"signal": before}, {}, is_in))
    release = replace(release_of([[0.0]]), known={"signal": observed})
    scores = likelihood_ratio(targets_of(np.zeros((len(observed), 1))), release, reference, "signal")
    # Two normal laws one deviation apart, each person's own mean known but for the error of 16 shadows a side.
    expected = norm.cdf(1 / np.sqrt(2 * (1 + 1 / 32)))
    assert auc(scores[inside], scores[~inside]) == pytest.approx(expected, abs=0.02)
    # The signal itself is hidden by the persons' ease: Phi(1 / sqrt(2 (1 + 9))).
    assert auc(observed[inside], observed[~inside]) == pytest.approx(norm.cdf(1 / np.sqrt(20)), abs=0.03)


def test_relative_likelihood_finds_what_ease_hides(gaussian: tuple[NDArray, NDArray, NDArray, NDArray]) -> None:
    observed, inside, before, is_in = gaussian
    others = rng(11).normal(10, 1, (33, 50))
    shadows = Shadows({ERRORS: 20 - before}, {ERRORS: others[1:]}, is_in)
    release = replace(release_of([[0.0]], lambda asked: others[0]), known={ERRORS: 20 - observed})
    reference = replace(reference_of([[0.0]]), shadows=shadows)
    scores = relative_likelihood(targets_of(np.zeros((len(observed), 1))), release, reference)
    assert auc(scores[inside], scores[~inside]) == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.04)
    assert scores.min() >= -0.01
    assert scores.max() <= 1.01


@pytest.mark.parametrize("attack", ["likelihood-ratio", "likelihood-ratio-neighbour", "relative-likelihood"])
def test_attacks_with_shadows_say_that_there_are_too_few(attack: str) -> None:
    targets = targets_of([[0.0], [1.0]])
    for shadows in (None, Shadows({}, {}, np.ones((1, 2), bool))):
        with pytest.raises(DataError, match="too few shadows"):
            BY_NAME[attack].run(targets, release_of([[0.0]]), replace(reference_of([[0.0]]), shadows=shadows))


def test_the_discriminator_is_asked_as_it_is_and_is_nothing_where_there_is_none() -> None:
    targets = targets_of([[0.0], [1.0]])
    judged = replace(release_of([[0.0]]), judge=lambda asked: np.array([1.0, -1.0]))
    assert discriminator(targets, judged, reference_of([[0.0]])).tolist() == [1.0, -1.0]
    assert discriminator(targets, release_of([[0.0]]), reference_of([[0.0]])).tolist() == [0.0, 0.0]
    assert BY_NAME["discriminator"].threat_model == "warning"


def test_a_reference_under_attack_and_its_complement_are_no_shadows_of_their_own() -> None:
    found = ShadowFindings(
        {"a": np.arange(6.0)[:, None]}, np.arange(6.0)[:, None], np.array([[1], [0], [0], [1], [1], [0]], bool)
    )
    assert found.shadows(2).scores["a"].ravel().tolist() == [0, 1, 4, 5]
    assert found.shadows(3).of_others[ERRORS].ravel().tolist() == [0, 1, 4, 5]
    assert found.shadows().is_member.ravel().tolist() == [True, False, False, True, True, False]


def test_scores_do_not_depend_on_the_order_of_targets() -> None:
    audit = ToyAudit(World(20, copied=0.3, remembered=1.0), 2, 1)
    release = audit.release(audit.is_member)
    errors = release.reconstruct(audit.targets)
    known = dict(zip(audit.targets.subjects, errors, strict=True))
    fixed = replace(release, reconstruct=lambda asked: np.array([known.get(s, 0.0) for s in asked.subjects]))
    reference = replace(audit.reference, predict=lambda asked: np.zeros(len(asked)))
    turned = Targets(audit.targets.subjects[::-1], {level: views[::-1] for level, views in audit.targets.views.items()})
    forward = attack_release(audit.targets, fixed, reference)
    backward = attack_release(turned, fixed, reference)
    assert set(forward) == {a.name for a in ATTACKS if not a.needs_shadows and a.threat_model != "warning"} | {ERRORS}
    for name, scores in forward.items():
        # Distances are those of float32, whose sums depend on the order in the last places.
        np.testing.assert_allclose(backward[name][::-1], scores, rtol=1e-5, atol=1e-5, err_msg=name)


def test_every_attack_finds_a_memory_and_nothing_where_there_is_none() -> None:
    found: dict[str, dict[bool, list[float]]] = {}
    for leaks in (False, True):
        world = World(60, n_synthetic=72, copied=0.5 if leaks else 0.0, remembered=1.5 if leaks else 0.0)
        for seed in range(12):
            evidence = ToyAudit(world, 8, seed).evidence()
            for name, scores in evidence.target.items():
                value = auc(scores[evidence.is_member], scores[~evidence.is_member])
                found.setdefault(name, {False: [], True: []})[leaks].append(value)
    assert set(found) == {attack.name for attack in ATTACKS} - {"discriminator"}
    for name, values in found.items():
        # The null SD at 36 against 24 is .077; of a mean of twelve .022.
        assert np.mean(values[False]) == pytest.approx(0.5, abs=0.075), name
        # The classifier sees what synthetic scans have in common, and a memory of many persons is nothing in common.
        if name != "classifier":
            assert np.mean(values[True]) > 0.58, name


def test_all_records_together_tell_more_than_each_alone() -> None:
    """Four levels, each of members and others half a deviation apart: the sum is one deviation apart."""
    stream = rng(20)
    n, levels = 4000, ("scan", "texture", "tumor", "labels")
    inside = np.arange(n) < n // 2
    places = {level: 50 - 0.5 * inside + stream.normal(size=n) for level in levels}
    # Of unlike scale: no level may drown the others.
    scale = dict(zip(levels, (1.0, 100.0, 0.01, 10.0), strict=True))
    views = {
        level: np.repeat((scale[level] * x)[:, None, None], 2, axis=1).astype(np.float32) for level, x in places.items()
    }
    targets = Targets(tuple(f"t{i}" for i in range(n)), views)
    zero = {level: np.zeros((1, 1), np.float32) for level in levels}
    others = Targets(("o",), {level: np.zeros((1, 2, 1), np.float32) + 1e3 * scale[level] for level in levels})
    release = Release(zero, lambda asked: np.zeros(len(asked)))
    scores = patient_set(targets, release, Reference(others, lambda asked: np.zeros(len(asked)), 1))
    alone = nearest_neighbour(targets, release, Reference(others, lambda asked: np.zeros(len(asked)), 1), "tumor")
    assert auc(alone[inside], alone[~inside]) == pytest.approx(norm.cdf(0.5 / np.sqrt(2)), abs=0.02)
    assert auc(scores[inside], scores[~inside]) == pytest.approx(norm.cdf(1.0 / np.sqrt(2)), abs=0.02)


def test_scans_of_one_person_that_count_together_are_averaged(cohort: Cohort) -> None:
    a, b, c, d = cohort.cases[:4]
    subjects = [case.subject for case in (a, b, c, d)]
    found = by_person(np.array([1.0, 2.0, 3.0, 4.0]), subjects, [(a, d), (c, b)], takes_mean=True)
    assert found.tolist() == [2.5, 2.5]


def test_a_person_is_scored_by_the_most_telling_of_his_scans(cohort: Cohort) -> None:
    a, b, c, d = cohort.cases[:4]
    scores = np.array([[1.0, 2.0, 3.0, 4.0], [8.0, 7.0, 6.0, 5.0]])
    found = by_person(scores, [case.subject for case in (a, b, c, d)], [(a, d), (c, b)])
    assert found.tolist() == [[4.0, 3.0], [8.0, 7.0]]
