"""Opens the spool's file: alone, checked, and whatever state it is in.

A damaged file is set aside as `<name>.damaged-<n>`, what can be read of it goes into a new file, and the loss is
counted. Only a folder that cannot be written, another process, or a newer program's file keep the spool from opening.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from twisted.logger import Logger

from edge_gateway.storage import schema
from edge_gateway.storage.errors import SpoolUnavailable, is_damage
from edge_gateway.storage.file import Damaged, SpoolFile, connect
from edge_gateway.storage.files import sync_folder
from edge_gateway.storage.salvage import salvage

DAMAGED_KEPT = 3
LOG_SUFFIXES = ("-wal", "-shm")

log = Logger()


@dataclass(slots=True)
class Lock:
    """Held by the one process that may write the spool."""

    descriptor: int

    def release(self) -> None:
        os.close(self.descriptor)


def lock(path: Path) -> Lock:
    """Raises: SpoolUnavailable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        text = (
            f"The spool {path} is in use by another edge-gateway; stop that one, or give this one another [store] path."
        )
        raise SpoolUnavailable(text) from error
    return Lock(descriptor)


def _unwritable(path: Path, error: Exception) -> SpoolUnavailable:
    why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return SpoolUnavailable(
        f"The spool {path} cannot be written ({why}): make the folder {path.parent} writable for the user that runs "
        f"edge-gateway, make room on its disk, or set [store] path."
    )


def open_file(path: Path) -> SpoolFile:
    """Opened, checked if its last use did not end in order, and loaded. Raises: SpoolUnavailable."""
    try:
        file = _open_checked(path)
    except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
        if isinstance(error, sqlite3.Error) and not is_damage(error) and not _was_readable(path):
            raise _unwritable(path, error) from error
        return replace_damaged(path, error)
    return file


def _was_readable(path: Path) -> bool:
    """Whether the file has content, and the folder takes new files: then it is the content that is in the way."""
    return path.exists() and path.stat().st_size > 0 and os.access(path.parent, os.W_OK)


def _open_checked(path: Path) -> SpoolFile:
    has_log = _size(path.with_name(path.name + "-wal")) > 0
    is_new = _size(path) == 0
    file = SpoolFile(path)
    try:
        version = file.version()
        if version > schema.VERSION:
            raise SpoolUnavailable(
                f"The spool {path} was written by a newer edge-gateway (format {version}, this one knows "
                f"{schema.VERSION}): install that version again, or move the file away."
            )
        if not is_new and (has_log or file.state("is_open", 1)):
            file.check()
        file.load()
    except BaseException:
        file.close(is_orderly=False)
        raise
    return file


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def replace_damaged(path: Path, error: Exception) -> SpoolFile:
    """Sets the file aside and makes a new one of what can be read. Raises: SpoolUnavailable."""
    try:
        aside = _set_aside(path)
        kept, lost = _make(path, aside)
        file = SpoolFile(path)
        file.load()
    except (sqlite3.Error, OSError) as failed:
        raise _unwritable(path, failed) from failed
    log.error(
        "The spool was damaged ({error}): {kept} readings were saved from it, {lost} at the most are lost. "
        "The damaged file is kept as {aside}.",
        error=error, kept=kept, lost=lost, aside=aside,
    )  # fmt: skip
    return file


def damaged_files(path: Path) -> list[tuple[int, Path]]:
    """Those set aside, by their numbers, oldest first."""
    prefix = path.name + ".damaged-"
    found = [(other.name.removeprefix(prefix), other) for other in path.parent.glob(prefix + "*")]
    return sorted((int(number), other) for number, other in found if number.isdigit())


def _set_aside(path: Path) -> Path:
    known = damaged_files(path)
    aside = path.with_name(f"{path.name}.damaged-{known[-1][0] + 1 if known else 1}")
    for suffix in LOG_SUFFIXES:
        beside = path.with_name(path.name + suffix)
        if suffix == "-shm":
            beside.unlink(missing_ok=True)  # an index of the log, made anew
        elif beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    for _, old in known[: len(known) + 1 - DAMAGED_KEPT]:
        for name in (old.name, *(old.name + suffix for suffix in LOG_SUFFIXES)):
            old.with_name(name).unlink(missing_ok=True)
    return aside


def _make(path: Path, aside: Path) -> tuple[int, int]:
    """A new file with what can be read of the old one, under another name until it is whole; records kept and lost."""
    fresh = path.with_name(path.name + ".new")
    for name in (fresh.name, *(fresh.name + suffix for suffix in LOG_SUFFIXES)):
        fresh.with_name(name).unlink(missing_ok=True)
    connection = connect(fresh)
    try:
        kept = salvage(aside, connection)
    finally:
        connection.close()
    fresh.rename(path)
    sync_folder(path.parent)
    return kept


def reopen(file: SpoolFile) -> SpoolFile:
    """The same file on a new connection, after an error that the old one may not have survived."""
    file.drop_connection()
    fresh = SpoolFile(file.path)
    fresh.load()
    fresh.go_on_from(file)
    return fresh


def repaired(file: SpoolFile) -> SpoolFile:
    """Replaces a file that turned out to be damaged while it was in use."""
    file.drop_connection()
    fresh = replace_damaged(file.path, Damaged("found while in use"))
    fresh.go_on_from(file)
    return fresh
