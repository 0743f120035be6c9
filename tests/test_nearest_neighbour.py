"""The attack by the nearest neighbour: it finds planted copies, and nothing where none are."""

from audit_builders import N_MEMBERS, reference_of, release_of

from pipeline.audit.nearest_neighbour import nearest_neighbour
from pipeline.cohort import Cohort
from pipeline.statistics import auc


def test_nearest_neighbour_finds_planted_copies_and_nothing_where_none_are(
    cohort: Cohort, honest: Cohort, leaking: Cohort
) -> None:
    members, others = cohort.split("train"), cohort.split("test")
    found = {}
    for name, synthetic in (("honest", honest), ("leaking", leaking)):
        scores = nearest_neighbour((*members, *others), release_of(synthetic), reference_of(cohort))
        found[name] = auc(scores[:N_MEMBERS], scores[N_MEMBERS:])
    assert found["leaking"] == 1.0
    # The null SD at 12 against 12 is sqrt(25 / 1728) = .12: within two and a half of them.
    assert 0.2 < found["honest"] < 0.8
