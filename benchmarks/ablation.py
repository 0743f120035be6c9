"""Ablation of the recipe: each of its main choices taken back, on one cohort, several seeds.

    python benchmarks/ablation.py RUN [--arms base,style] [--seeds 3] [--out FILE]

RUN is a run folder whose ingest is done (``synthcohort ingest configs/demo.yaml --out RUN``); its config gives all that
an arm does not change. For each arm and seed a generator is trained on the train side, renders the plan of the config,
and is measured by one judge, trained once on the train side and chosen on val. Nothing of the test side is read.
One line of JSON for each training, then one for each arm with means over seeds. A campaign of hours on real patients,
of some minutes a training on phantoms; the figures choose the recipe, so they are no result about it.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pipeline.cohort import Cohort, open_cohort
from pipeline.config import RunConfig, load_config
from pipeline.generate.judge import Judge, train_judge
from pipeline.generate.measures import look_at, mean_dice, measure_draws, measure_realism
from pipeline.generate.synthesis import generate_cohort
from pipeline.train.loop import train_generator
from pipeline.train.plan import TrainingPlan
from pipeline.train.weights import load_generator

# As many as a judge of phantoms needs until its Dice on val no longer rises: a poor one tells arms apart poorly.
JUDGE_STEPS = 1500
ARMS: dict[str, dict[str, Any]] = {
    "base": {},
    "random style": {"style": "random"},
    "no augmentation": {"augmentation": ("flip",)},
    "no feature matching": {"feature_matching_weight": 0.0},
    "with L1": {"reconstruction_weight": 5.0},
    "all places alike": {"class_balance": 0.0},
}


def measure_arm(
    config: RunConfig, changes: Mapping[str, Any], cohort: Cohort, judge: Judge, seed: int, folder: Path
) -> dict[str, float]:
    """Train, render and measure one arm with one seed."""
    section = config.train.model_validate({**config.train.model_dump(), **changes})
    plan = TrainingPlan(cohort.split("train"), cohort.scheme, cohort.modalities, section, config.compute, seed)
    started = time.monotonic()
    train_generator(plan, folder / "model")
    seconds = time.monotonic() - started
    generator = load_generator(folder / "model")
    generate_cohort(
        generator, cohort, cohort.split("train"), config.generate, config.compute, seed, folder / "synthetic"
    )
    synthetic = open_cohort(folder / "synthetic")
    realism = measure_realism(judge, synthetic, cohort, config.generate.two_sample_steps, seed, sides=("val",))
    found = mean_dice(look_at(judge, synthetic.cases, len(synthetic.cases)))
    figures = {f"fidelity_{region}": dice for region, dice in found.items() if dice is not None}
    figures |= {name: float(v["synthetic"]) for name, v in realism.items() if isinstance(v["synthetic"], float)}
    figures["likeness_between_draws"] = measure_draws(generator, synthetic.cases, cohort.scheme, seed)
    return {**figures, "train_seconds": seconds}


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    # Cases as they come: what a choice adds is another question.
    config = load_config(arguments.run / "config.yaml", ["generate.curation.candidates=1"])
    cohort = open_cohort(arguments.run / "cohort")
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="ablation-") as scratch:
        section = config.generate.judge.model_copy(update={"steps": JUDGE_STEPS})
        judge = train_judge(cohort, cohort.split("train"), section, config.compute, 0, Path(scratch, "judge"))
        val = cohort.patients("val")
        reference = mean_dice(look_at(judge, val, len(val)))
        lines.append({"judge_dice_on_val": reference})
        print(json.dumps(lines[-1]), flush=True)
        for arm in arguments.arms.split(","):
            found = []
            for seed in range(arguments.seeds):
                found.append(measure_arm(config, ARMS[arm], cohort, judge, seed, Path(scratch, f"{arm}-{seed}")))
                print(json.dumps({"arm": arm, "seed": seed, **found[-1]}), flush=True)
            summary = {
                name: [round(mean(f[name] for f in found), 4), round(stdev([f[name] for f in found]), 4)]
                if len(found) > 1
                else round(found[0][name], 4)
                for name in found[0]
                if all(name in one for one in found)
            }
            lines.append({"arm": arm, "seeds": arguments.seeds, "mean_and_sd": summary})
            print(json.dumps(lines[-1]), flush=True)
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
