"""Coverage of the audit's intervals on scores whose curve is known: two normal laws at a chosen separation.

    python benchmarks/audit_coverage.py [--simulations 2000] [--out FILE]

For the AUC (bootstrap, BCa), the share of members found (Clopper-Pearson), the lower bound of epsilon and the paired
AUC: how often the 95 % interval holds the truth. One line of JSON for each; a share of 2,000 has a standard error of
.005.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import norm

from pipeline.audit.paired import paired_figure
from pipeline.audit.references import balanced_halves
from pipeline.statistics import auc_estimate, clopper_pearson, epsilon_lower_bound

SIDES = ((60, 40), (36, 24), (24, 24), (20, 20), (24, 10), (12, 12), (8, 3))
AUCS = (0.5, 0.6, 0.75, 0.9)
ALPHA, N_BOOTSTRAP = 0.05, 500


def auc_coverage(n: int, m: int, truth: float, n_simulations: int) -> float:
    """Return the share of simulations whose interval holds the AUC."""
    shift, hits = np.sqrt(2) * norm.ppf(truth), 0
    for seed in range(n_simulations):
        stream = np.random.default_rng((seed, n, m))
        low, high = auc_estimate(stream.normal(shift, 1, n), stream.normal(0, 1, m), N_BOOTSTRAP, ALPHA, stream).ci
        hits += low <= truth <= high
    return hits / n_simulations


def share_coverage(n: int, truth: float, n_simulations: int) -> float:
    """Return the share of simulations whose Clopper-Pearson interval holds the share."""
    counts = np.random.default_rng(n).binomial(n, truth, n_simulations)
    bounds = {int(count): clopper_pearson(int(count), n, ALPHA) for count in np.unique(counts)}
    return float(np.mean([bounds[int(c)][0] <= truth <= bounds[int(c)][1] for c in counts]))


def epsilon_validity(n: int, m: int, truth: float, n_simulations: int) -> float:
    """Return the share of simulations whose bound lies at or below the epsilon of the threshold that it uses."""
    shift, hits = np.sqrt(2) * norm.ppf(truth), 0
    for seed in range(n_simulations):
        stream = np.random.default_rng((seed, n, m, 1))
        member, nonmember = stream.normal(shift, 1, n), stream.normal(0, 1, m)
        lower, _ = epsilon_lower_bound(member, nonmember, ALPHA)
        threshold = np.sort(np.concatenate([member, nonmember]))[::-1][n]
        tpr, fpr = norm.sf(threshold - shift), norm.sf(threshold)
        hits += lower <= max(np.log(tpr / fpr), np.log((1 - fpr) / (1 - tpr))) + 1e-12
    return hits / n_simulations


def paired_coverage(n_persons: int, n_references: int, n_simulations: int) -> float:
    """Return the share of simulations whose paired interval holds .5 where nothing leaks."""
    hits = 0
    for seed in range(n_simulations):
        stream = np.random.default_rng((seed, n_persons, n_references))
        is_in = balanced_halves(["x"] * n_persons, n_references, stream)
        scores = stream.normal(size=is_in.shape) + stream.normal(0, 2, n_persons)
        low, high = paired_figure("attack", scores, is_in, N_BOOTSTRAP, ALPHA, stream).estimate.ci
        hits += low <= 0.5 <= high
    return hits / n_simulations


def main() -> None:
    """Simulate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = []

    def say(**row: object) -> None:
        lines.append(json.dumps(row))
        print(lines[-1], flush=True)

    for n, m in SIDES:
        coverage = {f"{truth:g}": auc_coverage(n, m, truth, arguments.simulations) for truth in AUCS}
        say(figure="auc", members=n, nonmembers=m, coverage=coverage)
    for n in (24, 60, 200):
        shares = {f"{truth:g}": share_coverage(n, truth, arguments.simulations) for truth in (0.01, 0.1, 0.5)}
        say(figure="share found", members=n, coverage=shares)
    for n, m in ((24, 24), (60, 40)):
        valid = {f"{truth:g}": epsilon_validity(n, m, truth, arguments.simulations) for truth in AUCS}
        say(figure="epsilon, lower bound", members=n, nonmembers=m, coverage=valid)
    for n_persons in (24, 50, 100):
        for n_references in (2, 8, 16):
            coverage_of_half = paired_coverage(n_persons, n_references, arguments.simulations // 4)
            say(figure="paired auc", persons=n_persons, references=n_references, coverage=coverage_of_half)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
