"""The gain on few real patients: folds over persons, a generator of its own in each, every person tested once.

    python benchmarks/gain_folds.py SOURCE MANIFEST OUT [--folds 3] [--config FILE] [--set section.key=value ...]

SOURCE and MANIFEST are as in ``ingest.source`` and ``ingest.manifest``. For each fold a split file puts every k-th
person of a seeded permutation on the test side and two others on val; ingest, train, generate and evaluate run in
``OUT/fold-N``, one after the other, and what is finished is skipped when the script is called again. The scores of all
folds are then compared as the stage evaluate compares those of one split. Printed: arms, comparisons, and one JSON
object in the last line, which ``OUT/gain_folds.json`` holds too. OUT is private as a run folder is: its split files
name subjects as the source does. About an hour for 11 patients at 2 mm on two cores.

The last lines before it say what the intervals leave out (:data:`LIMITATION`).
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, load_config
from pipeline.evaluate.comparison import Comparison, compare_planned, comparison_json, describe
from pipeline.evaluate.findings import list_planned, list_present
from pipeline.evaluate.intervals import Statistics, Summary, summarise
from pipeline.evaluate.scores import Score, ScoreTable
from pipeline.ingest.dicom import discover_dicom
from pipeline.ingest.discover import SourceCase, discover_nifti
from pipeline.ingest.manifest import load_manifest
from pipeline.layout import FOLDERS, read_done
from pipeline.runner import run_stages
from pipeline.seeds import derive_seed, numpy_stream
from pipeline.segmentation.catalogue import COMPARED_METRICS, METRIC_TITLES
from pipeline.segmentation.surface import diagonal_mm

STAGES_OF_FOLD = ("ingest", "train", "generate", "evaluate")
N_VAL = 2
SETTINGS = (
    "evaluate.arms=[real-aug, real-syn-aug, copypaste-aug, random-contrast-aug]",
    "evaluate.n_seeds=2",
    "evaluate.n_generators=1",
)
LIMITATION = (
    "What the intervals and tests above leave out: persons of one fold are tested by the same trainings, and folds "
    "share training persons, so that persons are not independent; each fold has one generator, so that the luck of a "
    "generator is not among what differs between seeds. The intervals are too narrow by that much."
)
CONFIG = Path(__file__).parents[1] / "configs" / "brats-quick.yaml"


def find_cases(config: RunConfig) -> list[SourceCase]:
    """Return the cases of the source."""
    manifest = load_manifest(config.ingest.manifest)
    discover = discover_dicom if manifest.format == "dicom" else discover_nifti
    return discover(Path(config.ingest.source), manifest)


def split_fold(persons: Sequence[str], fold: int, n_folds: int, seed: int) -> dict[str, str]:
    """Assign persons to sides: every k-th of a seeded permutation to test, the next two to val, the others to train."""
    order = [sorted(persons)[int(i)] for i in numpy_stream(seed, "folds").permutation(len(persons))]
    test = set(order[fold::n_folds])
    others = [person for person in order if person not in test]
    val = set(others[:N_VAL])
    return {person: "test" if person in test else "val" if person in val else "train" for person in order}


def write_split(path: Path, cases: Sequence[SourceCase], sides: dict[str, str]) -> None:
    """Write the split file of a fold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{subject}\t{sides[person]}\n" for subject, person in sorted({(c.subject, person_of(c)) for c in cases})]
    path.write_text("subject\tsplit\n" + "".join(rows), encoding="utf-8")


def person_of(case: SourceCase) -> str:
    """Return the person whom a case is of, as the source tells."""
    return case.person or case.subject


def run_fold(config: RunConfig, run_dir: Path) -> list[Score]:
    """Run what is missing of a fold and return its scores."""
    for stage in STAGES_OF_FOLD:
        run_stages(config, run_dir, stage, stage)
    with (run_dir / "evaluation" / "scores.csv").open(encoding="utf-8", newline="") as file:
        return [
            Score(
                arm=row["arm"],
                seed=int(row["seed"]),
                patient=row["patient"],
                region=row["region"],
                metric=row["metric"],
                value=float(row["value"]),
                share=float(row["share"]),
            )
            for row in csv.DictReader(file)
        ]


def list_arms(table: ScoreTable, statistics: Statistics) -> list[dict[str, Any]]:
    """Return each arm's Dice and HD95 over all persons."""
    return [
        {"arm": arm, "share": share, "region": region, "metric": metric, **vars(summary)}
        for arm in table.arms
        for share in table.shares(arm)
        for region in table.regions
        for metric in COMPARED_METRICS
        for summary in [_summarise(table, arm, share, region, metric, statistics)]
    ]


def _summarise(table: ScoreTable, arm: str, share: float, region: str, metric: str, statistics: Statistics) -> Summary:
    values = table.table(arm, share, region, metric).values
    return summarise(values, statistics, table.bounds(metric))


def print_tables(arms: Sequence[dict[str, Any]], comparisons: Sequence[Comparison], alpha: float) -> None:
    """Print arms and comparisons with their intervals, and what these leave out."""
    print(f"\n{'arm':<22}{'share':>6}  {'region':<7}{'metric':<11}{'mean':>8}  interval")
    for row in arms:
        interval = "none" if row["ci"] is None else "{:.3f} to {:.3f}".format(*row["ci"])
        title = METRIC_TITLES[row["metric"]]
        print(f"{row['arm']:<22}{row['share']:>6.2f}  {row['region']:<7}{title:<11}{row['mean']:>8.3f}  {interval}")
    print()
    for comparison in comparisons:
        print(describe(comparison, alpha))
    print(f"\n{LIMITATION}")


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("manifest")
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="section.key=value")
    arguments = parser.parse_args()
    settings = [
        *SETTINGS,
        f"ingest.source={arguments.source}",
        f"ingest.manifest={arguments.manifest}",
        *arguments.settings,
    ]
    config = load_config(arguments.config, settings)
    cases = find_cases(config)
    persons = sorted({person_of(case) for case in cases})
    scores, seconds = [], 0.0
    for fold in range(arguments.folds):
        path = arguments.out / f"split-{fold}.tsv"
        write_split(path, cases, split_fold(persons, fold, arguments.folds, config.run.seed))
        of_fold = load_config(arguments.config, [*settings, f"ingest.split_file={path}"])
        run_dir = arguments.out / f"fold-{fold}"
        scores += run_fold(of_fold, run_dir)
        seconds += sum((read_done(run_dir / FOLDERS[stage]) or {}).get("seconds", 0.0) for stage in STAGES_OF_FOLD)
    evaluate = config.evaluate
    table = ScoreTable(scores, diagonal_mm(config.ingest.size_voxels, (config.ingest.spacing_mm,) * 3))
    statistics = Statistics(evaluate.n_bootstrap, evaluate.alpha, derive_seed(config.run.seed, "folds"))
    planned = list_planned(evaluate, table.regions)
    comparisons = compare_planned(table, (*planned, *list_present(planned, table)), statistics)
    arms = list_arms(table, statistics)
    print_tables(arms, comparisons, evaluate.alpha)
    result = {
        "name": "gain_folds",
        "folds": arguments.folds,
        "n_patients": len({score.patient for score in scores}),
        "n_seeds": evaluate.n_seeds,
        "steps": evaluate.steps,
        "seconds": round(seconds),
        "arms": arms,
        "limitation": LIMITATION,
        "comparisons": [comparison_json(comparison, evaluate.alpha) for comparison in comparisons],
    }
    line = json.dumps(result)
    (arguments.out / "gain_folds.json").write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
