"""How often an audit says what, by cohort size and number of references, in a toy world whose leak is known.

    python benchmarks/audit_verdicts.py [--persons 24,50,100,200] [--references 2,8,16] [--audits 40] [--out FILE]

Worlds (:mod:`pipeline.audit.simulation`): one whose generator remembers nobody, one that copies (three synthetic
records in ten lie near a member) and one whose errors of reconstruction are smaller on members by one standard
deviation. As many synthetic records are made as the target has members. Each audit is whole: attacks, references,
controls, the shipped policy; verdicts are those for a release of the data set and of the generator. One line of JSON
for each cell. The leak-free column tells how many persons and references a pass takes; the others how often a leak is
let through. ``fired`` counts the audits in which each positive control fired, ``quiet`` those in which no negative
control did.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from joblib import Parallel, delayed

from pipeline.audit.policy import DEFAULT, load_policy
from pipeline.audit.simulation import ToyAudit, World
from pipeline.audit.verdict import Planned
from pipeline.config import AuditSection

WORLDS: dict[str, dict[str, float]] = {
    "no leak": {},
    "copies": {"copied": 0.3},
    "memory": {"remembered": 1.0},
}
PLANNED: tuple[Planned, ...] = ("dataset", "generator")


def one_audit(world: World, n_references: int, seed: int) -> tuple[dict[str, str], dict[str, bool], bool]:
    """Return one audit's verdict for each kind of release, whether each positive control fired, and no negative one."""
    section = AuditSection(n_references=n_references, n_bootstrap=500)
    conclusions = ToyAudit(world, n_references, seed).conclude(load_policy(DEFAULT), section)
    return (
        {planned: conclusions.verdicts[planned].verdict for planned in PLANNED},
        {control.name: control.behaved for control in conclusions.positive},
        all(control.behaved for control in conclusions.negative),
    )


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--persons", default="24,50,100,200")
    parser.add_argument("--references", default="2,8,16")
    parser.add_argument("--audits", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = []
    for n_persons in (int(text) for text in arguments.persons.split(",")):
        for n_references in (int(text) for text in arguments.references.split(",")):
            for name, leak in WORLDS.items():
                world = World(n_persons, n_synthetic=round(0.6 * n_persons), **leak)
                found = Parallel(n_jobs=arguments.workers)(
                    delayed(one_audit)(world, n_references, seed) for seed in range(arguments.audits)
                )
                verdicts, fired, quiet = zip(*found, strict=True)
                row = {
                    "persons": n_persons,
                    "references": n_references,
                    "world": name,
                    **{planned: dict(Counter(one[planned] for one in verdicts)) for planned in PLANNED},
                    "fired": {control: sum(one[control] for one in fired) for control in fired[0]},
                    "quiet": sum(quiet),
                }
                lines.append(json.dumps(row))
                print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
