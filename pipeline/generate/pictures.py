"""Picture of a plan: the share of cases in each stratum, asked for, obtained, seen, and among the members."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

from pipeline.attributes import TITLES

matplotlib.use("Agg")

# Columns of the plan's table, titles, and colours (Okabe and Ito 2008: safe for the colour-blind).
SERIES = {
    "source": ("members", "#999999"),
    "asked": ("asked for", "#0072B2"),
    "obtained": ("obtained, in the label maps", "#009E73"),
    "seen": ("seen by a segmenter in the scans", "#E69F00"),
}
BAR_WIDTH = 0.2


def stratum_shares(table: Sequence[Mapping[str, object]], attribute: str, column: str) -> dict[str, float]:
    """Return the share of a column's cases in each stratum of an attribute, in the table's order; 0 if it has none."""
    counts: Counter[str] = Counter()
    for row in table:
        counts[str(row[attribute])] += int(str(row[column]))
    total = max(1, sum(counts.values()))
    return {stratum: count / total for stratum, count in counts.items()}


def save_plan(table: Sequence[Mapping[str, object]], path: Path) -> None:
    """Draw a plan.

    Parameters
    ----------
    table : sequence of mapping
        Of :func:`pipeline.generate.plan.plan_table`: strata, then counts.
    path : Path
        PNG.
    """
    import matplotlib.pyplot as plt

    attributes = [name for name in table[0] if name not in SERIES]
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, panels = plt.subplots(
        1, len(attributes), figsize=(3.4 * len(attributes) + 1.0, 3.6), layout="constrained", sharey=True, squeeze=False
    )
    for axes, attribute in zip(panels[0], attributes, strict=True):
        for number, (column, (title, colour)) in enumerate(SERIES.items()):
            shares = stratum_shares(table, attribute, column)
            left = [position + (number - 1.5) * BAR_WIDTH for position in range(len(shares))]
            heights = [100 * share for share in shares.values()]
            label = title if attribute == attributes[0] else None
            axes.bar(left, heights, BAR_WIDTH * 0.9, color=colour, label=label)
        axes.set_xticks(range(len(shares)), list(shares), rotation=30 if len(shares) > 3 else 0)
        axes.set_xlabel(TITLES[attribute])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("% of cases")
    figure.legend(loc="outside upper center", ncols=len(SERIES), fontsize=8, frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": "synthcohort"})
    plt.close(figure)
