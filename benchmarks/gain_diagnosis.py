"""Where synthetic scans fall short of the best cheap rival: labels, appearance, mixing or steps? Swapped one at a time.

    python benchmarks/gain_diagnosis.py RUN OUT [--seeds 3] [--out FILE]

RUN is a run folder of phantoms whose evaluation is done; its mixing, as chosen on val, is kept. At all real patients,
each with the same seeds:

- ``real-aug``, ``copypaste-aug``, ``random-contrast-aug``, ``real-syn-aug`` as the run has them, with its generator;
- ``real labels``: members' own label maps, rendered by the generator, in place of new ones;
- ``true scans``: other phantoms, scans and label maps, as many: a perfect generator of perfect label maps;
- ``random contrasts``: the same label maps, as many, without the generator's appearance (``random-contrast-aug`` has
  a share of its own, as its search chose);
- ``synthetic first``: the same number of synthetic slices, but before the real ones; ``half as many``: half of them;
- ``twice the steps``: ``real-syn-aug`` and the rival that did best on val.

Test persons are looked at here: nothing that is chosen afterwards may be tested on them. Finished trainings are kept in
OUT, in a folder for this very evaluation. The last line is JSON.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cohort import Case, CaseData, Cohort, digest_file, open_cohort, write_case, write_cohort_files
from pipeline.config import RunConfig, load_config
from pipeline.config_evaluate import MAIN_ARM, RIVALS, ArmName, EvaluateSection
from pipeline.evaluate.experiment import Experiment, choose_pictured
from pipeline.evaluate.intervals import Statistics, mean_interval
from pipeline.evaluate.steps_check import doubled_section
from pipeline.evaluate.trainings import TrainingTask, train_and_score
from pipeline.generate.sampling import render_volume, to_intensity
from pipeline.layout import DONE_FILE
from pipeline.parallel import iterate_trainings
from pipeline.runner import run_stages
from pipeline.seeds import derive_seed, torch_stream
from pipeline.segmentation.arms import Arm, Mixing, choose_synthetic_cases, make_arm
from pipeline.segmentation.scans import ScanPool
from pipeline.train.weights import load_generator

OURS = MAIN_ARM
BASE: tuple[ArmName, ...] = ("real-aug", *RIVALS, OURS)
BOUNDS = (-1.0, 1.0)


def render_members(run: Path, real: Cohort, n: int, seed: int, out: Path) -> tuple[Case, ...]:
    """Render the label maps of members, in turn, n times; return the cases."""
    if not (out / "participants.tsv").is_file():
        generator, members = load_generator(run / "model").eval(), real.split("train")
        rows = []
        for number in range(n):
            member = members[number % len(members)]
            condition = member.condition(real.scheme)
            scan = render_volume(generator, condition, torch_stream(seed, "re-rendered", number))
            images = {name: to_intensity(one, condition > 0) for name, one in zip(real.modalities, scan, strict=True)}
            maps = np.asarray(member.tissue_map()), np.asarray(member.tumor_map())
            subject = f"rendered{number:04d}"
            write_case(out, CaseData(subject, images, *maps, member.affine, {}))
            rows.append({"participant_id": f"sub-{subject}", "source": "members", "split": "n/a"})
        write_cohort_files(out, "Members' label maps, rendered", real.scheme, rows, "Private: label maps of members.\n")
    return open_cohort(out).cases


def make_others(config: RunConfig, n: int, out: Path) -> tuple[Case, ...]:
    """Ingest n phantoms of another seed; return all of them."""
    ingest = config.ingest.model_copy(update={"phantom_cases": n})
    other = config.model_copy(
        update={"ingest": ingest, "run": config.run.model_copy(update={"seed": config.run.seed + 1})}
    )
    run_stages(other, out, "ingest", "ingest")
    return open_cohort(out / "cohort").cases


def read_arms(run: Path) -> dict[str, dict[str, Any]]:
    """Return the run's arms at all real patients, by name."""
    gain = json.loads((run / "evaluation" / "gain.json").read_text(encoding="utf-8"))
    return {arm["name"]: arm for arm in gain["arms"] if arm["share"] == 1.0}


