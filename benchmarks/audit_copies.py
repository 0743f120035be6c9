"""Which copies the search for copies sees, by what was done to them; and how often an honest cohort is called leaking.

    python benchmarks/audit_copies.py RUN [--members 12] [--shuffles 2000] [--seed 11] [--out FILE]

RUN is a run folder whose generate stage is done. The threshold is fixed as an audit of the run fixes it; copies of
members are then made by one transformation at a time, with a seed that no audit uses: one line of JSON for each, with
how many of the members are found on each level. Pasted tumours are turned and scaled, and stretched too as
`recombine` does with label maps, and put into another person's brain. The last line holds the thresholds, seconds, what
an exact copy of one member among the released cases does, and how often members dealt out at random among the persons
are called copied.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.audit.constructions import move
from pipeline.audit.copies import LEVELS, CopySearch, judge_copies
from pipeline.audit.copy_search import search_copies
from pipeline.audit.gallery import Gallery
from pipeline.audit.portraits import coarsen, draw_case, draw_portrait, read_scan_and_labels
from pipeline.audit.setting import Setting
from pipeline.cohort import Case, open_cohort
from pipeline.generate.recombine import random_turn
from pipeline.seeds import numpy_stream
from pipeline.warps import random_warp

NOISE_SD = 20.0
Images = NDArray[np.float32]
Labels = NDArray[np.uint8]
Scan = tuple[Images, Labels]
Stream = np.random.Generator
# (scan, another person's scan, spacing in mm, stream) to a copy of the first.
Change = Callable[[Scan, Scan, float, Stream], Scan]


def unit(stream: Stream) -> NDArray[np.float64]:
    """Draw a direction."""
    vector = stream.normal(size=3)
    direction: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return direction


def turned(degrees: float) -> Change:
    """Turn about a random axis."""

    def change(scan: Scan, _: Scan, __: float, stream: Stream) -> Scan:
        turn = Rotation.from_rotvec(np.deg2rad(degrees) * unit(stream)).as_matrix()
        return move(*scan, turn, np.zeros(3))

    return change


def moved(matrix: NDArray[np.float64], shift_mm: float = 0.0) -> Change:
    """Move by a matrix, and shift into a random direction."""
    return lambda scan, _, spacing_mm, stream: move(*scan, matrix, shift_mm / spacing_mm * unit(stream))


def recoloured(change: Callable[[Images], Images]) -> Change:
    """Change intensities within the brain."""
    return lambda scan, *_: (change(scan[0]), scan[1])


def with_one_modality(kept: int) -> Change:
    """Copy one modality; the others are another person's, of the same place."""

    def change(scan: Scan, other: Scan, _: float, __: Stream) -> Scan:
        mixed = other[0].copy()
        mixed[kept] = scan[0][kept]
        return mixed, scan[1]

    return change


def in_the_guise_of_another(scan: Scan, _: Scan, __: float, ___: Stream) -> Scan:
    """Give each modality out for another."""
    return np.roll(scan[0], 1, axis=0), scan[1]


def pasted(n_tissues: int, is_stretched: bool) -> Change:
    """Put a turned, scaled, maybe stretched tumour with its intensities into another person's brain."""

    def change(scan: Scan, other: Scan, _: float, stream: Stream) -> Scan:
        turn = random_turn(stream) if is_stretched else random_spin(stream)
        matrix = turn / stream.uniform(0.8, 1.5)
        centre = np.argwhere(scan[1] > n_tissues).mean(axis=0)
        target = np.argwhere(other[1] > n_tissues).mean(axis=0)
        offset = centre - matrix @ target
        images = np.stack([ndimage.affine_transform(image, matrix, offset, order=1) for image in scan[0]])
        labels = ndimage.affine_transform(scan[1], matrix, offset, order=0)
        is_tumor = (labels > n_tissues) & (other[1] > 0)
        # What was the other's tumour is tissue of no kind, of its mean brightness.
        own = np.where(other[1] > n_tissues, 3, other[1])
        rest = np.stack([np.where(other[1] > n_tissues, image[own > 0].mean(), image) for image in other[0]])
        return np.where(is_tumor, images, rest), np.where(is_tumor, labels, own).astype(np.uint8)

    return change


def random_spin(stream: Stream) -> NDArray[np.float64]:
    """Draw a turn about the z axis."""
    turn: NDArray[np.float64] = Rotation.from_euler("z", stream.uniform(0, 360), degrees=True).as_matrix()
    return turn


def deformed(amplitude_mm: float) -> Change:
    """Bend the head by some millimetres, root mean square, over 30 mm."""

    def change(scan: Scan, _: Scan, spacing_mm: float, stream: Stream) -> Scan:
        x, y, z = scan[1].shape
        warp = random_warp((x, y, z), (spacing_mm,) * 3, amplitude_mm, 30.0, stream)
        places = np.indices(scan[1].shape) + warp / spacing_mm
        images = np.stack([ndimage.map_coordinates(image, places, order=1) for image in scan[0]])
        return images, ndimage.map_coordinates(scan[1], places, order=0)

    return change


def quarter(axis: str) -> Change:
    """Turn by 90 degrees about an axis of the grid."""
    return moved(np.rint(Rotation.from_euler(axis, 90, degrees=True).as_matrix()))


