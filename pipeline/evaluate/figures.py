"""The figures of an evaluation: which are drawn, of what."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.cohort import Case
from pipeline.evaluate.comparison import Comparison
from pipeline.evaluate.findings import MAIN_METRIC, MAIN_REGION, Findings
from pipeline.evaluate.picture_curves import draw_learning_curves, draw_slopes, learning_curves
from pipeline.evaluate.picture_gain import draw_gain
from pipeline.evaluate.picture_subgroups import draw_subgroups
from pipeline.evaluate.pictures import ArmDots, PicturedCase, choose_extremes, draw_arms, draw_segmentations
from pipeline.evaluate.subgroups import SubgroupFindings
from pipeline.evaluate.trainings import read_slices, shown_slice
from pipeline.runner import StageContext
from pipeline.segmentation.arms import Arm
from pipeline.segmentation.catalogue import COMPARED_METRICS, METRIC_TITLES


def draw_figures(context: StageContext, findings: Findings, subgroups: Sequence[SubgroupFindings]) -> None:
    """Draw and record the figures; those of comparisons only where there is something to compare."""
    config, folder = context.config.evaluate, context.out / "figures"
    scheme = findings.experiment.real.scheme
    draw_arms(_dots(findings), config.baseline, folder / "arms.png")
    if planned := findings.comparisons[: len(findings.planned)]:
        draw_gain(planned, config.alpha, folder / "gain.png")
    if len(config.shares) > 1:
        _draw_learning(context, findings, folder)
    if findings.main:
        _draw_slopes(findings, findings.main, folder)
        if rows := _extreme_rows(findings, findings.main):
            draw_segmentations(rows, scheme, folder / "extremes.png")
    if subgroups and subgroups[0].groups:
        draw_subgroups(subgroups[0], folder / "subgroups.png")
    draw_segmentations(_pictured_rows(context, findings), scheme, folder / "segmentations.png")
    for path in sorted(folder.glob("*.png")):
        context.tracker.image(path.stem, path.relative_to(context.out).as_posix())


def _dots(findings: Findings) -> list[ArmDots]:
    """Return the rows of the dot plot, of the largest share."""
    rows = []
    for arm in findings.at_share(findings.top_share):
        for region in findings.experiment.real.scheme.regions:
            for metric in COMPARED_METRICS:
                if summary := findings.summary(arm, region, metric):
                    by_patient = findings.values(arm, region, metric).mean(axis=1)
                    rows.append(ArmDots(arm.name, region, metric, by_patient, summary))
    return rows


def _draw_learning(context: StageContext, findings: Findings, folder: Path) -> None:
    config, table = context.config.evaluate, findings.table
    for region in findings.experiment.real.scheme.regions:
        for metric in COMPARED_METRICS:
            curves = learning_curves(table, table.arms, region, metric, findings.statistics)
            path = folder / f"learning-{region}-{metric}.png"
            draw_learning_curves(curves, config.baseline, region, metric, path)


def _draw_slopes(findings: Findings, main: Comparison, folder: Path) -> None:
    """Draw the slopes of the main arm at the main share, a figure for each metric."""
    for metric in COMPARED_METRICS:
        planned = [
            plan
            for plan in findings.planned
            if (plan.arm, plan.baseline, plan.share, plan.metric) == (main.arm, main.baseline, main.share, metric)
        ]
        draw_slopes(findings.table, planned, folder / f"slopes-{metric}.png")


def _extreme_rows(findings: Findings, main: Comparison) -> list[PicturedCase]:
    """Return the patients whom the main arm harms most and helps most."""
    arms = {str(arm.name): arm for arm in findings.at_share(main.share)}
    make_row = _row_maker(findings, [arms[main.baseline], arms[main.arm]])
    difference = findings.difference(main)
    change = dict(zip(difference.patients, difference.by_patient(), strict=True))
    cases = {case.subject: case for case in findings.experiment.real.patients("test")}
    title = METRIC_TITLES[main.metric]
    return [
        make_row(cases[patient], f"{kind} {rank}, difference\nin {title} {change[patient]:+.2f}, all trainings")
        for kind, chosen in zip(("worst", "best"), choose_extremes(difference, main.metric), strict=True)
        for rank, patient in enumerate(chosen, start=1)
    ]


def _pictured_rows(context: StageContext, findings: Findings) -> list[PicturedCase]:
    """Return patients from small to large tumours, with what the baseline and the best synthetic arm predict."""
    here = {arm.name: arm for arm in findings.at_share(findings.top_share)}
    baseline = here[context.config.evaluate.baseline]
    with_synthetic = [arm for arm in here.values() if arm.synthetic_cases and arm is not baseline]
    shown = [baseline, *([findings.best_arm(with_synthetic)] if with_synthetic else [])]
    make_row = _row_maker(findings, shown)
    return [make_row(case, "") for case in findings.experiment.pictured]


def _row_maker(findings: Findings, arms: Sequence[Arm]) -> Callable[[Case, str], PicturedCase]:
    """Return a function that makes a row of a picture, of what each arm's first training predicts."""
    first = {arm.name: findings.results_of(arm)[0] for arm in arms}
    slices = {name: read_slices(result.folder) for name, result in first.items()}
    modalities = findings.experiment.real.modalities
    modality = "flair" if "flair" in modalities else modalities[-1]
    dice = {
        (score.arm, score.patient): score.value
        for result in first.values()
        for score in result.scores
        if (score.region, score.metric) == (MAIN_REGION, MAIN_METRIC)
    }

    def make_row(case: Case, title: str) -> PicturedCase:
        return PicturedCase(
            case=case,
            modality=modality,
            index=shown_slice(case),
            predictions={name: slices[name][case.subject] for name in first},
            notes={name: f"{MAIN_REGION} Dice {dice[name, case.subject]:.2f}, training 1" for name in first},
            title=title,
        )

    return make_row
