"""Single persons: who scores otherwise when in than when out, beyond chance, over all persons and attacks.

An aggregate can look random while one person is fully exposed, so that each is tested. What chance does is known by
design: who was in was dealt out, so it is dealt out anew many times, and each time the largest effect of all persons
and attacks is noted (Westfall and Young's maximum). No law of the scores is assumed.

References
----------
Knolle et al. 2026 (patient-level risk). Westfall and Young 1993, "Resampling-based multiple testing".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.paired import calibrate
from pipeline.audit.targets import Scores

MIN_REFERENCES = 4
TABLES_AT_ONCE = 100


@dataclass(frozen=True)
class Exposure:
    """What single persons give away.

    Parameters
    ----------
    attacks : tuple of str
        Those without shadows: the scores of the others are made of who was in.
    p : ndarray, (attacks, persons), float64
        Corrected over all persons and attacks; 1 where there are too few references to tell.
    """

    attacks: tuple[str, ...]
    p: Scores

    def exposed(self, alpha: float) -> dict[str, int]:
        """Return by attack how many persons are exposed at a level; attacks with none are left out."""
        counts = (self.p < alpha).sum(axis=1)
        return {name: int(n) for name, n in zip(self.attacks, counts, strict=True) if n}


def find_exposed(references: Mapping[str, Scores], is_in: NDArray[np.bool_], tables: NDArray[np.bool_]) -> Exposure:
    """Test every person by every gated attack without shadows.

    Parameters
    ----------
    references : mapping of str to ndarray, (references, persons), float64
        By attack.
    is_in : ndarray, (references, persons), bool
    tables : ndarray, (tables, references, persons), bool
        Dealt out anew; see :func:`pipeline.audit.dealing.deal_again`.
    """
    names = tuple(n for n in references if not BY_NAME[n].needs_shadows and BY_NAME[n].threat_model != "warning")
    n_references, n_persons = is_in.shape
    if not names or n_references < MIN_REFERENCES:
        return Exposure(names, np.ones((len(names), n_persons)))
    calibrated = np.stack([calibrate(references[name]) for name in names])
    observed = effects(calibrated, is_in[None])[0]
    largest = np.concatenate(
        [
            effects(calibrated, tables[start : start + TABLES_AT_ONCE]).max(axis=(1, 2))
            for start in range(0, len(tables), TABLES_AT_ONCE)
        ]
    )
    above = len(largest) - np.searchsorted(np.sort(largest), observed - 1e-9)
    return Exposure(names, (1 + above) / (1 + len(largest)))


def effects(calibrated: Scores, tables: NDArray[np.bool_]) -> Scores:
    """Return how far each person's mean in lies from his mean out, in standard errors: (tables, attacks, persons).

    The spread of scores about a person's means is taken to be that of all persons together. The sign does not count.

    Parameters
    ----------
    calibrated : ndarray, (attacks, references, persons), float64
        Each person's mean is 0.
    tables : ndarray, (tables, references, persons), bool
        Each person is in half of the references.
    """
    n_references, n_persons = calibrated.shape[1:]
    signs = np.where(tables, 1.0, -1.0)
    # Mean in less mean out: each over half of the references.
    difference = np.einsum("trp,arp->tap", signs, calibrated) / (n_references / 2)
    within = (calibrated**2).sum(axis=(1, 2)) - n_references / 4 * (difference**2).sum(axis=2)
    variance = np.maximum(within, 1e-12) / (n_persons * (n_references - 2))
    found: Scores = np.abs(difference) / np.sqrt(variance * 4 / n_references)[:, :, None]
    return found


def describe_exposed(exposure: Exposure, attacks: Sequence[str], alpha: float) -> list[str]:
    """Say in words how many persons are exposed, by each of some attacks that finds any."""
    return [
        f"'{BY_NAME[name].title}' tells apart {n} {'person' if n == 1 else 'persons'} when in from when out, beyond "
        "chance (corrected for all persons and attacks); audit/patients.csv names them"
        for name, n in exposure.exposed(alpha).items()
        if name in attacks
    ]
