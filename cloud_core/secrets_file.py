"""Files of the data directory that hold secrets: written once, atomically, readable by the owner only."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Writes `path` with mode 0600, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


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
