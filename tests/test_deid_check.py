"""deid-check as a whole: our own folders are clean, one thing put in is found, no file stops the scan."""

import gzip
import os
import shutil
import sys

import numpy as np
import pytest
from conftest import write_source
from deid_builders import NAME, clean_dicom, found, png, save_dicom, save_nifti
from export_builders import build_run, export
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_builders import ingest

from pipeline import cli
from pipeline.deid_check import findings as findings_module
from pipeline.deid_check.scan import check_path
from pipeline.errors import ConfigError
from pipeline.phantom.cohort import make_subject, write_subject


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("deid") / "run"
    build_run(run_dir)
    return export(run_dir, contact="data@hospital.org")[0]


def test_our_own_release_is_clean(release):
    assert found(release) == []
    assert check_path(release).not_judged == 0


def test_our_own_cohort_and_a_source_of_nifti_files_are_clean(tmp_path):
    source = write_source(tmp_path / "source", 6)
    assert found(source) == []
    assert found(ingest(source, tmp_path / "run")) == []


def test_a_whole_run_on_phantoms_is_clean_with_its_report_and_journal(finished_run):
    result = check_path(finished_run)
    assert [(item.where, item.what) for item in result.findings] == []
    assert result.not_judged == 0


def test_phantoms_are_clean_as_nifti_and_not_as_dicom(tmp_path):
    subject = make_subject(1, 0, 6.0)
    for file_format in ("nifti", "dicom"):
        write_subject(subject, 1, tmp_path / file_format, file_format)
    assert found(tmp_path / "nifti") == []
    places = {where.split(": ")[1] for where, _ in found(tmp_path / "dicom")}
    assert {"PatientName (0010,0010)", "StudyDate (0008,0020)", "(0029,1010)", "ProtocolName (0018,1030)"} <= places
    assert "RequestAttributesSequence (0040,0275) > RequestingPhysician (0032,1032)" in places


PLANTS = {
    "file name": lambda release: (release / "Muster_Erika.txt").write_text("nothing"),
    "folder name": lambda release: (release / "bids" / "Muster_Erika_19610203").mkdir(),
    "text": lambda release: (release / "notes.txt").write_text(f"for {NAME}"),
    "sidecar": lambda release: (release / "bids" / "extra.json").write_text('{"InstitutionName": "St. Elsewhere"}'),
    "scan": lambda release: save_nifti(release / "bids" / "extra.nii.gz", descrip=b"E. Muster"),
    "picture": lambda release: (release / "a.png").write_bytes(png(behind=b"Erika")),
    "gzip name": lambda release: (release / "b.gz").write_bytes(gzip.compress(f"for {NAME}".encode())),
    "DICOM without suffix": lambda release: save_named_dicom(release / "IM0001"),
}


def save_named_dicom(path):
    data = clean_dicom()
    data.PatientName = NAME
    save_dicom(data, path)


