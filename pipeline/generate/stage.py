"""Stage generate: the synthetic cohort, and what is measured on it."""

import shutil
from collections.abc import Mapping
from typing import Any

from pipeline.attributes import CaseAttributes
from pipeline.cohort import open_cohort, write_json, write_tsv
from pipeline.generate.cases import redraw, subject_name
from pipeline.generate.geometry import compare_geometry
from pipeline.generate.judge import train_judge
from pipeline.generate.measures import measure_draws, measure_fidelity, measure_realism
from pipeline.generate.pictures import save_plan
from pipeline.generate.plan import plan_table
from pipeline.generate.synthesis import CURATION_TABLE, N_PICTURES, generate_cohort
from pipeline.generate.walk import walk
from pipeline.runner import StageContext
from pipeline.scratch import SCRATCH, temporary_files_in
from pipeline.seeds import derive_seed, numpy_stream
from pipeline.train.weights import load_generator

PLAN_PICTURE, WALK_PICTURE = "figures/plan.png", "figures/walk.png"


def run(context: StageContext) -> dict[str, Any]:
    """Make the synthetic cohort of the config in ``context.out``."""
    cohort = open_cohort(context.folder("ingest"))
    generator = load_generator(context.folder("train"))
    config, compute, seed, members = (
        context.config.generate,
        context.config.compute,
        context.seed,
        cohort.split("train"),
    )
    made = generate_cohort(generator, cohort, members, config, compute, seed, context.out)
    config, synthetic = made.config, open_cohort(context.out)
    judge = train_judge(cohort, members, config.judge, compute, derive_seed(seed, "judge"), context.out / "judge")
    # It was trained on members: nothing of it stays beside what may be shared.
    shutil.rmtree(context.out / "judge")
    test = cohort.patients("test")
    with temporary_files_in(context.out):
        redrawn = redraw(generator, test, cohort, config, compute, seed)
        fidelity, seen = measure_fidelity(judge, synthetic.cases, test, redrawn, seed)
    shutil.rmtree(context.out / SCRATCH)
    realism = measure_realism(judge, synthetic, cohort, config.two_sample_steps, derive_seed(seed, "realism"))
    measured = {
        "fidelity": fidelity,
        "realism": realism,
        "likeness_between_draws": measure_draws(generator, synthetic.cases, cohort.scheme, seed),
        "geometry": compare_geometry(synthetic, cohort, numpy_stream(seed, "geometry")),
        "walk": walk(generator, synthetic, seed, context.out / WALK_PICTURE),
    }
    write_json(context.out / "realism.json", measured)
    obtained = [tumor for _, tumor in made.kept]
    source = (CaseAttributes.from_columns(case.attributes) for case in members)
    table = plan_table(config, cohort.scheme, made.asked, obtained, seen, source)
    write_tsv(context.out / "plan.tsv", table)
    save_plan(table, context.out / PLAN_PICTURE)
    ignored = ("done.json", "plan.tsv", CURATION_TABLE, "realism.json", "figures")
    (context.out / ".bidsignore").write_text("".join(f"{name}\n" for name in ignored), encoding="utf-8")
    for number in range(min(N_PICTURES, len(made.kept))):
        context.tracker.image("cases", f"figures/sub-{subject_name(number + 1)}.png", number)
    context.tracker.image("plan", PLAN_PICTURE)
    context.tracker.image("walk", WALK_PICTURE)
    context.tracker.table("plan", table)
    met = sum(asked.is_met_by(tumor, config) for asked, tumor in made.kept)
    figures = _fidelity_figures(fidelity)
    figures |= {
        f"realism/{name}": float(value["synthetic"])
        for name, value in realism.items()
        if isinstance(value["synthetic"], float)
    }
    figures |= {"refused": float(made.n_refused), "near_duplicates": float(made.n_near_duplicates)}
    context.tracker.metrics({"cases": float(len(obtained)), "plan_met": met / len(made.asked), **figures})
    return {
        "cases": len(obtained),
        "as_asked": met,
        "refused": made.n_refused,
        "near_duplicates": made.n_near_duplicates,
    }


def _fidelity_figures(fidelity: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return what is tracked of fidelity; what no case has is left out."""
    figures = {
        f"fidelity/{region}/{name}": float(scores[name])
        for region, scores in fidelity.items()
        for name in ("synthetic", "real_test", "redrawn", "ratio")
        if scores[name] is not None
    }
    clean = {f"fidelity/{region}/clean": float(scores["clean"]["synthetic"][0]) for region, scores in fidelity.items()}
    return figures | clean
