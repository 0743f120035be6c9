"""Stage generate: plan, label maps, scans, the synthetic cohort."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.attributes import TumorAttributes, describe_tumor
from pipeline.cohort import Case, CaseData, Cohort, open_cohort, write_case, write_cohort_files, write_json, write_tsv
from pipeline.config import ComputeSection, GenerateSection
from pipeline.errors import CaseError, ConfigError
from pipeline.figures import case_picture, save_picture
from pipeline.generate.atlas import atlas_labels
from pipeline.generate.geometry import compare_geometry
from pipeline.generate.judge import train_judge
from pipeline.generate.measures import measure_draws, measure_fidelity, measure_realism
from pipeline.generate.placement import LabelMaps
from pipeline.generate.plan import AskedCase, make_plan, plan_table
from pipeline.generate.recombine import Donor, choose_persons, recombine, tumor_ml
from pipeline.generate.sampling import render_volume, to_intensity
from pipeline.labels import LabelScheme
from pipeline.parallel import iterate_cases, training_device
from pipeline.progress import progress
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed, numpy_stream, torch_stream
from pipeline.train.generator import Generator
from pipeline.train.weights import load_generator
from pipeline.volumes import Grid

N_PICTURES = 6
# Label maps that wait in memory for their scans: few beside what a training needs, and enough to keep workers busy.
CASES_AT_ONCE = 32
README = """# Synthetic cohort

