"""Local addresses of the load: many, so that neither ports nor CoAP message ids run short.

Ports of closed connections stay taken for a while (TIME_WAIT), and a CoAP server remembers (address, port,
message id) for minutes. All of 127.0.0.0/8 is ours, so each run takes addresses of its own.
"""

from __future__ import annotations

import ipaddress
import os
import socket

IP_BIND_ADDRESS_NO_PORT = 24
"""linux/in.h: choose the port at connect(), where one port may serve many destinations."""


class Sources:
    """Source addresses in turn; only the wildcard when the target is not on loopback."""

    __slots__ = ("_addresses", "_next")

    def __init__(self, host: str, count: int) -> None:
        loopback = ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
        second, third = 1 + os.getpid() // 250 % 250, 1 + os.getpid() % 250
        self._addresses = [f"127.{second}.{third}.{1 + i}" for i in range(min(count, 250))] if loopback else [""]
        self._next = 0

    def take(self) -> str:
        """The next source address."""
        self._next = (self._next + 1) % len(self._addresses)
        return self._addresses[self._next]


def connecting(host: str, port: int, source: str) -> socket.socket:
    """A non-blocking TCP socket whose connection is under way or made. Raises: OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if source:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect_ex((host, port))  # a refusal shows when the socket becomes writable
    except OSError:
        sock.close()
        raise
    return sock
