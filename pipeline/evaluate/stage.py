"""Stage evaluate: segmenters with and without synthetic scans, compared on real test patients."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.cohort import write_json
from pipeline.config import ArmName
from pipeline.evaluate.comparison import (
    COMPARISON_DEFINITIONS,
    Comparison,
    compare_arms,
    comparison_json,
    describe,
    table_of,
)
from pipeline.evaluate.intervals import Statistics, Summary, summarise
from pipeline.evaluate.picture_gain import draw_gain
from pipeline.evaluate.pictures import ArmDots, PicturedCase, draw_arms, draw_segmentations
from pipeline.evaluate.scores import Score
from pipeline.evaluate.trainings import PICTURED_FILE, Experiment, TrainingResult, open_experiment, train_all
from pipeline.figures import tumor_centre
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed
from pipeline.segmentation.catalogue import ALL_METRICS, DEFINITIONS, PLANNED_METRICS, PRESENT_METRIC

# The arm that the verdict is about, where it is trained.
MAIN_ARM: ArmName = "real-syn-aug"
# A training whose Dice on val still rose by more than this at the last validation has not seen its plateau.
PLATEAU_TOLERANCE = 0.01
# A region that an arm finds with less than this, in patients who have it, is one that it has not learnt.
MIN_DICE_LEARNT = 0.05
SCORE_COLUMNS = ("arm", "seed", "patient", "region", "metric", "value")


@dataclass(frozen=True)
class Findings:
    """All that was measured, and how it is summed up."""

    experiment: Experiment
    results: tuple[TrainingResult, ...]
    statistics: Statistics
    comparisons: tuple[Comparison, ...]

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """Scores of every training on the test patients."""
        return tuple(score for result in self.results for score in result.scores)

    def dice_val(self, arm: str) -> list[float]:
        """Return an arm's mean Dice on val over seeds, at each validation."""
        curves = [result.dice_val for result in self.results if result.arm == arm]
        return [float(value) for value in np.mean(curves, axis=0)]

    def summary(self, arm: str, region: str, metric: str) -> Summary | None:
        """Sum up a metric over test patients; None where no patient has it."""
        table = table_of(self.scores, arm, region, metric)
        return summarise(table, self.statistics) if len(table) else None

    def best_arm(self, names: Sequence[str]) -> str:
        """Return the arm that did best on val: test patients choose nothing."""
        return max(names, key=lambda name: max(self.dice_val(name)))


def run(context: StageContext) -> dict[str, Any]:
    """Train every arm with every seed and compare them: ``gain.json``, ``scores.csv`` and figures."""
    config = context.config.evaluate
    experiment = open_experiment(context)
    results = train_all(context, experiment)
    statistics = Statistics(config.n_bootstrap, config.alpha, derive_seed(context.seed, "bootstrap"))
    scores = [score for result in results for score in result.scores]
    comparisons = tuple(compare_arms(scores, config.baseline, statistics))
    findings = Findings(experiment, results, statistics, comparisons)
    main = find_main(comparisons)
    verdict = " ".join([describe(main, config.alpha) if main else "Nothing to compare: one arm.", *_warn(findings)])
    arms = [describe_arm(context, findings, name) for name in dict.fromkeys(config.arms)]
    write_json(context.out / "gain.json", describe_gain(context, findings, arms, verdict))
    write_scores(context, findings.scores)
    context.tracker.table("arms", [_table_row(arm) for arm in arms])
    draw_figures(context, findings)
    return {
        "best_arm": findings.best_arm(list(dict.fromkeys(config.arms))),
        "n_test": len(experiment.real.patients("test")),
        **({"gain_wt_dice": main.delta} if main else {}),
        "sentence": verdict,
    }


def find_main(comparisons: Sequence[Comparison]) -> Comparison | None:
    """Return the comparison that the verdict speaks of: whole-tumour Dice of the main arm, else of the first."""
    planned = [c for c in comparisons if (c.region, c.metric) == ("WT", "dice")]
    return next((c for c in planned if c.arm == MAIN_ARM), planned[0] if planned else None)


def has_plateau(dice_val: Sequence[float]) -> bool:
    """Tell whether Dice on val had stopped rising by the last validation."""
    return len(dice_val) > 1 and dice_val[-1] - max(dice_val[:-1]) <= PLATEAU_TOLERANCE


def describe_arm(context: StageContext, findings: Findings, name: ArmName) -> dict[str, Any]:
    """Return an arm's entry in ``gain.json``."""
    config, experiment = context.config.evaluate, findings.experiment
    arm = next(arm for arm in experiment.arms if arm.name == name)
    regions: dict[str, Any] = {}
    for region in experiment.real.scheme.regions:
        summaries = {metric: findings.summary(name, region, metric) for metric in ALL_METRICS}
        regions[region] = {metric: _summary_entry(summary) for metric, summary in summaries.items() if summary}
        regions[region]["n_present"] = len(table_of(findings.scores, name, region, PRESENT_METRIC))
    dice_val = findings.dice_val(name)
    return {
        "name": name,
        "share": config.real_share,
        "synthetic_share": arm.synthetic_share,
        "augmentation_strength": arm.augmentation_strength,
        "n_real": len(arm.real_cases),
        "n_synthetic": len(arm.synthetic_cases),
        "regions": regions,
        "n_patients": len(experiment.real.patients("test")),
        "n_seeds": config.n_seeds,
        "steps": config.steps,
        "dice_val": dice_val,
        "plateau": has_plateau(dice_val),
    }


