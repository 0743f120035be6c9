"""Registration by SimpleITK: where a point of one scan lies in another.

Everything is deterministic: fixed seeds, one thread, samples on a regular grid.

References
----------
Mattes et al. 2003, "PET-CT image registration in the chest using free-form deformations",
doi:10.1109/TMI.2003.809072 (mutual information). Lowekamp et al. 2013, "The design of SimpleITK",
doi:10.3389/fninf.2013.00045.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pipeline.errors import CaseError
from pipeline.resampling import as_transform, to_sitk, turn_lps
from pipeline.volumes import FloatArray, Volume

Freedom = Literal["rigid", "affine"]
Likeness = Literal["correlation", "mutual information"]
HISTOGRAM_BINS = 32
MAX_ITERATIONS = 200
FINEST_STEP_MM = 0.01
# Longer first steps throw an affine search out of its valley (tried: masks of .96 Dice became .6).
FIRST_STEP_MM = {"rigid": 2.0, "affine": 0.5}
# Voxels that likeness is measured on: a coarse image needs all of its own to fill a histogram, a fine one does not.
SAMPLES = 150_000
SEED = 20111
PYRAMID_MM = (8.0, 4.0, 2.0)


@dataclass(frozen=True)
class Alignment:
    """Where the points of one image lie in another.

    Parameters
    ----------
    matrix : ndarray, (4, 4), float64
        From world millimetres of the fixed image to world millimetres of the moving one, RAS+.
    likeness : float
        At the end of the search, higher is better; comparable between searches with the same settings only.
    """

    matrix: FloatArray
    likeness: float


def align(
    fixed: Volume,
    moving: Volume,
    freedom: Freedom,
    likeness: Likeness,
    start: FloatArray | None = None,
    fixed_mask: NDArray[np.bool_] | None = None,
    coarsest_mm: float = PYRAMID_MM[0],
    finest_mm: float = PYRAMID_MM[-1],
) -> Alignment:
    """Find where the points of one image lie in another.

    Parameters
    ----------
    fixed, moving : Volume
        Any grids, float.
    freedom : str
        ``rigid`` for one person's scans, ``affine`` for two persons'.
    likeness : str
        ``correlation`` within one modality, ``mutual information`` between two.
    start : ndarray, (4, 4), optional
        First guess; centres of the two fields of view on each other if not given.
    fixed_mask : ndarray, (x, y, z), bool, optional
        On the fixed grid: where likeness counts.
    coarsest_mm, finest_mm : float
        Resolution of the first and the last level; levels are :data:`PYRAMID_MM`.

    Returns
    -------
    Alignment

    Raises
    ------
    CaseError
        If the images do not overlap, or the search runs away.
    """
    fixed_image, moving_image = (to_sitk(Volume(v.array.astype(np.float32), v.affine)) for v in (fixed, moving))
    method = sitk.ImageRegistrationMethod()
    if likeness == "correlation":
        method.SetMetricAsCorrelation()
    else:
        method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    if fixed_mask is not None:
        method.SetMetricFixedMask(to_sitk(Volume(fixed_mask.astype(np.uint8), fixed.affine)))
    method.SetOptimizerAsRegularStepGradientDescent(FIRST_STEP_MM[freedom], FINEST_STEP_MM, MAX_ITERATIONS)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInterpolator(sitk.sitkLinear)
    levels = [size for size in PYRAMID_MM if coarsest_mm >= size >= finest_mm]
    native_mm = min(fixed.spacing_mm)
    shrinks = [max(1, round(size / native_mm)) for size in levels]
    method.SetShrinkFactorsPerLevel(shrinks)
    if likeness == "mutual information":
        method.SetMetricSamplingStrategy(method.REGULAR)
        shares = [min(1.0, SAMPLES * shrink**3 / fixed.array.size) for shrink in shrinks]
        method.SetMetricSamplingPercentagePerLevel(shares, SEED)
    method.SetSmoothingSigmasPerLevel([size / 2 if size > native_mm else 0.0 for size in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    transform = sitk.Euler3DTransform() if freedom == "rigid" else sitk.AffineTransform(3)
    geometry = sitk.CenteredTransformInitializerFilter.GEOMETRY
    # About the centre of the image: about a far origin, turning and shifting would be one and the same.
    other = moving_image if start is None else fixed_image
    transform = sitk.CenteredTransformInitializer(fixed_image, other, transform, geometry)
    if start is not None:
        method.SetMovingInitialTransform(as_transform(start))
    method.SetInitialTransform(transform, inPlace=False)
    try:
        found = _as_matrix(method.Execute(fixed_image, moving_image))
    except RuntimeError as error:
        raise CaseError("scans could not be registered; expected one head in both; check the series") from error
    matrix = turn_lps(found) if start is None else start @ turn_lps(found)
    return Alignment(matrix, -float(method.GetMetricValue()))


def _as_matrix(transform: sitk.Transform) -> FloatArray:
    """Return a linear transform as a matrix, (4, 4), in ITK's own world (LPS+)."""
    points = np.vstack([np.zeros(3), np.eye(3)])
    images = np.array([transform.TransformPoint(point.tolist()) for point in points])
    matrix = np.eye(4)
    matrix[:3, :3] = (images[1:] - images[0]).T
    matrix[:3, 3] = images[0]
    return matrix
