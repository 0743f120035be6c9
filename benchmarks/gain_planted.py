"""Does the evaluation find a gain and a harm that were planted, and none where there is none? With real trainings.

    python benchmarks/gain_planted.py [--effects gain harm none] [--seeds 3] [--steps 900] [--test 16] [--repeats 2]
                                      [--spacing-mm 6] [--workers 2]

Phantoms, one of them the real training patient (:mod:`pipeline.phantom.planted`). ``gain``: the synthetic cohort is
twelve more phantoms with their own label maps. ``harm``: these with the label maps of one another. ``none``: copies of
the training patient, so that both arms see the same. Each is evaluated as the stage does it, real-syn against real,
half of the slices synthetic, as often as asked with other phantoms. Counted, by Dice of each region: how often the
interval leaves 0 out on the side of the effect (for ``none``: how often it holds 0). The last line is JSON. About 15
minutes on two cores.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, get_args

from pipeline.config import RunConfig
from pipeline.phantom.planted import EVALUATION, Effect, PlantedSizes, write_planted
from pipeline.runner import StageContext, load_stage
from pipeline.tracking import StageTracker, Tracking

METRIC, SHOWN = "dice", ("delta", "ci", "role", "p", "p_holm", "significant")


def make_config(n_seeds: int, steps: int, workers: int) -> RunConfig:
    """Return the config of an evaluation."""
    evaluate = {**EVALUATION, "n_seeds": n_seeds, "steps": steps, "validate_every": max(1, steps // 4)}
    compute = {"accelerator": "cpu", "workers": workers}
    return RunConfig.model_validate({"evaluate": evaluate, "compute": compute, "tracking": {"uri": "none"}})


def evaluate_planted(config: RunConfig, effect: Effect, sizes: PlantedSizes, seed: int) -> dict[str, dict[str, Any]]:
    """Evaluate one planted effect.

    Parameters
    ----------
    config : RunConfig
    effect : str
    sizes : PlantedSizes
    seed : int
        Of phantoms and trainings.

    Returns
    -------
    dict
        By region: :data:`SHOWN` of real-syn against real by Dice.
    """
    with tempfile.TemporaryDirectory(prefix="gain-planted-") as name:
        run_dir, out = Path(name), Path(name) / "evaluation"
        write_planted(run_dir, effect, sizes, seed)
        out.mkdir()
        with Tracking(run_dir, config.tracking, {}) as tracking:
            load_stage("evaluate")(StageContext(config, run_dir, out, seed, StageTracker(tracking, "evaluate", {})))
        found = json.loads((out / "gain.json").read_text(encoding="utf-8"))["comparisons"]
    return {row["region"]: {key: row[key] for key in SHOWN} for row in found if row["metric"] == METRIC}


def is_right(effect: Effect, row: dict[str, Any]) -> bool:
    """Return whether an interval lies where the effect is: above 0, below it, or about it."""
    low, high = row["ci"]
    return {"gain": low > 0.0, "harm": high < 0.0, "none": low <= 0.0 <= high}[effect]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option, default in (("seeds", 3), ("steps", 900), ("test", 16), ("repeats", 2), ("workers", 2)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--spacing-mm", type=float, default=6.0)
    parser.add_argument("--effects", nargs="+", choices=get_args(Effect), default=get_args(Effect))
    given = parser.parse_args()
    config = make_config(given.seeds, given.steps, given.workers)
    sizes = PlantedSizes(n_test=given.test, spacing_mm=given.spacing_mm)
    right: dict[str, dict[str, int]] = {}
    deltas: dict[str, dict[str, list[float]]] = {}
    for effect in given.effects:
        for seed in range(given.repeats):
            for region, row in evaluate_planted(config, effect, sizes, seed).items():
                counts = right.setdefault(effect, {})
                counts[region] = counts.get(region, 0) + is_right(effect, row)
                deltas.setdefault(effect, {}).setdefault(region, []).append(round(row["delta"], 3))
                low, high = row["ci"]
                print(f"{effect:5} {seed:3d} {region:3} {row['delta']:+.3f} ({low:+.3f} to {high:+.3f})", flush=True)
    line = {"name": "gain_planted", "runs": given.repeats, "seeds": given.seeds, "steps": given.steps}
    print(json.dumps({**line, "test": given.test, "spacing_mm": given.spacing_mm, "right": right, "delta": deltas}))


if __name__ == "__main__":
    main()
