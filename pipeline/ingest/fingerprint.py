"""What ingest's result depends on outside its config section."""

from pathlib import Path
from typing import Any

from pipeline.cohort import digest_file, digest_tree
from pipeline.config import IngestSection
from pipeline.errors import ConfigError, named_file
from pipeline.ingest.attributes_file import read_attributes_file
from pipeline.ingest.files import scan_files
from pipeline.ingest.manifest import manifest_path
from pipeline.ingest.pseudonym import key_digest


def source_fingerprint(config: IngestSection) -> dict[str, Any]:
    """Return names, sizes and times of the source's files, and digests of manifest, tables, weights and key.

    Raises
    ------
    ConfigError
        If the source folder, the manifest, a table, the weights or the key file is missing.
    """
    with named_file("ingest.manifest"):
        content: dict[str, Any] = {"manifest": digest_file(manifest_path(config.manifest))}
    if config.split_file is not None:
        if not config.split_file.is_file():
            raise ConfigError("ingest.split_file: no such file; expected a TSV with columns subject and split")
        with named_file("ingest.split_file"):
            content["split_file"] = digest_file(config.split_file)
    if config.attributes_file is not None:
        with named_file("ingest.attributes_file"):
            # Read too: what is wrong with it is better found by a dry run than behind it.
            read_attributes_file(config.attributes_file)
            content["attributes_file"] = digest_file(config.attributes_file)
    if config.brain_weights is not None:
        with named_file("ingest.brain_weights"):
            content["brain_weights"] = _digest_weights(config.brain_weights)
    content["key"] = key_digest(config)
    if config.source != "phantom":
        content["files"] = list_source(Path(config.source))
    return content


def list_source(root: Path) -> list[tuple[str, int, int]]:
    """Return relative name, size and modification time (ns) of each file below a folder, sorted.

    Raises
    ------
    ConfigError
        If the folder does not exist or is empty.
    DataError
        If its storage has gone away.
    """
    if not root.is_dir():
        raise ConfigError(f"ingest.source: {root} is no folder; expected a folder of scans, or `phantom`")
    files, _ = scan_files(root)
    if not files:
        raise ConfigError(f"ingest.source: {root} is empty; expected a folder of scans")
    return sorted((path.relative_to(root).as_posix(), s.st_size, s.st_mtime_ns) for path, s in files.items())


def _digest_weights(path: Path) -> dict[str, str]:
    """Return the digest of a tool's weights: a file, or each file below a folder but a ``done.json``."""
    digests = {".": digest_file(path)} if path.is_file() else digest_tree(path)
    if not digests:
        raise ConfigError("ingest.brain_weights: no such file or folder; expected the tool's weights; fetch them first")
    return digests
