"""Make synthetic cases: label maps as the plan asks, and the scans that the generator draws from them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pipeline.attributes import CaseAttributes, describe_tumor, tissue_contrast
from pipeline.cohort import Case, CaseData, Cohort, Int16Array, write_case
from pipeline.config import ComputeSection, GenerateSection
from pipeline.errors import CaseError
from pipeline.generate.atlas import atlas_labels
from pipeline.generate.placement import LabelMaps
from pipeline.generate.plan import AskedCase
from pipeline.generate.recombine import Donor, choose_persons, recombine, tumor_ml
from pipeline.generate.sampling import draw_style, render_with_style, to_intensity
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.parallel import iterate_cases, training_device
from pipeline.progress import progress
from pipeline.scratch import temporary_folder
from pipeline.seeds import numpy_stream, torch_stream
from pipeline.train.generator import Generator
from pipeline.volumes import Grid

# Label maps that wait in memory for their scans: few beside what a training needs, and enough to keep workers busy.
CASES_AT_ONCE = 32


@dataclass(frozen=True)
class LabelTask:
    """One label map to make, with all that its worker needs."""

    asked: AskedCase
    donors: tuple[Donor, ...]
    scheme: LabelScheme
    grid: Grid
    config: GenerateSection
    seed: int


@dataclass(frozen=True)
class MadeCase:
    """A synthetic case, ready to be written.

    Parameters
    ----------
    asked : AskedCase
    data : CaseData
    attributes : CaseAttributes
        Of label map and scan.
    """

    asked: AskedCase
    data: CaseData
    attributes: CaseAttributes


def make_cases(
    generator: Generator,
    cohort: Cohort,
    persons: Sequence[Case],
    asked: Sequence[AskedCase],
    config: GenerateSection,
    compute: ComputeSection,
    seed: int,
) -> Iterator[MadeCase]:
    """Make cases one after the other; only :data:`CASES_AT_ONCE` label maps are in memory.

    Parameters
    ----------
    generator : Generator
    cohort : Cohort
        Gives grid, scheme and modalities.
    persons : sequence of Case
        Members: the only patients whose label maps may be recombined.
    asked : sequence of AskedCase
    config : GenerateSection
    compute : ComputeSection
    seed : int
        Root of the streams; a case depends on it and on its own number only.

    Raises
    ------
    ConfigError
        If a GPU is asked for that is not there.
    CaseError
        If no attempt gave a label map for a case.
    """
    grid = Grid(cohort.shape, cohort.spacing_mm)
    donors = tuple(Donor(case, tumor_ml(case, cohort.spacing_mm)) for case in persons)
    generator = generator.to(training_device(compute))
    with progress("cases", len(asked)) as task:
        for start in range(0, len(asked), CASES_AT_ONCE):
            some = asked[start : start + CASES_AT_ONCE]
            tasks = [LabelTask(case, donors, cohort.scheme, grid, config, seed) for case in some]
            for case, labels in zip(some, list(iterate_cases(make_labels, tasks, compute)), strict=True):
                yield _render(generator, case, labels, cohort, config, seed)
                task.advance()


def redraw(
    generator: Generator,
    cases: Sequence[Case],
    cohort: Cohort,
    config: GenerateSection,
    compute: ComputeSection,
    seed: int,
) -> Iterator[Case]:
    """Draw scans of real label maps as the synthetic cohort's are drawn, to see what the generator makes of them.

    They are private, since the maps are patients': one at a time lies in a temporary folder, and is gone when the next
    is asked for.

    Parameters
    ----------
    generator : Generator
    cases : sequence of Case
        Whose label maps are drawn.
    cohort : Cohort
    config : GenerateSection
    compute : ComputeSection
    seed : int
    """
    generator = generator.to(training_device(compute))
    for number, case in enumerate(cases, start=1):
        condition = case.condition(cohort.scheme)
        stream = torch_stream(seed, "redraw", number)
        images = _draw_images(generator, condition, cohort, config, seed, stream)
        maps = np.asarray(case.tissue_map()), np.asarray(case.tumor_map())
        data = CaseData(f"redrawn{number:05d}", images, *maps, case.affine, {})
        with temporary_folder() as folder:
            write_case(folder, data)
            yield Case(data.subject, folder / f"sub-{data.subject}" / "anat")


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


def _render(
    generator: Generator, asked: AskedCase, labels: LabelMaps, cohort: Cohort, config: GenerateSection, seed: int
) -> MadeCase:
    """Draw a scan of a label map: until its contrast is as asked, if one is, and at most ``max_attempts`` times."""
    grid = Grid(cohort.shape, cohort.spacing_mm)
    condition = cohort.scheme.combine(labels.tissue_map, labels.tumor_map)
    tumor = _describe(labels, grid, cohort.scheme)
    for attempt in range(config.max_attempts if "contrast" in asked.wanted else 1):
        stream = torch_stream(seed, "render", asked.number, *([attempt] if attempt else []))
        images = _draw_images(generator, condition, cohort, config, seed, stream)
        contrast = tissue_contrast(next(iter(images.values())), labels.tissue_map)
        attributes = replace(tumor, contrast=contrast)
        if asked.is_met_by(attributes, config):
            break
    sidecar = {
        "SkullStripped": True,
        "Synthetic": True,
        "Description": "Made by a conditional GAN from a label map; no patient was scanned",
        "LabelSource": asked.label_source,
    }
    sidecars: dict[str, dict[str, Any]] = dict.fromkeys(images, sidecar)
    sidecars["tumor"] = sidecars["tissue"] = {"Manual": False, "Synthetic": True, "LabelSource": asked.label_source}
    name = subject_name(asked.number)
    return MadeCase(
        asked, CaseData(name, images, labels.tissue_map, labels.tumor_map, grid.affine, sidecars), attributes
    )


def _draw_images(
    generator: Generator,
    condition: UInt8Array,
    cohort: Cohort,
    config: GenerateSection,
    seed: int,
    stream: torch.Generator,
) -> dict[str, Int16Array]:
    """Draw the scan of a label map, in a style of its own or in the one that all have."""
    style = draw_style(generator, torch_stream(seed, "look") if config.look == "fixed" else stream)
    scan = render_with_style(generator, condition, style, stream)
    return {name: to_intensity(scan[i], condition > 0) for i, name in enumerate(cohort.modalities)}


def _describe(labels: LabelMaps, grid: Grid, scheme: LabelScheme) -> CaseAttributes:
    brain = (labels.tissue_map > 0) | (labels.tumor_map > 0)
    return describe_tumor(labels.tumor_map, brain, grid.affine, scheme)
