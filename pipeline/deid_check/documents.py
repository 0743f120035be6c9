"""Text of any kind: decoded, told apart (JSON, table, HTML, plain), and searched a window at a time."""

import base64
import binascii
import bisect
import codecs
import csv
import itertools
import re
from collections.abc import Iterator

from pipeline.deid_check.context import Context
from pipeline.deid_check.findings import Hit
from pipeline.deid_check.json_files import MAX_JSON_CHARACTERS, judge_json
from pipeline.deid_check.keys import judge_entry
from pipeline.deid_check.person_names import looks_like_person
from pipeline.deid_check.streams import PIECE_BYTES, Stream, stream_bytes
from pipeline.deid_check.tables import find_delimiter, judge_table
from pipeline.deid_check.text_rules import CONTACT_LINE, PERSON_NAME, find_in_text
from pipeline.errors import Unjudgeable

SNIFFED_BYTES = 1 << 15
WINDOW_CHARACTERS = 2 << 20
MAX_LINE_CHARACTERS = 32 << 20
MAX_TEXT_BYTES = 256 << 20
# Pictures in pages and notebooks; taken out, decoded and scanned as files of their own.
BASE64 = re.compile(r"[A-Za-z0-9+/]{256,}={0,2}")
ENTRY = re.compile(
    r"^[ \t>*#-]{0,20}[\"']?([A-Za-z][\w .'\u2019@-]{1,40}?)[\"']?[ \t]{0,9}[:=](?!//)[ \t]{0,9}[\"']?"
    r"([^\s\"'][^\n\"']{0,300})",
    re.MULTILINE,
)
ELEMENT = re.compile(r"<(?:\w{1,20}:)?([A-Za-z]\w{1,60})(?:\s[^<>]{0,300})?>([^<>]{1,300})</")
META = re.compile(
    r"<meta\b(?=[^>]{0,300}\bname\s*=\s*[\"']?(?:author|creator|owner)\b)[^>]{0,300}\bcontent\s*=\s*[\"']?[^\"'>\s]",
    re.IGNORECASE,
)
COMMENT = re.compile(r"<!--([^<>]{3,200})-->")


