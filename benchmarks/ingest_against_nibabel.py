"""Seconds of ingest against seconds of reading .nii.gz and writing .nii of the same volumes with nibabel.

    python benchmarks/ingest_against_nibabel.py [FOLDER MANIFEST [N]]

Without arguments: a phantom at 1 mm. With them: the first N cases of a folder (1). Tissue classes, pictures, quality
figures and the leakage guard's description are timed apart; the ratio is of what remains: reading, checking, brain
mask, the way onto the grid, scaling, writing. A second ratio has all but tissue classes and pictures in it. Both sides
run in turn, in one process, several times; ratios are of the medians. The last line is JSON.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec, TypeVar

import nibabel as nib
import numpy as np

from pipeline.config import IngestSection
from pipeline.ingest import case as case_module
from pipeline.ingest import preprocess
from pipeline.ingest.case import IngestTask, ingest_case
from pipeline.ingest.discover import SourceCase, discover_nifti
from pipeline.ingest.manifest import Manifest, load_manifest
from pipeline.phantom.cohort import make_subject, write_subject

P, R = ParamSpec("P"), TypeVar("R")
N_CASES, N_RUNS = 1, 3
APART = {
    "tissue classes": (preprocess, "classify_tissue"),
    "picture": (case_module, "quality_picture"),
    "picture file": (case_module, "save_picture"),
    "quality figures": (case_module, "measure_quality"),
    "leakage guard": (case_module, "describe_anatomy"),
}


class Clock:
    """Adds up the seconds of some functions."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(APART, 0.0)

    def wrap(self, name: str, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function, its time added up."""

        def timed(*arguments: P.args, **options: P.kwargs) -> R:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return timed

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the functions of :data:`APART` in the ``with`` block."""
        before = {name: getattr(module, attribute) for name, (module, attribute) in APART.items()}
        for name, (module, attribute) in APART.items():
            setattr(module, attribute, self.wrap(name, before[name]))
        try:
            yield
        finally:
            for name, (module, attribute) in APART.items():
                setattr(module, attribute, before[name])


def copy_with_nibabel(case: SourceCase, out: Path) -> None:
    """Read each compressed file of a case and write it uncompressed."""
    for name, (path,) in case.files.items():
        image = nib.Nifti1Image.from_filename(path)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine), out / f"{name}.nii")


def measure(cases: list[SourceCase], manifest: Manifest) -> dict[str, Any]:
    """Time both sides in turn; return medians over runs, in seconds a case."""
    config = IngestSection()
    ours: list[float] = []
    theirs: list[float] = []
    apart: dict[str, list[float]] = {name: [] for name in APART}
    for run in range(N_RUNS + 1):
        with tempfile.TemporaryDirectory() as folder:
            clock = Clock()
            started = time.perf_counter()
            with clock.watching():
                for number, case in enumerate(cases):
                    outcome = ingest_case(IngestTask(case, f"{number:04d}", manifest, config, Path(folder, "ours")))
                    if outcome.reason:
                        raise SystemExit(f"case {number + 1} was quarantined: {outcome.reason}")
            whole = time.perf_counter() - started
            Path(folder, "theirs").mkdir()
            started = time.perf_counter()
            for case in cases:
                copy_with_nibabel(case, Path(folder, "theirs"))
            copied = time.perf_counter() - started
        if run == 0:
            continue  # imports and caches
        ours.append((whole - sum(clock.seconds.values())) / len(cases))
        theirs.append(copied / len(cases))
        for name, seconds in clock.seconds.items():
            apart[name].append(seconds / len(cases))
    return {
        "ours": median(ours),
        "theirs": median(theirs),
        "apart": {name: round(median(values) / median(theirs), 2) for name, values in apart.items()},
    }


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        n_cases = int(sys.argv[3]) if len(sys.argv) > 3 else N_CASES
        if len(sys.argv) > 2:
            source, manifest = Path(sys.argv[1]), load_manifest(sys.argv[2])
        else:
            source, manifest = Path(folder), load_manifest("phantom")
            for index in range(1, N_CASES + 1):
                write_subject(make_subject(index, 0, 1.0), index, source, "nifti")
        cases = discover_nifti(source, manifest)[:n_cases]
        found = measure(cases, manifest)
    sys.stdout.write(f"apart, in units of the baseline: {json.dumps(found['apart'])}\n")
    result = {
        "name": "ingest_against_nibabel",
        "ratio": round(found["ours"] / found["theirs"], 2),
        "ratio_with_quality_and_guard": round(
            found["ours"] / found["theirs"] + found["apart"]["quality figures"] + found["apart"]["leakage guard"], 2
        ),
        "baseline": "nibabel: read .nii.gz, write .nii of the same volumes",
        "runs": N_RUNS,
        "cases": len(cases),
        "apart": found["apart"],
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
