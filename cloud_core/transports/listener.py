"""TCP listeners that fail loudly."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTCP

from cloud_core.transports.tcp import FastPort

BACKLOG = 4096  # a fleet that powers on together


class ListenFailed(Exception):
    """A port could not be opened; `str()` is one sentence for the user."""


def listen_tcp(reactor: Any, port: int, factory: Any, address: str, *, name: str) -> FastPort:
    """Listens or raises ListenFailed; port 0 picks a free one (see `getHost().port`).

    `reactor` and `factory` are untyped: mypy reads nothing from zope interfaces.
    """
    assert IReactorTCP.providedBy(reactor)
    listening = FastPort(port, factory, BACKLOG, address, reactor)
    try:
        listening.startListening()
    except CannotListenError as error:
        why = error.socketError
        code = why.errno if isinstance(why, OSError) else None
        if code == errno.EADDRINUSE:
            raise ListenFailed(
                f"The {name} port {port} on {address} is taken by another program;"
                f" stop it or choose another with --{name}-port."
            ) from error
        if code == errno.EACCES:
            raise ListenFailed(f"No permission to open the {name} port {port}; choose one above 1023.") from error
        raise ListenFailed(f"Cannot open the {name} port {port} on {address}: {why}.") from error
    listening.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by its connections
    return listening
