"""MR contrast: what each modality makes of tissue and tumour, and what the scanner adds.

Intensities are in arbitrary units with white matter in T1 at about 1; every subject's "scanner" moves each of them
within a range, then scales, shades (bias field), adds Rician noise and rounds to int16. Outside the brain all is 0.

References
----------
Gudbjartsson, Patz 1995, "The Rician distribution of noisy MRI data", doi:10.1002/mrm.1910340618.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.labels import MODALITIES, LabelScheme
from pipeline.phantom.anatomy import Anatomy
from pipeline.phantom.tumor import Tumor
from pipeline.warps import Float32Array, random_field

# Mean intensities: CSF, grey, white, necrotic core, oedema, enhancing.
INTENSITIES: dict[str, tuple[float, float, float, float, float, float]] = {
    "t1": (0.28, 0.68, 0.95, 0.45, 0.66, 0.66),
    "t1ce": (0.28, 0.70, 0.94, 0.40, 0.66, 1.45),
    "t2": (1.70, 0.88, 0.62, 1.50, 1.28, 1.02),
    "flair": (0.22, 0.80, 0.64, 0.85, 1.32, 1.10),
}
# Core without enhancement: solid, wet tumour rather than necrosis.
SOLID_CORE = {"t1": 0.56, "t1ce": 0.57, "t2": 1.38, "flair": 1.12}
# How much of the atlas's T1 detail (iron, myelin) shows.
DETAIL_GAIN = {"t1": 1.0, "t1ce": 1.0, "t2": -0.7, "flair": -0.5}
INTENSITY_SD = 0.05
NOISE_SD = (0.012, 0.035)
BIAS_SD = (0.03, 0.09)
GAIN = (350.0, 900.0)


@dataclass(frozen=True)
class Texture:
    """Random fields that all modalities of a subject share: tissue is uneven in the same places.

    Parameters
    ----------
    coarse, fine : ndarray, (x, y, z), float32
        Mean 0, standard deviation 1.
    vessels : ndarray, (x, y, z), float32 in [0, 1]
        Share of contrast agent in healthy vessels, dura and choroid plexus.
    """

    coarse: Float32Array
    fine: Float32Array
    vessels: Float32Array


def render_modalities(anatomy: Anatomy, tumor: Tumor, rng: np.random.Generator) -> dict[str, NDArray[np.int16]]:
    """Render a subject's images.

    Parameters
    ----------
    anatomy : Anatomy
    tumor : Tumor
    rng : numpy.random.Generator

    Returns
    -------
    dict of str to ndarray, (x, y, z), int16
        One image per modality; at least 1 in the brain and 0 outside.
    """
    texture = _draw_texture(anatomy, rng)
    fractions = _mix_fractions(anatomy, tumor)
    images = {}
    for modality in MODALITIES:
        signal = _render_signal(modality, anatomy, tumor, fractions, texture, rng)
        images[modality] = _acquire(signal, anatomy, rng)
    return images


def _draw_texture(anatomy: Anatomy, rng: np.random.Generator) -> Texture:
    x, y, z = anatomy.brain.shape
    shape, spacing = (x, y, z), anatomy.spacing_mm
    coarse_mm = max(5.0, 1.5 * max(spacing))
    coarse = random_field(shape, spacing, coarse_mm, rng)
    fine = random_field(shape, spacing, max(2.2, *spacing), rng)
    # Two random sheets cross in thin lines: vessels run along sulci and the surface.
    other = random_field(shape, spacing, coarse_mm, rng)
    tubes = np.exp(-(coarse**2 + other**2) / 0.035)
    superficial = np.clip(1.0 - anatomy.depth_mm / 18.0, 0, 1)
    csf = anatomy.fractions[0]
    sinus = np.exp(-((anatomy.template_mm[0] / 3.0) ** 2)) * (anatomy.depth_mm < 5) * (anatomy.template_mm[2] > 10)
    plexus = (anatomy.ventricles > 0.5) * np.clip(coarse - 0.9, 0, 1) * (anatomy.template_mm[1] < 0)
    vessels = np.clip(1.2 * tubes * superficial * (0.25 + csf) + 0.5 * sinus + plexus, 0, 1) * anatomy.brain
    return Texture(coarse, fine, vessels.astype(np.float32))


def _mix_fractions(anatomy: Anatomy, tumor: Tumor) -> Float32Array:
    """Return the share of each of six classes in each voxel, (6, x, y, z); the tumour has soft borders.

    Oedema is water between healthy fibres: the denser, the less shows through.
    """
    names = LabelScheme().tumor_values
    shares = np.zeros((6, *anatomy.brain.shape), np.float32)
    for position, name in enumerate(names, start=3):
        shares[position] = ndimage.gaussian_filter((tumor.labels == names[name]).astype(np.float32), 0.55)
    shares[4] *= np.clip(0.45 + 0.6 * tumor.density, 0, 1)
    shares[3:] *= anatomy.brain
    shares[:3] = anatomy.fractions * (1.0 - shares[3:].sum(axis=0))
    return shares


def _render_signal(
    modality: str,
    anatomy: Anatomy,
    tumor: Tumor,
    fractions: Float32Array,
    texture: Texture,
    rng: np.random.Generator,
) -> Float32Array:
    """Return the noiseless image: mixture of class intensities, detail, texture and vessels."""
    means = np.array(INTENSITIES[modality], np.float32)
    if not tumor.enhancing:
        means[3] = SOLID_CORE[modality]
    means *= np.clip(rng.normal(1.0, INTENSITY_SD, 6), 0.85, 1.15).astype(np.float32)
    signal = np.zeros(anatomy.brain.shape, np.float32)
    for share, mean in zip(fractions, means, strict=True):
        signal += share * mean
    healthy = fractions[:3].sum(axis=0)
    signal += np.float32(DETAIL_GAIN[modality]) * anatomy.detail * healthy
    lesion = fractions[3:].sum(axis=0)
    signal *= (
        1.0 + texture.fine * (0.012 * healthy + 0.05 * lesion) + texture.coarse * (0.015 * healthy + 0.09 * lesion)
    )
    if modality == "t1ce":
        enhancement = np.float32(rng.uniform(0.4, 1.0))
        signal += enhancement * texture.vessels * healthy * 0.8
        signal += 0.15 * texture.fine * fractions[5]
    if modality == "t2":
        # Flowing blood is dark.
        signal *= 1.0 - 0.3 * texture.vessels * healthy
    return signal


def _acquire(signal: Float32Array, anatomy: Anatomy, rng: np.random.Generator) -> NDArray[np.int16]:
    """Shade, add noise, scale and round."""
    shape = signal.shape
    x, y, z = shape
    bias = np.exp(np.float32(rng.uniform(*BIAS_SD)) * random_field((x, y, z), anatomy.spacing_mm, 45.0, rng))
    # Larger voxels collect more signal, but nobody scans so fast for it: less than in proportion.
    noise_sd = np.float32(rng.uniform(*NOISE_SD) * (2.0 / max(2.0, *anatomy.spacing_mm)))
    real = signal * bias + noise_sd * rng.standard_normal(shape, dtype=np.float32)
    imaginary = noise_sd * rng.standard_normal(shape, dtype=np.float32)
    magnitude = np.sqrt(real**2 + imaginary**2) * np.float32(rng.uniform(*GAIN))
    image = np.clip(np.rint(magnitude), 1, np.iinfo(np.int16).max)
    return np.where(anatomy.brain, image, 0).astype(np.int16)
