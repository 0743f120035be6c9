"""What is measured on a synthetic cohort: fidelity to its label maps, realism, diversity; each beside real persons.

Real persons of the val and test sides stand for what is possible: they are as real as members, and nothing was
trained on them. Persons of val have had a say before: curation holds candidates against them; nobody looks at test
persons but here. The judge is another than the one that chooses, but of the same kind, trained on the same members:
fidelity after a choice is flattering by what the two have in common.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.attributes import CaseAttributes, describe_tumor, tissue_contrast
from pipeline.cohort import Case, Cohort
from pipeline.figures import tumor_centre
from pipeline.generate.judge import Judge
from pipeline.generate.realism import (
    frechet_distance,
    histogram_distances,
    kernel_distance,
    spectrum_distance,
    standardise,
    structural_likeness,
    to_components,
)
from pipeline.generate.sampling import render_volume, to_intensity
from pipeline.generate.two_sample import two_sample_auc
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.progress import progress
from pipeline.seeds import derive_seed, numpy_stream, torch_stream
from pipeline.statistics import Estimate
from pipeline.train.generator import Generator

SLICES_PER_CASE = 12
# A slice counts if it shows at least this share of what the fullest one shows.
MIN_SLICE_SHARE = 0.4
MAX_PAIRS = 60
# Drawn by chance from larger groups: memory does not grow with the cohort.
MAX_PERSONS = 64
MIN_PATIENTS_TWO_SAMPLE = 8
N_DRAWN_TWICE = 4
N_BOOTSTRAP = 2000


Item = TypeVar("Item")


@dataclass(frozen=True)
class Sample:
    """Axial slices of one case.

    Parameters
    ----------
    scans : ndarray, (slices, modalities, x, y), float32 in [0, 1000]
    tissue_maps : ndarray, (slices, x, y), uint8
    """

    scans: NDArray[np.float32]
    tissue_maps: UInt8Array


def read_sample(case: Case, modalities: Sequence[str]) -> Sample:
    """Read slices of a case, evenly over its brain."""
    tissue_map = np.asarray(case.tissue_map())
    area = case.brain().sum(axis=(0, 1))
    inside = np.flatnonzero(area >= MIN_SLICE_SHARE * area.max())
    chosen = inside[np.linspace(0, len(inside) - 1, SLICES_PER_CASE).round().astype(int)]
    scans = np.stack([np.asarray(case.image(name))[:, :, chosen] for name in modalities])
    return Sample(
        np.ascontiguousarray(np.moveaxis(scans, 3, 0)).astype(np.float32),
        np.ascontiguousarray(np.moveaxis(tissue_map[:, :, chosen], 2, 0)),
    )


@dataclass(frozen=True)
class Look:
    """What the judge makes of a case.

    Parameters
    ----------
    dice : dict of str to float
        With the case's own label map, by region.
    present : frozenset of str
        Regions that the label map has.
    seen : CaseAttributes or None
        The tumour that it sees; None if none.
    """

    dice: dict[str, float]
    present: frozenset[str]
    seen: CaseAttributes | None


def look_at(judge: Judge, cases: Iterable[Case], n: int) -> list[Look]:
    """Let the judge look at n cases, one after the other."""
    looks = []
    with progress("judged", n) as task:
        for case in cases:
            found = judge.segment(case)
            asked = np.asarray(case.tumor_map())
            present = frozenset(name for name in judge.scheme.regions if judge.scheme.region_mask(asked, name).any())
            looks.append(Look(judge.score(case, found), present, _describe(case, found, judge)))
            task.advance()
    return looks


def _describe(case: Case, found: UInt8Array, judge: Judge) -> CaseAttributes | None:
    """Return the attributes of what was found, None if that is no tumour."""
    if not found.any():
        return None
    tumor = describe_tumor(found, case.brain(), case.affine, judge.scheme)
    contrast = tissue_contrast(case.image(judge.modalities[0]), np.asarray(case.tissue_map()))
    return replace(tumor, contrast=contrast)


def mean_dice(looks: Sequence[Look]) -> dict[str, float | None]:
    """Return the mean Dice by region, over cases whose label map has it; None where none has.

    Where there is nothing to find the Dice is 0 or 1, for a single voxel: that says little of a scan, and how many such
    cases a cohort has is for its plan to say.
    """
    found = {region: [look.dice[region] for look in looks if region in look.present] for region in looks[0].dice}
    return {region: float(np.mean(values)) if values else None for region, values in found.items()}


def count_clean(looks: Sequence[Look]) -> dict[str, tuple[int, int]]:
    """Return by region in how many of the cases without it none is seen, and the number of those cases."""
    absent = {region: [look.dice[region] for look in looks if region not in look.present] for region in looks[0].dice}
    return {region: (sum(value == 1.0 for value in values), len(values)) for region, values in absent.items()}


def measure_fidelity(
    judge: Judge, synthetic: Sequence[Case], real_test: Sequence[Case], redrawn: Iterable[Case], seed: int
) -> tuple[dict[str, dict[str, Any]], list[CaseAttributes | None]]:
    """Let the judge look at each synthetic case, at real ones, and at the latter's label maps drawn by the generator.

    Parameters
    ----------
    judge : Judge
    synthetic : sequence of Case
    real_test : sequence of Case
        One of each test patient.
    redrawn : iterable of Case
        Their label maps, in their order, with scans that the generator drew: what is worse there than in theirs lies in
        the drawing, not in the label map. To be better than they is no merit: drawn scans are plainer.
    seed : int
        Root of the bootstrap.

    Returns
    -------
    dict
        By region: mean Dice of ``synthetic``, ``real_test`` and ``redrawn`` cases, each over those that have the region
        (``n``); ``ratio`` of the first two; ``redrawn_less_real``, mean difference by patient with its interval
        (percentiles of a bootstrap by patient, 95 %); ``clean``: in how many of the cases without the region none is
        seen, and of how many.
    list of CaseAttributes or None
        What the judge sees in each synthetic case; None where it sees no tumour.
    """
    looks = {
        "synthetic": look_at(judge, synthetic, len(synthetic)),
        "real_test": look_at(judge, real_test, len(real_test)),
        "redrawn": look_at(judge, redrawn, len(real_test)),
    }
    dice = {name: mean_dice(found) for name, found in looks.items()}
    clean = {name: count_clean(found) for name, found in looks.items()}
    regions: dict[str, dict[str, Any]] = {}
    for region in judge.scheme.regions:
        made, real = dice["synthetic"][region], dice["real_test"][region]
        pairs = zip(looks["redrawn"], looks["real_test"], strict=True)
        differences = [one.dice[region] - other.dice[region] for one, other in pairs if region in other.present]
        regions[region] = {
            **{name: found[region] for name, found in dice.items()},
            "n": {name: sum(region in look.present for look in found) for name, found in looks.items()},
            "ratio": made / real if made is not None and real else None,
            "redrawn_less_real": mean_with_interval(differences, numpy_stream(seed, "redrawn", region)),
            "clean": {name: list(found[region]) for name, found in clean.items()},
        }
    return regions, [look.seen for look in looks["synthetic"]]


def mean_with_interval(values: Sequence[float], stream: np.random.Generator) -> dict[str, Any] | None:
    """Return the mean of patients' values with percentiles of its bootstrap, 95 %; None below two patients."""
    if len(values) < 2:
        return None
    means = np.mean(np.array(values)[stream.integers(len(values), size=(N_BOOTSTRAP, len(values)))], axis=1)
    return {"value": float(np.mean(values)), "ci": [float(bound) for bound in np.quantile(means, [0.025, 0.975])]}


