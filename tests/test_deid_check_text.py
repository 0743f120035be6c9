"""Texts, tables, JSON and names in deid-check: what identifies is found, what looks similar is not."""

import json

import pytest
from deid_builders import NAME, found

from pipeline.deid_check.keys import judge_entry
from pipeline.deid_check.names import judge_name
from pipeline.deid_check.person_names import looks_like_person
from pipeline.deid_check.scan import check_path
from pipeline.deid_check.text_rules import find_strictly, kinds_in_text

IDENTIFYING = [
    *(("for Muster^Erika", "person's name"), ("MUSTER^ERIKA^^DR", "person's name"), ("Müller^Jörg", "person's name")),
    *(("O'Hara^Jean-Luc", "person's name"), ("山田^太郎", "person's name"), ("seen by Dr. Watson", "person's name")),
    *(("Patient: Erika Muster", "person's name"), ("Referred by: Muster, Erika", "person's name")),
    *(("on 1961-02-03", "date"), ("on 1961/02/03", "date"), ("03.02.1961", "date"), ("3.2.1961", "date")),
    *(("02/13/1961", "date"), ("13/02/1961", "date"), ("20190314", "date"), ("scan_20190314_1", "date")),
    *(
        ("20190314101500.12", "date"),
        ("3 Feb 1961", "date"),
        ("03-FEB-1961", "date"),
        ("February 3, 1961", "date"),
    ),
    *(("DOB: 3/61", "date of birth"), ("geb. 1961", "date of birth"), ("aged 93 years old", "age above 89")),
    *(("erika@hospital.org", "e-mail address"), ("e.muster+mri@mail.uni-x.de", "e-mail address")),
    *(("+49 30 1234567", "telephone number"), ("+1 (555) 012-3456", "telephone number")),
    *(
        ("(555) 012-3456", "telephone number"),
        ("555-012-3456", "telephone number"),
        ("Tel. 030/123456", "telephone number"),
    ),
    *(("SSN 078-05-1120", "social security number"), ("MRN 123456", "record number"), ("MRN100037", "record number")),
    *(
        ("PatientID=00012345", "record number"),
        ("patient 1234567", "record number"),
        ("accession no. 7654321", "record number"),
    ),
    *(("in /home/erika/scans", "path of a user or a machine"), ("C:\\Users\\erika", "path of a user or a machine")),
    *(("file:///data/scans", "path of a user or a machine"), ("=/Users/erika/x", "path of a user or a machine")),
    *(("\\\\pacs01\\export", "path of a user or a machine"), ("192.168.17.4", "address of a machine")),
    *(("00:1b:44:11:3a:b7", "address of a machine"), ("on mr3t-01.radiology.local", "name of a machine")),
    *(("hostname: mr3t", "name of a machine"), ("1.2.840.113619.2.312.4120.8419247", "DICOM UID")),
]
HARMLESS = [
    *("x^2 + y^2", "A^T", "[^abc]", r"\d^\w", "mask^2", "e^-x", "10^6"),
    *(
        "version 2.8.2024.1",
        "v1.0.20250506",
        "0.20190314",
        "a3f20190314bc9d8e",
        "12345678",
        "20191399",
        "1/2/3",
        "2019",
    ),
    *("doi:10.1038/s41467-022-30695-9", "arXiv:2107.02314", "10.1038/sdata.2016.44", "978-3-16-148410-0"),
    *("Apache License, January 2004", "in May 2018", "Zhang et al. 2001", "(Okabe and Ito 2008)"),
    *("user@", "@context", "git@github", "pip@24.0", "a @ b", "sub-0123456789abcdef", "1e-5", "-7.5 80.25 1.0"),
    *("1000-1200", "3-4-5", "240x240x155", "0.50 (0.40 to 0.62)", "5e-8 1.2e+10", "100 000 000"),
    *("1.2.840.10008.5.1.4.1.1.4", "2.25.3274327463274327", "1.2.3.4", "127.0.0.1", "2.10.0.1"),
    *("https://example.org/home/page", "runs/demo/report.html", "~/.config/synthcohort", "a/tmp/b", "`data/brats2021`"),
    *(
        "patients needed: 299",
        "patient 12",
        "12 patients, 1024 steps",
        "accession",
        "MRN",
        "host",
        "born again",
        "local",
    ),
    *("Dr", "Mr. x", "SSN", "phone", "age 93", "9 years old", "threading.local()", "b: the class"),
]


