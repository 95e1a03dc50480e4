"""The addresses from which devices come: many on loopback, so that neither ports nor rations of one run short.

A destination can be reached from one address by some 28,000 ports, and one of a closed connection stays taken for a
minute. All of 127.0.0.0/8 is this machine's on Linux; elsewhere, and towards other machines, there is one address.
"""

from __future__ import annotations

import ipaddress
import socket

DEVICES_PER_ADDRESS = 10  # as in a house behind its router
_FIRST_NET = 64  # 127.64.x.y and up; one net for each process
_WRONG = range(200, 255)  # third part of the addresses of devices with a wrong secret
_HONEST = range(1, 200)
_HOSTS = 250
IP_BIND_ADDRESS_NO_PORT = 24
"""linux/in.h: choose the port at connect(), where one port may serve many destinations."""


class Sources:
    """An address for each device; the empty one where the system chooses."""

    __slots__ = ("_net",)

    def __init__(self, host: str, *, share: int) -> None:
        """`share` is the number of the process; `host` an address, not a name."""
        net = _FIRST_NET + share % 128
        self._net = net if _may_choose(host, net) else 0

    def of(self, number: int, *, is_wrong: bool, together: int = DEVICES_PER_ADDRESS) -> str:
        """The address of device `number`, which it has in common with `together` others.

        Those with a wrong secret have addresses of their own: the core counts failed attempts by address, and the
        honest ones beside them would wait with them.
        """
        if not self._net:
            return ""
        parts = _WRONG if is_wrong else _HONEST
        part, host = divmod(number if is_wrong else number // together, _HOSTS)
        return f"127.{self._net}.{parts[part % len(parts)]}.{1 + host}"


def bind(sock: socket.socket, address: str) -> None:
    """Raises: OSError."""
    if not address:
        return
    if sock.type is socket.SOCK_STREAM and hasattr(socket, "SO_DOMAIN"):  # Linux
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((address, 0))


def _may_choose(host: str, net: int) -> bool:
    address = ipaddress.ip_address(host)
    if address.version != 4 or not address.is_loopback:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((f"127.{net}.1.1", 0))
        except OSError:
            return False
    return True
