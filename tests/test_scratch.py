"""Temporary files of private data: within the stage's folder, for each thread its own, and gone afterwards."""

import tempfile
import threading

from pipeline.scratch import SCRATCH, temporary_files_in, temporary_folder


def test_temporary_folders_lie_in_the_stages_folder_and_go(tmp_path):
    with temporary_files_in(tmp_path), temporary_folder() as folder:
        assert folder.parent == tmp_path / SCRATCH
        (folder / "voxels").write_bytes(b"private")
    assert list((tmp_path / SCRATCH).iterdir()) == []
    with temporary_folder() as folder:
        assert str(folder).startswith(tempfile.gettempdir())


def test_threads_do_not_disturb_each_other(tmp_path):
    inside, done = threading.Event(), threading.Event()
    found = {}

    def work():
        with temporary_files_in(tmp_path / "second"):
            inside.set()
            done.wait(10)
            with temporary_folder() as folder:
                found["second"] = folder.parent.parent.name

    with temporary_files_in(tmp_path / "first"):
        thread = threading.Thread(target=work)
        thread.start()
        assert inside.wait(10)
        with temporary_folder() as folder:
            found["first"] = folder.parent.parent.name
    done.set()
    thread.join()
    assert found == {"first": "first", "second": "second"}
