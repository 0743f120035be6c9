"""The plan: which tumours are asked for, so that rare strata are filled on purpose."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.attributes import HEMISPHERES, TumorAttributes, volume_stratum
from pipeline.config import GenerateSection, LabelSource

VOLUME_STRATA = ("small", "medium", "large")


@dataclass(frozen=True)
class AskedCase:
    """What one synthetic case shall be.

    Parameters
    ----------
    number : int
        From 1.
    label_source : str
        ``recombine`` or ``atlas``.
    volume : str
        Stratum: small, medium or large.
    hemisphere : str
        left or right.
    volume_ml : float
        Aim within the stratum.
    """

    number: int
    label_source: LabelSource
    volume: str
    hemisphere: str
    volume_ml: float

    @property
    def stratum(self) -> tuple[str, str]:
        """Volume and hemisphere."""
        return self.volume, self.hemisphere

    def is_met_by(self, attributes: TumorAttributes, config: GenerateSection) -> bool:
        """Tell whether a label map with these attributes is what was asked for."""
        return stratum_of(attributes, config) == self.stratum


def make_plan(config: GenerateSection, stream: np.random.Generator) -> list[AskedCase]:
    """Ask for the same number of cases in each stratum of volume and hemisphere, as near as the number allows.

    Parameters
    ----------
    config : GenerateSection
    stream : numpy.random.Generator

    Returns
    -------
    list of AskedCase
        ``n_cases`` of them; label sources get their shares.
    """
    strata = [(volume, hemisphere) for volume in VOLUME_STRATA for hemisphere in HEMISPHERES]
    order = [strata[int(i)] for i in stream.permutation(len(strata))]
    asked = []
    for index, source in enumerate(_spread_sources(config, stream)):
        volume, hemisphere = order[index % len(order)]
        low, high = config.volume_edges_ml[VOLUME_STRATA.index(volume) :][:2]
        # Away from the edges, so that a small miss stays within the stratum; log-uniform, as tumours are.
        aim_ml = float(np.exp(stream.uniform(np.log(low * 1.1), np.log(high * 0.9))))
        asked.append(AskedCase(index + 1, source, volume, hemisphere, aim_ml))
    return asked


def stratum_of(attributes: TumorAttributes, config: GenerateSection) -> tuple[str, str]:
    """Return the stratum of a tumour."""
    return volume_stratum(attributes.volume_ml, config.volume_edges_ml), attributes.hemisphere


def plan_table(
    asked: Sequence[AskedCase], obtained: Iterable[tuple[str, str]], source: Iterable[tuple[str, str]]
) -> list[dict[str, object]]:
    """Return rows of asked, obtained and the real cohort's own counts, per stratum."""
    n_asked = Counter(case.stratum for case in asked)
    n_obtained, n_source = Counter(obtained), Counter(source)
    return [
        {
            "volume": volume,
            "hemisphere": hemisphere,
            "asked": n_asked[volume, hemisphere],
            "obtained": n_obtained[volume, hemisphere],
            "source": n_source[volume, hemisphere],
        }
        for volume in VOLUME_STRATA
        for hemisphere in HEMISPHERES
    ]


def _spread_sources(config: GenerateSection, stream: np.random.Generator) -> list[LabelSource]:
    """Return the label source of each case: the shares, rounded so that they add up, in random order."""
    names = list(config.label_sources)
    exact = np.array([config.label_sources[name] for name in names]) * config.n_cases
    counts = np.floor(exact).astype(int)
    for index in np.argsort(counts - exact)[: config.n_cases - int(counts.sum())]:
        counts[index] += 1
    spread = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    return [spread[int(i)] for i in stream.permutation(len(spread))]
