"""What the supervisor tells a worker: one line of JSON on its standard input, which stays open while it lives."""

from __future__ import annotations

import socket
import sys
from typing import BinaryIO

import msgspec

from cloud_core.config import Config

MAX_BYTES = 1_000_000


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """`config`: with the ports that are open and the fabric that runs. `udp`: descriptors of sockets, by name.

    `local_token` opens each worker to whoever may read the data directory (`core.people.local_access`); the first
    worker, of `index` 0, does what only one may do: first administrator, file of the local token. By `site` the
    workers of one supervisor know each other.
    """

    index: int
    site: str
    config: Config
    local_token: str
    udp: dict[str, int]

    def __repr__(self) -> str:  # passwords and the token must not reach a log
        return f"Assignment(index={self.index})"

    @property
    def is_first(self) -> bool:
        return self.index == 0


def encode(assignment: Assignment) -> bytes:
    return msgspec.json.encode(assignment) + b"\n"


def read(source: BinaryIO | None = None) -> Assignment:
    """Raises: ValueError where nothing of the kind comes, as when a person calls the command."""
    line = (source or sys.stdin.buffer).readline(MAX_BYTES)
    try:
        return msgspec.json.decode(line, type=Assignment)
    except msgspec.MsgspecError:
        raise ValueError("Workers are started by `cloud-core serve --workers N`, not by hand.") from None


def inherited(assignment: Assignment | None) -> dict[str, socket.socket]:
    """The sockets that the supervisor has made for this worker, by name."""
    if assignment is None:
        return {}
    return {name: socket.socket(fileno=descriptor) for name, descriptor in assignment.udp.items()}
