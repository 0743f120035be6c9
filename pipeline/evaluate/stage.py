"""Stage evaluate: segmenters with and without synthetic scans, compared on real test patients."""

import csv
from typing import Any

from pipeline.cohort import write_json
from pipeline.evaluate.cohorts import remove_synthetic_cohorts
from pipeline.evaluate.experiment import make_arms, open_experiment
from pipeline.evaluate.figures import draw_figures
from pipeline.evaluate.findings import Findings, list_planned
from pipeline.evaluate.gain import compare_groups, describe_gain
from pipeline.evaluate.intervals import Statistics
from pipeline.evaluate.mixing import choose_mixing, describe_search
from pipeline.evaluate.received import remove_received
from pipeline.evaluate.steps_check import check_steps
from pipeline.evaluate.trainings import train_all
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed
from pipeline.segmentation.catalogue import COMPARED_METRICS

SCORE_COLUMNS = ("arm", "share", "seed", "patient", "region", "metric", "value")


def run(context: StageContext) -> dict[str, Any]:
    """Train every arm with every seed and compare them: ``gain.json``, ``scores.csv`` and figures."""
    config = context.config.evaluate
    experiment = open_experiment(context)
    planned = list_planned(config, tuple(experiment.real.scheme.regions))
    chosen, trials = choose_mixing(context, experiment)
    by_generator = make_arms(context, experiment, chosen)
    arms = tuple(first for first, *_ in by_generator)
    results = train_all(context, experiment, by_generator)
    steps_check = check_steps(context, experiment, arms, results)
    statistics = Statistics(config.n_bootstrap, config.alpha, derive_seed(context.seed, "bootstrap"))
    findings = Findings(experiment, arms, results, statistics, planned)
    subgroups = compare_groups(context, findings)
    gain = describe_gain(context, findings, subgroups, steps_check)
    write_json(context.out / "gain.json", {**gain, "search": describe_search(config, chosen, trials)})
    write_scores(context, findings)
    context.tracker.table("arms", [_table_row(entry) for entry in gain["arms"]])
    draw_figures(context, findings, subgroups)
    remove_received(context.out)
    remove_synthetic_cohorts(context)
    return {
        "best_arm": findings.best_arm(findings.at_share(findings.top_share)).name,
        "n_test": len(experiment.real.patients("test")),
        **({"gain_wt_dice": findings.main.delta} if findings.main else {}),
        "sentence": gain["summary"],
    }


def write_scores(context: StageContext, findings: Findings) -> None:
    """Write ``scores.csv``: every score of every patient in every training."""
    with (context.out / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SCORE_COLUMNS)
        for result in findings.results:
            writer.writerows(
                [s.arm, f"{s.share:g}", s.seed, s.patient, s.region, s.metric, f"{s.value:.6f}"] for s in result.scores
            )


def _table_row(arm: dict[str, Any]) -> dict[str, Any]:
    """Return an arm's row in the tracked table: means by region and metric."""
    means = {
        f"{region} {metric}": round(entry[metric]["mean"], 4)
        for region, entry in arm["regions"].items()
        for metric in COMPARED_METRICS
    }
    return {"arm": arm["name"], "share": arm["share"], **means, "n_patients": arm["n_patients"], "steps": arm["steps"]}
