"""How often cohorts whom nobody copied are called leaking, and cohorts of whom one person was copied are not.

    python benchmarks/audit_copies_honest.py RUN FOLDER [FOLDER ...] [--cohorts 400] [--out FILE]

RUN is a run folder whose ingest is done; FOLDERs are cohorts that were made of none of its persons (a cohort of
phantoms of another seed, a synthetic cohort made of those): they stand for what was released, honestly. Likenesses are
measured once; cohorts of each size are then drawn from persons and released cases, and judged as an audit judges them
by the shipped policy. With ``exact`` one released case is a member's own scan, with ``constructed`` a copy of any kind.
Draws share persons: the shares say what happens among these, not their own error. One line of JSON for each cell.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.constructions import KINDS
from pipeline.audit.copies import LEVELS, CopySearch, judge_copies
from pipeline.audit.copy_search import N_FIXING, N_FIXING_EACH, draw_copy
from pipeline.audit.gallery import Gallery
from pipeline.audit.policy import load_policy
from pipeline.audit.portraits import draw_case
from pipeline.audit.setting import Setting
from pipeline.audit.verdict import _find_copy_gaps, _find_copy_leaks
from pipeline.cohort import open_cohort
from pipeline.seeds import numpy_stream

# Members, test persons, val persons, released cases.
SIZES = ((56, 38, 16, 50), (24, 10, 6, 24), (12, 6, 3, 24), (6, 5, 1, 12))
Table = dict[str, NDArray[np.float64]]


def measure(run: Path, folders: list[Path]) -> tuple[Table, Table, Table]:
    """Return likenesses by level: (persons, persons), (persons, released) and (persons, kinds) of their copies."""
    cohort = open_cohort(run / "cohort")
    setting = Setting(cohort.scheme, cohort.modalities, cohort.spacing_mm, 1, 0)
    cases = [scans[0] for side in ("train", "val", "test") for scans in cohort.persons(side)]
    portraits = [draw_case(case, setting) for case in cases]
    gallery = Gallery(portraits)
    among = [gallery.likeness(portrait) for portrait in portraits]
    released = [gallery.likeness(draw_case(case, setting)) for folder in folders for case in open_cohort(folder).cases]
    copies: Table = {level: np.zeros((len(cases), len(KINDS))) for level in LEVELS}
    for number, case in enumerate(cases):
        for column, kind in enumerate(KINDS):
            found = gallery.likeness(draw_copy(case, kind, setting, numpy_stream(3, number, kind)))
            for level in LEVELS:
                copies[level][number, column] = found[level][number]
    tables = [{level: np.stack([one[level] for one in rows], axis=1) for level in LEVELS} for rows in (among, released)]
    return tables[0], tables[1], copies


def draw_search(
    among: Table,
    released: Table,
    copies: Table,
    size: tuple[int, int, int, int],
    leak: str,
    stream: np.random.Generator,
) -> CopySearch:
    """Draw a cohort and a release; with a leak the first released case is a copy of the first member."""
    n_members, n_test, n_val, n_released = size
    n_asked = n_members + n_test
    people = stream.permutation(len(copies["scan"]))[: n_asked + n_val]
    cases = stream.choice(released["scan"].shape[1], n_released, replace=False)
    table = {level: released[level][np.ix_(people, cases)].astype(np.float32) for level in LEVELS}
    kind = int(stream.integers(len(KINDS)))
    if leak != "none":
        for level in LEVELS:
            table[level][:, 0] = among[level][people, people[0]]
            table[level][0, 0] = copies[level][people[0], kind] if leak == "constructed" else 1.0
    each = min(len(KINDS), max(N_FIXING_EACH, -(-N_FIXING // n_val)))
    fixing = [(people[n_asked + v], (v * each + turn) % len(KINDS)) for v in range(n_val) for turn in range(each)]
    return CopySearch(
        np.arange(n_asked) < n_members,
        np.arange(len(people)),
        np.arange(len(people)),
        table,
        {level: among[level][np.ix_(people, people)].astype(np.float32) for level in LEVELS},
        {level: np.array([copies[level][place] for place in fixing]) for level in LEVELS},
        {level: np.array([copies[level][people[i], i % len(KINDS)] for i in range(n_asked)]) for level in LEVELS},
        tuple(KINDS[i % len(KINDS)] for i in range(n_asked)),
    )


def main() -> None:
    """Measure once, then draw cohorts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("released", type=Path, nargs="+")
    parser.add_argument("--cohorts", type=int, default=400)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    tables, policy, rows = measure(arguments.run, arguments.released), load_policy("default"), []
    for size in SIZES:
        for leak in ("none", "exact", "constructed"):
            stream = numpy_stream(1, "cohorts", leak, *size)
            judged = []
            for _ in range(arguments.cohorts):
                search = draw_search(*tables, size, leak, stream)
                judged.append({level: judge_copies(search, level) for level in LEVELS})
            row: dict[str, Any] = {"name": "audit_copies_honest", "members": size[0], "test": size[1], "val": size[2]}
            row |= {
                "released": size[3],
                "leak": leak,
                "cohorts": len(judged),
                "fail": float(np.mean([bool(_find_copy_leaks(one, policy)) for one in judged])),
                "no_gap": float(np.mean([not _find_copy_gaps(one, policy) for one in judged])),
                "copies": {level: float(np.mean([one[level].n_copies > 0 for one in judged])) for level in LEVELS},
                "recall": {level: float(np.mean([one[level].recall for one in judged])) for level in LEVELS},
                "alarms": {level: float(np.mean([one[level].false_alarms for one in judged])) for level in LEVELS},
            }
            rows.append(json.dumps(row))
            print(rows[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
