"""The plan: strata as the balance says, every label source by its share."""

from collections import Counter

import numpy as np
import pytest
from conftest import rng
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.attributes import HEMISPHERES, STRATA, VOLUMES, CaseAttributes
from pipeline.config import GenerateSection, PlanRow, parse_config
from pipeline.errors import ConfigError
from pipeline.generate.plan import cell_of, fill_up, list_cells, make_plan, plan_table, resolve_contrasts, round_to_sum
from pipeline.labels import LabelScheme

SCHEME = LabelScheme()


def tumor(volume_ml: float = 10.0, hemisphere: str = "left", **others: object) -> CaseAttributes:
    return CaseAttributes(
        volume_ml,
        hemisphere,
        str(others.get("lobe", "frontal")),
        float(str(others.get("enhancing_share", 0.1))),
        int(str(others.get("n_foci", 1))),
        float(str(others.get("contrast", "nan"))),
    )


def count(config: GenerateSection, source: list[CaseAttributes], seed: int = 0) -> Counter[tuple[str, ...]]:
    plan = make_plan(config, SCHEME, source, rng(seed))
    return Counter(tuple(case.wanted[name] for name in config.strata) for case in plan)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_plan_asks_for_every_stratum_alike_and_for_sources_by_their_share(n: int, seed: int, share: float) -> None:
    config = GenerateSection(n_cases=n, label_sources={"recombine": share, "atlas": 1 - share})
    plan = make_plan(config, SCHEME, (), rng(seed))
    assert [case.number for case in plan] == list(range(1, n + 1))
    strata = Counter((case.wanted["volume"], case.hemisphere) for case in plan)
    counts = [strata[volume, side] for volume in VOLUMES for side in HEMISPHERES]
    assert sum(counts) == n
    assert max(counts) - min(counts) <= 1
    n_recombined = sum(case.label_source == "recombine" for case in plan)
    assert abs(n_recombined - share * n) < 1 + 1e-6
    for case in plan:
        assert case.wanted["hemisphere"] == case.hemisphere
        low, high = config.volume_edges_ml[VOLUMES.index(case.wanted["volume"]) :][:2]
        assert low < case.volume_ml < high


def test_plan_asks_for_one_source_only_where_the_config_does() -> None:
    config = GenerateSection(n_cases=7, label_sources={"atlas": 1.0})
    assert {case.label_source for case in make_plan(config, SCHEME, (), rng())} == {"atlas"}


def test_a_plan_like_the_source_has_its_shares_and_leaves_out_what_it_has_not() -> None:
    config = GenerateSection(n_cases=20, balance="like-source", strata=("hemisphere",))
    source = [tumor(hemisphere="left")] * 3 + [tumor(hemisphere="right")]
    assert count(config, source) == {("left",): 15, ("right",): 5}
    assert count(config, source[:3]) == {("left",): 20}
    with pytest.raises(ConfigError, match="like-source needs members"):
        count(config, [])


def test_a_plan_that_fills_gaps_levels_members_and_synthetic_cases_together() -> None:
    config = GenerateSection(n_cases=12, balance="fill-gaps", strata=("volume",))
    source = [tumor(10.0)] * 10 + [tumor(30.0)] * 4
    # 10 + 4 + 0 + 12 are 26: 10 stay as they are, 16 on two strata are 8 each.
    assert count(config, source) == {("medium",): 4, ("large",): 8}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(0, 100), st.integers(0, 2**32 - 1))
def test_what_is_poured_in_sums_up_and_raises_none_above_another_that_got_some(heights, n, seed) -> None:
    poured = fill_up(np.array(heights, float), n)
    assert poured.sum() == pytest.approx(n)
    levels = poured + heights
    if n:
        assert np.ptp(levels[poured > 0]) < 1e-6
        assert (levels[poured == 0] >= levels[poured > 0].max() - 1e-6).all()
    assert sum(round_to_sum(poured, n, rng(seed))) == n


def test_a_table_is_asked_for_to_the_letter() -> None:
    rows = (
        PlanRow(n=20, volume="small", hemisphere="left", enhancing="strong"),
        PlanRow(n=2, volume="large", hemisphere="right", enhancing="none"),
    )
    config = GenerateSection(n_cases=22, balance="table", strata=("volume", "hemisphere", "enhancing"), table=rows)
    assert count(config, []) == {("small", "left", "strong"): 20, ("large", "right", "none"): 2}
    for case in make_plan(config, SCHEME, (), rng(3)):
        assert case.enhancing_share is not None
        aimed = tumor(case.volume_ml, case.hemisphere, enhancing_share=case.enhancing_share)
        assert case.is_met_by(aimed, config)
        assert not case.is_met_by(tumor(case.volume_ml, case.hemisphere, enhancing_share=0.1), config)


