"""The source's files: sorted, links to nothing left out, what may not be read counted and not named."""

from pathlib import Path

from pipeline.ingest.files import walk_files


def test_files_of_all_folders_come_sorted_without_links_to_nothing(tmp_path):
    for name in ("b/2", "a/1", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert [path.relative_to(tmp_path).as_posix() for path in walk_files(tmp_path)] == ["a/1", "b/2", "c"]


def test_what_may_not_be_read_is_counted_and_not_named(tmp_path, monkeypatch, capsys):
    for name in ("Doe_Jane.nii", "other.nii"):
        (tmp_path / name).touch()
    real = Path.stat

    def refuse(path, **options):
        if "Doe" in path.name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert [path.name for path in walk_files(tmp_path)] == ["other.nii"]
    said = "".join(capsys.readouterr())
    assert "1 files or folders of the source could not be read" in said
    assert "Doe" not in said