@pytest.mark.parametrize(("text", "kind"), IDENTIFYING)
def test_an_identifier_in_text_is_found(text, kind):
    assert kind in kinds_in_text(text)
    assert kind in kinds_in_text(f"Some words before\tand\n{text}\nmore behind.")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_looks_similar_is_no_identifier(text):
    assert kinds_in_text(text) == []


@pytest.mark.parametrize("text", ["abc^def", "Ab^Cd", "Abc^De", "x@y.z", "ab@cd.ef"])
def test_the_strict_rules_leave_short_runs_alone(text):
    assert list(find_strictly(text)) == []


PERSONS = [
    *("Muster_Erika", "Erika Muster", "Muster-Erika", "Muster_Erika_19610203", "MUSTER_ERIKA", "erika_muster.nii.gz"),
    *("Muster, Erika.dcm", "Kowalczyk_Zdzislaw", "KOWALCZYK_ZDZISLAW_19610203", "sub-ErikaMuster_T1w.nii.gz"),
    *("Erika.Muster.nii", "scan_of_Erika_Muster", "Müller_Jörg", "T1_Muster_Erika_3"),
]
NO_PERSONS = [
    *("sub-0123456789abcdef_T1w.nii", "sub-0123456789abcdef_ce-gadolinium_T1w.nii.gz", "desc-tumor_dseg.tsv"),
    *("Phantom_00001_t1.nii.gz", "BraTS2021_00000_flair.nii.gz", "BraTS-GLI-00005-000-t1n.nii.gz", "UCSF-PDGM-0004"),
    *(
        "Brats18_TCIA01_147_1_t1.nii.gz",
        "Task01_BrainTumour",
        "imagesTr",
        "MICCAI_BraTS2020_TrainingData",
        "IM0001.dcm",
    ),
    *("README.md", "LICENSE.txt", "dataset_description.json", "participants.tsv", "manifest.json.sha256", "DICOMDIR"),
    *("Training_Data", "Healthy_Controls", "T1_AX_POST_GAD", "Brain_Tumor_Seg", "Raw_Data", "Test_Set", "task-NBack"),
    *("step-000200.safetensors", "real-syn-aug-0", "space-MNI152NLin2009cAsym_res-2", "Release_Notes", "study00001"),
    *("journal.jsonl", "mlflow.db", "report.html", ".bidsignore", "croissant.json", "Screenshot_2", "AX_FLAIR"),
]


@pytest.mark.parametrize("name", PERSONS)
def test_a_name_of_a_person_in_a_file_name_is_found(name):
    assert looks_like_person(name)


@pytest.mark.parametrize("name", NO_PERSONS)
def test_usual_file_names_are_no_persons(name):
    assert judge_name(name) == []


def test_a_label_is_a_person_only_with_a_known_given_name():
    assert looks_like_person("Erika Muster", strict=True)
    assert not looks_like_person("Glioblastoma Multiforme", strict=True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("scan_20190314.nii", "date"), ("MRN_123456", "record number"), ("Muster^Erika", "person's name")),
        *(("1.2.840.113619.2.312.4120.8419247.dcm", "DICOM UID"), ("erika@hospital.org.txt", "e-mail address")),
    ],
)
def test_identifiers_in_file_names_are_found_and_not_shown(tmp_path, name, kind):
    (tmp_path / name).mkdir()
    (tmp_path / name / "fine.txt").write_text("DOB: 3 Feb 1961")
    findings = found(tmp_path)
    assert ("[entry 1]", f"{kind}, in a name") in findings
    assert "[entry 1]/fine.txt: line 1" in [where for where, _ in findings]


