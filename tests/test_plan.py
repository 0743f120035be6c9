"""The plan: every stratum alike, every label source by its share."""

from collections import Counter
from dataclasses import replace

from conftest import ask, rng
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.attributes import HEMISPHERES
from pipeline.config import GenerateSection
from pipeline.generate.plan import VOLUME_STRATA, make_plan, plan_table


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_plan_asks_for_every_stratum_alike_and_for_sources_by_their_share(n: int, seed: int, share: float) -> None:
    config = GenerateSection(n_cases=n, label_sources={"recombine": share, "atlas": 1 - share})
    plan = make_plan(config, rng(seed))
    assert [case.number for case in plan] == list(range(1, n + 1))
    strata = Counter(case.stratum for case in plan)
    counts = [strata[volume, side] for volume in VOLUME_STRATA for side in HEMISPHERES]
    assert sum(counts) == n
    assert max(counts) - min(counts) <= 1
    n_recombined = sum(case.label_source == "recombine" for case in plan)
    assert abs(n_recombined - share * n) < 1
    for case in plan:
        low, high = config.volume_edges_ml[VOLUME_STRATA.index(case.volume) :][:2]
        assert low < case.volume_ml < high


def test_plan_asks_for_one_source_only_where_the_config_does() -> None:
    config = GenerateSection(n_cases=7, label_sources={"atlas": 1.0})
    assert {case.label_source for case in make_plan(config, rng())} == {"atlas"}


def test_plan_table_counts_asked_obtained_and_source() -> None:
    asked = [replace(ask(30, "left"), volume="small"), replace(ask(30, "left"), volume="large")]
    rows = plan_table(asked, [("small", "left"), ("small", "left")], [("large", "right")] * 3)
    found = {(r["volume"], r["hemisphere"]): (r["asked"], r["obtained"], r["source"]) for r in rows}
    assert found.pop(("small", "left")) == (1, 2, 0)
    assert found.pop(("large", "left")) == (1, 0, 0)
    assert found.pop(("large", "right")) == (0, 0, 3)
    assert set(found.values()) == {(0, 0, 0)}
