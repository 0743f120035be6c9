"""Ablation of curation: cohorts of the same generators, chosen out of several candidates and taken as they come.

    python benchmarks/curation.py RUN [--candidates 1,3] [--seeds 3] [--out FILE]

RUN is a run folder whose ingest is done (``synthcohort ingest configs/demo.yaml --out RUN``); the rest is its config.
For each seed one generator is trained on the train side and makes a cohort for each number of candidates; each is
measured by one judge that chose nothing (but is of the choosers' kind, longer trained), and attacked: AUC of the
nearest-neighbour attack on members (train) against non-members (test), which must not rise, nor fall below one half,
by the choice. One line of JSON for each cohort, then one for each number with means and standard deviations over
seeds, and the paired differences.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pipeline.audit.asked import ask_about
from pipeline.audit.attacks.nearest_neighbour import nearest_distances
from pipeline.audit.setting import Setting
from pipeline.audit.targets import by_person
from pipeline.audit.views import view_synthetic, view_targets
from pipeline.cohort import Cohort, open_cohort
from pipeline.config import RunConfig, load_config
from pipeline.generate.judge import Judge, train_judge
from pipeline.generate.measures import look_at, mean_dice, measure_realism
from pipeline.generate.synthesis import generate_cohort
from pipeline.statistics import auc
from pipeline.train.generator import Generator
from pipeline.train.loop import train_generator
from pipeline.train.plan import TrainingPlan
from pipeline.train.weights import load_generator

JUDGE_STEPS = 1200


def measure_cohort(
    config: RunConfig, n_candidates: int, generator: Generator, cohort: Cohort, judge: Judge, seed: int, folder: Path
) -> dict[str, float]:
    """Make, measure and attack one cohort."""
    curation = config.generate.curation.model_copy(update={"candidates": n_candidates})
    section = config.generate.model_copy(update={"curation": curation})
    made = generate_cohort(generator, cohort, cohort.split("train"), section, config.compute, seed, folder)
    synthetic = open_cohort(folder)
    realism = measure_realism(judge, synthetic, cohort, section.two_sample_steps, seed)
    found = mean_dice(look_at(judge, synthetic.cases, len(synthetic.cases)))
    figures = {f"fidelity_{region}": dice for region, dice in found.items() if dice is not None}
    figures |= {name: float(v["synthetic"]) for name, v in realism.items() if isinstance(v["synthetic"], float)}
    setting = Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, 1, seed)
    asked, _ = ask_about(cohort, setting)
    views, others = asked.targets.views["scan"], view_targets(cohort.patients("val"), setting).views["scan"][:, 0]
    released = view_synthetic(synthetic.cases, setting)["scan"]
    scores = nearest_distances(views, others) - nearest_distances(views, released)
    scores = by_person(scores, asked.targets.subjects, asked.persons)
    figures["nearest_neighbour_auc"] = auc(scores[asked.is_member], scores[~asked.is_member])
    return {**figures, "near_duplicates": float(made.n_near_duplicates)}


def summarise(found: list[dict[str, float]]) -> dict[str, list[float]]:
    """Return mean and standard deviation of each figure."""
    return {
        name: [round(mean(one[name] for one in found), 4), round(stdev([one[name] for one in found]), 4)]
        for name in found[0]
        if all(name in one for one in found)
    }


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--candidates", default="1,3", help="the first is what the others are compared with")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds: expected two or more")
    config, cohort = load_config(arguments.run / "config.yaml"), open_cohort(arguments.run / "cohort")
    members = cohort.split("train")
    numbers = [int(text) for text in arguments.candidates.split(",")]
    found: dict[int, list[dict[str, float]]] = {number: [] for number in numbers}
    lines: list[dict[str, Any]] = []

    def say(line: dict[str, Any]) -> None:
        lines.append(line)
        print(json.dumps(line), flush=True)

    with tempfile.TemporaryDirectory(prefix="curation-") as scratch:
        section = config.generate.judge.model_copy(update={"steps": JUDGE_STEPS})
        judge = train_judge(cohort, members, section, config.compute, 0, Path(scratch, "judge"))
        val = cohort.patients("val")
        say({"judge_dice_on_val": mean_dice(look_at(judge, val, len(val)))})
        for seed in range(arguments.seeds):
            plan = TrainingPlan(members, cohort.scheme, cohort.modalities, config.train, config.compute, seed)
            train_generator(plan, Path(scratch, f"model-{seed}"))
            generator = load_generator(Path(scratch, f"model-{seed}"))
            for number in numbers:
                folder = Path(scratch, f"synthetic-{seed}-{number}")
                found[number].append(measure_cohort(config, number, generator, cohort, judge, seed, folder))
                say({"candidates": number, "seed": seed, **found[number][-1]})
    for number in numbers:
        say({"candidates": number, "seeds": arguments.seeds, "mean_and_sd": summarise(found[number])})
    for number in numbers[1:]:
        pairs = zip(found[number], found[numbers[0]], strict=True)
        differences = [{name: one[name] - other[name] for name in one.keys() & other.keys()} for one, other in pairs]
        say({"candidates": number, "less": numbers[0], "mean_and_sd_of_differences": summarise(differences)})
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