def list_tasks(
    found: dict[str, dict[str, Any]],
    lengthened: Sequence[ArmName],
    config: RunConfig,
    real: Cohort,
    synthetic: dict[str, Sequence[Case]],
    n_seeds: int,
    out: Path,
) -> list[tuple[str, TrainingTask]]:
    """Return every training with its title."""
    # The stage's own, so that what it drew is drawn here.
    seed = derive_seed(config.run.seed, "evaluate")
    scans = ScanPool(real.modalities)
    cases = [*real.complete(real.split("train")), *(case for some in synthetic.values() for case in some)]
    window = scans.fit_window(cases, config.evaluate.dimensions, 2**config.evaluate.levels)
    experiment = Experiment(real, {}, scans, window, choose_pictured(real.patients("test")))

    def mixing_of(name: ArmName) -> Mixing:
        entry = found[name]
        return Mixing(entry["synthetic_share"], entry["schedule"], entry["n_synthetic"] or None, entry["paste_share"])

    def arm_of(name: ArmName, cases: Sequence[Case], mixing: Mixing | None = None) -> Arm:
        mixing = mixing or mixing_of(name)
        some = choose_synthetic_cases(cases, mixing.n_synthetic, seed)
        return make_arm(name, 1.0, real.complete(real.split("train")), some, mixing, config.evaluate)

    own, ours = synthetic["own"], mixing_of(OURS)
    as_run, doubled = config.evaluate, doubled_section(config.evaluate)
    arms: dict[str, tuple[Arm, EvaluateSection]] = {name: (arm_of(name, own), as_run) for name in BASE}
    arms["real labels"] = arm_of(OURS, synthetic["real labels"]), as_run
    arms["true scans"] = arm_of(OURS, synthetic["true scans"]), as_run
    arms["random contrasts"] = arm_of("random-contrast-aug", own, ours), as_run
    arms["synthetic first"] = arm_of(OURS, own, replace(ours, schedule="synthetic-first")), as_run
    arms["half as many"] = arm_of(OURS, own, replace(ours, synthetic_share=ours.synthetic_share / 2)), as_run
    arms.update({f"{name}, twice the steps": (arm_of(name, own), doubled) for name in lengthened})
    tasks = []
    for title, (arm, section) in arms.items():
        for number in range(n_seeds):
            folder = out / "trainings" / f"{title.replace(', ', '-').replace(' ', '-')}-{number}"
            tasks.append((title, TrainingTask(experiment, arm, number, section, config.compute, seed, folder)))
    return tasks


def compare(scores: dict[str, dict[str, Any]], pairs: Sequence[tuple[str, str]], seed: int) -> list[dict[str, Any]]:
    """Return each pair's paired difference of Dice by region with its interval, over patients and trainings."""
    rows = []
    for title, against in pairs:
        for region, values in scores[title].items():
            difference = values - scores[against][region]
            low, high = mean_interval(difference, Statistics(2000, 0.05, seed), BOUNDS) or (np.nan, np.nan)
            rows.append(
                {
                    "arm": title,
                    "against": against,
                    "region": region,
                    "difference": round(float(difference.mean()), 4),
                    "ci": [round(float(low), 4), round(float(high), 4)],
                    "of_trainings": [round(float(one), 4) for one in difference.mean(axis=0)],
                }
            )
    return rows


def main() -> None:
    """Train and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config, real = load_config(arguments.run / "config.yaml"), open_cohort(arguments.run / "cohort")
    own = open_cohort(arguments.run / "synthetic").cases
    # An evaluation made again is another one: what was trained by its choices is not mixed with what was before.
    folder = arguments.folder / digest_file(arguments.run / "evaluation" / DONE_FILE)[:12]
    synthetic: dict[str, Sequence[Case]] = {
        "own": own,
        "real labels": render_members(arguments.run, real, len(own), config.run.seed, folder / "rendered"),
        "true scans": make_others(config, len(own), folder / "others"),
    }
    found = read_arms(arguments.run)
    best_rival = max(RIVALS, key=lambda name: max(found[name]["dice_val"]))
    lengthened = (best_rival, OURS)
    tasks = list_tasks(found, lengthened, config, real, synthetic, arguments.seeds, folder)
    tables: dict[str, dict[str, dict[tuple[str, int], float]]] = {}
    dice_val: dict[str, list[float]] = {}
    results = iterate_trainings(train_and_score, [task for _, task in tasks], config.compute)
    for (title, _), result in zip(tasks, results, strict=True):
        dice_val.setdefault(title, []).append(round(max(result.dice_val), 4))
        for score in result.scores:
            if score.metric == "dice":
                regions = tables.setdefault(title, {})
                regions.setdefault(score.region, {})[score.patient, score.seed] = score.value
    patients = sorted({patient for patient, _ in tables[OURS]["WT"]})
    scores = {
        title: {
            region: np.array([[values[patient, seed] for seed in range(arguments.seeds)] for patient in patients])
            for region, values in regions.items()
        }
        for title, regions in tables.items()
    }
    means = {title: {region: round(float(v.mean()), 4) for region, v in of.items()} for title, of in scores.items()}
    pairs: list[tuple[str, str]] = [(title, OURS) for title in scores if title != OURS and "twice" not in title]
    pairs += [(f"{name}, twice the steps", name) for name in lengthened]
    pairs.append((f"{OURS}, twice the steps", f"{best_rival}, twice the steps"))
    rows = [{"name": "gain_diagnosis", **row} for row in compare(scores, pairs, config.run.seed)]
    for row in rows:
        print(f"{row['arm']} against {row['against']}, {row['region']}: {row['difference']:+.3f} {row['ci']}")
    summary = {"name": "gain_diagnosis", "dice": means, "dice_val": dice_val, "n_test": len(patients)}
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in [*rows, summary]), encoding="utf-8")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
