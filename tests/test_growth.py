"""Growth: volume reached, tissue respected, faster in white matter."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import CaseError, ConfigError
from pipeline.growth import GrowthLaw, grow

SPACING = (2.0, 2.0, 2.0)
LAW = GrowthLaw(white_mm2_per_day=0.6, grey_mm2_per_day=0.06, proliferation_per_day=0.06)


def half_white_half_grey() -> NDArray[np.uint8]:
    tissue = np.zeros((44, 40, 40), np.uint8)
    tissue[2:22, 2:38, 2:38] = 3
    tissue[22:42, 2:38, 2:38] = 2
    return tissue


def start_at(shape: tuple[int, ...], *voxel: int) -> NDArray[np.float32]:
    start = np.zeros(shape, np.float32)
    start[voxel] = 1.0
    return start


@pytest.mark.parametrize("target_ml", [1.0, 8.0])
def test_growth_stops_at_the_target_volume(target_ml: float) -> None:
    tissue = half_white_half_grey()
    density = grow(tissue, start_at(tissue.shape, 20, 20, 20), SPACING, target_ml, LAW)
    assert density.dtype == np.float32
    assert 0 <= density.min() <= density.max() <= 1
    assert np.count_nonzero(density >= LAW.threshold) * 0.008 == pytest.approx(target_ml, rel=0.05)


def test_growth_is_faster_in_white_matter() -> None:
    tissue = half_white_half_grey()
    density = grow(tissue, start_at(tissue.shape, 21, 20, 20), SPACING, 8.0, LAW)
    tumor = density >= LAW.threshold
    assert tumor[tissue == 3].sum() > 2 * tumor[tissue == 2].sum()


def test_growth_does_not_cross_fluid_nor_leave_the_brain() -> None:
    tissue = half_white_half_grey()
    tissue[:, 24, :] = 1
    density = grow(tissue, start_at(tissue.shape, 20, 20, 20), SPACING, 20.0, LAW)
    assert not density[:, 24:, :].any()
    assert not density[tissue < 2].any()


def test_growth_beyond_the_reachable_tissue_is_refused() -> None:
    tissue = half_white_half_grey()
    with pytest.raises(CaseError, match="came to a halt"):
        grow(tissue[:12, :12, :12], start_at((12, 12, 12), 6, 6, 6), SPACING, 50.0, LAW)


def test_start_outside_of_tissue_is_refused() -> None:
    tissue = half_white_half_grey()
    with pytest.raises(CaseError, match="outside of the brain"):
        grow(tissue, start_at(tissue.shape, 0, 0, 0), SPACING, 1.0, LAW)


def test_start_beyond_the_target_comes_back_as_it_is() -> None:
    tissue = half_white_half_grey()
    start = (tissue == 3).astype(np.float32)
    np.testing.assert_array_equal(grow(tissue, start, SPACING, 1.0, LAW), start)


@pytest.mark.parametrize(
    "wrong",
    [
        {"white_mm2_per_day": -1.0},
        {"white_mm2_per_day": 0.0, "grey_mm2_per_day": 0.0},
        {"proliferation_per_day": 0.0},
        {"threshold": 1.0},
    ],
)
def test_laws_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="growth law"):
        GrowthLaw(**wrong)
