"""The content of ``gain.json``: arms, comparisons, subgroups, what the plan could find, and what to be careful of."""

from collections.abc import Sequence
from typing import Any

from pipeline.cohort import read_tsv
from pipeline.config import GenerateSection
from pipeline.config_evaluate import MAIN_ARM, RIVALS, EvaluateSection
from pipeline.evaluate.cohorts import OWN, count_persons, describe_generators, list_draw_cautions, origin_of
from pipeline.evaluate.comparison import (
    COMPARISON_DEFINITIONS,
    comparison_json,
    describe_finding,
    list_cautions,
)
from pipeline.evaluate.findings import MAIN_METRIC, MAIN_REGION, Findings
from pipeline.evaluate.grouping import group_patients, read_filling
from pipeline.evaluate.intervals import Summary
from pipeline.evaluate.mixing import list_edge_cautions, list_search_cautions
from pipeline.evaluate.power import ASSUMED_SPREAD, Study, describe_power
from pipeline.evaluate.simulation import estimate_spread, widen_seed_spread
from pipeline.evaluate.steps_check import PLATEAU_TOLERANCE, StepsCheck
from pipeline.evaluate.subgroups import (
    SubgroupFindings,
    compare_subgroups,
    describe_fairness,
    describe_filling,
    subgroups_json,
)
from pipeline.labels import REGION_TITLES
from pipeline.runner import StageContext
from pipeline.segmentation.arms import DESIGNS, Arm
from pipeline.segmentation.catalogue import ALL_METRICS, DEFINITIONS, PRESENT_METRIC, RATE_METRICS
from pipeline.segmentation.sampling import COUNTED_STEPS

# Of the share that is asked for; of an arm that pastes less it is said.
MIN_PASTED = 0.8
# One-sided, of the upper bound of the spread between trainings.
POWER_ALPHA = 0.05
DEFINITIONS_HERE = {
    **DEFINITIONS,
    "share": "share of the real training patients that an arm uses; 0: none, trained once",
    "n_draws": "draws of real patients, one training after the other; `n_real` and `n_real_persons` are of the first",
    "sd": "over patients, each patient's value being the mean over seeds",
    **COMPARISON_DEFINITIONS,
    "n_generator_persons": "persons whom each generator of the arm was trained on; null: none, or those of a release",
    "pasted_share": (
        f"share of real slices or patches of the first {COUNTED_STEPS} steps into which a tumour was pasted, of "
        "`paste_share` asked for"
    ),
    "steps_check": (
        f"plateau: twice the steps raised the best Dice on val of one training by less than {PLATEAU_TOLERANCE:g}"
    ),
    "dice_val": "mean over val patients of their mean Dice over the regions that they have",
    "rivals": f"the main comparison's arm against each of {', '.join(RIVALS)} that was trained",
    "power": (
        "probability that a true gain is found and called significant, in the primary comparison or in a secondary "
        "one, were it the only one that differs among its family; where the spread was measured, from that spread to "
        "the upper 95% bound of the spread between trainings"
    ),
}


def describe_gain(
    context: StageContext,
    findings: Findings,
    subgroups: Sequence[SubgroupFindings],
    steps_check: StepsCheck | None = None,
) -> dict[str, Any]:
    """Return the content of ``gain.json``, the search apart."""
    config, experiment = context.config.evaluate, findings.experiment
    real = experiment.real
    return {
        "summary": describe_main(findings, config),
        "rivals": describe_rivals(findings),
        "cautions": describe_cautions(context, findings, steps_check),
        "steps_check": steps_check.to_json() if steps_check else None,
        "unit": "patient",
        "baseline": config.baseline,
        "synthetic": "generated" if config.received_release is None else "received",
        "received": experiment.received.to_json() if experiment.received else None,
        "n_test": len(real.patients("test")),
        "n_val": len(real.patients("val")),
        "spacing_mm": real.spacing_mm,
        "alpha": config.alpha,
        "definitions": DEFINITIONS_HERE,
        "arms": [describe_arm(context, findings, arm) for arm in findings.arms],
        "generators": describe_generators(experiment.synthetic),
        "comparisons": [comparison_json(comparison, config.alpha) for comparison in findings.comparisons],
        "subgroups": [row for found in subgroups for row in subgroups_json(found)],
        "fairness": describe_fairness(subgroups, config.alpha) if subgroups else "",
        "filling": describe_fillings(subgroups, config),
        **({"power": measure_power(context, findings)} if findings.main else {}),
    }


