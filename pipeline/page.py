"""What the pages for clinicians share: their style, escaped text, plain tables."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

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


def picture(path: Path, caption: str) -> str:
    """Return a PNG file with its caption, held in the page; nothing where there is no file."""
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    alt = escape(caption)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"><figcaption>{alt}</figcaption></figure>'


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """Return a figure with its interval, if it has one."""
    if value is None:
        return "unresolved"
    bounds = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return f"{value:.2f}{bounds}"
