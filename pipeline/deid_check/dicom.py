"""DICOM: every filled attribute that is not on the allow-list, at any depth; the preamble; bytes behind the pixels."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword

from pipeline.deid_check.attributes import judge_filled, judge_text_value
from pipeline.deid_check.binary import search_binary
from pipeline.deid_check.dicom_elements import PIXEL_DATA, Element, read_elements
from pipeline.deid_check.findings import Hit
from pipeline.deid_check.streams import Budget, Stream
from pipeline.errors import Unjudgeable

TEXT_VRS = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UN", "UR", "UT"}
)
BINARY_NUMBERS = frozenset({"US", "SS", "UL", "SL", "FL", "FD", "AT", "US or SS"})
CONTRIBUTING_EQUIPMENT = 0x0018A001
CODE_VALUE = 0x00080100
# Synthesizing Equipment (PS3.16, CID 7005).
SYNTHESIZING = b"109100"
SYNTHETIC_DATA = 0x0008001C
# Searched in the names of files and folders too.
PATIENT_IDENTIFIERS = frozenset({"PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "AccessionNumber"})
SHAPE_KEYWORDS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")
SHAPE_TAGS = {tag_for_keyword(keyword): keyword for keyword in SHAPE_KEYWORDS}
PREAMBLE_BYTES = 128
MAX_EQUIPMENT_ELEMENTS = 1000


@dataclass
class Seen:
    """What of a file is needed to judge what comes later."""

    is_synthetic: bool = False
    shape: dict[str, int] = field(default_factory=dict)
    equipment: list[list[Element]] = field(default_factory=list)


def scan_dicom(stream: Stream, budget: Budget) -> Iterator[Hit]:
    """Yield what a DICOM file carries besides image and geometry."""
    if stream.peek(PREAMBLE_BYTES + 4)[PREAMBLE_BYTES:] == b"DICM":
        if any(stream.read(PREAMBLE_BYTES)):
            yield Hit("preamble", "bytes that are not 0")
        stream.read(4)
    seen = Seen()
    try:
        for element in read_elements(stream, budget):
            yield from _judge(element, seen)
    except Unjudgeable as reason:
        yield Hit("", str(reason), is_doubt=True)
        yield from search_binary(stream)
    for item in seen.equipment:
        yield from _judge_equipment(item, seen)


def _judge(element: Element, seen: Seen) -> Iterator[Hit]:
    """Judge one element, or keep it until its item is whole."""
    if element.tag == CONTRIBUTING_EQUIPMENT and not element.path:
        seen.equipment.append([])
    is_equipment = seen.equipment and CONTRIBUTING_EQUIPMENT in (element.tag, *element.path)
    if is_equipment and sum(map(len, seen.equipment)) < MAX_EQUIPMENT_ELEMENTS:
        seen.equipment[-1].append(element)
        return
    if not element.path:
        _note(element, seen)
        surplus = _bytes_behind_pixels(element, seen)
        if surplus:
            yield Hit(show_place(element), f"{surplus} bytes behind the pixels")
    what = judge_element(element, seen.is_synthetic)
    if what:
        values = (_decode(element.value),) if keyword_for_tag(element.tag) in PATIENT_IDENTIFIERS else ()
        yield Hit(show_place(element), what, values=values)


def _judge_equipment(item: list[Element], seen: Seen) -> Iterator[Hit]:
    """Judge an item of Contributing Equipment: the one that tells what synthesised the object may be there."""
    is_synthesizing = any(e.tag == CODE_VALUE and e.value.strip(b" \0") == SYNTHESIZING for e in item)
    for element in item:
        if element.tag == CONTRIBUTING_EQUIPMENT and is_synthesizing:
            continue
        what = judge_element(element, seen.is_synthetic)
        if what:
            yield Hit(show_place(element), what)


def judge_element(element: Element, is_synthetic: bool = False) -> str:
    """Return why an element should not be there as it is; empty if it may."""
    if element.length == 0 or (element.value and not element.value.strip(b"\0 ")):
        return ""
    reason = judge_filled(element.tag, element.vr)
    if reason or not element.value:
        return reason
    vr = dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else element.vr
    if vr in BINARY_NUMBERS and element.vr in TEXT_VRS - {"UN"}:
        return "text in place of a number"
    if vr not in TEXT_VRS or element.tag & 0xFFFF == 0:
        return ""
    return judge_text_value(f"{element.tag:08X}", _decode(element.value), is_synthetic)


def show_place(element: Element) -> str:
    """Return keyword and tag of an element behind those of the sequences around it."""
    return " > ".join(_show_tag(tag) for tag in (*element.path, element.tag))


def _show_tag(tag: int) -> str:
    return f"{keyword_for_tag(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})".lstrip()


def _decode(value: bytes) -> str:
    value = value.strip(b"\0 \r\n")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _note(element: Element, seen: Seen) -> None:
    if element.tag == SYNTHETIC_DATA:
        seen.is_synthetic = element.value.strip(b"\0 ") == b"YES"
    keyword = SHAPE_TAGS.get(element.tag)
    if keyword and element.vr == "IS" and element.value.strip(b"\0 ").isdigit():
        seen.shape[keyword] = int(element.value.strip(b"\0 ")[:12])
    elif keyword and len(element.value) == 2:
        seen.shape[keyword] = int.from_bytes(element.value, "little")


def _bytes_behind_pixels(element: Element, seen: Seen) -> int:
    """Return how many bytes of native pixels no pixel needs; a byte of padding is none."""
    if element.tag != PIXEL_DATA or element.length <= 1 or not {*SHAPE_KEYWORDS[:4]} <= seen.shape.keys():
        return 0
    n_bits = seen.shape.get("NumberOfFrames", 1)
    for keyword in SHAPE_KEYWORDS[:4]:
        n_bits *= seen.shape[keyword]
    surplus = element.length - -(-n_bits // 8)
    return surplus if surplus > 1 else 0
