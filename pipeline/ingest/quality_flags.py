"""What the quality figures mean, and which cases stand out by them.

A flag is a reason to look at a scan, not a reason to leave it out.

References
----------
Iglewicz and Hoaglin 1993, "How to detect and handle outliers", ISBN 978-0-87389-247-6: median and median absolute
deviation for mean and standard deviation, and 3.5 for the limit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort import UNKNOWN
from pipeline.ingest.scan_quality import MAD_TO_SD
from pipeline.labels import MODALITIES, MODALITY_TITLES

OUTLIER_Z = 3.5
# Fewer cases do not tell what is usual.
MIN_CASES = 8


@dataclass(frozen=True)
class Figure:
    """One quality figure: how it is shown and when it is flagged.

    Parameters
    ----------
    title, meaning : str
        For the reader.
    unit : str
        Empty for a ratio; a percentage is a share in [0, 1] times 100.
    digits : int
        Decimals shown.
    limits : tuple of float
        Flagged in any cohort below the first and above the second.
    beyond : str
        Phrase for that, with ``{scan}`` and ``{value}``.
    worse : {"none", "low", "high", "both"}
        On which side an outlier among the cases is flagged.
    unlike : str
        Phrase for that, with ``{usual}`` too.
    floor : float
        Smallest spread between cases that is reckoned with: less than a few times this is no difference to speak of.
    as_ratio : bool
        Compare logarithms, for figures that differ by factors; ``floor`` is then of the logarithm.
    """

    title: str
    meaning: str
    unit: str = ""
    digits: int = 1
    limits: tuple[float, float] = (-np.inf, np.inf)
    beyond: str = ""
    worse: Literal["none", "low", "high", "both"] = "none"
    unlike: str = ""
    floor: float = 0.0
    as_ratio: bool = False

    @property
    def head(self) -> str:
        """Title with unit, for the head of a column."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def show(self, value: float) -> str:
        """Return a value as it is shown, without unit."""
        return f"{value * (100 if self.unit == '%' else 1):.{self.digits}f}"


CASE_FIGURES = {
    "brain_ml": Figure(
        "brain",
        "Volume of the brain mask.",
        "ml",
        0,
        limits=(700.0, 2100.0),
        beyond="brain of {value} ml, expected 700 to 2100",
        worse="both",
        unlike="brain of {value} ml, usually {usual}",
        floor=60.0,
    ),
    "tumor_ml": Figure("tumour", "Volume of the whole tumour. Not flagged.", "ml"),
    "tumor_outside_brain": Figure(
        "tumour outside",
        "Part of the tumour that lies outside the brain mask: one of the two is wrong.",
        "%",
        limits=(0.0, 0.02),
        beyond="{value}% of the tumour lies outside the brain",
    ),
    "cut_share": Figure(
        "cut surface",
        "Part of the brain's surface where the field of view of a scan ends: the brain goes on beyond it. Up to half a "
        "percent is the cord.",
        "%",
        limits=(0.0, 0.01),
        beyond="field of view cuts the brain, at {value}% of its surface",
    ),
    "flat_share": Figure(
        "flat surface",
        "Part of the brain's surface that lies in one plane, beyond what a ball would have: a cut that resampling has "
        "hidden, in any direction.",
        "%",
        limits=(0.0, 0.015),
        beyond="brain surface flat over {value}%, as if cut off",
    ),
    "asymmetry": Figure(
        "asymmetry",
        "Part of the brain mask that has no counterpart on the other side: a tilted head or a mask that lost a part.",
        "%",
        worse="high",
        unlike="brain outline differs between left and right by {value}%, usually {usual}%",
        floor=0.01,
    ),
}
SCAN_FIGURES = {
    "coverage": Figure(
        "coverage",
        "Part of the brain that the scan shows: neither beyond its field of view nor filled with one value.",
        "%",
        limits=(0.95, 1.0),
        beyond="{scan} covers {value}% of the brain",
    ),
    "snr": Figure(
        "signal to noise",
        "Range of brightness (5th to 95th percentile in the brain) over the noise's standard deviation (Immerkaer "
        "1996, robust as in Coupe 2010). Lower is noisier.",
        digits=0,
        worse="low",
        unlike="{scan} noisier than the others: signal to noise {value}, usually {usual}",
        floor=0.15,
        as_ratio=True,
    ),
    "contrast": Figure(
        "local contrast",
        "Share of the brightness differences that is local, between tissues, and not shading across the head. Lower "
        "is more shaded.",
        "%",
        0,
        worse="low",
        unlike="{scan} shaded across the head: local contrast {value}%, usually {usual}%",
        floor=0.03,
    ),
    "motion": Figure(
        "ghosting",
        "How strongly fine structure repeats itself 2 cm and more away, as ghosts of a moving head or flowing blood "
        "do. Banding between thick slices raises it too. Higher is worse.",
        "%",
        worse="high",
        unlike="{scan} has ghosts or bands, as from motion: {value}%, usually {usual}%",
        floor=0.2,
        as_ratio=True,
    ),
    "blur": Figure(
        "blur",
        "How much of the edges' strength is left when the scan is smoothed: a scan that loses little was blurred "
        "already, by one jolt of the head, by its sequence or by resampling. Higher is worse.",
        "%",
        0,
        worse="high",
        unlike="{scan} blurred: {value}%, usually {usual}%",
        floor=0.05,
        as_ratio=True,
    ),
    "slice_jumps": Figure(
        "slice jumps",
        "How much whole slices differ in brightness from their neighbours, in percent of the range of brightness. "
        "Higher is worse.",
        "%",
        2,
        worse="high",
        unlike="{scan} changes brightness from slice to slice: {value}%, usually {usual}%",
        floor=0.2,
        as_ratio=True,
    ),
    "low": Figure("darkest", "Brightness that 0.5% of the brain is below. Not flagged.", "scan's unit"),
    "high": Figure("brightest", "Brightness that 0.2% of the brain is above. Not flagged.", "scan's unit"),
}


