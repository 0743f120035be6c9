"""Raw studies: phantoms with a skull, each modality on a grid and in a pose of its own, as scanners give them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.labels import UInt8Array
from pipeline.phantom.cohort import make_subject
from pipeline.resampling import resample, resample_labels
from pipeline.volumes import FloatArray, Grid, Volume, save_volume

# Spacing along x, y, z in mm: an isotropic scan and three stacks of thick slices, one of them sagittal.
SPACINGS = {"t1": (1.5, 1.5, 1.5), "t1ce": (1.5, 1.5, 1.5), "t2": (1.2, 1.2, 3.0), "flair": (3.0, 1.4, 1.4)}
SCALP = {"t1": 1.3, "t1ce": 1.4, "t2": 0.9, "flair": 0.7}


@dataclass(frozen=True)
class RawStudy:
    """A study as acquired, with what is known of it.

    Parameters
    ----------
    images : dict of str to Volume
        float32, skull on, each on its own grid in its own world.
    tumor : Volume
        uint8, drawn on t1ce.
    true_tumor : Volume
        uint8, in the world of t1, where it was grown.
    brain : Volume
        bool, in the world of t1.
    to_modality : dict of str to ndarray, (4, 4)
        From the world of t1 to that of each modality.
    """

    images: dict[str, Volume]
    tumor: Volume
    true_tumor: Volume
    brain: Volume
    to_modality: dict[str, FloatArray]


def make_raw_study(index: int, degrees: float = 6.0, shift_mm: float = 6.0) -> RawStudy:
    """Make a study; ``degrees`` and ``shift_mm`` bound the motion between its scans."""
    stream = np.random.default_rng([77, index])
    subject = make_subject(index, 0, 2.0)
    head_motion = _random_rigid(stream, 12.0, 15.0)
    truth = subject.images["t1"]
    brain_array = (subject.tissue.array > 0) | (subject.tumor.array > 0)
    images, to_modality = {}, {}
    for name, volume in subject.images.items():
        head = add_skull(volume.array.astype(np.float32), brain_array, SCALP[name], stream)
        motion = np.eye(4) if name == "t1" else _random_rigid(stream, degrees, shift_mm)
        to_modality[name] = motion
        moved = Volume(head[0], motion @ head_motion @ _padded(volume.affine, head[1]))
        images[name] = sample(moved, SPACINGS[name])
    drawn = Volume(subject.tumor.array, to_modality["t1ce"] @ head_motion @ subject.tumor.affine)
    tumor = label_on(drawn, images["t1ce"])
    true_tumor = Volume(subject.tumor.array, head_motion @ subject.tumor.affine)
    return RawStudy(images, tumor, true_tumor, Volume(brain_array, head_motion @ truth.affine), to_modality)


RAW_MANIFEST = """
name: raw
license: none
citation: none
format: nifti
subject: 'head\\d+'
images: {t1: "{subject}/t1.nii", t1ce: "{subject}/t1ce.nii", t2: "{subject}/t2.nii", flair: "{subject}/flair.nii"}
tumor: "{subject}/tumor.nii"
tumor_on: t1ce
labels: {necrotic_core: 1, oedema: 2, enhancing: 3}
"""


def write_raw_study(study: RawStudy, folder: Path) -> Path:
    """Write a study as NIfTI files under ``head1``; return the manifest that reads it."""
    for name, volume in study.images.items():
        save_volume(volume, folder / "head1" / f"{name}.nii")
    save_volume(study.tumor, folder / "head1" / "tumor.nii")
    manifest = folder / "raw.yaml"
    manifest.write_text(RAW_MANIFEST)
    return manifest


def add_skull(
    image: NDArray[np.float32], brain: NDArray[np.bool_], scalp: float, stream: np.random.Generator
) -> tuple[NDArray[np.float32], int]:
    """Surround a brain by fluid, bone, marrow and scalp; return the head and the margin added on each side."""
    margin = 24
    padded = np.pad(image, margin)
    inside = np.pad(brain, margin)
    inside = ndimage.binary_fill_holes(ndimage.binary_closing(inside, iterations=4))
    depth_mm = ndimage.distance_transform_edt(~inside) * 2.0
    depth_mm += 1.5 * ndimage.gaussian_filter(stream.standard_normal(padded.shape), 5) / 0.05
    white = float(np.percentile(image[brain], 85))
    head = padded.copy()
    outside = ~inside
    head[outside & (depth_mm < 3)] = 0.25 * white
    head[outside & (depth_mm >= 3) & (depth_mm < 9)] = 0.05 * white
    head[outside & (depth_mm >= 5) & (depth_mm < 7)] = 0.5 * white
    head[outside & (depth_mm >= 9) & (depth_mm < 16)] = scalp * white
    soft = face_and_neck(inside) & outside & (depth_mm >= 7)
    texture = 1.0 + 6.0 * ndimage.gaussian_filter(stream.standard_normal(padded.shape), 2.5)
    head[soft] = (0.55 * white * np.clip(texture, 0.2, 1.8))[soft]
    noise = np.abs(stream.normal(0, 0.015 * white, head.shape))
    return (head + noise).astype(np.float32), margin


def face_and_neck(brain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return an ellipsoid of face below and before the brain, and a cylinder of neck below it; axes along R, A, S."""
    x, y, z = np.indices(brain.shape).astype(np.float32)
    cells = np.argwhere(brain)
    (mx, my, _), (_, front, _), low = cells.mean(axis=0), cells.max(axis=0), cells.min(axis=0)
    size = np.ptp(cells, axis=0)
    face = (
        ((x - mx) / (0.42 * size[0])) ** 2
        + ((y - front + 0.28 * size[1]) / (0.33 * size[1])) ** 2
        + ((z - low[2] - 0.05 * size[2]) / (0.45 * size[2])) ** 2
    ) < 1
    neck = (((x - mx) / (0.36 * size[0])) ** 2 + ((y - my) / (0.3 * size[1])) ** 2 < 1) & (z < low[2] + 0.15 * size[2])
    return face | neck


