"""Quality figures of a case: brain mask, tumour map and fields of view."""

import numpy as np
import pytest
from conftest import rng, toy_brain
from numpy.typing import NDArray

from pipeline.ingest.quality import asymmetry, cut_share, flat_share, measure_quality


def ball(radius: float = 16.0, n: int = 40) -> NDArray[np.bool_]:
    x, y, z = np.indices((n, n, n)) - (n - 1) / 2
    return x**2 + y**2 + z**2 < radius**2


def test_a_case_has_its_own_figures_and_those_of_each_scan() -> None:
    images, tissue, tumor = toy_brain((36, 40, 34), rng())
    scans = {name: images[name] for name in ("t1", "flair")}
    reached = {name: np.ones(tissue.shape, bool) for name in scans}
    figures = measure_quality(scans, reached, (tissue > 0) | (tumor > 0), tumor, 5.0)
    of_case = {"brain_ml", "tumor_ml", "tumor_outside_brain", "cut_share", "flat_share", "asymmetry"}
    of_scan = {"coverage", "low", "high", "snr", "contrast", "motion", "blur", "slice_jumps"}
    assert set(figures) == of_case | {f"{name}_{figure}" for name in scans for figure in of_scan}
    assert all(type(value) is float and np.isfinite(value) for value in figures.values())


def test_volumes_are_in_millilitres_and_the_tumour_outside_is_a_share() -> None:
    brain, tumor = np.zeros((10, 10, 10), bool), np.zeros((10, 10, 10), np.uint8)
    brain[2:8, 2:8, 2:8] = True
    tumor[6:10, 4, 4] = 2
    figures = measure_quality({}, {"t1": np.ones(brain.shape, bool)}, brain, tumor, 5.0)
    assert figures["brain_ml"] == pytest.approx(216 * 0.125)
    assert figures["tumor_ml"] == pytest.approx(4 * 0.125)
    assert figures["tumor_outside_brain"] == pytest.approx(2 / 4)


def test_without_tumour_nothing_lies_outside() -> None:
    brain = ball(4, 12)
    figures = measure_quality({}, {"t1": np.ones(brain.shape, bool)}, brain, np.zeros(brain.shape, np.uint8), 5.0)
    assert figures["tumor_outside_brain"] == 0


def test_a_brain_cut_on_one_side_of_a_cube_is_cut_on_a_sixth_of_its_surface() -> None:
    brain, reached = np.zeros((8, 8, 8), bool), np.ones((8, 8, 8), bool)
    brain[2:6, 2:6, 2:6] = True
    assert cut_share(brain, reached) == 0
    reached[:, :, 6:] = False
    assert cut_share(brain, reached) == pytest.approx(1 / 6)


def test_a_brain_at_the_border_of_the_grid_is_cut_there() -> None:
    brain = np.zeros((8, 8, 8), bool)
    brain[:4, 2:6, 2:6] = True
    assert cut_share(brain, np.ones(brain.shape, bool)) == pytest.approx(1 / 6)


def test_any_scan_that_ends_early_cuts_the_brain() -> None:
    brain = ball()
    reached = {"t1": np.ones(brain.shape, bool), "t2": np.ones(brain.shape, bool)}
    reached["t2"][:, :, 30:] = False
    brain[:, :, 30:] = False
    figures = measure_quality({}, reached, brain, np.zeros(brain.shape, np.uint8), 5.0)
    assert figures["cut_share"] > 0.05


def test_a_ball_is_not_flat_and_a_cut_ball_is_in_any_direction() -> None:
    x, y, z = np.indices((40, 40, 40)) - 19.5
    assert flat_share(ball()) < 0.01
    for distance in (z, y, (x + y + 2 * z) / np.sqrt(6)):
        assert flat_share(ball() & (distance < 12)) > 0.03


def test_a_deeper_cut_is_flatter() -> None:
    z = np.indices((40, 40, 40))[2] - 19.5
    shares = [flat_share(ball() & (z < depth)) for depth in (15, 13, 10, 6)]
    assert shares == sorted(shares)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 5)])
def test_a_brain_without_volume_is_flat(shape: tuple[int, int, int]) -> None:
    assert flat_share(np.ones(shape, bool)) == 1


def test_asymmetry_is_what_has_no_counterpart() -> None:
    assert asymmetry(ball()) == 0
    assert asymmetry(np.array([[[1, 1]], [[1, 0]]], bool)) == pytest.approx(1 / 3)
