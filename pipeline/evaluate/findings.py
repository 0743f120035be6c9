"""What an evaluation measured, and what is asked of it: arms, planned comparisons, the main one among them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipeline.config_evaluate import MAIN_ARM, RIVALS, EvaluateSection
from pipeline.evaluate.comparison import Comparison, Planned, compare_planned, plan_comparisons
from pipeline.evaluate.experiment import Experiment
from pipeline.evaluate.intervals import Statistics, Summary, summarise
from pipeline.evaluate.scores import FloatArray, PatientTable, ScoreTable
from pipeline.evaluate.significance import Role
from pipeline.evaluate.trainings import TrainingResult
from pipeline.segmentation.arms import Arm, list_arms
from pipeline.segmentation.catalogue import COMPARED_METRICS, PRESENT_METRIC
from pipeline.segmentation.surface import diagonal_mm

MAIN_REGION, MAIN_METRIC = "WT", "dice"
# A region that a training finds with less than this, in patients who have it, is one that it has not learnt.
MIN_DICE_LEARNT = 0.05


@dataclass(frozen=True)
class Findings:
    """All that was measured, and how it is summed up.

    Parameters
    ----------
    experiment : Experiment
    arms : tuple of Arm
        Each at each share once, as of the first generator.
    results : tuple of TrainingResult
    statistics : Statistics
    planned : tuple of Planned
        Of the config, as :func:`list_planned` gives it.
    """

    experiment: Experiment
    arms: tuple[Arm, ...]
    results: tuple[TrainingResult, ...]
    statistics: Statistics
    planned: tuple[Planned, ...]

    @cached_property
    def table(self) -> ScoreTable:
        """All scores."""
        real = self.experiment.real
        longest_mm = diagonal_mm(real.shape, (real.spacing_mm,) * 3)
        return ScoreTable((score for result in self.results for score in result.scores), longest_mm)

    @cached_property
    def _summaries(self) -> dict[tuple[str, float, str, str], Summary | None]:
        """What has been summed up: a bootstrap each, asked for by table, cautions and figures."""
        return {}

    @cached_property
    def asked(self) -> tuple[Planned, ...]:
        """The planned comparisons, and after them those of patients who have a region that others lack."""
        return (*self.planned, *list_present(self.planned, self.table))

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All comparisons; p values of secondary ones are corrected over these."""
        return tuple(compare_planned(self.table, self.asked, self.statistics))

    @cached_property
    def main(self) -> Comparison | None:
        """The primary comparison, which the verdict speaks of; None if nothing is compared."""
        return next((comparison for comparison in self.comparisons if comparison.role == "primary"), None)

    @cached_property
    def rivals(self) -> tuple[Comparison, ...]:
        """The main comparison's arm against each cheap rival that was trained; what was not planned claims nothing."""
        trained = {str(arm.name) for arm in self.arms}
        if self.main is None or self.main.arm in RIVALS:
            return ()
        asked = [
            Planned(self.main.arm, rival, self.top_share, MAIN_REGION, MAIN_METRIC, "reported")
            for rival in RIVALS
            if rival in trained
        ]
        pairs = zip(self.asked, self.comparisons, strict=True)
        known = {replace(plan, role="reported"): found for plan, found in pairs}
        unplanned = [plan for plan in asked if plan not in known]
        known |= dict(zip(unplanned, compare_planned(self.table, unplanned, self.statistics), strict=True))
        return tuple(known[plan] for plan in asked)

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

    def dice_val(self, arm: Arm) -> list[float]:
        """Return an arm's mean Dice on val over seeds, at each validation."""
        return [float(value) for value in np.mean([result.dice_val for result in self.results_of(arm)], axis=0)]

    def pasted_share(self, arm: Arm) -> float:
        """Return the share of an arm's real slices into which a tumour was in truth pasted, mean over seeds."""
        return float(np.mean([result.pasted_share for result in self.results_of(arm)]))

    def values(self, arm: Arm, region: str, metric: str) -> FloatArray:
        """Return an arm's values: (patients, seeds), float64."""
        return self.table.table(arm.name, arm.share, region, metric).values

    def count_unlearnt(self, arm: Arm, region: str) -> int:
        """Count an arm's trainings that have not learnt a region: its Dice, where present, is below a trace."""
        by_training = self.values(arm, region, PRESENT_METRIC)
        return int((by_training.mean(axis=0) < MIN_DICE_LEARNT).sum()) if len(by_training) else 0

    def summary(self, arm: Arm, region: str, metric: str) -> Summary | None:
        """Sum up a metric over test patients; None where no patient has it."""
        key = (arm.name, arm.share, region, metric)
        if key not in self._summaries:
            values, bounds = self.values(arm, region, metric), self.table.bounds(metric)
            self._summaries[key] = summarise(values, self.statistics, bounds) if len(values) else None
        return self._summaries[key]

    def difference(self, plan: Planned | Comparison) -> PatientTable:
        """Return the paired differences of a comparison."""
        return self.table.difference(plan.arm, plan.baseline, plan.share, plan.region, plan.metric)

    def best_arm(self, arms: Sequence[Arm]) -> Arm:
        """Return the arm that did best on val: test patients choose nothing."""
        return max(arms, key=lambda arm: max(self.dice_val(arm)))


