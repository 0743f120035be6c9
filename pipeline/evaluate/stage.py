"""Stage evaluate: segmenters with and without synthetic scans, compared on real test patients."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.cohort import write_json
from pipeline.config_evaluate import ArmName, EvaluateSection
from pipeline.evaluate.comparison import (
    Comparison,
    Score,
    Statistics,
    Summary,
    compare_arms,
    describe,
    holm,
    summarise,
    table_of,
)
from pipeline.evaluate.mixing import choose_mixing, describe_search
from pipeline.evaluate.pictures import ArmDots, PicturedCase, draw_arms, draw_gain, draw_segmentations
from pipeline.evaluate.received import remove_received
from pipeline.evaluate.trainings import (
    PICTURED_FILE,
    Experiment,
    TrainingResult,
    make_arms,
    open_experiment,
    train_all,
)
from pipeline.figures import tumor_centre
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed
from pipeline.segmentation.arms import Arm
from pipeline.segmentation.metrics import DEFINITIONS, METRICS, PRESENT_METRIC

# The arm that the verdict is about, where it is trained.
MAIN_ARM: ArmName = "real-syn-aug"
# A training whose Dice on val still rose by more than this at the last validation has not seen its plateau.
PLATEAU_TOLERANCE = 0.01
# A region that an arm finds with less than this, in patients who have it, is one that it has not learnt.
MIN_DICE_LEARNT = 0.05
SCORE_COLUMNS = ("arm", "share", "seed", "patient", "region", "metric", "value")


@dataclass(frozen=True)
class Planned:
    """A planned comparison at one share of the real patients."""

    share: float
    comparison: Comparison

    def describe(self, alpha: float) -> str:
        """Say in words what was found, and at which share."""
        return f"At {self.share:.0%} of the real patients: {describe(self.comparison, alpha)}"


@dataclass(frozen=True)
class Findings:
    """All that was measured, and how it is summed up."""

    experiment: Experiment
    arms: tuple[Arm, ...]
    results: tuple[TrainingResult, ...]
    statistics: Statistics
    planned: tuple[Planned, ...]

    @cached_property
    def top_share(self) -> float:
        """The largest share of the real patients: what the verdict and the pictures are about."""
        return max(arm.share for arm in self.arms)

    def at_share(self, share: float) -> tuple[Arm, ...]:
        """Return the arms of a share, with those that use no real scans."""
        return tuple(arm for arm in self.arms if arm.share in (share, 0.0))

    def results_of(self, arm: Arm) -> tuple[TrainingResult, ...]:
        """Return an arm's trainings, in the order of their seeds."""
        return tuple(one for one in self.results if (one.arm, one.share) == (arm.name, arm.share))

    def scores_of(self, arm: Arm) -> tuple[Score, ...]:
        """Return an arm's scores on the test patients."""
        return tuple(score for result in self.results_of(arm) for score in result.scores)

    def dice_val(self, arm: Arm) -> list[float]:
        """Return an arm's mean Dice on val over seeds, at each validation."""
        return [float(value) for value in np.mean([result.dice_val for result in self.results_of(arm)], axis=0)]

    def summary(self, arm: Arm, region: str, metric: str) -> Summary | None:
        """Sum up a metric over test patients; None where no patient has it."""
        table = table_of(self.scores_of(arm), arm.name, region, metric)
        return summarise(table, self.statistics) if len(table) else None

    def best_arm(self, arms: Sequence[Arm]) -> Arm:
        """Return the arm that did best on val: test patients choose nothing."""
        return max(arms, key=lambda arm: max(self.dice_val(arm)))


def run(context: StageContext) -> dict[str, Any]:
    """Train every arm with every seed and compare them: ``gain.json``, ``scores.csv`` and figures."""
    config = context.config.evaluate
    experiment = open_experiment(context)
    mixing, trials = choose_mixing(context, experiment)
    arms = make_arms(context, experiment, mixing)
    results = train_all(context, experiment, arms)
    statistics = Statistics(config.n_bootstrap, config.alpha, derive_seed(context.seed, "bootstrap"))
    planned = compare_planned(config, results, statistics)
    findings = Findings(experiment, arms, results, statistics, planned)
    entries = [describe_arm(context, findings, arm) for arm in arms]
    gain = describe_gain(context, findings, entries)
    write_json(context.out / "gain.json", {**gain, "search": describe_search(config, mixing, trials)})
    write_scores(context, findings)
    context.tracker.table("arms", [_table_row(entry) for entry in entries])
    draw_figures(context, findings)
    remove_received(context.out)
    main = find_main(planned)
    return {
        "best_arm": findings.best_arm(findings.at_share(findings.top_share)).name,
        "n_test": len(experiment.real.patients("test")),
        **({"gain_wt_dice": main.comparison.delta} if main else {}),
        "sentence": gain["summary"],
    }