def sample(volume: Volume, spacing_mm: tuple[float, float, float]) -> Volume:
    """Acquire a volume with voxels of a size of their own, the slices along any axis."""
    fine = min(spacing_mm)
    centre = volume.affine @ [*((np.array(volume.array.shape) - 1) / 2), 1.0]
    grid = Grid((int(240 / fine),) * 3, fine, (float(centre[0]), float(centre[1]), float(centre[2])))
    image = resample(volume, grid)
    steps = [round(s / fine) for s in spacing_mm]
    blocks = [n // s for n, s in zip(grid.shape, steps, strict=True)]
    cut = image.array[tuple(slice(0, b * s) for b, s in zip(blocks, steps, strict=True))]
    a, b, c = blocks
    thick = cut.reshape(a, steps[0], b, steps[1], c, steps[2]).mean(axis=(1, 3, 5))
    affine = image.affine @ np.diag([*steps, 1.0])
    affine[:3, 3] = (image.affine @ [*((np.array(steps) - 1) / 2), 1.0])[:3]
    return Volume(thick.astype(np.float32), affine)


def label_on(tumor: Volume, image: Volume) -> Volume:
    """Draw a tumour map on the grid of an image (isotropic)."""
    shape = image.array.shape
    centre = image.affine @ [*((np.array(shape) - 1) / 2), 1.0]
    grid = Grid(
        (shape[0], shape[1], shape[2]), image.spacing_mm[0], (float(centre[0]), float(centre[1]), float(centre[2]))
    )
    array: UInt8Array = resample_labels(tumor, grid, 4).array
    return Volume(array, image.affine)


def _padded(affine: FloatArray, margin: int) -> FloatArray:
    moved = affine.copy()
    moved[:3, 3] = (affine @ [-margin, -margin, -margin, 1.0])[:3]
    return moved


def _random_rigid(stream: np.random.Generator, degrees: float, shift_mm: float) -> FloatArray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", stream.uniform(-degrees, degrees, 3), degrees=True).as_matrix()
    matrix[:3, 3] = stream.uniform(-shift_mm, shift_mm, 3)
    return matrix
