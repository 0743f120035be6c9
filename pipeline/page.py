"""What the pages for clinicians share: their style, escaped text, plain tables."""

import html
from collections.abc import Iterable, Sequence

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
h1{font-size:1.7rem;margin-bottom:.2rem} h2{margin-top:2.6rem;border-bottom:1px solid #ccc}
img{max-width:100%;height:auto;margin:.6rem 0;background:#fff} figure{margin:0} figcaption{color:#555;font-size:.9rem}
table{border-collapse:collapse;margin:.8rem 0;font-size:.93rem}
th,td{border-bottom:1px solid #ddd;padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top}
.verdict{padding:1rem 1.2rem;border-left:8px solid #767676;background:#f3f3f3;font-size:1.1rem}
.verdict.pass{border-color:#00735a}.verdict.fail{border-color:#b33c00}.verdict.unresolved{border-color:#b07d00}
.note{color:#555}
"""


def escape(value: object) -> str:
    """Return a value as text that a page may hold."""
    return html.escape(str(value))


def make_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of escaped cells."""
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{header}</tr>{body}</table>"
