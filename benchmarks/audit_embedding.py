"""Which embedding sees a constructed copy best: the measured choice behind the audit's views.

    python benchmarks/audit_embedding.py RUN [--persons 24] [--out FILE]

RUN is a run folder whose ingest is done. Copies of its persons are constructed (shifted, turned, rescaled, noisy,
mirrored), two of each, with a seed that no audit uses. For each embedding: the share of copies that are liker their
original than 95 % of persons are like the nearest other person (recall at 5 % false alarms), and the share whose
nearest person is the original. One line of JSON for each embedding; figures that choose are no result about an audit.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.audit.setting import Setting
from pipeline.audit.views import LEVELS, view
from pipeline.cohort import Case, open_cohort
from pipeline.embedding import average_blocks, read_case, standardise_scan
from pipeline.labels import UInt8Array
from pipeline.near_duplicates import construct_copy
from pipeline.seeds import numpy_stream

SEED, N_COPIES = 987, 2
Scan = NDArray[np.float32]
Embed = Callable[[Scan, UInt8Array], NDArray[np.float32]]


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring a vector to length 1."""
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


def blocks(images: Scan, labels: UInt8Array, setting: Setting, block_mm: float) -> NDArray[np.float32]:
    """Average standardised intensities over blocks."""
    block = max(1, round(block_mm / setting.spacing_mm))
    return unit(np.stack([average_blocks(image, block) for image in standardise_scan(images, labels > 0)]).ravel())


def smoothed(images: Scan, labels: UInt8Array, setting: Setting, width_mm: float) -> NDArray[np.float32]:
    """Smooth standardised intensities, then average over blocks of the same width."""
    standard = standardise_scan(images, labels > 0)
    soft = [ndimage.gaussian_filter(image, width_mm / 2 / setting.spacing_mm) for image in standard]
    block = max(1, round(width_mm / setting.spacing_mm))
    return unit(np.stack([average_blocks(image, block) for image in soft]).ravel())


def of_level(images: Scan, labels: UInt8Array, setting: Setting, level: str) -> NDArray[np.float32]:
    """View as the audit does."""
    return view(level, images, labels > 0, labels, setting)


def measure(embed: Embed, cases: list[Case], setting: Setting) -> dict[str, float]:
    """Measure one embedding."""
    originals, copies = [], []
    for index, case in enumerate(cases):
        images, _ = read_case(case, setting.modalities)
        labels = case.condition(setting.scheme)
        originals.append([embed(images, labels), embed(images[:, ::-1], labels[::-1])])
        for draw in range(N_COPIES):
            stream = numpy_stream(SEED, index, draw)
            changed, moved = construct_copy(images, labels, setting.spacing_mm, stream)
            copies.append(embed(np.where(moved > 0, np.clip(changed, 0, None), 0).astype(np.float32), moved))
    persons = np.array(originals)
    honest = np.einsum("nd,mwd->nmw", persons[:, 0], persons).max(axis=2)
    np.fill_diagonal(honest, -1.0)
    alike = np.einsum("cd,mwd->cmw", np.array(copies), persons).max(axis=2)
    owner = np.repeat(np.arange(len(cases)), N_COPIES)
    own = alike[np.arange(len(owner)), owner]
    return {
        "recall": float((own > np.quantile(honest.max(axis=1), 0.95)).mean()),
        "identified": float((alike.argmax(axis=1) == owner).mean()),
        "gap": float(np.median(own) - np.median(honest.max(axis=1))),
        "dimensions": persons.shape[2],
    }


def main() -> None:
    """Measure every embedding on a run's cohort."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--persons", type=int, default=24)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cohort = open_cohort(arguments.run / "cohort")
    setting = Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, 1, 0)
    cases = [persons[0] for side in ("train", "val", "test") for persons in cohort.persons(side)][: arguments.persons]
    candidates: dict[str, Embed] = {}
    candidates |= {f"view {level}": partial(of_level, setting=setting, level=level) for level in LEVELS}
    candidates |= {f"blocks of {mm:g} mm": partial(blocks, setting=setting, block_mm=mm) for mm in (5, 10, 15, 20, 30)}
    candidates |= {f"smoothed {mm:g} mm": partial(smoothed, setting=setting, width_mm=mm) for mm in (10, 15, 20, 30)}
    lines = [json.dumps({"embedding": name, **measure(embed, cases, setting)}) for name, embed in candidates.items()]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
