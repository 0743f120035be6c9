"""Dose and response: the fewer persons a generator is trained on, the more an attack must find; and planted copies.

    python benchmarks/audit_dose.py RUN [--members 4,12,32] [--seeds 6] [--plot FILE] [--out FILE]
    python benchmarks/audit_dose.py RUN --copies-only [--seeds 6] [--out FILE]

RUN is a run folder whose ingest is done, with more than the largest number of members in train and test together (the
demo's, with more phantoms). For each number and seed a generator is trained on members drawn at random from train and
test, with the config's own schedule; the rest are the others. Attacks without shadows are run. The slope of the AUC
against the logarithm of the number of members has a bootstrap interval over generators. Then copies of persons are
planted at 1, 5 and 20 %: recall and false alarms of the search for copies. With ``--copies-only`` nothing is trained,
and copies are planted among RUN's own synthetic cases. The last line is JSON.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from pipeline.audit.attacks.registry import BY_NAME, attack_release
from pipeline.audit.constructions import KINDS
from pipeline.audit.copies import CopySearch, judge_copies
from pipeline.audit.copy_search import draw_copy, search_copies
from pipeline.audit.gallery import Gallery
from pipeline.audit.material import open_reference, open_release
from pipeline.audit.portraits import draw_case
from pipeline.audit.setting import Setting
from pipeline.audit.views import view_targets
from pipeline.cohort import Case, Cohort, open_cohort
from pipeline.config import RunConfig, load_config
from pipeline.generate.synthesis import generate_cohort
from pipeline.seeds import numpy_stream
from pipeline.statistics import auc
from pipeline.train.loop import train_generator
from pipeline.train.plan import TrainingPlan
from pipeline.train.weights import load_generator

SHARES = (0.01, 0.05, 0.2)
N_BOOTSTRAP = 2000
# Attack, marker, colour, and how far aside it stands.
DRAWN = (
    ("nearest-texture", "^", "#009E73", 0.95),
    ("nearest-neighbour", "s", "#D55E00", 1.0),
    ("reconstruction", "o", "#0072B2", 1.05),
)


def attack_generator(
    config: RunConfig, cohort: Cohort, members: list[Case], others: list[Case], seed: int, folder: Path
) -> dict[str, float]:
    """Train on the members, make a cohort, return the AUC of each attack on members against others."""
    setting = Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, config.audit.n_style_draws, seed)
    plan = TrainingPlan(tuple(members), cohort.scheme, cohort.modalities, config.train, config.compute, seed)
    train_generator(plan, folder / "model")
    generator = load_generator(folder / "model")
    generate_cohort(generator, cohort, members, config.generate, config.compute, seed, folder / "synthetic")
    targets = view_targets([*members, *others], setting)
    reference = open_reference(cohort.patients("val"), targets, setting)
    release = open_release(open_cohort(folder / "synthetic").cases, generator, setting)
    scores = attack_release(targets, release, reference)
    n = len(members)
    return {name: auc(values[:n], values[n:]) for name, values in scores.items() if name in BY_NAME}


def slope(members: NDArray[np.float64], aucs: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Return the slope of AUCs against log2 of the number of members, with a bootstrap interval over generators."""
    x = np.log2(members)
    stream, draws = numpy_stream(seed, "slope"), []
    for _ in range(N_BOOTSTRAP):
        picks = np.concatenate(
            [stream.choice(np.flatnonzero(members == n), (members == n).sum()) for n in np.unique(members)]
        )
        draws.append(np.polyfit(x[picks], aucs[picks], 1)[0])
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"slope_per_doubling": float(np.polyfit(x, aucs, 1)[0]), "ci": [float(low), float(high)]}


def copies_found(
    cohort: Cohort, search: CopySearch, gallery: Gallery, setting: Setting, share: float, seed: int
) -> dict[str, float]:
    """Plant copies of some persons among the released; return recall and false alarms of the audit's threshold."""
    persons = cohort.persons("train", "test")
    n = max(1, round(share * len(persons)))
    chosen = numpy_stream(seed, "chosen").choice(len(persons), n, replace=False)
    stream = numpy_stream(seed, "plant")
    kinds = [KINDS[int(stream.integers(len(KINDS)))] for _ in chosen]
    planted = [
        gallery.likeness(draw_copy(persons[int(i)][0], kind, setting, stream))["scan"]
        for i, kind in zip(chosen, kinds, strict=True)
    ]
    likeness = np.concatenate([search.released["scan"], np.stack(planted, axis=1)], axis=1)
    is_near: NDArray[np.bool_] = np.any(likeness >= judge_copies(search, "scan").threshold, axis=1)
    found = np.array([is_near[search.owners == person].any() for person in range(len(persons))])
    is_copied = np.isin(np.arange(len(persons)), chosen)
    return {"recall": float(found[is_copied].mean()), "false_alarms": float(found[~is_copied].mean())}