Made by a generator; no scan here is a patient's. Not yet for sharing: the audit decides, and `release/` is what leaves.
`plan.tsv` tells which tumours were asked for and which were obtained.
"""


@dataclass(frozen=True)
class LabelTask:
    """One label map to make, with all that its worker needs."""

    asked: AskedCase
    donors: tuple[Donor, ...]
    scheme: LabelScheme
    grid: Grid
    config: GenerateSection
    seed: int


def run(context: StageContext) -> dict[str, Any]:
    """Make the synthetic cohort of the config in ``context.out``."""
    cohort = open_cohort(context.folder("ingest"))
    generator = load_generator(context.folder("train"))
    config = context.config.generate
    rows = generate_cohort(
        generator, cohort, cohort.split("train"), config, context.config.compute, context.seed, context.out
    )
    asked = plan_cohort(cohort, cohort.split("train"), config, context.seed)
    synthetic = open_cohort(context.out)
    judge = train_judge(
        cohort, config.judge, context.config.compute, derive_seed(context.seed, "judge"), context.out / "judge"
    )
    fidelity, seen = measure_fidelity(judge, synthetic.cases, cohort.patients("test"))
    realism = measure_realism(judge, synthetic, cohort, config.two_sample_steps, derive_seed(context.seed, "realism"))
    between_draws = measure_draws(generator, synthetic.cases, cohort.scheme, context.seed)
    geometry = compare_geometry(synthetic, cohort, numpy_stream(context.seed, "geometry"))
    measured = {
        "fidelity": fidelity,
        "realism": realism,
        "likeness_between_draws": between_draws,
        "geometry": geometry,
    }
    write_json(context.out / "realism.json", measured)
    # The judge was trained on members: nothing of it stays beside what may be shared.
    shutil.rmtree(context.out / "judge")
    table = plan_table(config, cohort.scheme, asked, rows, seen, map(_attributes, cohort.cases))
    write_tsv(context.out / "plan.tsv", table)
    (context.out / ".bidsignore").write_text("done.json\nplan.tsv\nrealism.json\nfigures\n", encoding="utf-8")
    for number in range(min(N_PICTURES, config.n_cases)):
        context.tracker.image("cases", f"figures/sub-{subject_name(number + 1)}.png", number)
    context.tracker.table("plan", table)
    met = sum(a.is_met_by(b, config) for a, b in zip(asked, rows, strict=True))
    figures = {f"fidelity/{region}": float(scores["synthetic"]) for region, scores in fidelity.items()}
    figures |= {
        f"realism/{name}": float(value["synthetic"])
        for name, value in realism.items()
        if isinstance(value["synthetic"], float)
    }
    context.tracker.metrics({"cases": float(len(rows)), "plan_met": met / len(rows), **figures})
    return {"cases": len(rows), "as_asked": met}


def generate_cohort(
    generator: Generator,
    cohort: Cohort,
    persons: Sequence[Case],
    config: GenerateSection,
    compute: ComputeSection,
    seed: int,
    out: Path,
) -> list[TumorAttributes]:
    """Make a synthetic cohort; the audit makes those of its references the same way.

    Parameters
    ----------
    generator : Generator
    cohort : Cohort
        Gives grid, scheme and modalities.
    persons : sequence of Case
        Members: the only patients whose label maps may be recombined.
    config : GenerateSection
    compute : ComputeSection
    seed : int
        Root of the streams.
    out : Path
        Cohort folder to write.

    Returns
    -------
    list of TumorAttributes
        What was obtained, case by case.

    Raises
    ------
    ConfigError
        If fewer than two persons are to be recombined, or a GPU is asked for that is not there.
    CaseError
        If no attempt gave a label map for a case of the plan.
    """
    n_persons = len({case.person for case in persons})
    if config.label_sources.get("recombine", 0) > 0 and n_persons < 2:
        raise ConfigError(f"generate.label_sources: recombine needs two persons, got {n_persons}; use atlas only")
    asked = plan_cohort(cohort, persons, config, seed)
    grid = Grid(cohort.shape, cohort.spacing_mm)
    donors = tuple(Donor(case, tumor_ml(case, cohort.spacing_mm)) for case in persons)
    generator = generator.to(training_device(compute))
    participants, obtained = [], []
    with progress("cases", len(asked)) as task:
        for start in range(0, len(asked), CASES_AT_ONCE):
            some = asked[start : start + CASES_AT_ONCE]
            tasks = [LabelTask(case, donors, cohort.scheme, grid, config, seed) for case in some]
            for case, labels in zip(some, list(iterate_cases(make_labels, tasks, compute)), strict=True):
                data = _render(generator, case, labels, cohort, seed)
                _write(data, cohort.scheme, case.number <= N_PICTURES, out)
                attributes = _describe(labels, grid, cohort.scheme)
                obtained.append(attributes)
                participants.append(_participant(case, data.subject, attributes))
                task.advance()
    write_cohort_files(out, "Synthetic cohort", cohort.scheme, participants, README)
    return obtained


def plan_cohort(cohort: Cohort, persons: Sequence[Case], config: GenerateSection, seed: int) -> list[AskedCase]:
    """Return the plan of a cohort; the same whenever it is asked for."""
    return make_plan(config, cohort.scheme, map(_attributes, persons), numpy_stream(seed, "plan"))


def _write(data: CaseData, scheme: LabelScheme, with_picture: bool, out: Path) -> None:
    write_case(out, data)
    if with_picture:
        condition = scheme.combine(data.tissue_map, data.tumor_map)
        picture = case_picture(data.images, data.tumor_map, condition)
        save_picture(picture, out / "figures" / f"sub-{data.subject}.png")


def make_labels(task: LabelTask) -> LabelMaps:
    """Make one label map: tries until one is as asked; else the last that was possible at all.

    Raises
    ------
    CaseError
        If no attempt gave a label map.
    """
    latest: LabelMaps | None = None
    for attempt in range(task.config.max_attempts):
        stream = numpy_stream(task.seed, "labels", task.asked.number, attempt)
        try:
            latest = _draw_labels(task, stream)
        except CaseError:
            continue
        if latest.tumor_map.any() and task.asked.is_met_by(_describe(latest, task.grid, task.scheme), task.config):
            return latest
    if latest is None or not latest.tumor_map.any():
        raise CaseError(
            f"no label map with a tumour of {task.asked.volume_ml:.0f} ml in {task.config.max_attempts} attempts; "
            "expected one; raise generate.max_attempts, or change generate.volume_edges_ml"
        )
    return latest


def subject_name(number: int) -> str:
    """Return the name of a synthetic subject, from its number."""
    return f"syn{number:05d}"


def _draw_labels(task: LabelTask, stream: np.random.Generator) -> LabelMaps:
    if task.asked.label_source == "atlas":
        return atlas_labels(task.asked, task.grid, task.scheme, stream)
    anatomy, donor = choose_persons(task.donors, task.asked, stream)
    return recombine(anatomy, donor, task.asked, task.scheme, task.grid.spacing_mm, stream)


def _render(generator: Generator, asked: AskedCase, labels: LabelMaps, cohort: Cohort, seed: int) -> CaseData:
    condition = cohort.scheme.combine(labels.tissue_map, labels.tumor_map)
    scan = render_volume(generator, condition, torch_stream(seed, "render", asked.number))
    brain = condition > 0
    images = {name: to_intensity(scan[i], brain) for i, name in enumerate(cohort.modalities)}
    sidecar = {
        "SkullStripped": True,
        "Synthetic": True,
        "Description": "Made by a conditional GAN from a label map; no patient was scanned",
        "LabelSource": asked.label_source,
    }
    sidecars: dict[str, dict[str, Any]] = dict.fromkeys(images, sidecar)
    sidecars["tumor"] = sidecars["tissue"] = {"Manual": False, "Synthetic": True, "LabelSource": asked.label_source}
    affine = Grid(cohort.shape, cohort.spacing_mm).affine
    return CaseData(subject_name(asked.number), images, labels.tissue_map, labels.tumor_map, affine, sidecars)


def _participant(asked: AskedCase, subject: str, attributes: TumorAttributes) -> dict[str, str]:
    return {
        "participant_id": f"sub-{subject}",
        "source": asked.label_source,
        "split": "n/a",
        **attributes.columns(),
        **{f"asked_{name}": stratum for name, stratum in asked.wanted.items()},
    }


def _attributes(case: Case) -> TumorAttributes:
    return TumorAttributes.from_columns(case.attributes)


def _describe(labels: LabelMaps, grid: Grid, scheme: LabelScheme) -> TumorAttributes:
    brain = (labels.tissue_map > 0) | (labels.tumor_map > 0)
    return describe_tumor(labels.tumor_map, brain, grid.affine, scheme)