def describe_main(findings: Findings, config: EvaluateSection) -> str:
    """Say in one sentence what the main comparison found, and first if it is not the one that is meant."""
    main = findings.main
    if main is None and findings.comparisons:
        return (
            "No claim was planned: of one arm of each comparison the generator saw more patients than the other arm. "
            "Compare arms with real scans, or at all of the real patients."
        )
    if main is None:
        return "One arm was trained, so that nothing is compared."
    finding = describe_finding(main, findings.statistics.alpha)
    if (main.arm, main.baseline) == (MAIN_ARM, config.baseline) or config.baseline == MAIN_ARM:
        return finding
    return f"{MAIN_ARM} against {config.baseline} was not planned, another comparison stands in its place: {finding}"


def describe_rivals(findings: Findings) -> str:
    """Say how the main comparison's arm does against each rival without a generator; empty if it has none either."""
    main, alpha = findings.main, findings.statistics.alpha
    if (
        main is None
        or main.arm in RIVALS
        or all(arm.name != main.arm or not arm.synthetic_cases for arm in findings.arms)
    ):
        return ""
    if not findings.rivals:
        return f"{main.arm} was not compared with any rival that needs no generator ({', '.join(RIVALS)})."
    return " ".join(describe_finding(rival, alpha) for rival in findings.rivals)


def describe_fillings(subgroups: Sequence[SubgroupFindings], config: EvaluateSection) -> str:
    """Say whether strata were helped that the plan filled, by the main comparison; empty if it filled none."""
    found = " ".join(filter(None, (describe_filling(one, config.alpha) for one in subgroups[:1])))
    if found and config.n_generators > 1:
        found += f" Synthetic cases are counted in the cohort of the first of {config.n_generators} generators."
    return found


def describe_arm(context: StageContext, findings: Findings, arm: Arm) -> dict[str, Any]:
    """Return an arm's entry."""
    config, experiment = context.config.evaluate, findings.experiment
    regions: dict[str, Any] = {}
    for region in experiment.real.scheme.regions:
        summaries = {metric: findings.summary(arm, region, metric) for metric in ALL_METRICS}
        regions[region] = {metric: _summary_entry(metric, summary) for metric, summary in summaries.items() if summary}
        regions[region]["n_present"] = len(findings.values(arm, region, PRESENT_METRIC))
    made = experiment.synthetic[origin_of(config, arm.share)] if arm.synthetic_cases else None
    return {
        "name": arm.name,
        "meaning": DESIGNS[arm.name].meaning,
        "share": arm.share,
        "synthetic_share": arm.mixing.synthetic_share,
        "schedule": arm.mixing.schedule,
        "paste_share": arm.mixing.paste_share,
        "pasted_share": findings.pasted_share(arm),
        "augmentation": arm.augmentation.model_dump(),
        "n_real": len(arm.real_cases),
        "n_real_persons": count_persons(arm.real_cases),
        "n_synthetic": len(arm.synthetic_cases),
        "n_draws": config.n_generators if 0.0 < arm.share < 1.0 else 1,
        "n_generators": config.n_generators if made else 0,
        "n_generator_persons": made.n_persons if made else None,
        "regions": regions,
        "n_patients": len(experiment.real.patients("test")),
        "n_seeds": config.n_seeds,
        "steps": config.steps,
        "dice_val": findings.dice_val(arm),
    }


def _summary_entry(metric: str, summary: Summary) -> dict[str, Any]:
    # Of what happens to none of 20 patients the interval of means is a point, and the truth may be one in six.
    return {"mean": summary.mean, "sd": summary.sd, "ci": None if metric in RATE_METRICS else summary.ci}


