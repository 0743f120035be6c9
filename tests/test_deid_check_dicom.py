"""DICOM in deid-check: what the Basic Profile removes is found at any depth, what a careful exporter leaves is not."""

import re
import warnings
import zlib
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from deid_builders import NAME, TIFF_PREAMBLE, clean_dicom, equipment, found, save_dicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pipeline.deid_check.dicom import judge_element
from pipeline.deid_check.dicom_elements import Element, is_dicom, read_elements
from pipeline.deid_check.scan import check_path
from pipeline.deid_check.streams import Budget, stream_file
from pipeline.errors import Unjudgeable

HERE = Path(__file__).parent
PROFILE = [int(line, 16) for line in (HERE / "ps3_15_table_e_1_1.txt").read_text().split()]
VALUES = {
    **{"UI": b"1.2.3.4.5.6", "DA": b"19610203", "TM": b"101500", "DT": b"19610203101500", "DS": b"1.5", "IS": b"3"},
    **{"US": b"\3\0", "AS": b"042Y", "CS": b"YES", "PN": NAME.encode()},
}
# Judged by the UIDs in them (action U*).
BY_CONTENT = {0x00081140, 0x00082112}


def test_a_clean_object_is_clean(tmp_path):
    assert found(save_dicom(clean_dicom(), tmp_path / "IM0001.dcm")) == []


def test_every_attribute_of_the_basic_profile_is_a_finding_when_filled():
    passed = set()
    for tag in PROFILE:
        vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
        assert judge_element(Element(tag, vr, (), 0)) == ""
        if not judge_element(Element(tag, vr, (), 8, b"" if vr == "SQ" else VALUES.get(vr, b"some text"))):
            passed.add(tag)
    assert passed == BY_CONTENT


def test_the_list_of_the_profile_is_whole():
    assert len(PROFILE) == len(set(PROFILE)) == 652
    assert {0x00100010, 0x00100030, 0x00081010, 0x00400275, 0x00181000, 0xFFFCFFFC} <= set(PROFILE)