@dataclass(frozen=True)
class CheckedCase:
    """One case with its quality figures and flags.

    Parameters
    ----------
    subject : str
        Pseudonym, without ``sub-``.
    figures : mapping of str to float
        See :func:`~pipeline.ingest.quality.measure_quality`.
    flags : mapping of str to str
        Name of each figure that stands out to a phrase that says how.
    """

    subject: str
    figures: Mapping[str, float]
    flags: Mapping[str, str]


def describe_figure(name: str) -> tuple[Figure, str]:
    """Return what a figure is, and the modality that it is of, empty for those of the case.

    Raises
    ------
    KeyError
        If there is no such figure.
    """
    modality, _, figure = name.partition("_")
    return (SCAN_FIGURES[figure], modality) if modality in MODALITIES else (CASE_FIGURES[name], "")


def check_cases(measured: Mapping[str, Mapping[str, float]]) -> list[CheckedCase]:
    """Flag the cases of a cohort: pseudonym to figures in, one checked case for each out, in the same order."""
    found = find_outliers(list(measured.values()))
    return [
        CheckedCase(subject, figures, flags) for (subject, figures), flags in zip(measured.items(), found, strict=True)
    ]


def find_outliers(rows: Sequence[Mapping[str, float]]) -> list[dict[str, str]]:
    """Find what stands out: figures beyond their limits, and outliers among at least :data:`MIN_CASES` cases.

    Parameters
    ----------
    rows : sequence of mapping of str to float
        Figures of each case; a figure that a case lacks is not compared.

    Returns
    -------
    list of dict of str to str
        For each case the names of its figures that stand out, with a phrase each.
    """
    flags: list[dict[str, str]] = [{} for _ in rows]
    for name in figure_names(rows):
        figure, modality = describe_figure(name)
        scan = MODALITY_TITLES.get(modality, "")
        having = [index for index, row in enumerate(rows) if name in row]
        values = np.array([rows[index][name] for index in having])
        usual = figure.show(float(np.median(values)))
        is_outlier = _outliers(values, figure) if len(having) >= MIN_CASES else np.zeros(len(having), bool)
        for index, value, stands_out in zip(having, values, is_outlier, strict=True):
            shown = figure.show(float(value))
            if not figure.limits[0] <= value <= figure.limits[1]:
                flags[index][name] = figure.beyond.format(scan=scan, value=shown)
            elif stands_out:
                flags[index][name] = figure.unlike.format(scan=scan, value=shown, usual=usual)
    return flags


def figure_names(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """Return the names of all figures that any case has: those of the case first, then modality by modality."""
    present = {name for row in rows for name in row}
    known = [*CASE_FIGURES, *(f"{modality}_{figure}" for modality in MODALITIES for figure in SCAN_FIGURES)]
    return [name for name in known if name in present]


def quality_rows(cases: Sequence[CheckedCase]) -> list[dict[str, str]]:
    """Return the rows of ``quality.tsv``: ``participant_id``, the figures, shares in [0, 1], and ``flags``."""
    names = figure_names(case.figures for case in cases)
    return [
        {
            "participant_id": f"sub-{case.subject}",
            **{name: f"{case.figures[name]:.6g}" if name in case.figures else UNKNOWN for name in names},
            "flags": "; ".join(case.flags.values()) or UNKNOWN,
        }
        for case in cases
    ]


def _outliers(values: NDArray[np.float64], figure: Figure) -> NDArray[np.bool_]:
    """Tell which values lie far from the median on the side that is worse."""
    scaled = np.log(np.maximum(values, 1e-9)) if figure.as_ratio else values
    off = scaled - np.median(scaled)
    limit = OUTLIER_Z * max(MAD_TO_SD * float(np.median(np.abs(off))), figure.floor)
    low, high = off < -limit, off > limit
    return {"none": np.zeros(len(values), bool), "low": low, "high": high, "both": low | high}[figure.worse]
