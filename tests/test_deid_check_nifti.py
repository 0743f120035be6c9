"""NIfTI in deid-check: text fields, extensions, gaps; geometry alone is clean."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from deid_builders import NAME, found, save_nifti

from pipeline.deid_check.nifti import judge_field
from pipeline.deid_check.scan import check_path
from pipeline.export.bids import DESCRIPTION


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr"])
def test_geometry_and_voxels_alone_are_clean(tmp_path, version, suffix):
    if suffix == ".hdr":
        kind = nib.Nifti1Pair if version == 1 else nib.Nifti2Pair
        nib.save(kind(np.ones((5, 4, 3), np.int16), np.eye(4)), tmp_path / "scan.hdr")
    else:
        save_nifti(tmp_path / f"scan{suffix}", version)
    assert found(tmp_path) == []
    assert check_path(tmp_path).not_judged == 0


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("field", ["descrip", "aux_file", "intent_name", "db_name", "data_type"])
def test_text_in_a_header_field_is_found(tmp_path, version, field):
    if version == 2 and field in ("db_name", "data_type"):
        pytest.skip("NIfTI-2 has no such field")
    save_nifti(tmp_path / "scan.nii.gz", version, **{field: b"E. Muster"})
    assert found(tmp_path) == [(f"scan.nii.gz: {field}", "text in the header")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        *(
            (text, "")
            for text in (b"", DESCRIPTION.encode(), b"FSL5.0", b"5.0.10", b"6.0.5:9e026117", b"SPM8 - realigned")
        ),
        *((text, "") for text in (b"FreeSurfer May 13 2013", b"TE=2.98")),
        (b"TE=2.98;Time=101500.000", "text in the header"),
        (NAME.encode(), "person's name"),
        (b"scanned 1961-02-03", "date"),
        (b"\0\0 hidden behind the end", "text in the header"),
    ],
)
def test_what_software_writes_into_descrip_is_known(text, what):
    assert judge_field("descrip", text.ljust(80, b"\0")) == what


@pytest.mark.parametrize("code", [4, 6, 2, 44])
@pytest.mark.parametrize("version", [1, 2])
def test_an_extension_of_any_kind_is_found(tmp_path, code, version):
    image = (nib.Nifti1Image if version == 1 else nib.Nifti2Image)(np.ones((5, 4, 3), np.int16), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(code, b"anything"))
    nib.save(image, tmp_path / "scan.nii")
    ((where, what),) = found(tmp_path)
    assert where == f"scan.nii: offset {352 if version == 1 else 544}"
    assert what.startswith("header extension")


def with_gap(content: bytes, gap: bytes) -> bytes:
    """Move the voxels back and put bytes before them."""
    return content[:108] + struct.pack("<f", 352 + len(gap)) + content[112:352] + gap + content[352:]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda content: with_gap(content, bytes(64)), ""),
        (lambda content: content + bytes(1000), ""),
        (lambda content: with_gap(content, bytes(20) + b"E. Muster" + bytes(35)), "bytes between header and voxels"),
        (lambda content: content[:349] + b"EM" + content[351:], "bytes between header and voxels"),
        (lambda content: content + b"E. Muster", "bytes behind the voxels"),
        (lambda content: content + bytes(1 << 21) + b"x", "bytes behind the voxels"),
    ],
    ids=["empty gap", "empty end", "filled gap", "extender", "filled end", "far end"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bytes_in_the_gaps_are_found(tmp_path, change, what, packed):
    content = change(save_nifti(tmp_path / "scan.nii").read_bytes())
    (tmp_path / "scan.nii").unlink()
    if packed:
        (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(content, mtime=0))
    else:
        (tmp_path / "scan.nii").write_bytes(content)
    assert [kind for _, kind in found(tmp_path)] == ([what] if what else [])


def test_bytes_behind_the_voxels_of_a_pair_are_found(tmp_path):
    nib.save(nib.Nifti1Pair(np.ones((5, 4, 3), np.int16), np.eye(4)), tmp_path / "scan.hdr")
    with (tmp_path / "scan.img").open("ab") as file:
        file.write(b"E. Muster")
    assert found(tmp_path) == [("scan.img: offset 120", "bytes behind the voxels")]


def test_the_patient_of_an_analyze_header_is_found(tmp_path):
    header = bytearray(348)
    header[:4], header[38:39] = struct.pack("<i", 348), b"r"
    header[40:56], header[72:74] = struct.pack("<8h", 3, 5, 4, 3, 1, 0, 0, 0), struct.pack("<h", 16)
    (tmp_path / "scan.hdr").write_bytes(header)
    assert found(tmp_path) == []
    header[283:293] = b"EM-1961\0\0\0"
    (tmp_path / "scan.hdr").write_bytes(header)
    assert found(tmp_path) == [("scan.hdr: patient_id", "text in the header")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content[:400], "fewer voxels"),
        (lambda content: content[:40] + struct.pack("<8h", 7, *[32767] * 7) + content[56:], "fewer voxels"),
        (lambda content: content[:40] + struct.pack("<8h", 3, -5, 4, 3, 1, 1, 1, 1) + content[56:], "no sense"),
        (lambda content: content[:108] + struct.pack("<f", float("inf")) + content[112:], "no sense"),
        (lambda content: content[:108] + struct.pack("<f", 1e30) + content[112:], "fewer voxels"),
    ],
    ids=["cut", "huge", "negative", "infinite", "far"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_lies_is_not_judged(tmp_path, change, reason, packed):
    content = change(save_nifti(tmp_path / "scan.nii").read_bytes())
    (tmp_path / "scan.nii").write_bytes(gzip.compress(content) if packed else content)
    result = check_path(tmp_path)
    assert result.not_judged == 1
    assert reason in result.doubts[0].what
