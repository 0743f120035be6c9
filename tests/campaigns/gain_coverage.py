"""Measure how often the interval of a gain holds the true difference of 0, in simulated studies.

    python tests/campaigns/gain_coverage.py [--repeats N] [--bootstrap N] [--seed N]

``identical``: two arms that are the same, so that patients differ in noise only; trainings differ. ``mixed``: an arm
that helps some patients as much as it harms others. Standard deviations are in Dice; those between trainings are as
small as plateaus allow or as large as short trainings show. Both normal and heavy-tailed. Beside ours, the bootstrap
alone.

``regions missed``: HD95 of an arm that misses the region entirely in a few patients, in every training, where it counts
as the image's diagonal. In most studies of 20 patients there is none, and no interval can know of them. ``trainings
fail``: Dice where the baseline does not learn the region in a few trainings, and the arm always does.
"""

import argparse

import numpy as np

from pipeline.evaluate.intervals import Statistics, bootstrap_interval, mean_interval
from pipeline.evaluate.simulation import Spread, measure_coverage, simulate_differences, simulate_jumps

WORLDS = {
    "identical, trainings alike": Spread(0.0, 0.0, 0.06),
    "identical": Spread(0.0, 0.02, 0.06),
    "identical, trainings differ": Spread(0.0, 0.05, 0.06),
    "mixed": Spread(0.05, 0.02, 0.05),
}
# In mm: others differ little, a patient who is missed by a diagonal.
DISTANCES, DIAGONAL_MM = Spread(2.0, 0.5, 2.0), 300.0
# In Dice: what a region that is learnt has, beside none.
LEARNT = 0.8


def main() -> None:
    """Print a table of coverage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--bootstrap", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    statistics = Statistics(arguments.bootstrap, 0.05, arguments.seed)
    stream = np.random.default_rng(arguments.seed)
    print(f"{'world':30} {'tails':7} patients seeds  bootstrap  ours  mean width")
    for name, spread in WORLDS.items():
        for heavy in (False, True):
            for n_patients in (10, 24, 40):
                for n_seeds in (1, 3, 5):
                    tables = simulate_differences(n_patients, n_seeds, spread, arguments.repeats, stream, heavy)
                    alone = [bootstrap_interval(table, statistics) or (0.0, 0.0) for table in tables]
                    ours = [mean_interval(table, statistics) or (0.0, 0.0) for table in tables]
                    held = [np.mean([low <= 0.0 <= high for low, high in each]) for each in (alone, ours)]
                    width = np.mean([high - low for low, high in ours])
                    print(
                        f"{name:30} {'heavy' if heavy else 'normal':7} {n_patients:8d} {n_seeds:5d}  {held[0]:9.3f}  "
                        f"{held[1]:.3f}  {width:.3f}",
                        flush=True,
                    )
    print("\nregions missed: share of patients, patients, coverage of the true mean with 3 seeds")
    for probability in (0.005, 0.02, 0.1):
        for n_patients in (20, 40, 300):
            jump = (probability, DIAGONAL_MM)
            tables = simulate_jumps(n_patients, 3, DISTANCES, jump, min(arguments.repeats, 400), stream)
            held = measure_coverage(tables, statistics, truth=probability * DIAGONAL_MM)
            print(f"{probability:.3f} {n_patients:4d} {held:.3f}", flush=True)
    print("\ntrainings fail: share, seeds, coverage with 20 patients where the baseline's do, where both arms' do")
    n = min(arguments.repeats, 400)
    for probability in (0.03, 0.1, 0.3):
        for n_seeds in (3, 5, 10):
            of_one, of_both = (
                simulate_jumps(20, n_seeds, spread, (probability, LEARNT), n, stream, of_trainings=True)
                for spread in (WORLDS["identical"], Spread(0.0, 0.0, 0.0))
            )
            held_one = measure_coverage(of_one, statistics, truth=probability * LEARNT)
            held_both = measure_coverage(of_one - of_both, statistics)
            print(f"{probability:.2f} {n_seeds:4d} {held_one:.3f} {held_both:.3f}", flush=True)


if __name__ == "__main__":
    main()
