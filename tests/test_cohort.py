"""The cohort's cases: whom they count as."""

from dataclasses import replace
from pathlib import Path

from pipeline.cohort import Cohort
from pipeline.labels import LabelScheme


def test_the_unit_is_the_person_not_the_scan(cohort: Cohort) -> None:
    first, second, third = cohort.cases[:3]
    again = replace(second, attributes={**second.attributes, "person": first.attributes["person"]})
    cohort = Cohort(Path(), LabelScheme(), (), (first, again, third))
    assert cohort.patients(first.split, third.split) == (first, third)