def describe_gain(
    context: StageContext, findings: Findings, arms: Sequence[dict[str, Any]], verdict: str
) -> dict[str, Any]:
    """Return the content of ``gain.json``."""
    config, real = context.config.evaluate, findings.experiment.real
    return {
        "summary": verdict,
        "unit": "patient",
        "baseline": config.baseline,
        "n_test": len(real.patients("test")),
        "n_val": len(real.patients("val")),
        "spacing_mm": real.spacing_mm,
        "alpha": config.alpha,
        "definitions": {
            **DEFINITIONS,
            "share": "share of the real training patients that arms with real scans use",
            "sd": "over patients, each patient's value being the mean over seeds",
            **COMPARISON_DEFINITIONS,
            "plateau": f"Dice on val rose by at most {PLATEAU_TOLERANCE:g} at the last validation",
        },
        "arms": list(arms),
        "comparisons": [comparison_json(c, config.alpha) for c in findings.comparisons],
    }


def write_scores(context: StageContext, scores: Sequence[Score]) -> None:
    """Write ``scores.csv``: every score of every patient in every training."""
    with (context.out / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SCORE_COLUMNS)
        writer.writerows([s.arm, s.seed, s.patient, s.region, s.metric, f"{s.value:.6f}"] for s in scores)


def draw_figures(context: StageContext, findings: Findings) -> None:
    """Draw and record the figures; the forest plot only where there is something to compare."""
    config, experiment, folder = context.config.evaluate, findings.experiment, context.out / "figures"
    rows = []
    for arm in experiment.arms:
        for region in experiment.real.scheme.regions:
            for metric in PLANNED_METRICS:
                table = table_of(findings.scores, arm.name, region, metric)
                summary = summarise(table, findings.statistics)
                rows.append(ArmDots(arm.name, region, metric, table.mean(axis=1), summary))
    draw_arms(rows, config.baseline, folder / "arms.png")
    if findings.comparisons:
        draw_gain(findings.comparisons, config.alpha, folder / "gain.png")
    draw_segmentations(_pictured_rows(context, findings), experiment.real.scheme, folder / "segmentations.png")
    for path in sorted(folder.glob("*.png")):
        context.tracker.image(path.stem, path.relative_to(context.out).as_posix())


def _pictured_rows(context: StageContext, findings: Findings) -> list[PicturedCase]:
    """Return the rows of the picture: what the baseline and the best arm with synthetic scans predict."""
    experiment, baseline = findings.experiment, context.config.evaluate.baseline
    with_synthetic = [arm.name for arm in experiment.arms if arm.synthetic_cases and arm.name != baseline]
    shown = [baseline, *([findings.best_arm(with_synthetic)] if with_synthetic else [])]
    first = {result.arm: result for result in findings.results if result.seed == 0}
    slices = {name: np.load(first[name].folder / PICTURED_FILE) for name in shown}
    modality = "flair" if "flair" in experiment.real.modalities else experiment.real.modalities[-1]
    dice = {
        (score.arm, score.patient): score.value
        for name in shown
        for score in first[name].scores
        if (score.region, score.metric) == ("WT", "dice")
    }
    return [
        PicturedCase(
            case=case,
            modality=modality,
            index=tumor_centre(np.asarray(case.tumor_map()))[2],
            predictions={name: slices[name][number] for name in shown},
            notes={name: f"WT Dice of the volume {dice[name, case.subject]:.2f}" for name in shown},
        )
        for number, case in enumerate(experiment.pictured)
    ]


def _summary_entry(summary: Summary) -> dict[str, Any]:
    return {"mean": summary.mean, "sd": summary.sd, "ci": summary.ci}


def _table_row(arm: dict[str, Any]) -> dict[str, Any]:
    """Return an arm's row in the tracked table: means by region and metric."""
    means = {
        f"{region} {metric}": round(entry[metric]["mean"], 4)
        for region, entry in arm["regions"].items()
        for metric in PLANNED_METRICS
    }
    return {"arm": arm["name"], "share": arm["share"], **means, "n_patients": arm["n_patients"], "steps": arm["steps"]}


def _warn(findings: Findings) -> list[str]:
    """Say where the segmenters are too little trained for their differences to mean much."""
    arms = [arm.name for arm in findings.experiment.arms]
    rising = [name for name in arms if not has_plateau(findings.dice_val(name))]
    warnings = [f"No plateau on val yet in {', '.join(rising)}: more steps may change this."] if rising else []
    for region in findings.experiment.real.scheme.regions:
        summaries = {name: findings.summary(name, region, PRESENT_METRIC) for name in arms}
        missed = [name for name, summary in summaries.items() if summary and summary.mean < MIN_DICE_LEARNT]
        if missed:
            warnings.append(f"{region} has not been learnt in {', '.join(missed)}: train longer before comparing it.")
    return warnings
