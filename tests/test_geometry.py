"""Geometry: a copied, moved or mirrored member is found as its own; another person is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import rng, write_toy_cohort

from pipeline.cohort import CaseData, Cohort, open_cohort, write_case, write_cohort_files
from pipeline.generate.geometry import (
    Shapes,
    compare_geometry,
    likeness,
    measure_geometry,
    nearest_likeness,
    read_shapes,
)

SPACING_MM = 8.0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("geometry") / "cohort"
    return open_cohort(write_toy_cohort(folder, {"train": 6, "val": 3}))


def shapes_of(cohort: Cohort, side: str) -> list[Shapes]:
    return [read_shapes(case, cohort.scheme, SPACING_MM) for case in cohort.split(side)]


def write_copies(cohort: Cohort, folder: Path, change) -> Cohort:
    """Write the members' label maps anew, each changed."""
    rows = []
    for case in cohort.split("train"):
        images = {name: np.array(case.image(name)) for name in cohort.modalities}
        maps = [np.ascontiguousarray(change(np.array(array()))) for array in (case.tissue_map, case.tumor_map)]
        write_case(folder, CaseData(case.subject, images, maps[0], maps[1], case.affine, {}))
        rows.append({"participant_id": f"sub-{case.subject}", "source": "copy", "split": "n/a", **case.attributes})
    write_cohort_files(folder, "copies", cohort.scheme, rows, "Copies.")
    return open_cohort(folder)


def copy_members(cohort: Cohort, folder: Path, change) -> list[Shapes]:
    """Write the members' label maps anew, each changed; read them."""
    copies = write_copies(cohort, folder, change)
    return [read_shapes(case, copies.scheme, SPACING_MM) for case in copies.cases]


@pytest.mark.parametrize(
    "change",
    [lambda maps: maps, lambda maps: maps[::-1], lambda maps: np.roll(maps, (1, -1, 1), (0, 1, 2))],
    ids=["same", "mirrored", "moved"],
)
def test_a_copy_of_a_member_is_found_as_its_own(cohort: Cohort, tmp_path: Path, change) -> None:
    members = shapes_of(cohort, "train")
    for shapes in copy_members(cohort, tmp_path / "copies", change):
        assert min(nearest_likeness(shapes, members).values()) > 0.99
    for shapes in shapes_of(cohort, "val"):
        assert max(nearest_likeness(shapes, members).values()) < 0.95


def test_measured_groups_have_mean_interval_and_the_nearest_of_all(cohort: Cohort, tmp_path: Path) -> None:
    members = shapes_of(cohort, "train")
    copies = copy_members(cohort, tmp_path / "copies", lambda maps: maps)
    measured = measure_geometry(members, {"copies": copies, "real": shapes_of(cohort, "val"), "none": ()}, rng())
    for part in ("tumor", "tissue"):
        assert set(measured[part]) == {"copies", "real"}
        assert measured[part]["copies"] == {
            "mean": pytest.approx(1.0),
            "ci": pytest.approx([1.0, 1.0]),
            "max": pytest.approx(1.0),
        }
        low, high = measured[part]["real"]["ci"]
        assert low <= measured[part]["real"]["mean"] <= high <= measured[part]["real"]["max"] < 1.0


def test_every_scan_of_a_member_counts(cohort: Cohort, tmp_path: Path) -> None:
    copies = write_copies(cohort, tmp_path / "copies", lambda maps: maps)
    others = cohort.split("val")
    of_one_person = tuple(replace(case, attributes={"person": "01"}) for case in cohort.split("train"))
    merged = replace(cohort, cases=(*of_one_person, *others))
    assert len(merged.patients("train")) == 1
    measured = compare_geometry(copies, merged, rng())
    assert measured["tumor"]["copy"]["mean"] == measured["tissue"]["copy"]["mean"] == pytest.approx(1.0)
    assert max(measured["tissue"]["real"]["max"], measured["tumor"]["real"]["max"]) < 0.99


def test_likeness_is_the_mean_dice_of_classes_that_are_there() -> None:
    first, second = np.zeros((2, 3, 4, 4, 4), np.float32)
    assert likeness(first, second) == 1.0
    first[0, 0], second[0, :2] = 1.0, 1.0
    first[1, 3], second[1, 3] = 1.0, 1.0
    # Dice 2 * 16 / (16 + 32), and 1; the third class neither has.
    assert likeness(first, second) == pytest.approx((2 / 3 + 1) / 2)


def test_boxes_reach_beyond_the_grid_as_background(cohort: Cohort) -> None:
    shapes = shapes_of(cohort, "train")[0]
    assert shapes.tumor.shape == (3, 12, 12, 12)
    assert shapes.tissue.shape == (3, 25, 25, 25)
    finer = read_shapes(cohort.cases[0], cohort.scheme, 2.0)
    assert (finer.tumor.shape[1], finer.tissue.shape[1]) == (24, 25)
    assert not shapes.tissue[:, 0].any()
    assert shapes.tissue.any()