def compare_planned(
    config: EvaluateSection, results: Sequence[TrainingResult], statistics: Statistics
) -> tuple[Planned, ...]:
    """Make the planned comparisons, at each share; p values are corrected over all of them.

    Arms without real scans are trained once, so they are compared with the others at each share.
    """
    planned: list[Planned] = []
    for share in config.shares:
        here = [result for result in results if result.share in (share, 0.0)]
        for pair in config.planned:
            taken = [result for name in pair for result in here if result.arm == name]
            if share != config.shares[0] and all(result.share == 0.0 for result in taken):
                continue
            scores = [score for result in taken for score in result.scores]
            planned.extend(Planned(share, one) for one in compare_arms(scores, pair[1], statistics))
    corrected = holm([one.comparison.p for one in planned])
    return tuple(
        replace(one, comparison=replace(one.comparison, p_holm=p)) for one, p in zip(planned, corrected, strict=True)
    )


def find_main(planned: Sequence[Planned]) -> Planned | None:
    """Return the comparison that the verdict speaks of: whole-tumour Dice of the main arm, else of the first."""
    top = max((one.share for one in planned), default=0.0)
    found = [
        one for one in planned if one.share == top and (one.comparison.region, one.comparison.metric) == ("WT", "dice")
    ]
    return next((one for one in found if one.comparison.arm == MAIN_ARM), found[0] if found else None)


def has_plateau(dice_val: Sequence[float]) -> bool:
    """Tell whether Dice on val had stopped rising by the last validation."""
    return len(dice_val) > 1 and dice_val[-1] - max(dice_val[:-1]) <= PLATEAU_TOLERANCE


def describe_arm(context: StageContext, findings: Findings, arm: Arm) -> dict[str, Any]:
    """Return an arm's entry in ``gain.json``."""
    config, experiment = context.config.evaluate, findings.experiment
    regions: dict[str, Any] = {}
    for region in experiment.real.scheme.regions:
        summaries = {metric: findings.summary(arm, region, metric) for metric in (*METRICS, PRESENT_METRIC)}
        regions[region] = {metric: _summary_entry(summary) for metric, summary in summaries.items() if summary}
        regions[region]["n_present"] = len(table_of(findings.scores_of(arm), arm.name, region, PRESENT_METRIC))
    dice_val = findings.dice_val(arm)
    return {
        "name": arm.name,
        "share": arm.share,
        "synthetic_share": arm.mixing.synthetic_share,
        "schedule": arm.mixing.schedule,
        "paste_share": arm.paste_share,
        "augmentation": arm.augmentation.model_dump(),
        "n_real": len(arm.real_cases),
        "n_synthetic": len(arm.synthetic_cases),
        "regions": regions,
        "n_patients": len(experiment.real.patients("test")),
        "n_seeds": config.n_seeds,
        "steps": config.steps,
        "dice_val": dice_val,
        "plateau": has_plateau(dice_val),
    }


