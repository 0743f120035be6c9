"""The plan: which tumours are asked for, so that rare strata are filled on purpose."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pipeline.attributes import HEMISPHERES, STRATA, VOLUMES, CaseAttributes
from pipeline.config import GenerateSection, LabelSource
from pipeline.errors import ConfigError
from pipeline.labels import LabelScheme

UNKNOWN = "unknown"
# A cell of a plan: one stratum of each attribute that the plan speaks of, in their order.
Cell = tuple[str, ...]


@dataclass(frozen=True)
class AskedCase:
    """What one synthetic case shall be.

    Parameters
    ----------
    number : int
        From 1.
    label_source : str
        ``recombine`` or ``atlas``.
    volume_ml : float
        Aim within the stratum.
    hemisphere : str
        left or right.
    lobe : str, optional
        Where its place is asked for.
    enhancing_share : float, optional
        Aim, where enhancement is asked for.
    n_foci : int
        1 or 2.
    wanted : dict of str to str
        Stratum by attribute: what an obtained tumour is held to.
    """

    number: int
    label_source: LabelSource
    volume_ml: float
    hemisphere: str
    lobe: str | None = None
    enhancing_share: float | None = None
    n_foci: int = 1
    wanted: Mapping[str, str] = field(default_factory=dict)

    def is_met_by(self, attributes: CaseAttributes, config: GenerateSection) -> bool:
        """Tell whether a case with these attributes is what was asked for, as far as they are known."""
        found = strata_of(attributes, config)
        return all(found.get(name, stratum) == stratum for name, stratum in self.wanted.items())


def strata_of(attributes: CaseAttributes, config: GenerateSection) -> dict[str, str]:
    """Return the stratum of each attribute that is known."""
    return attributes.strata(config.volume_edges_ml, config.enhancing_edges, config.contrast_edges)


def cell_of(attributes: CaseAttributes, config: GenerateSection) -> Cell:
    """Return the cell of the plan that a case falls into; what is not known is in none."""
    found = strata_of(attributes, config)
    return tuple(found.get(name, UNKNOWN) for name in config.strata)


def resolve_contrasts(config: GenerateSection, source: Sequence[CaseAttributes]) -> GenerateSection:
    """Return the config with edges of contrast: its own, or those that leave a third of the members in each stratum.

    Parameters
    ----------
    config : GenerateSection
    source : sequence of CaseAttributes
        Of the members.

    Raises
    ------
    ConfigError
        If contrasts are asked for, and the members' are all alike or not known.
    """
    if config.contrast_edges is not None or "contrast" not in config.strata:
        return config
    known = [case.contrast for case in source if math.isfinite(case.contrast)]
    low, high = np.quantile(known, [1 / 3, 2 / 3]) if known else (0.0, 0.0)
    if not low < high:
        raise ConfigError("generate.strata: contrast cannot be told apart among the members; give contrast_edges")
    return config.model_copy(update={"contrast_edges": (float(low), float(high))})


def list_cells(config: GenerateSection, scheme: LabelScheme) -> list[Cell]:
    """Return the cells of a plan: each combination of strata that tumours of this scheme can have."""
    possible = dict(STRATA)
    if "enhancing" not in scheme.tumor:
        possible["enhancing"] = ("none",)
    elif len(scheme.tumor) == 1:
        possible["enhancing"] = ("strong",)
    return list(product(*(possible[name] for name in config.strata)))


def make_plan(
    config: GenerateSection, scheme: LabelScheme, source: Iterable[CaseAttributes], stream: np.random.Generator
) -> list[AskedCase]:
    """Ask for cases, stratum by stratum, as ``generate.balance`` says.

    Parameters
    ----------
    config : GenerateSection
    scheme : LabelScheme
    source : iterable of CaseAttributes
        Tumours of the members: nobody else's may steer what is made.
    stream : numpy.random.Generator

    Returns
    -------
    list of AskedCase
        ``n_cases`` of them; label sources get their shares.

    Raises
    ------
    ConfigError
        If the table asks for what the scheme cannot have, or shares are to be those of members that are in no cell.
    """
    cells = list_cells(config, scheme)
    counts = count_cells(config, cells, Counter(cell_of(tumor, config) for tumor in source), stream)
    drawn = [cell for cell, count in zip(cells, counts, strict=True) for _ in range(count)]
    order = [drawn[int(i)] for i in stream.permutation(len(drawn))]
    sources = _spread_sources(config, stream)
    return [
        _ask(number, label_source, dict(zip(config.strata, cell, strict=True)), config, stream)
        for number, (label_source, cell) in enumerate(zip(sources, order, strict=True), start=1)
    ]


def count_cells(
    config: GenerateSection, cells: Sequence[Cell], source: Mapping[Cell, int], stream: np.random.Generator
) -> list[int]:
    """Return how many cases to ask for in each cell; they sum to ``n_cases``.

    Raises
    ------
    ConfigError
        See :func:`make_plan`.
    """
    if config.balance == "table":
        n_asked = Counter({tuple(row.cell[name] for name in config.strata): row.n for row in config.table})
        if not n_asked.keys() <= set(cells):
            raise ConfigError("generate.table: tumours that this label scheme cannot have; expected others; correct it")
        return [n_asked[cell] for cell in cells]
    n_source = np.array([source.get(cell, 0) for cell in cells], np.float64)
    if config.balance == "uniform":
        exact = np.full(len(cells), config.n_cases / len(cells))
    elif config.balance == "like-source":
        if not n_source.sum():
            raise ConfigError("generate.balance: like-source needs members' tumours in the strata; use uniform")
        exact = n_source / n_source.sum() * config.n_cases
    else:
        exact = fill_up(n_source, config.n_cases)
    return round_to_sum(exact, config.n_cases, stream)


def fill_up(heights: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return what to pour into each cell so that ``n`` more make them as level as can be, as water would."""
    ordered = np.sort(heights)
    # Level reached if only the lowest k cells are filled; the right k is the largest whose cells lie below it.
    levels = (n + np.cumsum(ordered)) / np.arange(1, len(ordered) + 1)
    level = levels[np.flatnonzero(levels >= ordered)[-1]]
    poured: NDArray[np.float64] = np.maximum(level - heights, 0.0)
    return poured


