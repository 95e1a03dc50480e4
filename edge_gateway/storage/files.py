"""Small files that must be whole or not there, and that nobody else may read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from twisted.logger import Logger

OWNER_ONLY = 0o600

log = Logger()


def write_private(path: Path, content: bytes) -> None:
    """Replaces the file at once, with mode 0600; after a crash there is the old one or the new one. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file of mode 0600 that takes the place of `path` when all went well, durably. Raises: OSError."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_private(path: Path) -> bytes | None:
    """None when there is no such file. Takes rights from others that should not have had them, and says so.

    Raises: OSError.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & ~OWNER_ONLY:
                os.fchmod(file.fileno(), OWNER_ONLY)
                log.warn(
                    "Others could read {path} (mode {mode}); it is 0600 now. If somebody did, replace the credentials.",
                    path=str(path), mode=f"{mode:04o}",
                )  # fmt: skip
            return file.read()
    except FileNotFoundError:
        return None


def sync_folder(folder: Path) -> None:
    """Makes what was renamed in it durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
