"""Files of the data directory that hold secrets: written once, atomically, readable by the owner only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_private(path: Path, content: bytes) -> None:
    """Writes `path` with mode 0600, whole or not at all."""
    with private_file(path) as file:
        file.write(content)


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written piece by piece: it is at `path` when the block has ended well, and leaves nothing else."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # one that an earlier run has left may be open to others
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def master_key(configured: str, path: Path) -> bytes:
    """The 32-byte master key: as configured (64 hex digits), or from `path`, which is made if missing.

    Raises: ValueError with a sentence for the user.
    """
    text = configured or (path.read_text(encoding="ascii").strip() if path.exists() else "")
    if not text:
        text = secrets.token_hex(32)
        write_private(path, text.encode() + b"\n")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        where = "[database] key" if configured else f"The key file {path}"
        raise ValueError(f"{where} must hold 64 hexadecimal digits; restore it from your backup.")
    return key
