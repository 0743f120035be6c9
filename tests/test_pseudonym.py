"""Pseudonyms and their key."""

import stat
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pipeline.config import IngestSection
from pipeline.errors import ConfigError
from pipeline.ingest.pseudonym import default_key_file, load_key, pseudonym

KEY = bytes(range(32))


@given(st.text(max_size=40))
def test_a_pseudonym_is_stable_and_changes_with_key_and_dataset(identifier):
    name = pseudonym(KEY, "BraTS", identifier)
    assert len(name) == 16
    assert set(name) <= set("0123456789abcdef")
    assert name == pseudonym(KEY, "BraTS", identifier)
    assert name != pseudonym(KEY[::-1], "BraTS", identifier)
    assert name != pseudonym(KEY, "UPENN", identifier)


def test_a_pseudonym_is_the_start_of_hmac_sha256():
    # printf 'BraTS\x1fBraTS2021_00006' | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102...1f
    assert pseudonym(KEY, "BraTS", "BraTS2021_00006") == "3ccd48acb88cb16b"


def test_names_that_are_no_text_get_pseudonyms_too():
    one, other = (b"M\xfcller".decode(errors="surrogateescape"), b"M\xe4ller".decode(errors="surrogateescape"))
    assert len({pseudonym(b"k" * 16, "data", name) for name in (one, other)}) == 2


def test_different_persons_get_different_pseudonyms():
    assert len({pseudonym(KEY, "BraTS", f"BraTS2021_{n:05d}") for n in range(2000)}) == 2000


def test_the_default_key_is_made_once_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = tmp_path / "config" / "synthcohort" / "pseudonym.key"
    assert default_key_file() == path
    key = load_key(IngestSection(source="scans"))
    assert len(key) == 32
    assert path.read_bytes() == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_key(IngestSection(source="other")) == key


def test_two_users_get_different_keys(tmp_path, monkeypatch):
    keys = set()
    for name in ("one", "two"):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / name))
        keys.add(load_key(IngestSection(source="scans")))
    assert len(keys) == 2


def test_without_xdg_the_key_lies_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert default_key_file() == tmp_path / ".config" / "synthcohort" / "pseudonym.key"


def test_a_named_key_is_read_and_no_default_is_made(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(KEY)
    assert load_key(IngestSection(source="scans", key_file=path)) == KEY
    assert load_key(IngestSection(source="phantom", key_file=path)) == KEY
    assert not default_key_file().exists()


def test_a_short_or_missing_key_is_refused_without_showing_it(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"hunter2")
    with pytest.raises(ConfigError, match="7 bytes; expected at least 16") as caught:
        load_key(IngestSection(source="scans", key_file=path))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="no such file"):
        load_key(IngestSection(source="scans", key_file=tmp_path / "absent"))


def test_the_key_of_phantoms_is_public_and_makes_no_file():
    key = load_key(IngestSection(source="phantom"))
    assert key == load_key(IngestSection(source="phantom", phantom_cases=3))
    assert not default_key_file().exists()
