"""Whether a port is free, and which process holds it; by Linux's /proc, as far as we may look."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_LISTENING = "0A"


def problem(kind: str, bind: str, port: int) -> OSError | None:
    """Why the port cannot be listened on now; `kind` is "tcp" or "udp"."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as probe:
        try:
            if kind == "tcp":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the core's listeners do
            probe.bind((bind, port))
            if kind == "tcp":
                probe.listen(1)
        except OSError as error:
            return error
    return None


def is_taken(error: OSError) -> bool:
    return error.errno == errno.EADDRINUSE


def holder(kind: str, port: int) -> tuple[int, str] | None:
    """(process number, name) of who listens there; None where that cannot be seen."""
    inodes = set(_inodes(kind, port))
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in _PROC.iterdir():
        if process.name.isdigit() and _has_open(process, wanted):
            return int(process.name), _name_of(process)
    return None


def are_together(process: int, other: int) -> bool:
    """Whether both are of one core: the same process, workers of one supervisor, or a worker and its supervisor."""
    supervisor = _supervisor_of(process)
    return process == other or (supervisor is not None and supervisor in (other, _supervisor_of(other)))


def _supervisor_of(process: int) -> int | None:
    """None where it is no worker, or cannot be seen."""
    try:
        words = (_PROC / str(process) / "cmdline").read_bytes().split(b"\0")
        if b"cloud_core" not in words or b"worker" not in words:
            return None
        fields = (
            (_PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        return int(fields[1])
    except OSError:
        return None


def _inodes(kind: str, port: int) -> Iterator[str]:
    for table in (kind, f"{kind}6"):
        try:
            lines = (_PROC / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and (kind == "udp" or fields[3] == _LISTENING):
                yield fields[9]


def _has_open(process: Path, wanted: set[str]) -> bool:
    try:
        return any(os.readlink(one) in wanted for one in (process / "fd").iterdir())
    except OSError:  # another user's, or gone meanwhile
        return False


def _name_of(process: Path) -> str:
    try:
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process"
