"""The ports that workers share, opened by the supervisor before the first of them starts.

TCP: each worker listens with SO_REUSEPORT and the kernel deals out connections; the supervisor holds the number with a
socket that never listens. UDP: one socket for each worker, made once and handed down by index, so that the kernel's
way from a peer to a socket stays the same when a worker is started anew: block-wise transfers and observations of the
others do not notice, and what comes meanwhile waits in the socket.

Source: Linux socket(7), SO_REUSEPORT.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from cloud_core.transports.coap.endpoint import open_socket
from cloud_core.transports.listener import ListenFailed, refused

UDP = ("coap", "coaps")


@dataclass(frozen=True, slots=True)
class Port:
    """`name` as on the `ready` line; `number` 0 picks a free one."""

    name: str
    bind: str
    number: int


@dataclass(slots=True)
class SharedPorts:
    """What is open: `numbers` by name, `udp` a socket for each worker by name."""

    numbers: dict[str, int] = field(default_factory=dict)
    udp: dict[str, list[socket.socket]] = field(default_factory=dict)
    held: list[socket.socket] = field(default_factory=list)

    def of_worker(self, index: int) -> dict[str, socket.socket]:
        """The UDP sockets of one worker, by name."""
        return {name: sockets[index] for name, sockets in self.udp.items()}

    def close(self) -> None:
        for one in (*self.held, *(one for sockets in self.udp.values() for one in sockets)):
            one.close()


def open_shared(ports: list[Port], workers: int) -> SharedPorts:
    """Opens all of them, or none. Raises: ListenFailed or OSError with one sentence."""
    opened = SharedPorts()
    try:
        for port in ports:
            if port.name in UDP:
                _open_udp(opened, port, workers)
            else:
                _hold_tcp(opened, port)
    except (ListenFailed, OSError):
        opened.close()
        raise
    return opened


def _open_udp(opened: SharedPorts, port: Port, workers: int) -> None:
    _exclusively(lambda: open_socket(port.bind, port.number, port.name), port)
    number = port.number
    sockets = opened.udp[port.name] = []
    for _ in range(workers):
        one = open_socket(port.bind, number, port.name, is_shared=True)
        sockets.append(one)
        number = one.getsockname()[1]  # of the first, where 0 was asked for
    opened.numbers[port.name] = number


def _hold_tcp(opened: SharedPorts, port: Port) -> None:
    family, _, _, _, address = socket.getaddrinfo(port.bind or "0.0.0.0", port.number, type=socket.SOCK_STREAM)[0]

    def bound(is_shared: bool) -> socket.socket:
        one = socket.socket(family, socket.SOCK_STREAM)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
            one.bind(address)
        except OSError as error:
            one.close()
            raise refused(error, port.number, port.bind, name=port.name) from error
        return one

    _exclusively(lambda: bound(is_shared=False), port)
    held = bound(is_shared=True)
    opened.held.append(held)
    opened.numbers[port.name] = held.getsockname()[1]


def _exclusively(open_one: Callable[[], socket.socket], port: Port) -> None:
    """Finds out whether another program has the port, which would share it with us unnoticed."""
    if port.number:
        open_one().close()
