"""The quality page: every ingested case with its figures, flags and picture, for who looks the cohort through."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.figures import BRAIN_COLOUR, GAP_PIXELS, OUTLINE_COLOURS, PLANES, TILE_PIXELS
from pipeline.ingest.quality_flags import (
    CASE_FIGURES,
    MIN_CASES,
    SCAN_FIGURES,
    CheckedCase,
    describe_figure,
    figure_names,
)
from pipeline.labels import MODALITIES, MODALITY_TITLES
from pipeline.page import STYLE, escape, make_table

PAGE_STYLE = """
body{max-width:1240px}
.tools{display:none;flex-wrap:wrap;gap:.5rem 1.2rem;align-items:center;margin:1rem 0 .4rem}.js .tools{display:flex}
.tools input[type=search],.tools button{font:inherit;padding:.25rem .5rem;border:1px solid #767676;border-radius:3px}
.tools button{background:#f3f3f3;cursor:pointer} fieldset{border:0;padding:0;margin:0} legend{float:left}
fieldset label{margin-left:.7rem;white-space:nowrap}
.cases{overflow-x:auto} .cases table{margin:.2rem 0;min-width:100%}
.cases th,.cases td{padding-left:.4rem} .cases th{vertical-align:bottom}
td.n,tfoot td,.cases th[class]{text-align:right}
.cases thead th{border-bottom:2px solid #767676;font-weight:600}
.cases th button{all:unset;cursor:pointer;font-weight:600} .cases th button::after{content:" \\2195";color:#767676}
th[aria-sort=ascending] button::after{content:" \\2191";color:#000}
th[aria-sort=descending] button::after{content:" \\2193";color:#000}
tbody .open-case{all:unset;cursor:pointer;font:.85rem ui-monospace,monospace}
tbody .open-case::before{content:"\\25b8 "} tbody.open .open-case::before{content:"\\25be "}
button:focus-visible,.open-case:focus-visible,th button:focus-visible{outline:2px solid #0072b2;outline-offset:2px}
.js tr.case{cursor:pointer} .js tr.case:hover{background:#f3f3f3}
td.flag{background:#fdf0d5;font-weight:600} td.flag::after{content:" \\26a0"}
ul.flags{margin:0;padding-left:1.1rem;min-width:15rem}
.js tbody:not(.open) tr.picture,.js tbody.filtered{display:none} tr.picture td{border-bottom:1px solid #ccc}
tr.picture img{background:#000;margin:.2rem 0}
tr.picture figure{position:sticky;left:0;width:fit-content;max-width:calc(100vw - 3.5rem)}
tfoot td,tfoot th{border-top:2px solid #767676;color:#555;font-weight:400}
.swatch{display:inline-block;width:1.4em;height:.35em;margin:0 .4em .2em .6em;vertical-align:middle}
.key{white-space:nowrap}
dt{font-weight:600;margin-top:.5rem} dd{margin-left:1.2rem}
@page{size:landscape}
@media print{body{max-width:none;margin:0;font-size:11px} table{font-size:10px} ul.flags{min-width:10rem}
.verdict{font-size:13px} tbody .open-case,figcaption{font-size:9px} .js .tools{display:none}
.cases{overflow:visible} tr.picture figure{max-width:100%}
thead{display:table-header-group} tbody{break-inside:avoid} td.flag{print-color-adjust:exact}
.cases th button::after,tbody .open-case::before{content:""!important}}
"""

# Sorts tbody elements, one for each case; a cell sorts by data-value, else by its text. What is missing comes last.
SCRIPT = """
"use strict";
const table = document.getElementById("cases");
const cases = Array.from(table.tBodies), heads = Array.from(table.tHead.rows[0].cells);
const search = document.getElementById("search"), flagged = document.getElementById("flagged");
const everyPicture = document.getElementById("pictures"), shown = document.getElementById("shown");
function keyOf(body, column) {
  const cell = body.rows[0].cells[column], text = cell.dataset.value || cell.textContent.trim();
  const number = parseFloat(text);
  return heads[column].dataset.kind === "number" ? (isNaN(number) ? null : number) : text;
}
function sortBy(column, descending) {
  const sign = descending ? -1 : 1;
  const keyed = Array.from(table.tBodies, body => [keyOf(body, column), body]);
  keyed.sort(([a], [b]) => a === b ? 0 : a === null ? 1 : b === null ? -1 : a < b ? -sign : sign);
  keyed.forEach(([, body]) => table.insertBefore(body, table.tFoot));
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const before = head.getAttribute("aria-sort");
  sortBy(column, before ? before === "ascending" : head.dataset.first === "descending");
}));
function open(body, isOpen) {
  body.classList.toggle("open", isOpen);
  body.querySelector(".open-case").setAttribute("aria-expanded", isOpen);
}
cases.forEach(body => body.rows[0].addEventListener("click", event => {
  const isCopying = String(window.getSelection()) && !event.target.closest("button");
  if (!isCopying) open(body, !body.classList.contains("open"));
}));
everyPicture.addEventListener("click", () => {
  const isOpen = everyPicture.getAttribute("aria-pressed") !== "true";
  everyPicture.setAttribute("aria-pressed", isOpen);
  everyPicture.textContent = isOpen ? "Hide the pictures" : "Show all pictures";
  cases.forEach(body => open(body, isOpen));
});
function filter() {
  const words = search.value.toLowerCase().split(/\\s+/);
  let count = 0;
  cases.forEach(body => {
    const cells = body.rows[0].cells, text = (cells[0].textContent + " " + cells[1].textContent).toLowerCase();
    const fits = words.every(word => text.includes(word)) && !(flagged.checked && cells[1].dataset.value === "0");
    body.classList.toggle("filtered", !fits);
    count += fits;
  });
  shown.textContent = count + " of " + cases.length + " cases shown";
}
search.addEventListener("input", filter);
flagged.addEventListener("change", filter);
document.querySelectorAll("input[name=view]").forEach(choice => choice.addEventListener("change", () => {
  table.dataset.view = choice.value;
}));
function jump() {
  const body = cases.find(body => "#" + body.id === location.hash);
  if (body) { search.value = ""; flagged.checked = false; filter(); open(body, true); body.scrollIntoView(); }
}
window.addEventListener("hashchange", jump);
cases.forEach(body => open(body, false)); filter(); jump();
"""


class Pair(Protocol):
    """Two cases that were taken for one person."""

    @property
    def first(self) -> str:
        """Pseudonym."""

    @property
    def second(self) -> str:
        """Pseudonym."""

    @property
    def correlation(self) -> float:
        """How alike their scans are, at most 1."""


def write_quality_page(
    folder: Path,
    cases: Sequence[CheckedCase],
    tumor_classes: Sequence[str],
    pairs: Sequence[Pair] = (),
    quarantine: Sequence[Mapping[str, str]] = (),
) -> Path:
    """Write ``quality.html``; pictures are linked as ``figures/sub-<pseudonym>.png``, the rest is in the page.

    Parameters
    ----------
    folder : Path
        The cohort's folder.
    cases : sequence of CheckedCase
        At least one.
    tumor_classes : sequence of str
        In the order of their values: what the outlines show.
    pairs : sequence of Pair
        Cases taken for one person.
    quarantine : sequence of mapping of str to str
        Rows of ``quarantine.tsv``: ``case_number``, ``pseudonym``, ``reason``.

    Returns
    -------
    Path
    """
    ordered = sorted(cases, key=lambda case: (-len(case.flags), case.subject))
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Quality of the ingested scans</title><style>{STYLE}{PAGE_STYLE}{_view_style()}</style>
<script>document.documentElement.classList.add("js")</script></head><body>
<h1>Quality of the ingested scans</h1>
<p class="verdict">{_headline(cases, len(quarantine), len(pairs))}</p>
<p class="note">Real scans under pseudonyms: this page and its pictures stay in this building. A flag is a reason to
look, not a reason to leave a case out: flagged cases are in the cohort like the others.{_comparison_note(len(cases))}
</p>
<h2>Cases</h2>
{_legend(tumor_classes)}
{_tools(cases)}
<div class="cases" tabindex="0" role="region" aria-label="Table of cases">{_case_table(ordered)}</div>
<details><summary>What the figures mean</summary>{_definitions()}</details>
{_pairs_section(pairs)}
{_quarantine_section(quarantine)}
<script>{SCRIPT}</script>
</body></html>
"""
    path = folder / "quality.html"
    path.write_text(page, encoding="utf-8")
    return path


def _headline(cases: Sequence[CheckedCase], n_quarantined: int, n_pairs: int) -> str:
    n_flagged = sum(bool(case.flags) for case in cases)
    sentences = [
        f"<b>{_count(len(cases), 'case')} in the cohort, {n_flagged or 'none'} flagged.</b>",
        f"{_count(n_quarantined, 'more case')} could not be used." if n_quarantined else "Every case could be used.",
    ]
    if n_pairs:
        sentences.append(f"{_count(n_pairs, 'pair')} of cases taken for one person.")
    return " ".join(sentences)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _comparison_note(n_cases: int) -> str:
    if n_cases >= MIN_CASES:
        return ""
    return f" With fewer than {MIN_CASES} cases nothing is compared between cases: only fixed limits are checked."


def _legend(tumor_classes: Sequence[str]) -> str:
    names = ["brain", *(name.replace("_", " ") for name in tumor_classes)]
    colours = [BRAIN_COLOUR, *OUTLINE_COLOURS[: len(tumor_classes)]]
    swatches = "".join(
        '<span class="key"><span class="swatch" '
        f'style="background:#{bytes(colour).hex()}"></span>{escape(name)}</span> '
        for name, colour in zip(names, colours, strict=True)
    )
    return (
        f"<p>Click on a case for its picture: {', '.join(PLANES[:-1])} and {PLANES[-1]} planes through the tumour, in "
        f"radiological convention (the patient's right is on the left). Outlines: {swatches}</p>"
    )


def _tools(cases: Sequence[CheckedCase]) -> str:
    present = {describe_figure(name)[1] for name in figure_names(case.figures for case in cases)}
    views = {"case": "Brain and tumour", **{name: MODALITY_TITLES[name] for name in MODALITIES if name in present}}
    choices = "".join(
        f'<label><input type="radio" name="view" value="{value}"{" checked" * (value == "case")}> {title}</label>'
        for value, title in views.items()
    )
    return (
        '<div class="tools"><label>Find <input type="search" id="search" placeholder="case or flag"></label>'
        '<label><input type="checkbox" id="flagged"> flagged only</label>'
        '<button type="button" id="pictures" aria-pressed="false">Show all pictures</button>'
        '<span id="shown" class="note" aria-live="polite"></span>'
        f"<fieldset><legend>Figures of</legend>{choices}</fieldset></div>"
    )


def _view_style() -> str:
    """Return rules that hide the columns of all views but the chosen one, where there is a script to choose."""
    views = ("case", *MODALITIES)
    hidden = (f".js [data-view={view}] .of-{other}" for view in views for other in views if other != view)
    return f"{','.join(hidden)}{{display:none}}"


def _case_table(cases: Sequence[CheckedCase]) -> str:
    names = figure_names(case.figures for case in cases)
    head = [_head("case", "text"), _head("flags", "number", ' data-first="descending" aria-sort="descending"')]
    foot = ["<th>median</th><td></td>"]
    for name in names:
        figure, modality = describe_figure(name)
        title = f"{MODALITY_TITLES[modality]}: {figure.head}" if modality else figure.head
        title_class = f' class="of-{modality or "case"}"'
        head.append(_head(title, "number", title_class))
        median = float(np.median([case.figures[name] for case in cases if name in case.figures]))
        foot.append(f"<td{title_class}>{figure.show(median)}</td>")
    n_pictures = len({describe_figure(name)[1] for name in names} - {""})
    bodies = "".join(_case_body(case, names, n_pictures) for case in cases)
    return (
        f'<table id="cases" data-view="case"><thead><tr>{"".join(head)}</tr></thead>{bodies}'
        f"<tfoot><tr>{''.join(foot)}</tr></tfoot></table>"
    )


def _head(title: str, kind: str, attributes: str = "") -> str:
    return f'<th scope="col" data-kind="{kind}"{attributes}><button type="button">{escape(title)}</button></th>'


def _case_body(case: CheckedCase, names: Sequence[str], n_pictures: int) -> str:
    """Return the two rows of a case: its figures, its picture."""
    subject = escape(case.subject)
    flags = "".join(f"<li>{escape(phrase)}</li>" for phrase in case.flags.values())
    cells = "".join(_figure_cell(case, name) for name in names)
    width, height = (n * (TILE_PIXELS + GAP_PIXELS) for n in (n_pictures, len(PLANES)))
    titles = [MODALITY_TITLES[name] for name in MODALITIES if f"{name}_coverage" in names]
    return (
        f'<tbody id="sub-{subject}"><tr class="case">'
        f'<td><button type="button" class="open-case" aria-controls="picture-{subject}">{subject}</button></td>'
        f'<td data-value="{len(case.flags)}">{f"<ul class=flags>{flags}</ul>" if flags else "none"}</td>{cells}</tr>'
        f'<tr class="picture" id="picture-{subject}"><td colspan="{2 + len(names)}"><figure>'
        f'<img loading="lazy" width="{width}" height="{height}" src="figures/sub-{subject}.png" '
        f'alt="Scans of case {subject} with outlines"><figcaption>From left to right: {", ".join(titles)}</figcaption>'
        "</figure></td></tr></tbody>\n"
    )


def _figure_cell(case: CheckedCase, name: str) -> str:
    figure, modality = describe_figure(name)
    classes = f"n of-{modality or 'case'}{' flag' if name in case.flags else ''}"
    text = figure.show(case.figures[name]) if name in case.figures else "n/a"
    hint = f' title="{escape(case.flags[name])}"' if name in case.flags else ""
    return f'<td class="{classes}"{hint}>{text}</td>'


def _definitions() -> str:
    figures = [*CASE_FIGURES.values(), *SCAN_FIGURES.values()]
    terms = "".join(f"<dt>{escape(figure.head)}</dt><dd>{escape(figure.meaning)}</dd>" for figure in figures)
    return (
        f"<dl>{terms}</dl><p>Flagged are figures beyond a fixed limit, and, among {MIN_CASES} cases or more, those "
        "that lie farther from the median than 3.5 robust standard deviations on the side that is worse (Iglewicz and "
        "Hoaglin 1993).</p>"
    )


def _pairs_section(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    rows = "".join(
        f"<tr><td>{_link(pair.first)}</td><td>{_link(pair.second)}</td><td>{pair.correlation:.3f}</td></tr>"
        for pair in pairs
    )
    return (
        "<h2>Taken for one person</h2><p>Their scans are so alike that they are kept on one side of the split: two "
        "scans of one person, or one scan twice.</p>"
        f"<table><tr><th>case</th><th>case</th><th>correlation of their scans</th></tr>{rows}</table>"
    )


def _link(subject: str) -> str:
    return f'<a href="#sub-{escape(subject)}">{escape(subject)}</a>'


def _quarantine_section(quarantine: Sequence[Mapping[str, str]]) -> str:
    if not quarantine:
        return ""
    rows = [(row["case_number"], row["pseudonym"], row["reason"]) for row in quarantine]
    return (
        "<h2>Not used</h2><p>The number counts the subjects of the source in the order of their "
        "names, in DICOM of PatientID and study UID.</p>"
        f"{make_table(('case in the source', 'pseudonym', 'why it is not used'), rows)}"
    )