def round_to_sum(exact: NDArray[np.float64], n: int, stream: np.random.Generator) -> list[int]:
    """Round shares to whole numbers that sum to ``n``: the largest remainders go up, ties by lot."""
    counts = np.floor(exact + 1e-9).astype(int)
    lot = stream.permutation(len(exact))
    first = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], lot[i]))
    for index in first[: n - int(counts.sum())]:
        counts[index] += 1
    return [int(count) for count in counts]


def _ask(
    number: int,
    label_source: LabelSource,
    wanted: Mapping[str, str],
    config: GenerateSection,
    stream: np.random.Generator,
) -> AskedCase:
    volume = wanted.get("volume") or str(stream.choice(VOLUMES))
    low, high = config.volume_edges_ml[VOLUMES.index(volume) :][:2]
    # Away from the edges, so that a small miss stays within the stratum; log-uniform, as tumours are.
    volume_ml = float(np.exp(stream.uniform(np.log(low * 1.1), np.log(high * 0.9))))
    some, strong = config.enhancing_edges
    shares = {"none": (0.0, 0.0), "some": (1.2 * some, 0.85 * strong), "strong": (1.2 * strong, 2.0 * strong)}
    aims = shares.get(wanted.get("enhancing", ""))
    return AskedCase(
        number=number,
        label_source=label_source,
        volume_ml=volume_ml,
        hemisphere=wanted.get("hemisphere") or str(stream.choice(HEMISPHERES)),
        lobe=wanted.get("lobe"),
        enhancing_share=None if aims is None else float(stream.uniform(*aims)),
        n_foci=2 if wanted.get("foci") == "several" else 1,
        wanted=dict(wanted),
    )


def plan_table(
    config: GenerateSection,
    scheme: LabelScheme,
    asked: Sequence[AskedCase],
    obtained: Sequence[CaseAttributes],
    seen: Sequence[CaseAttributes | None],
    source: Iterable[CaseAttributes],
) -> list[dict[str, object]]:
    """Return a row for each cell: asked for, obtained on the label maps, seen by the judge, the members' own."""
    n_asked = Counter(tuple(case.wanted[name] for name in config.strata) for case in asked)
    n_obtained = Counter(cell_of(tumor, config) for tumor in obtained)
    n_seen = Counter(cell_of(tumor, config) for tumor in seen if tumor is not None)
    n_source = Counter(cell_of(tumor, config) for tumor in source)
    return [
        {
            **dict(zip(config.strata, cell, strict=True)),
            "asked": n_asked[cell],
            "obtained": n_obtained[cell],
            "seen": n_seen[cell],
            "source": n_source[cell],
        }
        for cell in list_cells(config, scheme)
    ]


def _spread_sources(config: GenerateSection, stream: np.random.Generator) -> list[LabelSource]:
    """Return the label source of each case: the shares, rounded so that they add up, in random order."""
    names = list(config.label_sources)
    exact = np.array([config.label_sources[name] for name in names]) * config.n_cases
    counts = round_to_sum(exact, config.n_cases, stream)
    spread = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    return [spread[int(i)] for i in stream.permutation(len(spread))]