def measure_realism(
    judge: Judge,
    synthetic: Cohort,
    real: Cohort,
    n_steps: int,
    seed: int,
    sides: Sequence[str] = ("val", "test"),
) -> dict[str, dict[str, float | list[float] | None]]:
    """Compare synthetic cases with members, and beside, persons of val and test with members.

    Parameters
    ----------
    judge : Judge
        Gives the features of Frechet and kernel distance.
    synthetic, real : Cohort
    n_steps : int
        Of each network of the two-sample test.
    seed : int
    sides : sequence of str
        Of the split: other real persons.

    Returns
    -------
    dict
        By figure: ``synthetic`` against members, and ``real``, the same of other real persons. ``two_sample_auc`` has
        an interval each, or is None where a side has fewer than eight patients.
    """
    modalities = real.modalities
    stream = numpy_stream(seed, "realism")
    sources = {
        "members": real.complete(real.patients("train")),
        "real": real.patients(*sides),
        "synthetic": synthetic.cases,
    }
    groups = {
        name: [read_sample(case, modalities) for case in _some(cases, MAX_PERSONS, numpy_stream(seed, "persons", name))]
        for name, cases in sources.items()
    }
    n_slices = min(sum(len(sample.scans) for sample in samples) for samples in groups.values())
    drawn = {name: _draw(samples, n_slices, stream) for name, samples in groups.items()}
    features = {name: judge.features(np.stack([scan for scan, _ in slices])) for name, slices in drawn.items()}
    of_members = features.pop("members")
    standard = dict(zip(("members", *features), standardise(of_members, *features.values()), strict=True))
    components = dict(zip(standard, to_components(*standard.values()), strict=True))
    # As many on each side of either test: with more to learn from, a classifier tells more apart.
    n_told_apart = min(len(samples) for samples in groups.values())
    result: dict[str, dict[str, float | list[float] | None]] = {}
    for name in ("synthetic", "real"):
        histograms = histogram_distances(drawn["members"], drawn[name], modalities)
        figures: dict[str, float | list[float] | None] = {
            "frechet_distance": frechet_distance(components["members"], components[name]),
            "kernel_distance": kernel_distance(standard["members"], standard[name]),
            "histogram_distance": float(np.mean(list(histograms.values()))),
            "spectrum_distance": spectrum_distance(
                [scan for scan, _ in drawn["members"]], [scan for scan, _ in drawn[name]]
            ),
            "likeness_between_persons": _mean_likeness(groups[name], stream),
        }
        test_seed = derive_seed(seed, "two-sample", name)
        members, others = (_some(groups[side], n_told_apart, stream) for side in ("members", name))
        estimate = _tell_apart(members, others, n_steps, test_seed, judge.device)
        figures["two_sample_auc"] = None if estimate is None else estimate.value
        figures["two_sample_auc_ci"] = None if estimate is None else list(estimate.ci)
        for figure, value in figures.items():
            result.setdefault(figure, {})[name] = value
    return result


