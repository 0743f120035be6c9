"""The phantom cohort: subjects as pure functions of seed and number, written as NIfTI or DICOM."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ConfigError
from pipeline.labels import MODALITIES, LabelScheme
from pipeline.phantom.anatomy import load_template, make_anatomy
from pipeline.phantom.contrast import render_modalities
from pipeline.phantom.tumor import grow_tumor, plan_tumor
from pipeline.volumes import Volume, save_volume

FORMATS = ("nifti", "dicom")
# BraTS skips 3.
BRATS_VALUES = {"necrotic_core": 1, "oedema": 2, "enhancing": 4}


@dataclass(frozen=True)
class PhantomSubject:
    """One subject: four images and the maps that they were made from, all on one grid.

    Parameters
    ----------
    images : dict of str to Volume
        Keys of :data:`pipeline.labels.MODALITIES`; int16, 0 outside the brain and positive inside.
    tumor : Volume
        uint8, values of :class:`pipeline.labels.LabelScheme`.
    tissue : Volume
        uint8: 1 CSF, 2 grey matter, 3 white matter; 0 outside and under the tumour.
    """

    images: dict[str, Volume]
    tumor: Volume
    tissue: Volume


def make_subject(index: int, seed: int, spacing_mm: float = 2.0) -> PhantomSubject:
    """Make a subject: a pure function of its arguments.

    Parameters
    ----------
    index : int
        Running number, >= 0.
    seed : int
        Seed of the cohort, >= 0.
    spacing_mm : float
        Isotropic, in [1, 6].

    Returns
    -------
    PhantomSubject

    Raises
    ------
    ConfigError
        If the spacing is out of its range.
    """
    if not 1.0 <= spacing_mm <= 6.0:
        raise ConfigError(f"phantom spacing; expected 1 to 6 mm, got {spacing_mm:g}; choose another spacing")
    rng = np.random.default_rng([seed, index])
    plan = plan_tumor(load_template(), rng)
    anatomy = make_anatomy(spacing_mm, plan.push, rng)
    tumor = grow_tumor(anatomy, plan, rng)
    images = render_modalities(anatomy, tumor, rng)
    tissue = np.where(tumor.labels > 0, 0, anatomy.tissue).astype(np.uint8)
    return PhantomSubject(
        images={modality: Volume(image, anatomy.affine) for modality, image in images.items()},
        tumor=Volume(tumor.labels, anatomy.affine),
        tissue=Volume(tissue, anatomy.affine),
    )


def write_subject(subject: PhantomSubject, index: int, out: Path, format: str) -> None:  # noqa: A002
    """Write one subject below a folder.

    Parameters
    ----------
    subject : PhantomSubject
    index : int
        Running number from 1, for names.
    out : Path
        NIfTI: ``Phantom_00001/Phantom_00001_{t1,t1ce,t2,flair,seg}.nii.gz``, seg with BraTS' values.
        DICOM: ``study00001/series01/IM0001.dcm`` and so on; only headers tell which series is what.
    format : str
        "nifti" or "dicom".

    Raises
    ------
    ConfigError
        If the format is unknown.
    """
    if format not in FORMATS:
        raise ConfigError(f"phantom format; expected {' or '.join(FORMATS)}, got {format}; correct `--format`")
    if format == "dicom":
        from pipeline.phantom.dicom import write_study  # noqa: PLC0415 highdicom is slow to import

        write_study(subject.images, subject.tumor, index, out / f"study{index:05d}")
        return
    name = f"Phantom_{index:05d}"
    for modality in MODALITIES:
        save_volume(subject.images[modality], out / name / f"{name}_{modality}.nii.gz")
    seg = np.zeros_like(subject.tumor.array)
    for class_name, value in LabelScheme().tumor_values.items():
        seg[subject.tumor.array == value] = BRATS_VALUES[class_name]
    save_volume(Volume(seg, subject.tumor.affine), out / name / f"{name}_seg.nii.gz")


def write_cohort(
    out: Path,
    n_cases: int,
    format: str,  # noqa: A002 the command line's word
    seed: int,
    spacing_mm: float,
    workers: int,
    on_case: Callable[[int], None] | None = None,
) -> None:
    """Make and write subjects 1 to ``n_cases``; what is written does not depend on the number of workers.

    Parameters
    ----------
    out : Path
        Folder to write to; made if missing.
    n_cases : int
    format : str
        "nifti" or "dicom".
    seed : int
    spacing_mm : float
    workers : int
        Processes; 1 works in this one.
    on_case : callable, optional
        Called with each subject's number once it is written, in any order.

    Raises
    ------
    ConfigError
        If there is nothing to write, the format is unknown or the spacing out of its range.
    """
    if n_cases < 1:
        raise ConfigError(f"number of phantoms; expected at least 1, got {n_cases}; correct `--cases`")
    if format not in FORMATS:
        raise ConfigError(f"phantom format; expected {' or '.join(FORMATS)}, got {format}; correct `--format`")
    indices = range(1, n_cases + 1)
    if workers <= 1:
        finished: Iterable[int] = (_make_and_write(index, out, format, seed, spacing_mm) for index in indices)
    else:
        from joblib import Parallel, delayed  # noqa: PLC0415

        pool = Parallel(n_jobs=min(workers, n_cases), return_as="generator_unordered")
        finished = pool(delayed(_make_and_write)(index, out, format, seed, spacing_mm) for index in indices)
    for index in finished:
        if on_case is not None:
            on_case(index)


def _make_and_write(index: int, out: Path, file_format: str, seed: int, spacing_mm: float) -> int:
    write_subject(make_subject(index, seed, spacing_mm), index, out, file_format)
    return index
