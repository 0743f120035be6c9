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
from numpy.typing import NDArray
from scipy.stats import norm

from pipeline.audit.dealing import balanced_halves
from pipeline.audit.paired import paired_figure
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


def paired_scores(
    n_persons: int, n_references: int, leak: float, unlike: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores of persons by references, and who is in: (references, persons).

    Persons and generators differ; who is in scores higher by ``leak``, by more or less in pairs of generators that are
    ``unlike``, and more so persons who are easily remembered.
    """
    stream = np.random.default_rng((seed, n_persons, n_references))
    is_in = balanced_halves(["x"] * n_persons, n_references, stream)
    scores = stream.normal(size=is_in.shape) + stream.normal(0, 2, n_persons)
    scores += stream.normal(size=(n_references, 1)) * stream.normal(size=n_persons)
    of_pair = np.repeat(leak + unlike * stream.normal(size=n_references // 2), 2)
    return scores + of_pair[:, None] * np.abs(stream.normal(1, 0.5, n_persons)) * is_in, is_in


def paired_coverage(n_persons: int, n_references: int, leak: float, unlike: float, n_simulations: int) -> float:
    """Return the share of simulations whose paired interval holds the AUC, which is their mean (.5 without a leak)."""
    figures = [
        paired_figure("attack", *paired_scores(n_persons, n_references, leak, unlike, seed), ALPHA).estimate
        for seed in range(n_simulations)
    ]
    truth = 0.5 if leak == unlike == 0 else float(np.mean([figure.value for figure in figures]))
    return float(np.mean([figure.ci[0] <= truth <= figure.ci[1] for figure in figures]))


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
            leaks = {"none": (0.0, 0.0), "alike": (0.5, 0.0), "unlike by pair": (0.5, 0.4)}
            held = {
                name: paired_coverage(n_persons, n_references, *leak, arguments.simulations)
                for name, leak in leaks.items()
            }
            say(figure="paired auc", persons=n_persons, references=n_references, coverage_by_leak=held)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
