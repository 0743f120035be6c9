"""The quality page: whole, escaped, self-contained, usable without a mouse."""

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.figures import BRAIN_COLOUR
from pipeline.ingest.quality_flags import CheckedCase, check_cases
from pipeline.ingest.quality_page import write_quality_page

CLASSES = ("necrotic_core", "oedema", "enhancing")
VOID = {"meta", "img", "input"}


class Pair(NamedTuple):
    first: str
    second: str
    correlation: float


class Page(HTMLParser):
    """A page as a list of tags with their attributes; nesting is checked on the way."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(self.text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def make_cases(n: int = 10) -> list[CheckedCase]:
    figures = {"brain_ml": 1400.0, "tumor_ml": 40.0, "cut_share": 0.0, "t1_coverage": 1.0, "t1_snr": 60.0}
    measured = {f"{number:016x}": dict(figures) for number in range(n)}
    measured[f"{n - 1:016x}"]["t1_coverage"] = 0.62
    return check_cases(measured)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    pairs = [Pair("0" * 16, f"{3:016x}", 0.9871)]
    quarantine = [{"case_number": "11", "pseudonym": "feedbeef", "reason": "t2 has <1> & 'one' value"}]
    return Page(write_quality_page(tmp_path, make_cases(), CLASSES, pairs, quarantine))


def test_page_is_written_where_the_pictures_are(tmp_path: Path) -> None:
    assert write_quality_page(tmp_path, make_cases(), CLASSES) == tmp_path / "quality.html"


def test_page_holds_every_case_once_with_its_picture(page: Page) -> None:
    subjects = [case.subject for case in make_cases()]
    assert sorted(str(body["id"]) for body in page.all("tbody")) == [f"sub-{subject}" for subject in subjects]
    images = page.all("img")
    assert sorted(str(image["src"]) for image in images) == [f"figures/sub-{subject}.png" for subject in subjects]
    assert all(image["loading"] == "lazy" and image["alt"] and image["width"] and image["height"] for image in images)


def test_page_starts_with_how_many_are_flagged_and_were_not_used(page: Page) -> None:
    assert "10 cases in the cohort, 1 flagged." in page.text
    assert "1 more case could not be used." in page.text
    assert "1 pair of cases taken for one person." in page.text


def test_flagged_cases_come_first_and_are_marked(page: Page) -> None:
    assert page.all("tbody")[0]["id"] == f"sub-{9:016x}"
    marked = [cell for cell in page.all("td") if "flag" in str(cell.get("class", "")).split()]
    assert [cell["title"] for cell in marked] == ["T1 covers 62.0% of the brain"]
    assert "td.flag::after" in page.text  # a sign beside the colour


def test_page_needs_nothing_from_elsewhere(page: Page) -> None:
    assert "http:" not in page.text
    assert "https:" not in page.text
    assert not page.all("link")
    assert not any("src" in script for script in page.all("script"))
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_text_of_others_is_escaped(page: Page, tmp_path: Path) -> None:
    assert "t2 has &lt;1&gt; &amp; &#x27;one&#x27; value" in page.text
    bad = '"><script>alert(1)</script>'
    case = CheckedCase(bad, {"brain_ml": 1400.0}, {"brain_ml": bad})
    written = write_quality_page(tmp_path, [case], [bad], [Pair(bad, bad, 1.0)]).read_text()
    assert "<script>alert" not in written


def test_heads_sort_by_keyboard_and_tell_their_units(page: Page) -> None:
    heads = [head for head in page.all("th") if "data-kind" in head]
    assert [head["data-kind"] for head in heads] == ["text", *["number"] * 6]
    assert [head.get("aria-sort") for head in heads] == [None, "descending", *[None] * 5]
    for title in ("brain, ml", "tumour, ml", "cut surface, %", "T1: coverage, %", "T1: signal to noise"):
        assert f'<button type="button">{title}</button></th>' in page.text


def test_each_row_has_a_cell_for_each_head(page: Page) -> None:
    n_heads = sum("data-kind" in head for head in page.all("th"))
    rows = page.text.split('<tr class="case">')[1:]
    assert len(rows) == 10
    assert {row.split("</tr>")[0].count("<td") for row in rows} == {n_heads}


def test_outlines_are_explained_in_their_colours(page: Page) -> None:
    assert f"background:#{bytes(BRAIN_COLOUR).hex()}" in page.text
    for name in ("brain", "necrotic core", "oedema", "enhancing"):
        assert f"</span>{name}</span>" in page.text


def test_pairs_lead_to_their_cases(page: Page) -> None:
    assert [link["href"] for link in page.all("a")] == [f"#sub-{'0' * 16}", f"#sub-{3:016x}"]
    assert "<td>0.987</td>" in page.text


def test_quarantine_is_listed_with_reasons(page: Page) -> None:
    assert "<td>11</td><td>feedbeef</td>" in page.text


def test_a_figure_that_a_case_lacks_is_shown_as_missing(tmp_path: Path) -> None:
    cases = check_cases({"aa": {"t1_snr": 60.0}, "bb": {"brain_ml": 1400.0}})
    assert "n/a</td>" in write_quality_page(tmp_path, cases, CLASSES).read_text()


def test_a_small_cohort_is_told_that_nothing_is_compared(tmp_path: Path) -> None:
    text = write_quality_page(tmp_path, make_cases(3), CLASSES).read_text()
    assert "fewer than 8 cases nothing is compared" in text
    assert "Every case could be used." in text
    assert "Taken for one person" not in text
    assert "Not used" not in text
