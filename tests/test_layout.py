"""Layout: a record that is not whole is none."""

import json

import pytest

from pipeline.layout import RECORD_KEYS, read_done

RECORD = {
    "fingerprint": "f" * 64,
    "upstream": {"ingest": "a" * 64},
    "summary": {"cases": 3},
    "digest": "d" * 64,
    "files": {"a.txt": "0" * 64},
    "code": "0.1.0+abc",
    "finished": "2026-01-01T00:00:00+00:00",
    "seconds": 1.5,
}


def test_a_whole_record_is_read_with_whatever_else_it_holds(tmp_path):
    content = {**RECORD, "of a later version": 1}
    (tmp_path / "done.json").write_text(json.dumps(content))
    assert read_done(tmp_path) == content


@pytest.mark.parametrize("key", sorted(RECORD_KEYS))
def test_a_record_without_one_of_its_keys_is_none(tmp_path, key):
    (tmp_path / "done.json").write_text(json.dumps({name: value for name, value in RECORD.items() if name != key}))
    assert read_done(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"3", b'"done"', b"\xff\xfe", b'{"fingerprint": "f'])
def test_a_file_that_holds_no_record_is_none(tmp_path, content):
    (tmp_path / "done.json").write_bytes(content)
    assert read_done(tmp_path) is None


def test_a_folder_without_a_record_or_no_folder_at_all_has_none(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        assert read_done(folder) is None
