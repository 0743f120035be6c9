"""NIfTI-1, NIfTI-2 and Analyze: text fields, extensions, the gap before the voxels and what comes behind them.

References
----------
Cox et al. 2004, "A (sort of) new image data format standard: NIfTI-1", https://nifti.nimh.nih.gov; the headers
nifti1.h and nifti2.h. Mayo Clinic, "Analyze 7.5 file format".
"""

import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.deid_check.findings import Hit
from pipeline.deid_check.streams import Stream, first_filled_byte
from pipeline.deid_check.text_rules import kinds_in_text
from pipeline.errors import Unjudgeable
from pipeline.export.bids import DESCRIPTION

HEADER_BYTES = {1: 348, 2: 540}
MAGICS = {1: (b"n+1\0", b"ni1\0"), 2: (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")}
# Name, first byte, number of bytes.
TEXT_FIELDS = {
    1: (
        *(("data_type", 4, 10), ("db_name", 14, 18), ("descrip", 148, 80), ("aux_file", 228, 24)),
        ("intent_name", 328, 16),
    ),
    2: (("descrip", 240, 80), ("aux_file", 320, 24), ("intent_name", 508, 16), ("unused_str", 525, 15)),
}
ANALYZE_FIELDS = (
    *(("data_type", 4, 10), ("db_name", 14, 18), ("vox_units", 56, 4), ("cal_units", 60, 8), ("descrip", 148, 80)),
    *(("aux_file", 228, 24), ("generated", 263, 10), ("scannum", 273, 10), ("patient_id", 283, 10)),
    *(("exp_date", 293, 10), ("exp_time", 303, 10)),
)
# What processing software writes there, and what says nothing.
HARMLESS_TEXTS = {
    "descrip": re.compile(
        r"FSL ?[\d.]+(?::[0-9a-f]+)?|\d{1,2}\.\d{1,2}\.\d{1,2}(?::[0-9a-f]+)?|FreeSurfer \w{3} +\d{1,2} +\d{4}|"
        r"(?i:spm\d{0,2}[ :-]+[a-z0-9 ,-]{1,60})|TE=[\d.]+|(?:Simple)?ITK[ \d.]*|nibabel[ \d.]*|mrtrix.{0,60}|"
        + re.escape(DESCRIPTION)
    ),
    "db_name": re.compile(r"\??TR:[\d.]+ TE:[\d.]*|dsr"),
    "data_type": re.compile(r"dsr|(?i:u?int\d{1,2}|float\d{0,2}|double|char|short|binary)"),
    "aux_file": re.compile(r"(?i:none)"),
    "vox_units": re.compile(r"mm|cm|m|um"),
    "cal_units": re.compile(r""),
}
EXTENSION_CODES = {2: "DICOM", 4: "AFNI", 6: "comment", 8: "XCEDE", 18: "workflow", 32: "CIFTI", 40: "BIDS"}
MAX_EXTENSIONS = 10_000


def nifti_version(head: bytes) -> int:
    """Return 1 or 2 for a NIfTI file's first 348 bytes or more, 0 for Analyze, -1 for anything else."""
    for version, n_bytes in HEADER_BYTES.items():
        if n_bytes in (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")):
            magic = head[344:348] if version == 1 else head[4:12]
            if magic in MAGICS[version]:
                return version
            # Analyze has a magic letter, and its extents are always the same.
            if version == 1 and len(head) >= n_bytes and (head[38:39] == b"r" or not any(magic)):
                return 0
    return -1


def scan_nifti(stream: Stream) -> Iterator[Hit]:
    """Yield what a header, with its voxels or without, carries besides numbers."""
    version = nifti_version(stream.peek(HEADER_BYTES[1]))
    header = stream.read(HEADER_BYTES[version or 1])
    if len(header) < HEADER_BYTES[version or 1]:
        raise Unjudgeable("NIfTI header that breaks off")
    order = _byte_order(header)
    for name, first, n_bytes in TEXT_FIELDS[version] if version else ANALYZE_FIELDS:
        what = judge_field(name, header[first : first + n_bytes])
        if what:
            yield Hit(name, what)
    if version == 0:
        yield from _scan_rest(stream, "behind the header")
        return
    is_single = header[344:346] == b"n+" if version == 1 else header[4:6] == b"n+"
    start, n_voxel_bytes = _voxels(header, version, order)
    # A single file has its voxels behind header and extender, whatever it says.
    yield from _scan_extensions(stream, order, max(start, len(header) + 4) if is_single else None)
    if not is_single:
        yield from _scan_rest(stream, "behind the header")
        return
    if n_voxel_bytes and stream.skip(n_voxel_bytes) < n_voxel_bytes:
        raise Unjudgeable("fewer voxels than the NIfTI header says")
    yield from _scan_rest(stream, "behind the voxels")


def is_voxel_file(path: Path) -> bool:
    """Tell whether a file on disk is the voxels of a header beside it."""
    return path.suffix == ".img" and path.with_suffix(".hdr").is_file()


def scan_voxel_file(stream: Stream, path: Path) -> Iterator[Hit]:
    """Yield what stands behind the voxels of a file whose header lies beside it."""
    with path.with_suffix(".hdr").open("rb") as file:
        header = file.read(HEADER_BYTES[2])
    version = nifti_version(header)
    if version < 0 or len(header) < HEADER_BYTES[1]:
        raise Unjudgeable("voxels whose header is none")
    # Analyze has shape and bits where NIfTI-1 has them.
    start, n_bytes = _voxels(header, version or 1, _byte_order(header))
    stream.skip((start if version else 0) + n_bytes)
    yield from _scan_rest(stream, "behind the voxels")


def judge_field(name: str, content: bytes) -> str:
    """Return what kind of thing a text field of the header holds; empty if nothing, or what software writes there."""
    # What stands behind the end of the text is there as well, for who looks.
    text = content.rstrip(b"\0 ").decode("latin-1")
    harmless = HARMLESS_TEXTS.get(name)
    if not text or (harmless is not None and harmless.fullmatch(text)):
        return ""
    kinds = kinds_in_text(text)
    return kinds[0] if kinds else "text in the header"


def _byte_order(header: bytes) -> str:
    return "<" if int.from_bytes(header[:4], "little") in HEADER_BYTES.values() else ">"


def _voxels(header: bytes, version: int, order: str) -> tuple[int, int]:
    """Return where the voxels start and how many bytes they have.

    Raises
    ------
    Unjudgeable
        If the header's numbers make no sense.
    """
    if version == 1:
        n_axes, *shape = struct.unpack_from(f"{order}8h", header, 40)
        (bits,) = struct.unpack_from(f"{order}h", header, 72)
        (start,) = struct.unpack_from(f"{order}f", header, 108)
    else:
        (bits,) = struct.unpack_from(f"{order}h", header, 14)
        n_axes, *shape = struct.unpack_from(f"{order}8q", header, 16)
        (start,) = struct.unpack_from(f"{order}q", header, 168)
    is_sound = 1 <= n_axes <= 7 and min(shape[:n_axes]) >= 0 and bits >= 0 and math.isfinite(start) and start >= 0
    if not is_sound:
        raise Unjudgeable("NIfTI header whose numbers make no sense")
    return int(start), -(-math.prod(shape[:n_axes]) * bits // 8)


def _scan_extensions(stream: Stream, order: str, end: int | None) -> Iterator[Hit]:
    """Yield the extensions, and what lies between them and the voxels; ``end`` is None where the voxels lie apart."""
    extender = stream.read(4)
    has_extension = extender[:1] not in (b"\0", b"")
    if any(extender[1:]):
        yield Hit(f"offset {stream.position - 3}", "bytes between header and voxels")
    for _ in range(MAX_EXTENSIONS):
        head = stream.peek(8)
        if not has_extension or len(head) < 8 or (end is not None and stream.position + 8 > end):
            break
        size, code = struct.unpack(f"{order}2i", head)
        if size < 8 or (end is not None and stream.position + size > end):
            break
        yield Hit(f"offset {stream.position}", f"header extension ({EXTENSION_CODES.get(code, 'other')})")
        stream.skip(size)
    if end is not None:
        place = first_filled_byte(stream, end - stream.position)
        if place is not None:
            yield Hit(f"offset {place}", "bytes between header and voxels")
        stream.skip(end - stream.position)


def _scan_rest(stream: Stream, where: str) -> Iterator[Hit]:
    place = first_filled_byte(stream)
    if place is not None:
        yield Hit(f"offset {place}", f"bytes {where}")