def changes(n_modalities: int, n_tissues: int) -> dict[str, Change]:
    """Return what is done to copies, by its name."""
    mirrors = {"left-right": (-1.0, 1.0, 1.0), "front-back": (1.0, -1.0, 1.0), "up-down": (1.0, 1.0, -1.0)}
    kinds: dict[str, Change] = {"exact": moved(np.eye(3))}
    kinds |= {f"rotation {degrees}": turned(degrees) for degrees in (10, 15, 20, 30, 45)}
    kinds |= {f"rotation 90 about {axis}": quarter(axis) for axis in "xyz"}
    kinds |= {f"{name} flip": moved(np.diag(signs)) for name, signs in mirrors.items()}
    kinds |= {f"shift {mm} mm": moved(np.eye(3), mm) for mm in (15, 20)}
    kinds |= {f"scale {scale}": moved(np.eye(3) / scale) for scale in (0.7, 0.8, 1.2, 1.4)}
    kinds |= {
        "negative contrast": recoloured(lambda images: 1000 - images),
        "gamma 2": recoloured(lambda images: 1000 * (images / 1000) ** 2),
        "one modality": with_one_modality(n_modalities - 1),
        "modalities in each other's guise": in_the_guise_of_another,
        "deformed by 2 mm": deformed(2.0),
        "deformed by 6 mm": deformed(6.0),
        "tumour pasted": pasted(n_tissues, is_stretched=False),
        "tumour pasted and stretched": pasted(n_tissues, is_stretched=True),
    }
    return kinds


def find(
    change: Change, gallery: Gallery, members: list[tuple[int, Case, Case]], setting: Setting, lines: dict[str, float]
) -> dict[str, int]:
    """Return how many members' copies are found, by level; members are place in the gallery, case, another's case."""
    found = dict.fromkeys(LEVELS, 0)
    for number, (place, case, other) in enumerate(members):
        stream = numpy_stream(987, number)
        scan, strange = (coarsen(*read_scan_and_labels(one, setting), setting.spacing_mm) for one in (case, other))
        images, labels = change(scan[:2], strange[:2], scan[2], stream)
        noisy = np.clip(images + stream.normal(0, NOISE_SD, images.shape), 0, None)
        inside = np.where(labels > 0, noisy, 0).astype(np.float32)
        likeness = gallery.likeness(draw_portrait(inside, labels, setting.scheme))
        for level in LEVELS:
            found[level] += int(likeness[level][place] >= lines[level])
    return found


def called_leaking(search: CopySearch, level: str, n_shuffles: int, stream: Stream) -> dict[str, float]:
    """Return how often random members have copies, and an excess of near-duplicates at .05."""
    outcomes = [
        judge_copies(replace(search, is_member=stream.permutation(search.is_member)), level) for _ in range(n_shuffles)
    ]
    return {
        "copies": float(np.mean([one.n_copies > 0 for one in outcomes])),
        "near_duplicates": float(np.mean([one.n_near_duplicates > 0 for one in outcomes])),
        "excess": float(np.mean([one.excess_p < 0.05 for one in outcomes])),
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--members", type=int, default=12)
    parser.add_argument("--shuffles", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cohort, released = open_cohort(arguments.run / "cohort"), open_cohort(arguments.run / "synthetic").cases
    setting = Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, 1, 0)
    persons = (*cohort.persons("train"), *cohort.persons("test"))
    is_member = np.arange(len(persons)) < len(cohort.persons("train"))
    val = cohort.patients("val")
    started = time.perf_counter()
    search = search_copies(persons, is_member, val, released, setting, arguments.seed)
    found = {level: judge_copies(search, level) for level in LEVELS}
    seconds = time.perf_counter() - started
    cases = [*(case for scans in persons for case in scans), *val]
    gallery = Gallery([draw_case(case, setting) for case in cases])
    lines = {level: one.threshold for level, one in found.items()}
    members = [
        (cases.index(scans[0]), scans[0], persons[-1 - number][0])
        for number, scans in enumerate(persons[: arguments.members])
    ]
    rows: list[dict[str, Any]] = []
    for name, change in changes(len(cohort.modalities), 3).items():
        rows.append({"transformation": name, "n": len(members), **find(change, gallery, members, setting, lines)})
        print(json.dumps(rows[-1]), flush=True)
    planted = [*released, members[0][1]]
    with_copy = search_copies(persons, is_member, val, planted, setting, arguments.seed)
    summary: dict[str, Any] = {"name": "audit_copies", "persons": len(persons), "released": len(released)}
    summary |= {"seconds": round(seconds, 1)}
    for level, one in found.items():
        stream = numpy_stream(arguments.seed, "shuffle", level)
        summary[level] = {
            "threshold": round(one.threshold, 3),
            "copy_line": round(one.copy_line, 3),
            "highest_of_released": round(float(search.released[level].max()), 3),
            "persons_found": one.n_found,
            "persons_alarmed": one.n_alarmed,
            "honest_pairs": one.n_honest_pairs,
            "near_duplicates": one.n_near_duplicates,
            "copies": one.n_copies,
            "copies_with_one_planted": judge_copies(with_copy, level).n_copies,
            "dar_share": round(one.dar_share, 2),
            "random_members": called_leaking(search, level, arguments.shuffles, stream),
        }
    rows.append(summary)
    print(json.dumps(summary))
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