def describe_cautions(context: StageContext, findings: Findings, steps_check: StepsCheck | None) -> list[str]:
    """Say how far to trust the main comparison, and where segmenters are too little trained to be compared."""
    config, experiment = context.config.evaluate, findings.experiment
    origin = experiment.received.cautions if experiment.received else []
    origin += list_draw_cautions(config, experiment.real, experiment.synthetic)
    main = list_cautions(findings.main) if findings.main else []
    titles = {arm.title if arm.share not in (findings.top_share, 0.0) else arm.name: arm for arm in findings.arms}
    training = list_search_cautions(config) + list_edge_cautions(config, findings.at_share(findings.top_share))
    if steps_check is None:
        training.append("Whether more steps would help was not tried.")
    elif not steps_check.is_plateau:
        training.append(steps_check.sentence)
    for title, arm in titles.items():
        asked, pasted = arm.mixing.paste_share, findings.pasted_share(arm)
        if pasted < MIN_PASTED * asked:
            training.append(
                f"{title} was to paste a tumour into {asked:.0%} of slices or patches and found a place in "
                f"{pasted:.0%}: a larger `patch_voxels` would do it justice."
            )
    n_test = len(experiment.real.patients("test"))
    for region in experiment.real.scheme.regions:
        n_present = len(findings.values(findings.arms[0], region, PRESENT_METRIC))
        if n_present < n_test:
            training.append(
                f"{n_test - n_present} of {n_test} test patients have no {REGION_TITLES[region]}. By a single voxel "
                f"theirs is a Dice of 0 or 1 and a HD95 of 0 or the image's diagonal, so that they can decide what is "
                "said of it: see Dice where present, and false alarms."
            )
        n_missed = {title: findings.count_unlearnt(arm, region) for title, arm in titles.items()}
        missed = [f"{title} ({n} of {config.n_seeds} trainings)" for title, n in n_missed.items() if n]
        if missed:
            training.append(
                f"{region} has not been learnt in {', '.join(missed)}: train longer before comparing it. No interval "
                "of a few trainings holds the luck of one that fails."
            )
    return [*origin, *main, *training]


def compare_groups(context: StageContext, findings: Findings) -> tuple[SubgroupFindings, ...]:
    """Make the main arm's comparison in every group of patients: the main one first, then regions, metrics, shares."""
    main, config = findings.main, context.config.evaluate
    if main is None:
        return ()
    real = findings.experiment.real
    # A received cohort was planned by another config: strata are then the default's.
    is_own = config.received_release is None
    section = context.config.generate if is_own else GenerateSection()
    groups = group_patients(real.patients("test"), real.split("train"), section)
    path = context.folder("generate") / "plan.tsv"
    filling = read_filling(read_tsv(path)) if is_own and path.is_file() else {}
    asked = [plan for plan in findings.planned if (plan.arm, plan.baseline) == (main.arm, main.baseline)]
    return tuple(
        # The plan on disk is that of the run's own cohort, the one at all patients.
        compare_subgroups(
            findings.table, plan, groups, findings.statistics, filling if (plan.share or 1.0) == OWN.share else {}
        )
        for plan in sorted(asked, key=lambda plan: plan.role != "primary")
    )


def measure_power(context: StageContext, findings: Findings) -> dict[str, Any]:
    """Say what the plan could find, by the spread that the main comparison's differences have."""
    main = findings.main
    if main is None:
        return {}
    n_seeds = len(main.seed_deltas)
    n_secondary = sum(plan.role == "secondary" for plan in findings.planned)
    study = Study(main.n_patients, n_seeds, n_secondary, findings.statistics.alpha)
    # One training has no spread of trainings.
    is_measured = n_seeds > 1 and main.n_patients > 1
    differences = findings.difference(main).values
    spread = estimate_spread(differences) if is_measured else ASSUMED_SPREAD
    upper = widen_seed_spread(differences, POWER_ALPHA) if is_measured else None
    return {
        "sentence": describe_power(study, spread, upper),
        "region": MAIN_REGION,
        "metric": MAIN_METRIC,
        "is_measured": is_measured,
        "sd": {"between_patients": spread.patient, "between_trainings": spread.seed, "residual": spread.residual},
        "sd_between_trainings_upper": None if upper is None else upper.seed,
    }