def find_planted(cohort: Cohort, released: Sequence[Case], n_seeds: int) -> list[dict[str, float]]:
    """Plant copies at each share among released cases; return mean recall and false alarms over seeds."""
    setting = Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, 1, 0)
    persons, val = cohort.persons("train", "test"), cohort.patients("val")
    is_member = np.array([scans[0].split == "train" for scans in persons])
    search = search_copies(persons, is_member, val, released, setting, 0)
    gallery = Gallery([draw_case(case, setting) for case in (*(one for scans in persons for one in scans), *val)])
    copies = []
    for share in SHARES:
        found = [copies_found(cohort, search, gallery, setting, share, seed) for seed in range(n_seeds)]
        copies.append({"share": share, **{k: float(np.mean([one[k] for one in found])) for k in found[0]}})
        print(json.dumps(copies[-1]), flush=True)
    return copies


def draw(rows: list[dict[str, Any]], copies: list[dict[str, Any]], path: Path) -> None:
    """Draw both curves."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    x = np.array([row["members"] for row in rows])
    sizes = np.unique(x)
    for name, marker, colour, shift in DRAWN:
        y = np.array([row[name] for row in rows])
        left.plot(x * shift, y, marker, color=colour, alpha=0.5)
        means = [y[x == n].mean() for n in sizes]
        left.plot(sizes * shift, means, f"{marker}-", color=colour, markersize=8, label=BY_NAME[name].title)
    left.axhline(0.5, color="#767676", linewidth=1)
    left.set(xscale="log", xlabel="persons trained on", ylabel="AUC, members against others", ylim=(0.3, 1.02))
    left.set_xticks(sizes, [str(n) for n in sizes])
    left.minorticks_off()
    left.legend(frameon=False, title="small: a generator each; large: means", alignment="left")
    shares = [row["share"] for row in copies]
    right.plot(shares, [row["recall"] for row in copies], "o-", color="#0072B2", label="copies found")
    right.plot(shares, [row["false_alarms"] for row in copies], "s--", color="#D55E00", label="false alarms")
    right.set(xscale="log", xlabel="share of persons copied", ylabel="share", ylim=(-0.02, 1.05))
    right.set_xticks(shares, [f"{share:.0%}" for share in shares])
    right.minorticks_off()
    right.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--members", default="4,12,32")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--copies-only", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config, cohort = load_config(arguments.run / "config.yaml"), open_cohort(arguments.run / "cohort")
    pool = [cases[0] for cases in cohort.persons("train", "test")]
    rows: list[dict[str, Any]] = []
    if arguments.copies_only:
        copies = find_planted(cohort, open_cohort(arguments.run / "synthetic").cases, arguments.seeds)
        print(json.dumps({"name": "audit_dose_copies", "copies": copies}))
        if arguments.out:
            arguments.out.write_text("".join(json.dumps(line) + "\n" for line in copies), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory(prefix="dose-") as scratch:
        for n in (int(text) for text in arguments.members.split(",")):
            for seed in range(arguments.seeds):
                order = numpy_stream(seed, "members", n).permutation(len(pool))
                members, others = ([pool[int(i)] for i in part] for part in (order[:n], order[n:]))
                folder = Path(scratch, f"{n}-{seed}")
                rows.append(
                    {"members": n, "seed": seed, **attack_generator(config, cohort, members, others, seed, folder)}
                )
                print(json.dumps(rows[-1]), flush=True)
        copies = find_planted(cohort, open_cohort(folder / "synthetic").cases, arguments.seeds)
    sizes = np.array([row["members"] for row in rows], float)
    slopes = {name: slope(sizes, np.array([row[name] for row in rows]), 0) for name in rows[0] if name in BY_NAME}
    print(json.dumps({"name": "audit_dose", "slopes": slopes, "copies": copies}))
    if arguments.plot:
        draw(rows, copies, arguments.plot)
    if arguments.out:
        lines = [*rows, *copies, {"name": "audit_dose", "slopes": slopes}]
        arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
