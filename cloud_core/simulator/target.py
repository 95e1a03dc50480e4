"""Whom a run loads: addresses and ports, and the question whether that is this network's own machine."""

from __future__ import annotations

import ipaddress
import socket


class TargetRefused(Exception):
    """Not to be loaded, or not to be found; `str()` is a sentence with the fix."""


def address_of(host: str, *, is_allowed: bool) -> str:
    """The address of `host`, an IPv4 one where it has both; every one must be private unless `is_allowed`.

    Raises: TargetRefused.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TargetRefused(f"The host '{host}' cannot be found; name the core's host with --host.") from error
    addresses = sorted({str(one[4][0]) for one in found}, key=lambda text: (":" in text, text))
    for address in addresses:
        if not is_allowed and not is_private(address):
            raise TargetRefused(
                f"{host} ({address}) is no address of this machine or of a private network, and thousands of devices"
                " would load it. If it is yours: --yes-load-that-host."
            )
    return addresses[0]


def is_private(address: str) -> bool:
    """Loopback, link-local, or of the ranges of RFC 1918 and RFC 4193."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in net for net in _PRIVATE if net.version == found.version)


_PRIVATE = [
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
        "::1/128", "fc00::/7", "fe80::/10",
    )
]  # fmt: skip