CHANGES = {
    "PatientName": lambda d: setattr(d, "PatientName", NAME),
    "PatientID": lambda d: setattr(d, "PatientID", "MRN123456"),
    "PatientBirthDate": lambda d: setattr(d, "PatientBirthDate", "19610203"),
    "PatientAge": lambda d: setattr(d, "PatientAge", "042Y"),
    "StudyDate": lambda d: setattr(d, "StudyDate", "20190314"),
    "StudyTime": lambda d: setattr(d, "StudyTime", "101500.12"),
    "InstitutionName": lambda d: setattr(d, "InstitutionName", "St. Elsewhere"),
    "StudyInstanceUID": lambda d: setattr(d, "StudyInstanceUID", "1.2.840.113619.2.312.4120.7"),
    "StationName": lambda d: setattr(d, "StationName", "MR01"),
    "EchoTime": lambda d: d.add_new("EchoTime", "LO", "Erika"),
    "Rows": lambda d: d.add_new("Rows", "LO", NAME),
    "BurnedInAnnotation": lambda d: setattr(d, "BurnedInAnnotation", "YES"),
    "RecognizableVisualFeatures": lambda d: setattr(d, "RecognizableVisualFeatures", "YES"),
    "PatientIdentityRemoved": lambda d: setattr(d, "PatientIdentityRemoved", "NO"),
    "SOPClassUID": lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"),
    "Manufacturer": lambda d: setattr(d, "Manufacturer", f"sold to {NAME}"),
    "SeriesDescription": lambda d: setattr(d, "SeriesDescription", "T1 of Erika"),
    "SourceApplicationEntityTitle": lambda d: setattr(d.file_meta, "SourceApplicationEntityTitle", "PACS1"),
    "PrivateInformation": lambda d: (
        setattr(d.file_meta, "PrivateInformationCreatorUID", "2.25.5"),
        setattr(d.file_meta, "PrivateInformation", b"secret"),
    ),
    "(6000,3000)": lambda d: d.add_new(0x60003000, "OW", b"\1\2"),
    "(6002,4000)": lambda d: d.add_new(0x60024000, "LT", "Erika"),
    "(5000,3000)": lambda d: d.add_new(0x50003000, "OW", b"\1\2"),
    "(0029,1010)": lambda d: d.private_block(0x29, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", b"\1\2"),
    "(0008,1303)": lambda d: d.add_new(0x00081303, "LO", "newer than the dictionary"),
    "ContributingEquipmentSequence": lambda d: d.ContributingEquipmentSequence.append(equipment("109101", "Scanner")),
    "ContributionDateTime": lambda d: setattr(d.ContributingEquipmentSequence[0], "ContributionDateTime", "20190314"),
    "PixelData": lambda d: setattr(d, "PixelData", bytes(24) + b"Erika Muster"),
    "DataSetTrailingPadding": lambda d: d.add_new(0xFFFCFFFC, "OB", b"Erika "),
}


@pytest.mark.parametrize("place", CHANGES)
def test_one_thing_too_many_is_found_and_named_by_keyword_and_tag(tmp_path, place):
    data = clean_dicom()
    CHANGES[place](data)
    findings = found(save_dicom(data, tmp_path / "IM0001"))
    assert any(place in where and where.startswith("IM0001: ") for where, _ in findings)


def test_values_are_found_three_sequences_deep_and_inside_private_ones(tmp_path):
    data = clean_dicom()
    data.DerivationImageSequence = [Dataset()]
    data.DerivationImageSequence[0].SourceImageSequence = [Dataset()]
    source = data.DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPInstanceUID = "2.25.9"
    assert found(save_dicom(data, tmp_path / "clean")) == []
    source.PurposeOfReferenceCodeSequence = [Dataset()]
    source.PurposeOfReferenceCodeSequence[0].PersonName = NAME
    ((where, what),) = found(save_dicom(data, tmp_path / "named"))[-1:]
    assert where == (
        "named: DerivationImageSequence (0008,9124) > SourceImageSequence (0008,2112) > "
        "PurposeOfReferenceCodeSequence (0040,A170) > PersonName (0040,A123)"
    )
    assert what == "person's name"
    source.ReferencedSOPInstanceUID = "1.2.3.4.5.6.7.8"
    assert any("ReferencedSOPInstanceUID" in where for where, _ in found(save_dicom(data, tmp_path / "uid")))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name
)
def test_all_encodings_are_read(tmp_path, syntax):
    for name in ("", NAME):
        data = clean_dicom()
        data.file_meta.TransferSyntaxUID = syntax
        data.OperatorsName = name
        if syntax == ExplicitVRBigEndian:
            data.Rows = data.Columns = 1
            data.PixelData = bytes(2)
        path = tmp_path / f"IM{len(name)}"
        pydicom.dcmwrite(path, data, enforce_file_format=True)
        assert [what for _, what in found(path)] == (["person's name"] if name else [])


