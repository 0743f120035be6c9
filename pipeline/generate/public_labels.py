"""Label maps of nobody, for a generator that trains under differential privacy and may see no patient's."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.cohort import Cohort
from pipeline.config import ComputeSection, GenerateSection, RunConfig
from pipeline.generate.cases import LabelTask, make_labels
from pipeline.generate.placement import LabelMaps
from pipeline.generate.plan import make_plan
from pipeline.parallel import iterate_cases
from pipeline.progress import progress
from pipeline.seeds import derive_seed, numpy_stream
from pipeline.train.data import OpenCase
from pipeline.volumes import Grid

LABELS_FILE = "public_labels.npy"


def public_labels(
    config: RunConfig, compute: ComputeSection, cohort: Cohort, seed: int, path: Path
) -> tuple[OpenCase, ...]:
    """Make label maps by the plan of the synthetic cohort, all from the atlas; those of a file are read again.

    Parameters
    ----------
    config : RunConfig
    compute : ComputeSection
        Where the work runs; a worker's own may differ from the config's.
    cohort : Cohort
        Gives grid, scheme and modalities; no case of it is looked at.
    seed : int
    path : Path
        Gets the label maps: (n, 2, x, y, z), uint8, tissue and tumour.

    Returns
    -------
    tuple of OpenCase
        Without scans, mapped to the file; none at all without `train.privacy`.

    Raises
    ------
    CaseError
        If no attempt gave a label map for a case of the plan.
    """
    if config.train.privacy is None:
        return ()
    if not path.is_file():
        n = config.train.privacy.label_maps
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        written = np.lib.format.open_memmap(temporary, "w+", np.uint8, (n, 2, *cohort.shape))
        with progress("label maps", n) as task:
            # Others than those of the synthetic cohort.
            made = draw_atlas_labels(config.generate, compute, cohort, n, derive_seed(seed, "public"))
            for index, labels in enumerate(made):
                written[index] = labels.tissue_map, labels.tumor_map
                task.advance()
        written.flush()
        # Renamed when whole: a file torn by a kill would be taken for the label maps.
        temporary.replace(path)
    maps = np.load(path, mmap_mode="r")
    return tuple(OpenCase((None,) * len(cohort.modalities), tissue, tumor) for tissue, tumor in maps)


def draw_atlas_labels(
    config: GenerateSection, compute: ComputeSection, cohort: Cohort, n: int, seed: int
) -> Iterator[LabelMaps]:
    """Draw label maps of nobody, by the strata of a plan, evenly.

    Parameters
    ----------
    config : GenerateSection
        Gives strata and their edges.
    compute : ComputeSection
    cohort : Cohort
        Gives grid and scheme.
    n : int
    seed : int

    Raises
    ------
    CaseError
        If no attempt gave a label map for a case of the plan.
    """
    config = config.model_copy(update={"n_cases": n, "label_sources": {"atlas": 1.0}, "balance": "uniform"})
    asked = make_plan(config, cohort.scheme, (), numpy_stream(seed, "plan"))
    grid = Grid(cohort.shape, cohort.spacing_mm)
    yield from iterate_cases(
        make_labels, [LabelTask(case, (), cohort.scheme, grid, config, seed) for case in asked], compute
    )
