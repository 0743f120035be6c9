"""Pseudonyms by keyed hash: stable with the same key, unlinkable without it."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from pipeline.config import IngestSection
from pipeline.errors import ConfigError, named_file

KEY_BYTES = 32
# Phantoms are nobody: a public key makes their pseudonyms, and so every byte of a demo, the same everywhere.
PHANTOM_KEY = hashlib.sha256(b"synthcohort phantom").digest()


def default_key_file() -> Path:
    """Return where the key lies if the config names none: in the user's config folder, never under a run."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "synthcohort" / "pseudonym.key"


def load_key(config: IngestSection) -> bytes:
    """Read the key of the pseudonyms; make the default one on first use.

    Raises
    ------
    ConfigError
        If a key file is named that does not exist or is too short.
    """
    if config.key_file is None:
        if config.source == "phantom":
            return PHANTOM_KEY
        path = default_key_file()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
    else:
        path = config.key_file
        if not path.is_file():
            what = "a folder" if path.is_dir() else "no such file"
            raise ConfigError(f"ingest.key_file: {what}; expected a file with a secret of at least 16 bytes; make one")
    with named_file("ingest.key_file"):
        key = path.read_bytes()
    if len(key) < 16:
        raise ConfigError(f"ingest.key_file: {len(key)} bytes; expected at least 16; make a longer secret")
    return key


def key_digest(config: IngestSection) -> str:
    """Return the digest of the key of the pseudonyms; empty while the default one has not been made.

    Raises
    ------
    ConfigError
        If a key file is named that does not exist or is too short.
    """
    if config.key_file is None and config.source != "phantom" and not default_key_file().exists():
        return ""
    return hashlib.sha256(load_key(config)).hexdigest()


def pseudonym(key: bytes, dataset: str, identifier: str) -> str:
    """Return the pseudonym of an identifier.

    Parameters
    ----------
    key : bytes
    dataset : str
        Name of the data set: the same identifier in two data sets is not the same person.
    identifier : str
        As found in the source.

    Returns
    -------
    str
        16 hexadecimal digits of HMAC-SHA256.
    """
    # Names from old file systems are no valid text; they are told apart all the same.
    message = f"{dataset}\x1f{identifier}".encode(errors="surrogateescape")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:16]
