"""The generate stage: label maps by the plan, same bytes however many workers, what cannot be made is refused."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, ask, write_toy_cohort
from torch import Tensor

from pipeline.attributes import CaseAttributes, describe_tumor, tissue_contrast
from pipeline.cohort import Case, Cohort, digest_tree, open_cohort, read_tsv
from pipeline.config import ComputeSection, GenerateSection, RunConfig, parse_config
from pipeline.errors import CaseError, ConfigError
from pipeline.generate import cases
from pipeline.generate.cases import LabelTask, make_labels
from pipeline.generate.placement import LabelMaps
from pipeline.generate.plan import AskedCase, cell_of, make_plan
from pipeline.generate.recombine import Donor, tumor_ml
from pipeline.generate.synthesis import generate_cohort
from pipeline.parallel import iterate_cases
from pipeline.seeds import numpy_stream
from pipeline.train.generator import Generator
from pipeline.volumes import Grid

MakeConfig = Callable[..., RunConfig]
CPU = ComputeSection(accelerator="cpu", workers=1)


def donors_of(cohort: Cohort) -> tuple[Donor, ...]:
    return tuple(Donor(case, tumor_ml(case, cohort.spacing_mm)) for case in cohort.split("train"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(write_toy_cohort(tmp_path_factory.mktemp("generate") / "cohort", {"train": 4, "val": 2}))


def test_anatomy_and_tumour_come_from_two_persons(
    cohort: Cohort, tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Case, Donor]] = []

    def spy(anatomy: Case, donor: Donor, *rest: object) -> LabelMaps:
        drawn.append((anatomy, donor))
        raise CaseError("try again")

    monkeypatch.setattr(cases, "recombine", spy)
    config = tiny_config(generate={"max_attempts": 60}).generate
    asked = replace(ask(30.0), label_source="recombine")
    with pytest.raises(CaseError):
        make_labels(LabelTask(asked, donors_of(cohort), cohort.scheme, Grid(cohort.shape, 8.0), config, 1))
    assert len(drawn) == 60
    assert all(anatomy is not donor.case for anatomy, donor in drawn)
    # Of 4 * 3 ordered pairs, 60 draws miss a given one with probability (11 / 12)^60 = .005.
    assert len({(a.subject, d.case.subject) for a, d in drawn}) >= 10


def make_cohort(cohort: Cohort, generator: Generator, out: Path, workers: int, n_cases: int = 5) -> Path:
    config = parse_config({**TINY, "generate": {**TINY["generate"], "n_cases": n_cases}}, "tests").generate
    compute = ComputeSection(accelerator="cpu", workers=workers)
    generate_cohort(generator, cohort, cohort.split("train"), config, compute, 1, out)
    return out


def test_cohort_is_the_same_whatever_the_workers_and_opens_as_one(
    cohort: Cohort, generator: Generator, tmp_path: Path
) -> None:
    first = make_cohort(cohort, generator, tmp_path / "first", workers=1)
    second = make_cohort(cohort, generator, tmp_path / "second", workers=2)
    assert digest_tree(first) == digest_tree(second)
    made = open_cohort(first)
    assert len(made.cases) == 5
    assert made.scheme == cohort.scheme
    assert made.modalities == cohort.modalities
    assert made.shape == cohort.shape
    assert made.spacing_mm == cohort.spacing_mm
    rows = read_tsv(first / "participants.tsv")
    assert {row["source"] for row in rows} == {"recombine", "atlas"}
    for case, row in zip(made.cases, rows, strict=True):
        condition = case.condition(made.scheme)
        for modality in made.modalities:
            assert not np.asarray(case.image(modality))[condition == 0].any()
        found = describe_tumor(np.asarray(case.tumor_map()), condition > 0, case.affine, made.scheme)
        assert row["hemisphere"] == found.hemisphere == row["asked_hemisphere"]
        assert float(row["volume_ml"]) == pytest.approx(found.volume_ml, abs=0.06)
        assert (first / "figures" / f"sub-{case.subject}.png").is_file()


def test_cohort_is_the_same_however_many_cases_are_made_at_once(
    cohort: Cohort, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []

    def count(function: Callable[[LabelTask], LabelMaps], tasks: list[LabelTask], compute: ComputeSection) -> object:
        together.append(len(tasks))
        return iterate_cases(function, tasks, compute)

    monkeypatch.setattr(cases, "iterate_cases", count)
    first = make_cohort(cohort, generator, tmp_path / "first", workers=1)
    monkeypatch.setattr(cases, "CASES_AT_ONCE", 4)
    second = make_cohort(cohort, generator, tmp_path / "second", workers=1)
    assert together == [10, 4, 4, 2]
    assert digest_tree(first) == digest_tree(second)


def test_a_label_map_does_not_depend_on_those_made_before(cohort: Cohort) -> None:
    config = parse_config({**TINY, "generate": {**TINY["generate"], "label_sources": {"atlas": 1.0}}}, "tests").generate
    asked = make_plan(config, cohort.scheme, (), numpy_stream(1, "plan"))
    maps = [make_labels(LabelTask(a, (), cohort.scheme, Grid(cohort.shape, 8.0), config, 1)) for a in asked[:2]]
    again = make_labels(LabelTask(asked[1], (), cohort.scheme, Grid(cohort.shape, 8.0), config, 1))
    np.testing.assert_array_equal(again.tumor_map, maps[1].tumor_map)
    assert (maps[0].tumor_map != maps[1].tumor_map).any()


def test_recombining_one_person_is_refused(cohort: Cohort, generator: Generator, tmp_path: Path) -> None:
    config = GenerateSection(n_cases=2)
    with pytest.raises(ConfigError, match="recombine needs two persons, got 1"):
        generate_cohort(generator, cohort, cohort.cases[:1], config, CPU, 1, tmp_path / "out")


def test_labels_that_cannot_be_made_are_given_up_with_what_to_do(cohort: Cohort, tiny_config: MakeConfig) -> None:
    config = tiny_config(generate={"max_attempts": 3, "volume_edges_ml": [3000.0, 3500.0, 4000.0, 5000.0]}).generate
    for source in ("atlas", "recombine"):
        asked = AskedCase(1, source, 3200.0, "left")
        with pytest.raises(CaseError, match="no label map with a tumour of 3200 ml in 3 attempts"):
            make_labels(LabelTask(asked, donors_of(cohort), cohort.scheme, Grid(cohort.shape, 8.0), config, 1))


def test_labels_that_miss_the_plan_are_kept_rather_than_none(
    cohort: Cohort, tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off_side(*_: object) -> LabelMaps:
        tissue, tumor = (np.zeros(cohort.shape, np.uint8) for _ in range(2))
        tumor[18:22, 10:14, 6:10] = 2
        return LabelMaps(tissue, tumor)

    monkeypatch.setattr(cases, "atlas_labels", off_side)
    task = LabelTask(ask(30.0, "left"), (), cohort.scheme, Grid(cohort.shape, 8.0), tiny_config().generate, 1)
    assert make_labels(task).tumor_map.sum() == 2 * 64


def test_styles_are_tried_until_the_scan_has_the_contrast_asked_for(
    cohort: Cohort, generator: Generator, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    labels = {"n_cases": 6, "curation": {"candidates": 1, "drop_near_duplicates": False}}
    members = cohort.split("train")
    plain = tiny_config(generate={**labels, "strata": ["hemisphere"], "n_cases": 1}).generate
    drawn = [
        generate_cohort(generator, cohort, members, plain, CPU, seed, tmp_path / f"plain-{seed}").kept[0][1].contrast
        for seed in range(8)
    ]
    # Edges within what this generator draws by itself, and a wide middle: every stratum can be met.
    edges = [float(np.quantile(drawn, share)) for share in (0.3, 0.7)]
    steering = {"strata": ["contrast"], "contrast_edges": edges, "max_attempts": 200}
    config = tiny_config(generate={**labels, **steering}).generate
    steered = generate_cohort(generator, cohort, members, config, CPU, 1, tmp_path / "steered")
    assert sorted(asked.wanted["contrast"] for asked, _ in steered.kept) == ["high"] * 2 + ["low"] * 2 + ["middle"] * 2
    assert all(asked.is_met_by(case, config) for asked, case in steered.kept)
    for case, (_, attributes) in zip(open_cohort(tmp_path / "steered").cases, steered.kept, strict=True):
        measured = tissue_contrast(case.image("t1"), np.asarray(case.tissue_map()))
        assert float(case.attributes["contrast"]) == pytest.approx(measured, abs=0.06)
        assert attributes.contrast == measured


@pytest.mark.parametrize(("look", "n_styles"), [("fixed", 1), ("sampled", 5)])
def test_a_cohort_has_one_look_or_one_for_each_case(
    cohort: Cohort,
    generator: Generator,
    tiny_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    look: str,
    n_styles: int,
) -> None:
    styles = set()
    real = cases.render_with_style

    def spy(network: Generator, condition: np.ndarray, style: Tensor, stream: torch.Generator) -> np.ndarray:
        styles.add(tuple(style.ravel().tolist()))
        return real(network, condition, style, stream)

    monkeypatch.setattr(cases, "render_with_style", spy)
    curation = {"candidates": 1, "drop_near_duplicates": False}
    config = tiny_config(generate={"look": look, "n_cases": 5, "curation": curation}).generate
    generate_cohort(generator, cohort, cohort.split("train"), config, CPU, 1, tmp_path / "out")
    assert len(styles) == n_styles


def test_the_plan_counts_members_and_nobody_else(finished_run: Path) -> None:
    rows = read_tsv(finished_run / "synthetic" / "plan.tsv")
    cohort = open_cohort(finished_run / "cohort")
    config = parse_config({"generate": TINY["generate"]}, "tests").generate
    members = Counter(cell_of(CaseAttributes.from_columns(case.attributes), config) for case in cohort.split("train"))
    assert sum(members.values()) < len(cohort.cases)
    for row in rows:
        assert int(row["source"]) == members[tuple(row[name] for name in config.strata)]