@pytest.mark.parametrize(
    ("key", "value", "is_found"),
    [
        *((key, "anything", True) for key in ("InstitutionName", "InstitutionAddress", "StationName", "PatientName")),
        *((key, "anything", True) for key in ("SeriesDescription", "ProtocolName", "ProcedureStepDescription")),
        *((key, "anything", True) for key in ("DeviceSerialNumber", "OperatorsName", "ImageComments", "PatientSex")),
        *((key, "10:15:00.12", True) for key in ("AcquisitionTime", "AcquisitionDateTime", "SeriesTime")),
        *(
            (key, "anything", True)
            for key in ("first_name", "Last Name", "dob", "MRN", "zip", "email", "comments", "user")
        ),
        *((key, "1.2.3.4.5.6.7", True) for key in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")),
        *((key, "2.25.123", False) for key in ("StudyInstanceUID", "SeriesInstanceUID")),
        *((key, "", False) for key in ("InstitutionName", "PatientBirthDate", "dob")),
        *((key, "n/a", False) for key in ("InstitutionName", "AcquisitionTime", "mrn")),
        *((key, "0123456789abcdef", False) for key in ("PatientID", "patient", "PatientName")),
        *(("age", "61", False), ("age", "93", True), ("sex", "F", False), ("handedness", "right", False)),
        *((key, "1.5", False) for key in ("EchoTime", "RepetitionTime", "MagneticFieldStrength", "SliceThickness")),
        *((key, "text", False) for key in ("Manufacturer", "ManufacturersModelName", "Modality", "BodyPartExamined")),
        *((key, "text", False) for key in ("Name", "Description", "Method", "task", "status", "title", "Time", "Date")),
        *(("00100010", NAME, True), ("00180081", "2.98", False), ("00291010", "x", True)),
    ],
)
def test_keys_tell_what_identifies(key, value, is_found):
    assert bool(judge_entry(key, value)) == is_found


SIDECAR = {
    "Modality": "MR",
    "MagneticFieldStrength": 3,
    "Manufacturer": "Siemens",
    "ManufacturersModelName": "Prisma",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    "EchoTime": 0.00298,
    "ImageOrientationPatientDICOM": [1, 0, 0, 0, 1, 0],
    "ConversionSoftware": "dcm2niix",
    "ConversionSoftwareVersion": "v1.0.20250506",
    "SkullStripped": True,
}


@pytest.mark.parametrize(
    ("extra", "place"),
    [
        ({}, None),
        ({"InstitutionName": "", "PatientName": None, "Comments": []}, None),
        ({"InstitutionName": "St. Elsewhere"}, "InstitutionName"),
        ({"a": {"b": [{"StationName": "MR01"}]}}, "a.b[1].StationName"),
        ({"note": f"for {NAME}"}, "note"),
        ({NAME: 1}, "#11"),
        ({"subject": "Erika Muster"}, "subject"),
        ({"Authors": ["Erika Muster"]}, None),
        ({"patient": {"name": "anything"}}, "patient.name"),
        ({"00100010": {"vr": "PN", "Value": [{"Alphabetic": NAME}]}}, "00100010.Value[1].Alphabetic"),
        ({"00100020": {"vr": "LO", "Value": ["sub-0123456789abcdef"]}}, None),
        ({"finished": "2026-01-01T00:00:00+00:00"}, "finished"),
    ],
)
def test_a_sidecar_is_judged_by_keys_and_values(tmp_path, extra, place):
    (tmp_path / "T1w.json").write_text(json.dumps({**SIDECAR, **extra}, indent=1))
    assert [where for where, _ in found(tmp_path)] == ([f"T1w.json: {place}"] if place else [])


def test_of_two_equal_keys_both_are_judged(tmp_path):
    (tmp_path / "T1w.json").write_text('{"StationName": "MR01", "StationName": ""}')
    assert found(tmp_path) == [("T1w.json: StationName", "attribute that is not on the allow-list")]


def test_when_a_stage_was_finished_is_no_finding_in_its_record_only(tmp_path):
    for name in ("done.json", "other.json"):
        (tmp_path / name).write_text('{"finished": "2026-01-01T00:00:00+00:00", "seconds": 3.1}')
    assert [where for where, _ in found(tmp_path)] == ["other.json: finished"]
    (tmp_path / "done.json").write_text('{"finished": "1961-02-03"}')
    assert "done.json: finished" in [where for where, _ in found(tmp_path)]


def test_lines_of_json_are_judged_one_by_one(tmp_path):
    lines = [{"time": 1700000000000, "values": {"a": 1}}, {"time": 1700000000001, "PatientName": "anybody"}]
    (tmp_path / "journal.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{broken\n")
    assert [where for where, _ in found(tmp_path)] == ["journal.jsonl: line 2: PatientName"]


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 100_000, "{" + '"a": 1,' * 10, "[1, 2", '{"a": NaN}', "{}{}"]
)
def test_json_that_is_none_is_searched_as_text(tmp_path, content):
    (tmp_path / "a.json").write_text(content + f"\nfor {NAME}")
    assert [what for _, what in found(tmp_path)] == ["person's name"]


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("participants.tsv", "participant_id\tage\tsex\nsub-01\t61\tF\nsub-02\tn/a\tM\n", []),
        ("participants.tsv", "participant_id\tage\nsub-01\t93\n", ["column age, row 2"]),
        ("participants.tsv", "participant_id\tdob\nsub-01\tn/a\nsub-02\t61\n", ["column dob, row 3"]),
        ("scans.tsv", "filename\tacq_time\nanat/T1w.nii\t2019-03-14T10:15:00\n", ["column acq_time, row 2"]),
        ("scans.tsv", "filename\tsize\na\t20190314\nb\t12345678\nc\t87654321\n", []),
        ("scans.tsv", "filename\tday\na\t20190314\nb\t20190315\nc\tn/a\n", ["column day"]),
        ("list.csv", f"case,label,note\n1,a,b\n2,a,{NAME}\n", ["column note, row 3"]),
        ("list.csv", "case;person;label\n1;Erika Muster;a\n", ["column person, row 2"]),
        ("list", "a\tb\n1\t2\n1\t/home/erika/x\n", ["column b, row 3"]),
        ("list.csv", f"{NAME},a,b\n1,2,3\n", ["column 1, row 1"]),
        ("list.csv", f"a,b,{NAME}\n1,2,x@hospital.org\n", ["column 3, row 1", "column #3, row 2"]),
    ],
)
def test_a_table_is_judged_by_column_and_cell(tmp_path, name, content, places):
    (tmp_path / name).write_text(content)
    assert [where.removeprefix(f"{name}: ") for where, _ in found(tmp_path)] == places