def list_planned(config: EvaluateSection, regions: Sequence[str]) -> tuple[Planned, ...]:
    """List the comparisons of a config: each pair at each share, in each region; one of them is the primary.

    Some are reported only, and claim nothing: those by a metric that is not planned; and, below all real patients,
    those of an arm without real scans with one that has some, as the former's generator was trained on all patients.
    """
    without_real = {name for name, share in list_arms(config) if share == 0.0}
    listed = plan_comparisons(config.planned, config.shares, regions, COMPARED_METRICS, without_real)

    def is_fair(plan: Planned) -> bool:
        is_even = len({plan.arm, plan.baseline} & without_real) != 1 or plan.share == 1.0
        return is_even or config.received_release is not None

    main = find_main([plan for plan in listed if is_fair(plan)], config.baseline)

    def role(plan: Planned) -> Role:
        if plan == main:
            return "primary"
        return "secondary" if is_fair(plan) and plan.metric in config.planned_metrics else "reported"

    return tuple(replace(plan, role=role(plan)) for plan in listed)


def list_present(planned: Sequence[Planned], table: ScoreTable) -> tuple[Planned, ...]:
    """List comparisons over the patients who have a region, where some lack it: reported, as they were not planned.

    A patient without it has a Dice of 0 or 1, so that few such patients can decide what is said of all.
    """

    def lacks_some(plan: Planned) -> bool:
        n_all, n_present = (
            len(table.table(plan.arm, plan.share, plan.region, m)) for m in (MAIN_METRIC, PRESENT_METRIC)
        )
        return 0 < n_present < n_all

    by_dice = (plan for plan in planned if plan.metric == MAIN_METRIC and lacks_some(plan))
    return tuple(replace(plan, metric=PRESENT_METRIC, role="reported") for plan in by_dice)


def find_main(planned: Sequence[Planned], baseline: str) -> Planned | None:
    """Return the plan that the verdict speaks of: whole-tumour Dice of the main arm at the largest share.

    Against the baseline if that was planned, else against another arm; else of the first pair.
    """
    top = max((plan.share for plan in planned), default=0.0)
    found = [plan for plan in planned if (plan.share, plan.region, plan.metric) == (top, MAIN_REGION, MAIN_METRIC)]
    wanted = [plan for plan in found if plan.arm == MAIN_ARM]
    against_baseline = [plan for plan in wanted if plan.baseline == baseline]
    return next(iter([*against_baseline, *wanted, *found]), None)
