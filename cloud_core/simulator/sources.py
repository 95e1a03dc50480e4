"""The addresses from which devices come: many on loopback, so that neither ports nor rations of one run short.

A destination can be reached from one address by some 28,000 ports, and one of a closed connection stays taken for a
minute. All of 127.0.0.0/8 is this machine's on Linux; elsewhere, and towards other machines, there is one address.
"""

from __future__ import annotations

import ipaddress
import socket

DEVICES_PER_ADDRESS = 1_000
_FIRST_NET = 64  # 127.64.x.y and up; one net for each process
_WRONG_OFFSET = 200  # third part of the addresses of devices with a wrong secret
MAX_ADDRESSES = 250
IP_BIND_ADDRESS_NO_PORT = 24
"""linux/in.h: choose the port at connect(), where one port may serve many destinations."""


class Sources:
    """An address for each device; the empty one where the system chooses."""

    __slots__ = ("_honest", "_wrong")

    def __init__(self, host: str, *, share: int, devices: int) -> None:
        """`share` is the number of the process; `host` an address, not a name."""
        count = min(MAX_ADDRESSES, 1 + devices // DEVICES_PER_ADDRESS)
        net = _FIRST_NET + share % 128
        if not _may_choose(host, net):
            self._honest = self._wrong = [""]
            return
        self._honest = [f"127.{net}.1.{1 + i}" for i in range(count)]
        self._wrong = [f"127.{net}.{_WRONG_OFFSET}.{1 + i}" for i in range(count)]

    def of(self, index: int, *, is_wrong: bool) -> str:
        """The address of device `index`. Those with a wrong secret have others than the honest, who would else be
        rationed with them: the core counts failed attempts by address."""
        addresses = self._wrong if is_wrong else self._honest
        return addresses[index % len(addresses)]


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
