"""What SQLite's errors mean to the spool."""

from __future__ import annotations

import sqlite3

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_DISK = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,  # after an error many systems mount the disk read-only
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,  # somebody else's tool holds the file
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
}


class SpoolUnavailable(Exception):
    """The spool cannot be opened; `str()` is one sentence for people that says the fix."""


def _code(error: BaseException) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def is_damage(error: BaseException) -> bool:
    """The file's content is broken. Text that is no UTF-8 and numbers that are none come without a code."""
    if isinstance(error, sqlite3.OperationalError) and "Could not decode" in str(error):
        return True
    return _code(error) in _DAMAGE


def is_trouble_with_disk(error: BaseException) -> bool:
    """May pass by itself; the connection may have been lost in it."""
    return _code(error) in _DISK or isinstance(error, sqlite3.ProgrammingError | OSError)
