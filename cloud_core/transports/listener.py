"""TCP listeners that fail loudly."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTCP

from cloud_core.transports.tcp import FastPort, SharedPort

BACKLOG = 4096  # a fleet that powers on together


class ListenFailed(Exception):
    """A port could not be opened; `str()` is one sentence for the user."""


def listen_tcp(reactor: Any, port: int, factory: Any, address: str, *, name: str, is_shared: bool = False) -> FastPort:
    """Listens or raises ListenFailed; port 0 picks a free one (see `getHost().port`).

    `is_shared`: other workers listen on the same port, and the kernel deals out connections.
    `reactor` and `factory` are untyped: mypy reads nothing from zope interfaces.
    """
    assert IReactorTCP.providedBy(reactor)
    kind = SharedPort if is_shared else FastPort
    listening = kind(port, factory, BACKLOG, address, reactor)
    try:
        listening.startListening()
    except CannotListenError as error:
        raise refused(error.socketError, port, address, name=name) from error
    listening.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by its connections
    return listening


def refused(why: object, port: int, address: str, *, name: str) -> ListenFailed:
    """Why a port could not be opened, in a sentence with the fix."""
    code = why.errno if isinstance(why, OSError) else None
    if code == errno.EADDRINUSE:
        return ListenFailed(
            f"The {name} port {port} on {address} is taken by another program;"
            f" stop it or choose another with --{name}-port."
        )
    if code == errno.EACCES:
        return ListenFailed(f"No permission to open the {name} port {port}; choose one above 1023.")
    return ListenFailed(f"Cannot open the {name} port {port} on {address}: {why}.")
