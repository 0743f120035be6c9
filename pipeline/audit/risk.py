"""Exposure of single persons and of groups: the aggregate can look random while single patients are fully exposed.

References
----------
Knolle et al. 2026 (patient-level risk). Carlini et al. 2022, "The privacy onion effect", arXiv:2206.10469 (removing
the most exposed exposes others).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.conclusions import Evidence
from pipeline.audit.exposure import Exposure
from pipeline.audit.paired import Risk, patient_risk
from pipeline.audit.targets import Persons
from pipeline.cohort import UNKNOWN

MIN_GROUP = 3


def exposed_persons(persons: Persons, evidence: Evidence, exposure: Exposure, alpha: float) -> list[dict[str, str]]:
    """Return a row for each person, most exposed first.

    A person's risk by an attack is how much higher he scores on references that had him than on those that had not,
    in standard deviations of the attack's scores; the interval is wide where there are few references. ``p`` is the
    smallest over attacks, corrected for all persons and attacks.
    """
    risks = _risks(evidence, alpha)
    largest = np.max([risk.value for risk in risks.values()], axis=0)
    smallest_p = exposure.p.min(axis=0, initial=1.0)
    rows = []
    for index in np.lexsort((-largest, smallest_p)):
        case = persons[int(index)][0]
        head = {
            "patient": case.person,
            "split": case.split,
            "source": case.source,
            "volume_ml": case.attributes["volume_ml"],
            "p": f"{smallest_p[index]:.3g}",
        }
        for name, risk in risks.items():
            low, high = risk.ci[index]
            head[name] = f"{risk.value[index]:.3f}"
            head[f"{name}_ci"] = f"{low:.3f} to {high:.3f}" if np.isfinite(low) else "n/a"
        rows.append(head)
    return rows


def subgroup_exposure(persons: Persons, evidence: Evidence, alpha: float) -> list[dict[str, Any]]:
    """Return the mean risk of thirds of tumour volume and of each source, with Student's intervals.

    Groups of fewer than three persons are left out: they would be persons. The references are taken as they are: that
    others would differ is not in the intervals.
    """
    volumes = np.array([_number(cases[0].attributes["volume_ml"]) for cases in persons])
    edges = np.nanquantile(volumes, [1 / 3, 2 / 3])
    groups = {
        "smallest third of tumours": volumes <= edges[0],
        "middle third of tumours": (volumes > edges[0]) & (volumes <= edges[1]),
        "largest third of tumours": volumes > edges[1],
    }
    sources = [cases[0].source for cases in persons]
    if len(set(sources)) > 1:
        groups |= {f"source {name}": np.array(sources) == name for name in sorted(set(sources)) if name != UNKNOWN}
    rows = []
    for name, risk in _risks(evidence, alpha).items():
        for group, inside in groups.items():
            if inside.sum() < MIN_GROUP:
                continue
            values = risk.value[inside]
            quantile = float(stats.t.ppf(1 - alpha / 2, len(values) - 1))
            half = quantile * float(values.std(ddof=1)) / np.sqrt(len(values))
            mean = float(values.mean())
            rows.append(
                {"attack": name, "group": group, "n": int(inside.sum()), "risk": mean, "ci": [mean - half, mean + half]}
            )
    return rows


def _risks(evidence: Evidence, alpha: float) -> dict[str, Risk]:
    names: Sequence[str] = [name for name in evidence.references if not BY_NAME[name].needs_shadows]
    return {name: patient_risk(evidence.references[name], evidence.is_in, alpha) for name in names}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
