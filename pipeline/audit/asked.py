"""Who is asked about: persons of train and test, members first, and their scans."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Persons, Scores, Targets, by_person
from pipeline.audit.views import view_targets
from pipeline.cohort import Cohort
from pipeline.errors import DataError


@dataclass(frozen=True)
class Asked:
    """The persons asked about.

    Parameters
    ----------
    persons : sequence of tuple of Case
        Members first.
    is_member : ndarray, (persons,), bool
    targets : Targets
        All their scans, in an order that tells nothing about membership.
    """

    persons: Persons
    is_member: NDArray[np.bool_]
    targets: Targets

    @cached_property
    def owners(self) -> NDArray[np.intp]:
        """Place of each scan's person: (scans,), int."""
        owner = {case.subject: index for index, cases in enumerate(self.persons) for case in cases}
        return np.array([owner[subject] for subject in self.targets.subjects])

    @property
    def scan_is_member(self) -> NDArray[np.bool_]:
        """Whether each scan's person is a member: (scans,), bool."""
        return self.is_member[self.owners]

    def per_person(self, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        """Return each person's score by each attack."""
        return {
            name: by_person(values, self.targets.subjects, self.persons, BY_NAME[name].takes_mean)
            for name, values in scores.items()
            if name in BY_NAME
        }


def ask_about(cohort: Cohort, setting: Setting) -> tuple[Asked, int]:
    """Return the persons of train and test, and how many members are left out.

    Raises
    ------
    DataError
        If a side of the split is empty, or a person is on both sides.
    """
    # Scores of persons with fewer modalities are no measure beside those of persons with all: they would differ by what
    # is missing, and only members may lack any.
    members, nonmembers = _whole_persons(cohort, "train"), _whole_persons(cohort, "test")
    if not members or not nonmembers or not cohort.patients("val"):
        raise DataError("a side of the split is empty; expected persons in train, val and test; change ingest.split")
    if {cases[0].person for cases in members} & {cases[0].person for cases in nonmembers}:
        raise DataError("a person on both sides of the audit; expected persons on one side; check the split")
    persons = (*members, *nonmembers)
    scans = sorted((case for cases in persons for case in cases), key=lambda case: case.subject)
    is_member = np.arange(len(persons)) < len(members)
    return Asked(persons, is_member, view_targets(scans, setting)), len(cohort.persons("train")) - len(members)


def _whole_persons(cohort: Cohort, side: str) -> Persons:
    """Return the scans of each person on a side that lack no modality; persons who have none such are left out."""
    scans = (cohort.complete(cases) for cases in cohort.persons(side))
    return tuple(cases for cases in scans if cases)
