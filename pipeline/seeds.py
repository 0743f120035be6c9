"""Random streams: one root seed, one independent stream for each purpose, whatever the order of work.

A stream is named by what it is for (stage, case, step). Nothing is drawn from a shared generator, so that neither
the number of workers nor a kill and resume changes a byte.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive a seed from the root seed and a purpose.

    Parameters
    ----------
    seed : int
        ``run.seed``.
    *names : str or int
        The purpose, from coarse to fine: ``"train", 1200`` for step 1,200 of the training.

    Returns
    -------
    int
        In [0, 2**63).
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the NumPy generator of a purpose; see :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *names))


def torch_stream(seed: int, *names: str | int) -> "torch.Generator":
    """Return the torch CPU generator of a purpose; see :func:`derive_seed`."""
    # Here, so that verbs which draw nothing do not wait for torch.
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *names))