def test_a_table_cannot_ask_for_what_the_labels_do_not_have() -> None:
    config = GenerateSection(
        n_cases=1, balance="table", strata=("enhancing",), table=(PlanRow(n=1, enhancing="strong"),)
    )
    with pytest.raises(ConfigError, match="this label scheme cannot have"):
        make_plan(config, LabelScheme(("oedema",)), (), rng())


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(("oedema",), {"none"}), (("enhancing",), {"strong"}), (("oedema", "enhancing"), {"none", "some", "strong"})],
)
def test_cells_are_what_tumours_of_the_scheme_can_be(classes: tuple[str, ...], expected: set[str]) -> None:
    config = GenerateSection(strata=("hemisphere", "enhancing"))
    assert {cell[1] for cell in list_cells(config, LabelScheme(classes))} == expected


def test_each_attribute_can_be_a_stratum_of_a_plan() -> None:
    for name, strata in STRATA.items():
        config = GenerateSection.model_validate({"n_cases": 2 * len(strata), "strata": [name]})
        plan = make_plan(config, SCHEME, (), rng())
        assert Counter(case.wanted[name] for case in plan) == dict.fromkeys(strata, 2)
        assert {case.n_foci for case in plan} == ({1, 2} if name == "foci" else {1})
        assert {case.lobe for case in plan} == (set(strata) if name == "lobe" else {None})


def test_a_row_of_a_table_may_name_each_stratum_there_is_and_no_other() -> None:
    for name, strata in STRATA.items():
        for stratum in strata:
            assert PlanRow.model_validate({"n": 1, name: stratum}).cell == {name: stratum}
        with pytest.raises(ValueError, match=name):
            PlanRow.model_validate({"n": 1, name: "other"})


def test_plan_table_counts_asked_obtained_and_source() -> None:
    config = GenerateSection(n_cases=2)
    asked = make_plan(GenerateSection(n_cases=6), SCHEME, (), rng())
    by_cell = {(case.wanted["volume"], case.hemisphere): case for case in asked}
    chosen = [by_cell["small", "left"], by_cell["large", "left"]]
    seen = [tumor(10.0), None]
    rows = plan_table(config, SCHEME, chosen, [tumor(10.0)] * 2, seen, [tumor(70.0, "right")] * 3)
    found = {(r["volume"], r["hemisphere"]): (r["asked"], r["obtained"], r["seen"], r["source"]) for r in rows}
    assert found.pop(("small", "left")) == (1, 2, 1, 0)
    assert found.pop(("large", "left")) == (1, 0, 0, 0)
    assert found.pop(("large", "right")) == (0, 0, 0, 3)
    assert set(found.values()) == {(0, 0, 0, 0)}
    assert cell_of(tumor(10.0), config) == ("small", "left")


def test_contrasts_are_divided_into_thirds_of_the_members_or_as_the_config_says() -> None:
    config = GenerateSection(n_cases=6, strata=("contrast",))
    members = [tumor(contrast=value) for value in (100, 110, 120, 130, 140, 150, 160)] + [tumor()]
    resolved = resolve_contrasts(config, members)
    assert resolved.contrast_edges == pytest.approx((120.0, 140.0))
    assert count(resolved, members) == {("low",): 2, ("middle",): 2, ("high",): 2}
    given = config.model_copy(update={"contrast_edges": (1.0, 2.0)})
    assert resolve_contrasts(given, members) is given
    plain = GenerateSection(n_cases=6)
    assert resolve_contrasts(plain, members) is plain
    with pytest.raises(ConfigError, match="contrast cannot be told apart among the members"):
        resolve_contrasts(config, [tumor(contrast=100)] * 4)
    with pytest.raises(ConfigError, match="contrast cannot be told apart"):
        resolve_contrasts(config, [])


def test_what_is_not_known_yet_is_not_held_against_a_case_but_is_in_no_stratum() -> None:
    config = GenerateSection(n_cases=1, strata=("contrast",), contrast_edges=(100.0, 150.0))
    asked = make_plan(config, SCHEME, (), rng())[0]
    assert asked.is_met_by(tumor(), config)
    met = [asked.is_met_by(tumor(contrast=value), config) for value in (50, 120, 200)]
    assert sum(met) == 1
    assert cell_of(tumor(), config) == ("unknown",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"contrast_edges": [2.0, 1.0]}, "contrast_edges: expected two increasing"),
        ({"look": "fixed", "strata": ["contrast"]}, "look: expected `sampled`"),
    ],
)
def test_contrasts_that_cannot_be_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config({"generate": change}, "tests")