def test_a_table_with_an_endless_cell_is_searched_as_text(tmp_path):
    (tmp_path / "a.csv").write_text(f'a,b,c\n1,2,{NAME}\n3,4,"' + "x " * 100_000)
    result = check_path(tmp_path)
    assert (result.n_findings > 0, result.not_judged) == (True, 1)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("config.yaml", "ingest:\n  source: phantom\n", None),
        ("config.yaml", "ingest:\n  source: /home/erika/scans\n", 2),
        ("config.yaml", "a: 1\nuser: erika\n", 2),
        ("notes.md", "# Notes\n\nHospital: St. Elsewhere\n", 3),
        ("run.log", "INFO start\nPatientName=anybody at all\n", 2),
        ("page.html", '<!doctype html><meta name="author" content="anybody">', 1),
        ("page.html", '<!doctype html>\n<meta name="viewport" content="width=device-width">', None),
        ("page.html", "<!doctype html>\n<!-- made by Erika Muster -->", 2),
        ("page.html", "<!doctype html>\n<!-- Google Tag Manager -->", None),
        ("core.xml", "<a:p>\n<dc:creator>anybody</dc:creator>", 2),
        ("a.svg", "<svg>\n<FamilyName>anybody</FamilyName>", 2),
        ("README.md", "# Card\n\nQuestions: data@hospital.org\n", None),
        ("notes.md", "# Card\n\nQuestions: data@hospital.org\n", 3),
    ],
)
def test_running_text_is_judged_by_line(tmp_path, name, content, line):
    (tmp_path / name).write_text(content)
    assert [where for where, _ in found(tmp_path)] == ([f"{name}: line {line}"] if line else [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_text_is_read_in_all_encodings(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("Bericht über\nMüller^Jörg, 61 Jahre\n" * 3, encoding=encoding)
    assert [where for where, _ in found(tmp_path)] == [f"a.txt: line {n}" for n in (2, 4, 6)]


def test_long_text_is_read_to_its_end(tmp_path):
    (tmp_path / "a.txt").write_text("nothing to see\n" * 300_000 + f"for {NAME}\n")
    (tmp_path / "b.txt").write_text("x y " * 1_500_000 + f"for {NAME}")
    assert found(tmp_path) == [("a.txt: line 300001", "person's name"), ("b.txt: line 1", "person's name")]


@pytest.mark.parametrize(
    "sign", ["a", "1", "-", ".", "@", "^", "/", "+", " ", "\\", "1.", "A_", "a.", "Ab ", "1-", "<a ", "<!--"]
)
def test_no_rule_is_slow_on_text_made_to_be_slow(tmp_path, sign):
    (tmp_path / "a.txt").write_text(sign * (200_000 // len(sign)))
    check_path(tmp_path)
