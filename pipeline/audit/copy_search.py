"""Search for copies: portraits of real scans, released cases and constructed copies are compared, nothing is judged."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.constructions import KINDS, construct
from pipeline.audit.copies import LEVELS, CopySearch
from pipeline.audit.gallery import Gallery
from pipeline.audit.portraits import Portrait, coarsen, draw_case, draw_portrait, read_scan_and_labels
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Persons, Scores
from pipeline.cohort import Case
from pipeline.progress import progress
from pipeline.seeds import numpy_stream

# Copies that fix the threshold: so many at least, if val patients times kinds give so many; three of each at least.
N_FIXING, N_FIXING_EACH = 27, 3
# Real scans held against all the others; more would say no more, and take their time.
MAX_HELD = 200


def search_copies(
    persons: Persons,
    is_member: NDArray[np.bool_],
    val: Sequence[Case],
    released: Sequence[Case],
    setting: Setting,
    seed: int,
) -> CopySearch:
    """Compare what was released with all real scans, these with each other, and copies with their originals.

    Parameters
    ----------
    persons : sequence of tuple of Case
        All scans of each person asked about.
    is_member : ndarray, (persons,), bool
    val : sequence of Case
        One scan of each val patient.
    released : sequence of Case
    setting : Setting
    seed : int
    """
    cases = [*(case for scans in persons for case in scans), *val]
    counts = [*(len(scans) for scans in persons), *([1] * len(val))]
    owners = np.repeat(np.arange(len(counts)), counts)
    portraits = list(_draw(cases, setting, "portray"))
    gallery = Gallery(portraits)
    # Val patients first: they fix the threshold in a small cohort and in a large one.
    order = np.argsort(owners < len(persons), kind="stable")[:MAX_HELD]
    each = min(len(KINDS), max(N_FIXING_EACH, -(-N_FIXING // len(val))))
    fixing = [
        (len(persons) + number, case, KINDS[(number * each + turn) % len(KINDS)])
        for number, case in enumerate(val)
        for turn in range(each)
    ]
    kinds = tuple(KINDS[number % len(KINDS)] for number in range(len(persons)))
    testing = [(number, scans[0], kind) for number, (scans, kind) in enumerate(zip(persons, kinds, strict=True))]
    return CopySearch(
        is_member,
        owners,
        owners[order],
        _likeness(gallery, _draw(released, setting, "compare released")),
        _likeness(gallery, (portraits[int(place)] for place in order)),
        _likeness_to_own(gallery, owners, fixing, setting, seed, "fixing"),
        _likeness_to_own(gallery, owners, testing, setting, seed, "testing"),
        kinds,
    )


def draw_copy(case: Case, kind: str, setting: Setting, stream: np.random.Generator) -> Portrait:
    """Construct a copy of a case, of one of :data:`KINDS`, and draw its portrait."""
    images, condition, spacing_mm = coarsen(*read_scan_and_labels(case, setting), setting.spacing_mm)
    return draw_portrait(*construct(kind, images, condition, spacing_mm, stream), setting.scheme)


def _draw(cases: Sequence[Case], setting: Setting, title: str) -> Iterator[Portrait]:
    """Draw one portrait after the other: those of a large release need not be held."""
    with progress(title, len(cases)) as task:
        for case in cases:
            yield draw_case(case, setting)
            task.advance()


def _likeness(gallery: Gallery, portraits: Iterable[Portrait]) -> dict[str, NDArray[np.float32]]:
    """Return the likeness of the gallery's scans to portraits: by level (scans, portraits)."""
    found = [gallery.likeness(portrait) for portrait in portraits]
    return {level: np.stack([one[level] for one in found], axis=1) for level in LEVELS}


def _likeness_to_own(
    gallery: Gallery,
    owners: NDArray[np.intp],
    asked: Sequence[tuple[int, Case, str]],
    setting: Setting,
    seed: int,
    purpose: str,
) -> dict[str, Scores]:
    """Return the likeness of copies to their own persons, the most telling scan: by level (copies,).

    Parameters
    ----------
    asked : sequence of tuple
        Person, case, kind of each copy.
    """
    found = []
    with progress("construct copies", len(asked)) as task:
        for person, case, kind in asked:
            likeness = gallery.likeness(draw_copy(case, kind, setting, numpy_stream(seed, purpose, person, kind)))
            found.append([float(likeness[level][owners == person].max()) for level in LEVELS])
            task.advance()
    return dict(zip(LEVELS, np.array(found).T, strict=True))
