"""Pictures, data bases, tensors and packed files in deid-check: each with a control that must be found and one not."""

import base64
import gzip
import io
import sqlite3
import tarfile
import zipfile

import numpy as np
import pytest
from deid_builders import NAME, chunk, clean_dicom, found, gzipped, jpeg, png, save_dicom, save_nifti, segment
from safetensors.numpy import save_file

from pipeline.deid_check.scan import check_path
from pipeline.deid_check.streams import Budget

SECRET = NAME.encode()


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.png", png(), None),
        ("a.png", png(chunk(b"tEXt", b"Software\0Matplotlib version3.9, https://matplotlib.org/")), None),
        ("a.png", png(chunk(b"tEXt", b"Author\0anybody")), "tEXt"),
        ("a.png", png(chunk(b"tEXt", b"Software\0" + SECRET)), "tEXt Software"),
        ("a.png", png(chunk(b"zTXt", b"Comment\0\0packed")), "zTXt"),
        ("a.png", png(chunk(b"iTXt", b"Title\0\0\0\0\0Erika")), "iTXt"),
        ("a.png", png(chunk(b"eXIf", b"II*\0")), "eXIf"),
        ("a.png", png(chunk(b"tIME", bytes(7))), "tIME"),
        ("a.png", png(chunk(b"erIk", b"own")), "erIk"),
        ("a.png", png(behind=b"Erika"), "offset"),
        ("a.jpg", jpeg(), None),
        ("a.jpg", jpeg(segment(0xE1, b"Exif\0\0II*\0")), "segment E1"),
        ("a.jpg", jpeg(segment(0xFE, b"Erika")), "segment FE"),
        ("a.jpg", jpeg(segment(0xED, b"Photoshop")), "segment ED"),
        ("a.jpg", jpeg(behind=b"Erika"), "offset"),
    ],
)
def test_what_is_no_part_of_a_picture_is_found(tmp_path, name, content, place):
    (tmp_path / name).write_bytes(content)
    places = [where.removeprefix(f"{name}: ") for where, _ in found(tmp_path)]
    assert len(places) == (place is not None)
    assert all(where.startswith(place) for where in places)


