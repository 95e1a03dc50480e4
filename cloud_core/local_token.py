"""The file by which commands on the core's own machine find it and are let in: written at start, gone after the end.

It lies in the data directory, mode 0600, and says `{"url", "token", "pid", "ports"}`. The core writes it only into a
directory that nobody else may write to, and commands read it only where nobody else may read or put one in its place.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cloud_core.secrets_file import write_private

FILE = "local-access.json"
MAX_BYTES = 4_096
_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


class LocalTokenError(Exception):
    """Why the file cannot be used; `str()` is a sentence with the fix. `is_missing`: there is none."""

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_missing = is_missing


class LocalToken(msgspec.Struct, frozen=True):
    url: str
    token: str
    pid: int
    ports: dict[str, int] = {}  # that devices use, by scheme: what is open

    def __repr__(self) -> str:  # the token must not reach a log
        return f"LocalToken(url={self.url!r}, pid={self.pid})"


def url_on_loopback(bind: str, port: int) -> str | None:
    """Where this machine reaches a core that listens on `bind`; None where loopback does not lead to it."""
    host = _WILDCARDS.get(bind, bind)
    if not _leads_here(host):
        return None
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _leads_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def write(data_dir: Path, token: LocalToken) -> str:
    """Writes the file; empty, or a sentence on why it is left out."""
    try:
        if data_dir.stat().st_mode & 0o022:
            return f"others may write to {data_dir}; take that away: chmod go-w {data_dir}"
        write_private(data_dir / FILE, msgspec.json.encode(token))
    except OSError as error:
        return f"{data_dir / FILE} cannot be written: {error.strerror}"
    return ""


def remove(data_dir: Path, pid: int) -> None:
    """Only this process's own: another may have started on the directory meanwhile."""
    path = data_dir / FILE
    try:
        if read(data_dir).pid == pid:
            path.unlink()
    except (LocalTokenError, FileNotFoundError):
        return


def read(data_dir: Path) -> LocalToken:
    """Raises: LocalTokenError."""
    path = data_dir / FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise LocalTokenError(
            f"No core runs on the data directory {data_dir} (or an older one, or with [admin] local_access = false);"
            f" start it, or log in: cloud-core login",
            is_missing=True,
        ) from error
    except PermissionError as error:
        raise LocalTokenError(f"{path} may not be read; run this as the user of the core, or with sudo.") from error
    except OSError as error:
        raise LocalTokenError(f"Cannot use {path}: {error.strerror}.") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _check_owner(path, status)
        content = file.read(MAX_BYTES + 1)
    try:
        found = msgspec.json.decode(content, type=LocalToken)
    except msgspec.MsgspecError as error:
        raise LocalTokenError(f"{path} is damaged; restart the core, which writes it anew.") from error
    if not _leads_here(urlsplit(found.url).hostname or ""):
        raise LocalTokenError(f"{path} leads away from this machine; restart the core, which writes it anew.")
    return found


def _check_owner(path: Path, status: os.stat_result) -> None:
    """A file that others could have written or read is none to trust."""
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        raise LocalTokenError(f"Others may read {path}; restart the core, which writes it anew with mode 0600.")
    folder: Any = path.parent.stat()
    if folder.st_mode & 0o022 or folder.st_uid not in (0, status.st_uid):
        raise LocalTokenError(f"Others may write to {path.parent}; take that away: chmod go-w {path.parent}")