def describe_gain(context: StageContext, findings: Findings, arms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of ``gain.json``."""
    config, real = context.config.evaluate, findings.experiment.real
    return {
        "summary": describe_verdict(context, findings),
        "unit": "patient",
        "baseline": config.baseline,
        "synthetic": "generated" if config.received_release is None else "received",
        "n_test": len(real.patients("test")),
        "n_val": len(real.patients("val")),
        "spacing_mm": real.spacing_mm,
        "alpha": config.alpha,
        "definitions": {
            **DEFINITIONS,
            "share": "share of the real training patients that an arm uses; 0: none, trained once",
            "sd": "over patients, each patient's value being the mean over seeds",
            "ci": "bootstrap over patients (BCa; percentiles where degenerate); with several seeds over these too",
            "delta": "arm minus baseline, paired by patient",
            "p_holm": "Wilcoxon signed-rank, two-sided, Holm over all comparisons; null if all differences are 0",
            "plateau": f"Dice on val rose by at most {PLATEAU_TOLERANCE:g} at the last validation",
            "dice_val": "mean over val patients of their mean Dice over the regions that they have",
        },
        "arms": list(arms),
        "comparisons": [describe_planned(one, config.alpha) for one in findings.planned],
    }


def describe_planned(planned: Planned, alpha: float) -> dict[str, Any]:
    """Return a comparison's entry in ``gain.json``."""
    c = planned.comparison
    return {
        "arm": c.arm,
        "baseline": c.baseline,
        "share": planned.share,
        "region": c.region,
        "metric": c.metric,
        "delta": c.delta,
        "ci": c.ci,
        "p": c.p,
        "p_holm": c.p_holm,
        "n_patients": c.n_patients,
        "seed_deltas": c.seed_deltas,
        "sentence": planned.describe(alpha),
    }


def describe_verdict(context: StageContext, findings: Findings) -> str:
    """Say what the main comparison found, and how far to trust it."""
    config, main = context.config.evaluate, find_main(findings.planned)
    origin = [] if config.received_release is None else ["Synthetic scans are those of a received release."]
    said = main.describe(config.alpha) if main else "Nothing to compare: one arm."
    return " ".join([said, *origin, *_warn(findings)])


def write_scores(context: StageContext, findings: Findings) -> None:
    """Write ``scores.csv``: every score of every patient in every training."""
    with (context.out / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SCORE_COLUMNS)
        for result in findings.results:
            writer.writerows(
                [s.arm, f"{result.share:g}", s.seed, s.patient, s.region, s.metric, f"{s.value:.6f}"]
                for s in result.scores
            )


def draw_figures(context: StageContext, findings: Findings) -> None:
    """Draw and record the figures, of the largest share; the forest plot only where there is something to compare."""
    config, experiment, folder = context.config.evaluate, findings.experiment, context.out / "figures"
    rows = []
    for arm in findings.at_share(findings.top_share):
        for region in experiment.real.scheme.regions:
            for metric in METRICS:
                table = table_of(findings.scores_of(arm), arm.name, region, metric)
                summary = summarise(table, findings.statistics)
                rows.append(ArmDots(arm.name, region, metric, table.mean(axis=1), summary))
    draw_arms(rows, config.baseline, folder / "arms.png")
    shown = [one.comparison for one in findings.planned if one.share == max(config.shares)]
    shown = [one for one in shown if one.baseline == config.baseline]
    if shown:
        draw_gain(shown, config.alpha, folder / "gain.png")
    draw_segmentations(_pictured_rows(context, findings), experiment.real.scheme, folder / "segmentations.png")
    for path in sorted(folder.glob("*.png")):
        context.tracker.image(path.stem, path.relative_to(context.out).as_posix())


def _pictured_rows(context: StageContext, findings: Findings) -> list[PicturedCase]:
    """Return the rows of the picture: what the baseline and the best arm with synthetic scans predict."""
    experiment, config = findings.experiment, context.config.evaluate
    here = {arm.name: arm for arm in findings.at_share(findings.top_share)}
    baseline = here[config.baseline]
    with_synthetic = [arm for arm in here.values() if arm.synthetic_cases and arm is not baseline]
    shown = [baseline, *([findings.best_arm(with_synthetic)] if with_synthetic else [])]
    first = {arm.name: findings.results_of(arm)[0] for arm in shown}
    slices = {name: np.load(result.folder / PICTURED_FILE) for name, result in first.items()}
    modality = "flair" if "flair" in experiment.real.modalities else experiment.real.modalities[-1]
    dice = {
        (score.arm, score.patient): score.value
        for result in first.values()
        for score in result.scores
        if (score.region, score.metric) == ("WT", "dice")
    }
    return [
        PicturedCase(
            case=case,
            modality=modality,
            index=tumor_centre(np.asarray(case.tumor_map()))[2],
            predictions={name: slices[name][number] for name in first},
            notes={name: f"WT Dice of the volume {dice[name, case.subject]:.2f}" for name in first},
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
        for metric in METRICS
    }
    return {"arm": arm["name"], "share": arm["share"], **means, "n_patients": arm["n_patients"], "steps": arm["steps"]}


def _warn(findings: Findings) -> list[str]:
    """Say where the segmenters are too little trained for their differences to mean much."""
    titles = {arm.title if arm.share not in (findings.top_share, 0.0) else arm.name: arm for arm in findings.arms}
    rising = [title for title, arm in titles.items() if not has_plateau(findings.dice_val(arm))]
    warnings = [f"No plateau on val yet in {', '.join(rising)}: more steps may change this."] if rising else []
    for region in findings.experiment.real.scheme.regions:
        summaries = {title: findings.summary(arm, region, PRESENT_METRIC) for title, arm in titles.items()}
        missed = [title for title, summary in summaries.items() if summary and summary.mean < MIN_DICE_LEARNT]
        if missed:
            warnings.append(f"{region} has not been learnt in {', '.join(missed)}: train longer before comparing it.")
    return warnings