@pytest.mark.parametrize(
    "content", [png()[:40], png(chunk(b"tEXt", b"Author\0x"))[:60], jpeg()[:30], b"\xff\xd8\xff\xe0\0"]
)
def test_a_cut_off_picture_is_not_judged(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert check_path(tmp_path).not_judged == 1


def write_database(path, *statements):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE cases (id INTEGER, label TEXT, payload BLOB, mlflow_note TEXT)")
        connection.execute("CREATE TABLE tags (key TEXT, value TEXT)")
        connection.executemany(
            "INSERT INTO cases VALUES (?, 'sub-0123456789abcdef', NULL, '')", [(n,) for n in range(99)]
        )
        for statement, values in statements:
            connection.execute(statement, values)
    connection.close()
    return path


@pytest.mark.parametrize(
    ("statement", "values", "place"),
    [
        ("INSERT INTO cases (label) VALUES (?)", (f"for {NAME}",), "cases.label, row 100"),
        ("INSERT INTO cases (payload) VALUES (?)", (b"\0\1" + SECRET + b"\0",), "cases.payload, row 100"),
        ("INSERT INTO cases (label) VALUES (?)", ("/home/erika/data",), "cases.label, row 100"),
        ("INSERT INTO tags VALUES ('mlflow.user', ?)", ("erika",), "tags.value, row 1"),
        ("CREATE TABLE more (patient_name TEXT DEFAULT 'Muster^Erika')", (), "sqlite_master.sql, row 3"),
    ],
)
def test_texts_and_blobs_of_a_data_base_are_found(tmp_path, statement, values, place):
    assert found(write_database(tmp_path / "clean.db")) == []
    findings = found(write_database(tmp_path / "runs.db", (statement, values)))
    assert f"runs.db: {place}" in [where for where, _ in findings]


def test_what_was_deleted_from_a_data_base_is_found_in_its_free_pages(tmp_path):
    path = write_database(tmp_path / "runs.db", ("INSERT INTO cases (label) VALUES (?)", (f"for {NAME} ",)))
    with sqlite3.connect(path) as connection:
        # Off in SQLite itself; some builds turn it on.
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("DELETE FROM cases")
    connection.close()
    ((where, what),) = found(path)
    assert where.startswith("runs.db: offset")
    assert what == "person's name"


def test_a_data_base_in_an_archive_and_one_with_a_write_ahead_log_are_read(tmp_path):
    path = write_database(tmp_path / "runs.db", ("INSERT INTO tags VALUES ('a', ?)", ("/home/erika/data",)))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    (tmp_path / "runs.db.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    before = sorted(tmp_path.iterdir())
    assert {where for where, _ in found(tmp_path)} == {"runs.db.gz: tags.value, row 1", "runs.db: tags.value, row 1"}
    # Nothing is written beside it.
    assert sorted(tmp_path.iterdir()) == before


def test_a_damaged_data_base_is_not_judged(tmp_path):
    path = write_database(tmp_path / "runs.db")
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 3000 + content[3100:])
    assert check_path(path).not_judged == 1


def test_a_data_base_whose_schema_runs_for_ever_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.deid_check.databases.MAX_SECONDS", 0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    path = write_database(tmp_path / "runs.db", (f"CREATE VIEW forever AS {endless}", ()))
    assert check_path(path).not_judged == 0
    with sqlite3.connect(path) as connection:
        slow = "length(hex(zeroblob(400000 + i)))"
        connection.execute(f"CREATE TABLE slow (i INTEGER, j INTEGER GENERATED ALWAYS AS ({slow}) VIRTUAL)")
        connection.executemany("INSERT INTO slow (i) VALUES (?)", [(n,) for n in range(300)])
    connection.close()
    assert check_path(path).not_judged == 1


def test_metadata_of_safetensors_is_found(tmp_path):
    tensors = {"weight": np.ones((3, 2), np.float32)}
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt"})
    assert found(tmp_path) == []
    save_file(tensors, tmp_path / "a.safetensors", {"trained_on": "/home/erika/cohort", "patient": "Erika"})
    assert [where for where, _ in found(tmp_path)] == [
        "a.safetensors: __metadata__.trained_on",
        "a.safetensors: __metadata__.patient",
    ] or len(found(tmp_path)) == 2


def test_bytes_behind_numbers_are_found(tmp_path):
    save_file({"weight": np.ones(3, np.float32)}, tmp_path / "a.safetensors")
    np.save(tmp_path / "b.npy", np.ones(3))
    assert found(tmp_path) == []
    for path in list(tmp_path.iterdir()):
        with path.open("ab") as file:
            file.write(b"Erika")
    assert [what for _, what in found(tmp_path)] == ["bytes behind the numbers"] * 2


def test_an_array_of_texts_is_not_judged(tmp_path):
    np.save(tmp_path / "a.npy", np.array(["anybody"]))
    assert check_path(tmp_path).not_judged == 1


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzipped(b"nothing"), None),
        (gzipped(b"nothing", name="notes.txt"), None),
        (gzipped(b"nothing", name="erika.txt"), "another file name"),
        (gzipped(b"nothing", comment=b"for Erika"), "comment"),
        (gzipped(b"nothing", extra=b"EM\2\0ab"), "extra field"),
        (gzipped(b"nothing") + gzipped(b"more", name="erika.txt"), "another file name"),
        (gzipped(b"nothing") + bytes(512), None),
        (gzipped(b"nothing") + b"Erika", "bytes behind the packed data"),
        (gzipped(f"for {NAME}".encode()), "person's name"),
    ],
)
def test_gzip_is_read_with_its_headers(tmp_path, content, what):
    (tmp_path / "notes.txt.gz").write_bytes(content)
    assert [kind for _, kind in found(tmp_path)] == ([what] if what else [])


def make_zip(members, comment=b""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = comment
    return buffer.getvalue()


def make_tar(members, **attributes):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in attributes.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [make_zip, make_tar], ids=["zip", "tar"])
def test_what_is_packed_is_scanned_and_named_by_its_place(tmp_path, pack):
    scan = save_nifti(tmp_path / "scan.nii", descrip=b"E. Muster").read_bytes()
    (tmp_path / "scan.nii").unlink()
    inner = pack({"notes.txt": f"for {NAME}".encode(), "README.md": b"nothing"})
    (tmp_path / "all").write_bytes(pack({"anat/T1w.nii": scan, "more.pack": inner, "fine.txt": b"nothing at all"}))
    assert found(tmp_path) == [
        ("all: anat/T1w.nii > descrip", "text in the header"),
        ("all: more.pack > notes.txt > line 1", "person's name"),
    ]


@pytest.mark.parametrize("pack", [make_zip, make_tar], ids=["zip", "tar"])
@pytest.mark.parametrize("name", ["Muster_Erika/a.txt", "x/" * 60 + "Muster_Erika.txt"], ids=["short", "long"])
def test_names_of_members_are_judged_and_not_shown(tmp_path, pack, name):
    (tmp_path / "all").write_bytes(pack({"fine.txt": b"nothing", name: b"nothing"}))
    findings = found(tmp_path)
    assert findings
    assert all(what.startswith("person's name") for _, what in findings)