def test_a_file_without_preamble_and_meta_information_is_read(tmp_path):
    data = clean_dicom()
    data.OperatorsName = NAME
    path = tmp_path / "bare"
    pydicom.dcmwrite(path, Dataset(data), implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert not path.read_bytes().startswith(bytes(128))
    assert [where for where, _ in found(path)] == ["bare: OperatorsName (0008,1070)"]


def test_a_preamble_that_is_not_empty_is_found(tmp_path):
    data = clean_dicom()
    data.preamble = TIFF_PREAMBLE
    assert found(save_dicom(data, tmp_path / "a.dcm")) == [("a.dcm: preamble", "bytes that are not 0")]


@pytest.mark.parametrize(
    ("name", "is_fine"),
    [
        *(("0123456789abcdef", True), ("sub-0123456789abcdef", True), ("Anonymous", True), ("ANON", True), ("", True)),
        *(("sub-ErikaMuster", False), ("Muster", False), ("0123456789ABCDEFG", False), ("12345", False)),
    ],
)
def test_pseudonyms_and_dummies_are_no_names(tmp_path, name, is_fine):
    data = clean_dicom()
    data.PatientName = data.PatientID = name
    assert (found(save_dicom(data, tmp_path / "a.dcm")) == []) == is_fine


def test_dummy_dates_are_no_dates(tmp_path):
    data = clean_dicom()
    data.ContentDate, data.ContentTime = "19000101", "000000.000000"
    assert found(save_dicom(data, tmp_path / "a.dcm")) == []


def test_a_description_is_allowed_to_synthetic_objects_only(tmp_path):
    data = clean_dicom()
    del data.SyntheticData
    assert [where.split(": ")[1] for where, _ in found(save_dicom(data, tmp_path / "a.dcm"))] == [
        "SeriesDescription (0008,103E)"
    ]


def test_identifiers_from_headers_are_looked_for_in_names_and_not_shown_there(tmp_path):
    folder = tmp_path / "study_QX77123"
    folder.mkdir()
    data = clean_dicom()
    data.PatientID = "QX77123"
    save_dicom(data, folder / "IM0001.dcm")
    assert ("[entry 1]", "identifier of a patient, in a name") in found(tmp_path)
    assert ("[entry 1]/IM0001.dcm: PatientID (0010,0020)", "patient's identifier") in found(tmp_path)
    assert not any("QX77123" in where for where, _ in found(tmp_path))


def test_a_truncated_file_is_not_judged_and_what_was_readable_is_found(tmp_path):
    data = clean_dicom()
    data.OperatorsName = NAME
    content = save_dicom(data, tmp_path / "whole").read_bytes()
    (tmp_path / "whole").unlink()
    (tmp_path / "cut").write_bytes(content[: content.index(b"GR\x18") + 1])
    result = check_path(tmp_path)
    assert result.not_judged == 1
    assert "breaks off" in result.doubts[0].what
    assert "OperatorsName (0008,1070)" in result.findings[0].where


def test_what_is_hidden_behind_broken_encoding_is_searched(tmp_path):
    data = clean_dicom()
    content = save_dicom(data, tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content + b"\x10\0\x10\0xx\0\0" + NAME.encode() + bytes(9))
    assert [what for _, what in found(tmp_path)] == ["person's name"]


def test_sequences_nested_absurdly_deep_are_not_judged(tmp_path):
    nested = b"\x08\0\x15\x92SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 100_000
    (tmp_path / "deep").write_bytes(bytes(128) + b"DICM" + nested)
    result = check_path(tmp_path / "deep")
    assert (result.n_findings, result.not_judged) == (0, 1)
    assert "nested" in result.doubts[0].what


def test_a_deflated_bomb_is_not_judged(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.deid_check.scan.Budget", lambda: Budget(1 << 20))
    data = clean_dicom()
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "bomb"
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    head = path.read_bytes()
    meta = head[: head.index(b"1.2.840.10008.1.2.1.99") + 22]
    meta += head[len(meta) : head.index(b"PYDICOM 3.0.2") + 14]
    packer = zlib.compressobj(wbits=-15)
    element = b"\x08\0\x70\0UT\0\0" + (1 << 26).to_bytes(4, "little")
    path.write_bytes(meta + packer.compress(element + bytes(1 << 26)) + packer.flush())
    result = check_path(path)
    assert result.not_judged == 1
    assert "unpacks to more than" in result.doubts[0].what


def elements_of_pydicom(data, path=()):
    for element in data:
        is_sequence = element.VR == "SQ"
        if not is_sequence or len(element.value):
            yield path, int(element.tag)
        for item in element.value if is_sequence else ():
            yield from elements_of_pydicom(item, (*path, int(element.tag)))


def test_the_reader_finds_the_same_elements_as_pydicom_in_its_test_files():
    root = Path(pydicom.data.__file__).parent
    n_compared = 0
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = pydicom.dcmread(path)
                expected = {*elements_of_pydicom(data), *(((), int(element.tag)) for element in data.file_meta)}
        except Exception:  # noqa: S112 what pydicom cannot read, it cannot be compared with
            continue
        with path.open("rb") as file:
            stream = stream_file(file)
            assert is_dicom(stream.peek(1024)), path.name
            stream.read(132)
            elements, reason = set(), ""
            try:
                for element in read_elements(stream, Budget()):
                    elements.add((element.path, element.tag))
            except Unjudgeable as error:
                reason = str(error)
        # pydicom drops group lengths; empty items are none for us.
        ours = {key for key in elements if key[1] & 0xFFFF}
        theirs = {key for key in expected if key[1] & 0xFFFF}
        missing = {key for key in theirs - ours if not (dictionary_has_tag(key[1]) and dictionary_VR(key[1]) == "SQ")}
        assert (ours - theirs, missing) == (set(), set()), path.name
        assert reason == "" or re.search("truncated|nooffset", path.name), (path.name, reason)
        n_compared += 1
    assert n_compared > 40