def _draw(
    samples: Sequence[Sample], n: int, stream: np.random.Generator
) -> list[tuple[NDArray[np.float32], UInt8Array]]:
    """Draw n slices, none twice."""
    slices = [pair for sample in samples for pair in zip(sample.scans, sample.tissue_maps, strict=True)]
    return [slices[int(index)] for index in stream.permutation(len(slices))[:n]]


def _tell_apart(
    first: Sequence[Sample], second: Sequence[Sample], n_steps: int, seed: int, device: torch.device
) -> Estimate | None:
    """Run the two-sample test on patients of two sides; None where there are too few."""
    if len(first) < MIN_PATIENTS_TWO_SAMPLE:
        return None
    return two_sample_auc([one.scans for one in first], [one.scans for one in second], n_steps, seed, device)


def _some(items: Sequence[Item], n: int, stream: np.random.Generator) -> list[Item]:
    return [items[int(index)] for index in stream.permutation(len(items))[:n]]


def _mean_likeness(samples: Sequence[Sample], stream: np.random.Generator) -> float | None:
    """Return the mean structural similarity of the middle slices of two persons; None if there is only one."""
    pairs = list(combinations(range(len(samples)), 2))
    if not pairs:
        return None
    chosen = [pairs[int(index)] for index in stream.permutation(len(pairs))[:MAX_PAIRS]]
    middle = SLICES_PER_CASE // 2
    return float(np.mean([structural_likeness(samples[a].scans[middle], samples[b].scans[middle]) for a, b in chosen]))


def measure_draws(generator: Generator, synthetic: Sequence[Case], scheme: LabelScheme, seed: int) -> float:
    """Return the mean structural similarity of two renderings of one label map: 1 if style and noise do nothing.

    Parameters
    ----------
    generator : Generator
    synthetic : sequence of Case
        The first few give their label maps.
    scheme : LabelScheme
    seed : int
    """
    values = []
    for number, case in enumerate(synthetic[:N_DRAWN_TWICE]):
        condition = case.condition(scheme)
        middle = tumor_centre(np.asarray(case.tumor_map()))[2]
        draws = []
        for draw in range(2):
            scan = render_volume(generator, condition, torch_stream(seed, "draws", number, draw))[:, :, :, middle]
            brain = condition[:, :, middle] > 0
            draws.append(np.stack([to_intensity(channel, brain) for channel in scan]).astype(np.float32))
        values.append(structural_likeness(draws[0], draws[1]))
    return float(np.mean(values))
