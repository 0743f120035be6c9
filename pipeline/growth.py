"""Tumour growth by reaction and diffusion (Fisher-KPP) on a tissue map.

Cell density u obeys ``du/dt = div(D grad u) + rho u (1 - u)``: cells move faster in white than in grey matter, and
neither enter cerebrospinal fluid nor leave the brain (no flux).

References
----------
Swanson, Alvord, Murray 2000, "A quantitative model for differential motility of gliomas in grey and white matter",
doi:10.1046/j.1365-2184.2000.00177.x.
Konukoglu et al. 2010, "Image guided personalization of reaction-diffusion type tumor growth models using modified
anisotropic eikonal equations", doi:10.1109/TMI.2009.2026413.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CaseError, ConfigError

Float32Array = NDArray[np.float32]
Spacing = tuple[float, float, float]
Window = tuple[slice, slice, slice]

STEPS_PER_WINDOW = 6
EMPTY_DENSITY = 1e-4
GREY, WHITE = 2, 3


@dataclass(frozen=True)
class GrowthLaw:
    """The parameters of growth; defaults are the high-grade glioma of Swanson et al. 2000.

    Parameters
    ----------
    white_mm2_per_day, grey_mm2_per_day : float
        Diffusivity in white and grey matter, >= 0, at least one of them positive.
    proliferation_per_day : float
        Rate rho, > 0.
    threshold : float
        Density from which a cell of the grid counts as tumour, in (0, 1).

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    white_mm2_per_day: float = 0.65
    grey_mm2_per_day: float = 0.13
    proliferation_per_day: float = 0.012
    threshold: float = 0.3

    def __post_init__(self) -> None:
        slower, faster = sorted((self.white_mm2_per_day, self.grey_mm2_per_day))
        if slower < 0 or faster <= 0 or self.proliferation_per_day <= 0 or not 0 < self.threshold < 1:
            raise ConfigError(
                f"growth law; expected diffusivities >= 0 (one > 0), proliferation > 0, threshold in (0, 1), got "
                f"{self}; correct the parameter that is out of range"
            )


def grow(
    tissue: NDArray[np.uint8], start: Float32Array, spacing_mm: Spacing, target_ml: float, law: GrowthLaw
) -> Float32Array:
    """Grow a tumour until it has a volume.

    Parameters
    ----------
    tissue : ndarray, (x, y, z), uint8
        2 grey matter, 3 white matter; all else (0 background, 1 CSF) is closed to cells.
    start : ndarray, (x, y, z), float32 in [0, 1]
        Density at the beginning; what lies outside grey and white matter is dropped.
    spacing_mm : tuple of float
        Edge lengths of a voxel.
    target_ml : float
        Volume of all voxels with at least the law's threshold at which growth stops, within a few voxels.
    law : GrowthLaw

    Returns
    -------
    ndarray, (x, y, z), float32 in [0, 1]
        Density, 0 outside grey and white matter. If the start is beyond the target already, the start.

    Raises
    ------
    CaseError
        If nothing of the start lies in tissue, or the tissue that it can reach is smaller than the target.
    """
    diffusivity = np.zeros(tissue.shape, np.float32)
    diffusivity[tissue == GREY] = law.grey_mm2_per_day
    diffusivity[tissue == WHITE] = law.white_mm2_per_day
    density = np.where(np.isin(tissue, (GREY, WHITE)), start, 0).astype(np.float32)
    if not density.max(initial=0.0) > EMPTY_DENSITY:
        raise CaseError("tumour start outside of the brain; expected grey or white matter, got none; move the start")
    fastest = max(law.white_mm2_per_day, law.grey_mm2_per_day)
    # Explicit Euler keeps to [0, 1] below this step: the diffused value is a mean of neighbours with weights >= 0.
    stable_days = 0.9 / (2.0 * fastest * sum(s**-2 for s in spacing_mm))
    step_days = min(stable_days, 0.25 / law.proliferation_per_day)
    exchange = [_face_exchange(diffusivity, axis, step_days / s**2) for axis, s in enumerate(spacing_mm)]
    target_voxels = target_ml * 1000.0 / float(np.prod(spacing_mm))
    previous_mass = 0.0
    while np.count_nonzero(density >= law.threshold) < target_voxels:
        window = _active_window(density)
        inside = density[window]
        faces = [_faces_inside(exchange[axis], window, axis) for axis in range(3)]
        for _ in range(STEPS_PER_WINDOW):
            before = inside.copy()
            _advance(inside, faces, np.float32(step_days * law.proliferation_per_day))
            if np.count_nonzero(inside >= law.threshold) >= target_voxels:
                inside[...] = _blend_to_volume(before, inside, target_voxels, law.threshold)
                return density
        mass = float(inside.sum())
        if mass < previous_mass * 1.0001:
            raise CaseError(
                f"tumour growth came to a halt; expected {target_ml:g} ml, got less; choose another start or a smaller "
                "tumour"
            )
        previous_mass = mass
    return density


def _face_exchange(diffusivity: Float32Array, axis: int, factor: float) -> Float32Array:
    """Return the share exchanged with the next voxel per step: harmonic mean, hence 0 at closed voxels."""
    along = np.moveaxis(diffusivity, axis, 0)
    lower, upper = along[:-1], along[1:]
    mean = 2.0 * lower * upper / np.maximum(lower + upper, 1e-12)
    return np.moveaxis(mean * np.float32(factor), 0, axis)


def _active_window(density: Float32Array) -> Window:
    """Return the box that cells can reach within the next steps: all else stays empty and costs nothing."""
    occupied = density > EMPTY_DENSITY
    slices = []
    for axis, n in enumerate(density.shape):
        others = tuple(other for other in range(3) if other != axis)
        indices = np.flatnonzero(occupied.any(axis=others))
        first, last = int(indices[0]), int(indices[-1])
        slices.append(slice(max(0, first - STEPS_PER_WINDOW), min(n, last + STEPS_PER_WINDOW + 1)))
    x, y, z = slices
    return x, y, z


def _faces_inside(faces: Float32Array, window: Window, axis: int) -> Float32Array:
    inner = list(window)
    inner[axis] = slice(window[axis].start, window[axis].stop - 1)
    return faces[tuple(inner)]


def _advance(density: Float32Array, faces: list[Float32Array], growth: np.float32) -> None:
    """Advance by one step in place: diffusion, then logistic growth."""
    change = np.zeros_like(density)
    for axis, exchange in enumerate(faces):
        flux = exchange * np.diff(density, axis=axis)
        along = np.moveaxis(change, axis, 0)
        along[:-1] += np.moveaxis(flux, axis, 0)
        along[1:] -= np.moveaxis(flux, axis, 0)
    density += change
    density += growth * density * (1 - density)
    np.clip(density, 0, 1, out=density)


def _blend_to_volume(before: Float32Array, after: Float32Array, target_voxels: float, threshold: float) -> Float32Array:
    """Return the mixture of two successive densities whose volume is nearest to the target from above."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        enough = np.count_nonzero(before + np.float32(middle) * (after - before) >= threshold) >= target_voxels
        low, high = (low, middle) if enough else (middle, high)
    return np.clip(before + np.float32(high) * (after - before), 0, 1)