def test_comments_and_accounts_of_archives_are_found(tmp_path):
    (tmp_path / "a.zip").write_bytes(make_zip({"a.txt": b"nothing"}, comment=b"for Erika"))
    (tmp_path / "b.zip").write_bytes(b"for Erika" + make_zip({"a.txt": b"nothing"}))
    (tmp_path / "c.tar").write_bytes(make_tar({"a.txt": b"nothing"}, uname="emuster"))
    (tmp_path / "d.tar").write_bytes(make_tar({"a.txt": b"nothing"}, uname="root") + b"for Erika")
    assert [(where.split(":")[0], what) for where, what in found(tmp_path)] == [
        ("a.zip", "comment"),
        *([("b.zip", "bytes before the archive")] if (tmp_path / "b.zip").read_bytes()[:2] == b"PK" else []),
        ("c.tar", "account name"),
        ("d.tar", "bytes behind the archive"),
    ]


def test_packing_deeper_than_four_times_is_not_judged(tmp_path):
    content = f"for {NAME}".encode()
    for depth in range(1, 7):
        content = gzip.compress(content, mtime=0)
        (tmp_path / "a").write_bytes(content)
        result = check_path(tmp_path)
        assert (result.n_findings, result.not_judged) == ((1, 0) if depth <= 4 else (0, 1))


@pytest.mark.parametrize(
    "pack", [gzip.compress, lambda c: make_zip({"a": c}), lambda c: gzip.compress(make_tar({"a": c}))]
)
def test_what_unpacks_to_too_much_is_given_up(tmp_path, monkeypatch, pack):
    monkeypatch.setattr("pipeline.deid_check.scan.Budget", lambda: Budget(1 << 20))
    (tmp_path / "bomb").write_bytes(pack(bytes(50 << 20)))
    result = check_path(tmp_path)
    assert result.not_judged >= 1
    assert any("unpacks to more than" in doubt.what for doubt in result.doubts)


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b"nothing " * 1000)[:-20],
        make_zip({"a.txt": b"nothing " * 1000})[:-30],
        make_zip({"a.txt": b"nothing " * 1000}).replace(b"PK\1\2", b"PK\1\2" + b"\xff" * 4),
        make_tar({"a.txt": b"nothing " * 1000})[:148] + b"\xff" * 8 + make_tar({"a.txt": b"nothing"})[156:],
    ],
    ids=["gzip", "zip", "zip directory", "tar"],
)
def test_a_damaged_archive_is_not_judged(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert check_path(tmp_path).not_judged == 1


def test_a_picture_in_a_page_or_a_notebook_is_scanned(tmp_path):
    for name, picture in (("clean", png()), ("named", png(chunk(b"tEXt", b"Author\0" + b"anybody " * 40)))):
        data = base64.b64encode(picture + bytes(200) * (name == "clean")).decode()
        (tmp_path / f"{name}.html").write_text(f'<!doctype html><img src="data:image/png;base64,{data}">')
        (tmp_path / f"{name}.ipynb").write_text(f'{{"outputs": [{{"data": {{"image/png": "{data}"}}}}]}}')
    assert found(tmp_path) == [
        ("named.html: embedded file 1 > tEXt", "text in a picture"),
        ("named.ipynb: embedded file 1 > tEXt", "text in a picture"),
    ]


@pytest.mark.parametrize("encoding", ["ascii", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", [NAME, "erika.muster@hospital.org"])
def test_names_and_addresses_in_unknown_formats_are_found(tmp_path, encoding, text):
    noise = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "clean.bin").write_bytes(noise)
    (tmp_path / "named.bin").write_bytes(
        noise[:1_048_571] + b"\0" + text.encode(encoding) + b"\0\0" + noise[1_048_571:]
    )
    result = check_path(tmp_path)
    assert [item.where.split(":")[0] for item in result.findings] == ["named.bin"]
    assert result.not_judged == 2


def test_a_pdf_cannot_be_judged(tmp_path):
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<< >>\nendobj\n")
    result = check_path(tmp_path)
    assert (result.n_findings, result.not_judged) == (0, 1)


def test_dicom_in_a_zip_is_read(tmp_path):
    data = clean_dicom()
    data.OperatorsName = NAME
    content = save_dicom(data, tmp_path / "a").read_bytes()
    (tmp_path / "a").unlink()
    (tmp_path / "study.zip").write_bytes(make_zip({"IM0001": content}))
    assert found(tmp_path) == [("study.zip: IM0001 > OperatorsName (0008,1070)", "person's name")]
