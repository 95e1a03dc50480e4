"""Looks around on the site: serial ports, and devices on the local network."""

from __future__ import annotations

import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

PORTS = {502: "modbus", 4840: "opcua"}  # what a look at the network may try
PARALLEL = 64
ANSWER_S = 0.5
MAX_HOSTS = 256


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """`kind` is the connector that fits, `connect` what its table says."""

    kind: str
    connect: str
    text: str


def local_network(towards: str) -> ipaddress.IPv4Network | None:
    """The /24 around this machine's own address on the way to `towards`; None where that is no private one."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((towards, 9))  # of UDP: nothing is sent
            own = ipaddress.ip_address(probe.getsockname()[0])
    except (OSError, UnicodeError):
        return None
    if own.is_loopback or not own.is_private or own.is_link_local:
        return None
    return ipaddress.IPv4Network(f"{own}/24", strict=False)


def scan(network: ipaddress.IPv4Network) -> list[Found]:
    """Tries the ports of `PORTS` on each address, each once and briefly. Blocks for some seconds.

    Raises: ValueError when the network has more than 256 addresses.
    """
    if network.num_addresses > MAX_HOSTS:
        raise ValueError(f"{network} has more than {MAX_HOSTS} addresses; give a smaller one, such as 10.0.0.0/24")
    places = [(str(host), port) for host in network.hosts() for port in PORTS]
    with ThreadPoolExecutor(PARALLEL) as workers:
        return sorted(one for one in workers.map(_look, places) if one is not None)


def _look(place: tuple[str, int]) -> Found | None:
    host, port = place
    try:
        socket.create_connection(place, ANSWER_S).close()
    except OSError:
        return None
    if PORTS[port] == "modbus":
        return Found("modbus", f"tcp://{host}:{port}", f"Modbus TCP at {host}:{port}")
    return Found("opcua", f"opc.tcp://{host}:{port}", f"OPC UA at {host}:{port}")


def serial_ports() -> list[Found]:
    """Ports that something is plugged into; the built-in ones that no hardware description is known for are left
    out."""
    from serial.tools import list_ports

    return [
        Found("modbus", f"serial://{port.device}?baud=19200&parity=E", f"{port.device} ({port.description})")
        for port in list_ports.comports()
        if port.vid is not None or (port.description and port.description != "n/a")
    ]
