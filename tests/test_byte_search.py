"""The search that the tests of de-identification rest on finds what is hidden on purpose, in each way."""

import base64
import gzip
import io
import sqlite3
import tarfile
import zipfile
import zlib

import pytest
from byte_search import search_tree
from deid_builders import chunk, png

WORD = "QZXJWVKP"
TEXT = f"for {WORD}00042 only".encode()


def in_zip(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", content)
    return buffer.getvalue()


def in_tar(content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def in_database(content, path, n_before=0):
    """Write a row that is longer than a page; return the bytes of the data base."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a TEXT, b BLOB)")
    connection.execute(
        "INSERT INTO t VALUES (?, ?)", ("x" * n_before + content.decode() + "y" * (6000 - n_before), None)
    )
    connection.commit()
    connection.close()
    return path.read_bytes()


HIDDEN = {
    "plain": TEXT,
    "lower case": TEXT.lower(),
    "UTF-16 LE": TEXT.decode().encode("utf-16-le"),
    "UTF-16 BE": b"\1" + TEXT.decode().encode("utf-16-be"),
    "base64, first place": base64.b64encode(TEXT),
    "base64, second place": base64.b64encode(b"1" + TEXT),
    "base64, third place": base64.b64encode(b"12" + TEXT),
    "hex": TEXT.hex().encode(),
    "HEX": TEXT.hex().upper().encode(),
    "gzip": gzip.compress(TEXT),
    "zip": in_zip(TEXT),
    "tar in gzip": in_tar(TEXT),
    "zip in gzip": gzip.compress(in_zip(TEXT)),
    "UTF-16 in zip": in_zip(TEXT.decode().encode("utf-16-le")),
    "PNG text": png(chunk(b"tEXt", b"Comment\0" + TEXT)),
    "PNG packed text": png(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(TEXT))),
    "PNG packed international text": png(chunk(b"iTXt", b"Comment\0\1\0en\0x\0" + zlib.compress(TEXT))),
    "PNG in a page": b'<img src="data:image/png;base64,'
    + base64.b64encode(png(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(TEXT))))
    + b'">',
    "gzip in JSON": b'{"a": "' + base64.b64encode(gzip.compress(TEXT)) + b'"}',
}


@pytest.mark.parametrize("how", HIDDEN)
def test_a_word_hidden_on_purpose_is_found(tmp_path, how):
    (tmp_path / "file").write_bytes(b"some bytes before " * (how == "plain") + HIDDEN[how])
    assert search_tree(WORD, tmp_path)


def test_a_word_that_a_data_base_tears_apart_is_found(tmp_path):
    is_torn = [WORD.encode() not in in_database(TEXT, tmp_path / "a.db", n) for n in range(400, 2000, 5)]
    assert any(is_torn)
    in_database(TEXT, tmp_path / "a.db", 400 + 5 * is_torn.index(True))
    assert search_tree(WORD, tmp_path)


@pytest.mark.parametrize("name", [f"{WORD}0001.txt", f"a_{WORD.lower()}.txt"])
def test_a_word_in_a_name_is_found(tmp_path, name):
    (tmp_path / name).mkdir()
    assert search_tree(WORD, tmp_path) == [f"{tmp_path / name}: name"]


def test_nothing_is_found_where_nothing_is(tmp_path):
    for number, content in enumerate(HIDDEN.values()):
        (tmp_path / f"{number}").write_bytes(content)
    (tmp_path / "a.db").write_bytes(in_database(b"nothing", tmp_path / "b.db"))
    assert search_tree("XQWVZPKJ", tmp_path) == []
