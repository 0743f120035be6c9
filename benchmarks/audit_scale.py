"""Seconds of the nearest-neighbour search over 1,000 patients and 10,000 cases, against scikit-learn's.

    python benchmarks/audit_scale.py [--plot FILE]

Ours: :func:`nearest_distances` on views both ways round. Theirs: ``NearestNeighbors`` (brute force, Euclidean), asked
twice, once for each way. Same records in turn, several times; the ratio is of the medians. Peak memory is that
of the process, views included. ``--plot`` draws seconds and memory against the number of cases. The last line is JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from pipeline.audit.attacks.nearest_neighbour import nearest_distances
from pipeline.audit.attacks.registry import attack_release
from pipeline.audit.targets import Reference, Release, Targets
from pipeline.audit.views import LEVELS

N_PATIENTS, N_CASES, N_OTHERS, DIMENSIONS, N_RUNS = 1000, 10_000, 30, 4800, 3
COUNTS = (1000, 2500, 5000, 10_000)


def records(n_cases: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return views of patients (n, 2, dimensions) and of cases (n_cases, dimensions)."""
    stream = np.random.default_rng(0)
    patients = stream.standard_normal((N_PATIENTS, 2, DIMENSIONS), dtype=np.float32)
    return patients, stream.standard_normal((n_cases, DIMENSIONS), dtype=np.float32)


def ours(patients: NDArray[np.float32], cases: NDArray[np.float32]) -> NDArray[np.float64]:
    """Search as the audit does."""
    return nearest_distances(patients, cases)


def theirs(patients: NDArray[np.float32], cases: NDArray[np.float32]) -> NDArray[np.float64]:
    """Search with scikit-learn."""
    neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(cases)
    found = [neighbours.kneighbors(patients[:, way])[0][:, 0] for way in range(2)]
    return np.min(found, axis=0)


def measure_alone(n_cases: int) -> None:
    """Search once with ours; print seconds and peak memory in MiB."""
    patients, cases = records(n_cases)
    started = time.perf_counter()
    ours(patients, cases)
    seconds = time.perf_counter() - started
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def attack_all_alone() -> None:
    """Make all attacks on released scans once, at full size; print seconds and peak memory in MiB."""
    stream = np.random.default_rng(0)

    def views(*shape: int) -> dict[str, NDArray[np.float32]]:
        return {level: stream.standard_normal((*shape, DIMENSIONS), dtype=np.float32) for level in LEVELS}

    targets = Targets(tuple(str(i) for i in range(N_PATIENTS)), views(N_PATIENTS, 2))
    others = Targets(tuple(str(i) for i in range(N_OTHERS)), views(N_OTHERS, 2))
    release = Release(views(N_CASES), lambda asked: np.zeros(len(asked)))
    started = time.perf_counter()
    attack_release(targets, release, Reference(others, lambda asked: np.zeros(len(asked)), 1))
    seconds = time.perf_counter() - started
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def run_alone(*arguments: str) -> list[float]:
    """Run this script in a process of its own; return what it printed."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True)
    found: list[float] = json.loads(done.stdout)
    return found


def plot(path: Path) -> list[list[float]]:
    """Draw seconds and memory of our search by the number of cases; return them."""
    found = [run_alone("--alone", str(n)) for n in COUNTS]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.plot(COUNTS, [seconds for seconds, _ in found], "o-", color="#0072B2")
    left.set(xlabel="synthetic cases", ylabel="seconds", title=f"nearest neighbour of {N_PATIENTS} patients")
    right.plot(COUNTS, [mib for _, mib in found], "s--", color="#D55E00")
    right.axhline(2048, color="#767676", linewidth=1)
    right.set(xlabel="synthetic cases", ylabel="peak memory, MiB", title="line: 2 GiB", ylim=(0, 2300))
    figure.savefig(path, dpi=120)
    return found


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--attacks", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        measure_alone(arguments.alone)
        return
    if arguments.attacks:
        attack_all_alone()
        return
    seconds_of_all, mib_of_all = run_alone("--attacks")
    # First: a child's peak begins at what its parent holds.
    by_cases = dict(zip(COUNTS, plot(arguments.plot), strict=True)) if arguments.plot else {}
    patients, cases = records(N_CASES)
    np.testing.assert_allclose(ours(patients, cases), theirs(patients, cases), rtol=1e-3)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(N_RUNS):
        for name, search in (("ours", ours), ("theirs", theirs)):
            started = time.perf_counter()
            search(patients, cases)
            seconds[name].append(time.perf_counter() - started)
    row: dict[str, object] = {
        "name": "audit_scale",
        "ratio": round(median(seconds["ours"]) / median(seconds["theirs"]), 3),
        "baseline": "scikit-learn NearestNeighbors, brute force",
        "patients": N_PATIENTS,
        "cases": N_CASES,
        "dimensions": DIMENSIONS,
        "runs": N_RUNS,
        "seconds_and_mib_by_cases": by_cases,
        "all_attacks_on_scans": {"seconds": round(seconds_of_all, 1), "mib": round(mib_of_all)},
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