def find_encoding(head: bytes) -> str:
    """Return the encoding of a text by its first bytes; empty if they are no text."""
    for mark, encoding in ((codecs.BOM_UTF8, "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if head.startswith(mark):
            return encoding
    if b"\0" in head or re.search(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]", head):
        return ""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        # Latin-1 text is letters with a few accents; compressed bytes are anything.
        n_high = sum(byte >= 0x80 for byte in head)
        return "latin-1" if n_high * 4 < len(head) else ""
    return "utf-8"


def scan_text(stream: Stream, context: Context) -> Iterator[Hit]:
    """Yield what a text file holds."""
    encoding = find_encoding(stream.peek(SNIFFED_BYTES))
    windows = _windows(stream, encoding)
    first = next(windows, "")
    text, embedded = cut_embedded(first)
    is_whole = not stream.peek(1)
    head = text.lstrip()[:1]
    if head in ("{", "[") and is_whole and len(text) <= MAX_JSON_CHARACTERS:
        try:
            yield from judge_json(text, context.name)
        except (ValueError, RecursionError):
            yield from _judge_lines(text, context, 0)
        yield from _scan_embedded(embedded, context)
        return
    lines = [line for line in text.split("\n", 6)[:6] if line.strip()]
    delimiter = "" if head in ("{", "[", "<") else find_delimiter(context.name, lines if is_whole else lines[:5])
    if delimiter:
        yield from _judge_table_or_text(first, windows, delimiter, context)
        return
    judge = _judge_lines if head in ("{", "[") else _judge_window
    n_lines = 0
    for window in itertools.chain([first], windows):
        text, embedded = cut_embedded(window)
        yield from judge(text, context, n_lines)
        yield from _scan_embedded(embedded, context)
        n_lines += window.count("\n")


def _windows(stream: Stream, encoding: str) -> Iterator[str]:
    """Yield a text in windows that end with a line, unless a line is absurdly long.

    Raises
    ------
    Unjudgeable
        If the text is so long that it was not read to its end.
    """
    decoder = codecs.getincrementaldecoder(encoding or "latin-1")(errors="replace")
    held = ""
    start = stream.position
    while piece := stream.read(PIECE_BYTES):
        held += decoder.decode(piece)
        end = held.rfind("\n") + 1 if len(held) < MAX_LINE_CHARACTERS else len(held)
        if len(held) >= WINDOW_CHARACTERS and end:
            yield held[:end]
            held = held[end:]
        if stream.position - start > MAX_TEXT_BYTES:
            raise Unjudgeable(f"text of more than {MAX_TEXT_BYTES >> 20} MiB; the rest was not read")
    held += decoder.decode(b"", final=True)
    if held:
        yield held


def cut_embedded(text: str) -> tuple[str, list[bytes]]:
    """Return a text without its long runs of base64, and what they stand for."""
    embedded: list[bytes] = []

    def decode(match: re.Match[str]) -> str:
        run = match[0].rstrip("=")
        try:
            embedded.append(base64.b64decode(run[: len(run) // 4 * 4] + _last_group(run)))
        except (binascii.Error, ValueError):
            return match[0]
        return ""

    return BASE64.sub(decode, text), embedded


def _last_group(run: str) -> str:
    rest = run[len(run) // 4 * 4 :]
    return rest + "=" * (-len(rest) % 4) if len(rest) > 1 else ""


def _scan_embedded(embedded: list[bytes], context: Context) -> Iterator[Hit]:
    for number, content in enumerate(embedded, 1):
        for hit in context.scan_inside(stream_bytes(content), "", f"embedded file {number}"):
            # Any long word decodes to something: only what is a file after all counts.
            if not hit.is_doubt:
                yield hit


def _judge_lines(text: str, context: Context, n_lines_before: int) -> Iterator[Hit]:
    """Yield what JSON lines hold; what is none of them is plain text."""
    for number, line in enumerate(text.split("\n"), n_lines_before + 1):
        if not line.strip():
            continue
        try:
            hits = list(judge_json(line, context.name)) if len(line) <= MAX_JSON_CHARACTERS else None
        except (ValueError, RecursionError):
            hits = None
        if hits is None:
            yield from _judge_window(line, context, number - 1)
        else:
            yield from (Hit(f"line {number}: {hit.place}", hit.what) for hit in hits)


def _judge_table_or_text(first: str, windows: Iterator[str], delimiter: str, context: Context) -> Iterator[Hit]:
    def lines() -> Iterator[str]:
        for window in (first, *windows):
            yield from window.splitlines(keepends=True)

    try:
        yield from judge_table(lines(), delimiter)
    except csv.Error:
        yield from _judge_window(first, context, 0)
        yield Hit("", "table that cannot be read; its begin was searched as text", is_doubt=True)


def _judge_window(text: str, context: Context, n_lines_before: int) -> Iterator[Hit]:
    """Yield what running text holds: by the rules, by keys at the begin of lines and in elements, by comments."""
    if context.name.lower().startswith("readme"):
        text = CONTACT_LINE.sub("", text)
    found = list(find_in_text(text))
    is_structured = context.name.lower().endswith((".yaml", ".yml", ".ini", ".cfg", ".toml"))
    patterns = [(ENTRY, is_structured)] + ([(ELEMENT, True)] if "</" in text else [])
    for pattern, structured in patterns:
        for match in pattern.finditer(text):
            what = judge_entry(match[1], match[2], structured)
            if what:
                found.append((what, match.start(1)))
    if "<" in text:
        found += [("name of the author", match.start()) for match in META.finditer(text)]
        found += [(PERSON_NAME, m.start()) for m in COMMENT.finditer(text) if looks_like_person(m[1], strict=True)]
    if not found:
        return
    line_ends = [match.start() for match in re.finditer("\n", text)]
    for what, place in sorted(found, key=lambda item: item[1]):
        yield Hit(f"line {n_lines_before + bisect.bisect(line_ends, place) + 1}", what)
