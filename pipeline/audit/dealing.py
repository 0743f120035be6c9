"""Who is in which reference: balanced halves, dealt out by chance; and dealt out anew, where nothing is to be found."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.seeds import numpy_stream


def balanced_halves(sides: Sequence[str], n_references: int, stream: np.random.Generator) -> NDArray[np.bool_]:
    """Draw complementary pairs of halves; each half takes half of each side of the split.

    Parameters
    ----------
    sides : sequence of str
        Side of each person: train or test.
    n_references : int
        Even.
    stream : numpy.random.Generator

    Returns
    -------
    ndarray, (n_references, persons), bool
        Who is in. Rows 2 i and 2 i + 1 are complements.
    """
    labels = np.array(sides)
    rows = []
    for _ in range(n_references // 2):
        inside = np.zeros(len(labels), bool)
        extra_inside = bool(stream.random() < 0.5)
        for side in sorted(set(sides)):
            members = stream.permutation(np.flatnonzero(labels == side))
            # Odd sides give their extra person to either half in turn, so that halves stay of equal size.
            n_inside = len(members) // 2 + (len(members) % 2 if extra_inside else 0)
            extra_inside ^= bool(len(members) % 2)
            inside[members[:n_inside]] = True
        rows += [inside, ~inside]
    return np.array(rows)


def deal_again(is_member: NDArray[np.bool_], n_references: int, n_tables: int, seed: int) -> NDArray[np.bool_]:
    """Draw tables of who might have been in: (tables, references, persons), by the law of the true one.

    Had nothing leaked, any of them would tell of the scores what the true one tells.

    Parameters
    ----------
    is_member : ndarray, (persons,), bool
        Of the target: the side of the split.
    n_references, n_tables, seed : int
    """
    sides = np.where(is_member, "train", "test").tolist()
    stream = numpy_stream(seed, "dealt again")
    return np.array([balanced_halves(sides, n_references, stream) for _ in range(n_tables)])
