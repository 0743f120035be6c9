"""Does an audit see the noise of differential privacy? The same training with it and without, audited by one run.

    python benchmarks/dp_noise.py RUN [--epsilon 0.5] [--delta 1e-4] [--members 10] [--canaries 60] [--steps 300]
                                  [--seeds 3] [--augmentation none|run] [--out FILE]

RUN is a run folder whose ingest is done, of phantoms. A training has some members, and canaries (nobody's label maps
with looks that nobody has, :mod:`pipeline.audit.canaries`) that a coin each puts in: the promise holds for any
person, so also for those that are easiest to remember. The discriminator, which the promise covers too, is asked
about each canary; those with the highest logits are guessed to be in, those with the lowest out. A lower bound of
epsilon above the promise says that noise is missing; with noise none may be. Delta is small, as what is shown at a
large one is little. Without augmentation of what the discriminator sees, unless the run's own is asked for: it hides
members from both trainings alike. The last line is JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audit.canaries import guess, make_canaries, toss
from pipeline.audit.material import judge_targets
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Targets, unlabelled
from pipeline.cohort import Cohort, open_cohort
from pipeline.config import ComputeSection, PrivacySection, RunConfig, TrainSection, load_config
from pipeline.generate.public_labels import public_labels
from pipeline.seeds import derive_seed
from pipeline.statistics import auc
from pipeline.train.plan import TrainingPlan
from pipeline.train.private import PrivateGame

CPU = ComputeSection(accelerator="cpu", workers=1)


def audit(
    config: RunConfig,
    section: TrainSection,
    cohort: Cohort,
    sizes: tuple[int, int],
    seed: int,
    noisy: bool,
    folder: Path,
) -> dict[str, Any]:
    """Train on members and on canaries that coins put in, (members, canaries); return finding of one run and AUC."""
    n_members, n_canaries = sizes
    canaries = make_canaries(cohort, config.generate, CPU, n_canaries, seed, folder / "canaries")
    is_in = toss(n_canaries, seed)
    members = (
        *cohort.patients("train")[:n_members],
        *(case for case, inside in zip(canaries, is_in, strict=True) if inside),
    )
    with_section = config.model_copy(update={"train": section})
    labels = public_labels(with_section, CPU, cohort, seed, folder / "labels.npy")
    # Accounted for as many as coins put in on average: their true number is what is guessed.
    plan = TrainingPlan(
        members,
        cohort.scheme,
        cohort.modalities,
        section,
        CPU,
        seed,
        public=labels,
        n_accounted=n_members + n_canaries // 2,
    )
    game = PrivateGame(plan, derive_seed(seed, "key"))
    if not noisy:
        game._private_optimizer.noise_multiplier = 0.0
    for step in range(section.steps):
        game.play(step)
    setting = Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, 1, seed)
    discriminator = game.discriminator.eval().requires_grad_(False)
    targets = Targets(tuple(case.subject for case in canaries), {}, unlabelled(canaries))
    scores = judge_targets(targets, discriminator, setting)
    found = guess(scores, is_in, 0.05, game._guarantee.delta)
    return {
        "seed": seed,
        "noise": game._guarantee.noise_multiplier if noisy else 0.0,
        "promised": game._guarantee.epsilon,
        "auc": round(auc(scores[is_in], scores[~is_in]), 3),
        **found.as_json(),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--epsilon", type=float, default=0.5)
    parser.add_argument("--delta", type=float, default=1e-4)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--canaries", type=int, default=60)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--augmentation", choices=("none", "run"), default="none")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config, cohort = load_config(arguments.run / "config.yaml"), open_cohort(arguments.run / "cohort")
    privacy = PrivacySection(
        epsilon=arguments.epsilon, delta=arguments.delta, patients_per_step=8, discriminator_steps=4, label_maps=32
    )
    section = config.train.model_copy(update={"steps": arguments.steps, "privacy": privacy, "style": "random"})
    if arguments.augmentation == "none":
        section = section.model_copy(update={"augmentation": ()})
    rows = []
    for seed in range(arguments.seeds):
        for noisy in (False, True):
            with tempfile.TemporaryDirectory(prefix="dp-noise-") as folder:
                rows.append(
                    audit(config, section, cohort, (arguments.members, arguments.canaries), seed, noisy, Path(folder))
                )
            print(json.dumps(rows[-1]), flush=True)
    bounds = {noisy: [row["epsilon_lower"] for row in rows if (row["noise"] > 0) == noisy] for noisy in (False, True)}
    summary = {
        "name": "dp_noise",
        "promised": arguments.epsilon,
        "resolvable": round(float(rows[0]["epsilon_resolvable"]), 2),
        "augmentation": list(section.augmentation),
        "steps": arguments.steps,
        "members": arguments.members,
        "canaries": arguments.canaries,
        "without_noise": [round(float(bound), 2) for bound in bounds[False]],
        "with_noise": [round(float(bound), 2) for bound in bounds[True]],
        "without_exceeds": int(np.sum(np.array(bounds[False]) > arguments.epsilon)),
        "with_exceeds": int(np.sum(np.array(bounds[True]) > arguments.epsilon)),
    }
    print(json.dumps(summary))
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in [*rows, summary]), encoding="utf-8")


if __name__ == "__main__":
    main()
