"""Which group each test patient belongs to: the plan's strata, thirds by size, source, and what the source tells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.attributes import NUMBER_COLUMNS, STRATA, CaseAttributes
from pipeline.cohort import UNKNOWN, Case
from pipeline.config import GenerateSection
from pipeline.generate.plan import resolve_contrasts, strata_of

# By patient, then by attribute.
Groups = Mapping[str, Mapping[str, str]]
Stratum = tuple[str, str]

SIZE_THIRDS = ("smallest third", "middle third", "largest third")
# Columns of participants.tsv that group nobody, beside the numbers that strata are made of.
NO_GROUPS = frozenset({"person", "missing"}) | NUMBER_COLUMNS
# A column with more values than this is a number or a name, no group.
MAX_GROUPS = 8
COUNT_COLUMNS = ("asked", "obtained", "seen", "source")


@dataclass(frozen=True)
class Filling:
    """How much of a stratum there is.

    Parameters
    ----------
    real, asked, obtained : float
        Its share of the members of the generator, of the plan, of the synthetic cases.
    """

    real: float
    asked: float
    obtained: float

    @property
    def is_filled(self) -> bool:
        """Whether synthetic cases hold more of it than members do."""
        return self.obtained > self.real


def group_patients(
    patients: Sequence[Case], members: Sequence[Case], config: GenerateSection
) -> dict[str, dict[str, str]]:
    """Put patients into groups.

    Parameters
    ----------
    patients : sequence of Case
        Of the test side.
    members : sequence of Case
        Of the train side: where contrast is divided is theirs.
    config : GenerateSection
        The plan's: strata have its names and edges.

    Returns
    -------
    dict of str to dict of str to str
        Group by attribute, by subject; what is not known of a patient is left out.
    """
    # A cohort that was not ingested here has no attributes.
    known = {case.subject: CaseAttributes.from_columns(case.attributes) for case in patients if _is_described(case)}
    config = resolve_contrasts(config, [CaseAttributes.from_columns(c.attributes) for c in members if _is_described(c)])
    sizes = [attributes.volume_ml for attributes in known.values()]
    edges_ml = np.quantile(sizes, [1 / 3, 2 / 3]) if sizes else np.zeros(2)
    groups: dict[str, dict[str, str]] = {}
    for case in patients:
        found: dict[str, str] = {}
        if case.subject in known:
            attributes = known[case.subject]
            found |= {"size": SIZE_THIRDS[int(np.digitize(attributes.volume_ml, edges_ml))]}
            found |= strata_of(attributes, config)
        found |= {"source": case.source}
        found |= {name: value for name, value in case.attributes.items() if name not in NO_GROUPS | set(STRATA)}
        groups[case.subject] = {name: value for name, value in found.items() if value not in ("", UNKNOWN)}
    return groups


def list_groups(groups: Groups) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the patients of each group of each attribute; an attribute that tells nobody apart is left out."""
    listed: dict[str, dict[str, list[str]]] = {}
    for patient, attributes in groups.items():
        for attribute, group in attributes.items():
            listed.setdefault(attribute, {}).setdefault(group, []).append(patient)
    return {
        attribute: {group: tuple(patients) for group, patients in _in_order(attribute, members).items()}
        for attribute, members in listed.items()
        if 1 < len(members) <= MAX_GROUPS
    }


def read_filling(plan: Sequence[Mapping[str, str]]) -> dict[Stratum, Filling]:
    """Return how the plan filled each stratum.

    Parameters
    ----------
    plan : sequence of mapping of str to str
        Rows of ``synthetic/plan.tsv``: a stratum of each attribute, then counts.

    Returns
    -------
    dict of (str, str) to Filling
        By attribute and stratum; empty where the plan or the members are.
    """
    totals = {column: sum(int(row[column]) for row in plan) for column in COUNT_COLUMNS}
    if not all(totals[column] for column in ("asked", "obtained", "source")):
        return {}
    filling = {}
    for attribute in plan[0].keys() - set(COUNT_COLUMNS):
        for stratum in dict.fromkeys(row[attribute] for row in plan):
            rows = [row for row in plan if row[attribute] == stratum]
            real, asked, obtained = (
                sum(int(row[column]) for row in rows) / totals[column] for column in ("source", "asked", "obtained")
            )
            filling[attribute, stratum] = Filling(real, asked, obtained)
    return filling


def _is_described(case: Case) -> bool:
    return case.attributes.get("volume_ml", UNKNOWN) not in ("", UNKNOWN)


def _in_order(attribute: str, members: dict[str, list[str]]) -> dict[str, list[str]]:
    """Sort groups: by their own order where they have one, else by name."""
    order = STRATA.get(attribute, SIZE_THIRDS if attribute == "size" else tuple(sorted(members)))
    return {group: members[group] for group in (*order, *sorted(members.keys() - set(order))) if group in members}