@pytest.mark.parametrize("plant", PLANTS)
def test_one_thing_put_into_a_release_is_found(release, tmp_path, plant):
    copy = shutil.copytree(release, tmp_path / "release")
    PLANTS[plant](copy)
    assert len({where for where, _ in found(copy)}) == 1


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["synthcohort", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code or 0, *capsys.readouterr()


def test_exit_codes_tell_clean_found_and_no_such_path(release, tmp_path, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "deid-check", release)
    assert (code, out.startswith("0 findings in ")) == (0, True)
    (tmp_path / "notes.txt").write_text(f"nothing\nfor {NAME}\n")
    for path in (tmp_path, tmp_path / "notes.txt"):
        code, out, err = call(monkeypatch, capsys, "deid-check", path)
        assert code == 3
        assert out == "finding: notes.txt: line 2: person's name\n1 findings in 1 files; 0 not judged\n"
        assert NAME not in out + err
    code, _, err = call(monkeypatch, capsys, "deid-check", tmp_path / "absent")
    assert code == 2
    assert "no such file or folder" in err


def test_a_path_that_does_not_exist_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        check_path(tmp_path / "absent")


def test_a_file_whose_own_name_identifies_is_numbered(tmp_path):
    path = tmp_path / "Muster_Erika.txt"
    path.write_text(f"for {NAME}")
    assert found(path) == [("[entry 1]", "person's name, in a name"), ("[entry 1]: line 1", "person's name")]
    (tmp_path / "A.txt").write_text("nothing")
    assert ("[entry 2]: line 1", "person's name") in found(tmp_path)


def test_links_are_not_followed_and_counted(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.txt").write_text(f"for {NAME}")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").symlink_to("../outside/a.txt")
    (folder / "all").symlink_to("../outside")
    (folder / "loop").symlink_to(".")
    result = check_path(folder)
    assert (result.n_findings, result.not_judged) == (0, 3)
    (folder / "named").symlink_to("/home/erika/scans")
    assert found(folder) == [("named", "path of a user or a machine, in the target of a link")]


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert check_path(tmp_path).not_judged == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_what_may_not_be_read_is_not_judged(tmp_path):
    (tmp_path / "a.txt").write_text("nothing")
    (tmp_path / "a.txt").chmod(0)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0)
    assert check_path(tmp_path).not_judged == 2
    (tmp_path / "folder").chmod(0o700)


def test_an_empty_file_and_an_empty_folder_are_clean(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "folder").mkdir()
    result = check_path(tmp_path)
    assert (result.n_findings, result.n_files, result.not_judged) == (0, 1, 0)


def test_names_that_are_no_text_do_not_stop_the_scan(tmp_path):
    for name in (b"\xff\xfe.txt", b"new\nline.txt", "\u202etxt.exe".encode()):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:  # noqa: PTH123, PTH118
            file.write(f"for {NAME}".encode())
    findings = found(tmp_path)
    assert len(findings) == 3
    assert all(where.isprintable() for where, _ in findings)


def test_of_many_findings_of_one_kind_the_first_are_listed_and_all_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(findings_module, "PLACES_PER_KIND", 4)
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(f"for {NAME}\n" * 5)
    result = check_path(tmp_path)
    assert result.n_findings == 30
    assert [item.where for item in result.findings] == [f"0.txt: line {n}" for n in (1, 2, 3)] + ["1.txt: line 1"]


def test_a_long_scan_shows_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.progress.SECONDS_BETWEEN_LINES", 0.0)
    (tmp_path / "a.txt").write_text("nothing")
    check_path(tmp_path)
    assert "deid-check: 2/2" in capsys.readouterr().err


def test_a_file_of_absurd_size_is_given_up_in_time(tmp_path):
    for name, head in (("a.bin", b"\0\1\2"), ("b.nii", save_nifti(tmp_path / "c.nii").read_bytes())):
        with (tmp_path / name).open("wb") as file:
            file.write(head)
            file.truncate(1 << 40)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr("pipeline.deid_check.binary.MAX_SEARCHED_BYTES", 8 << 20)
        patch.setattr("pipeline.deid_check.streams.MAX_GAP_BYTES", 8 << 20)
        result = check_path(tmp_path)
    assert {item.where for item in result.doubts} == {"a.bin", "b.nii"}


def seeds_of_formats(folder):
    """Return the bytes of one small file of each format."""
    save_nifti(folder / "a.nii")
    save_nifti(folder / "b.nii.gz", 2)
    save_dicom(clean_dicom(), folder / "c.dcm")
    (folder / "d.png").write_bytes(png())
    (folder / "e.json").write_text('{"a": [1, {"b": "c"}]}')
    np.save(folder / "f.npy", np.ones(3))
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return seeds_of_formats(tmp_path_factory.mktemp("seeds"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_a_file_stops_the_scan(seeds, tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(max_size=8))
        content[place : place + data.draw(st.sampled_from([0, len(piece), 40]))] = piece
        if not content:
            break
    path = tmp_path / "file"
    path.write_bytes(content)
    check_path(path)
