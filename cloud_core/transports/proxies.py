"""Who is behind a reverse proxy: only what trusted ones say is believed.

A header can be sent by anybody, and a proxy adds to what it was sent. So the list is read from its end: there stands
what the nearest proxy says, then what those before it said, as long as all of them are trusted. The first address that
is none of a trusted proxy is the client's. What stands before it may be made up.

Sources: RFC 7239 (Forwarded); X-Forwarded-For as proxies write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

MAX_HOPS = 20  # proxies in a row that are looked at
FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO = b"forwarded", b"x-forwarded-for", b"x-forwarded-proto"
FORWARDING = (FORWARDED, X_FORWARDED_FOR)

_PAIR = re.compile(r"\s*(?:([A-Za-z-]+)=(\"(?:[^\"\\]|\\.)*\"|[^\s\";,]*)\s*)?([;,]|$)")
_NODE = re.compile(
    r"\[([0-9A-Fa-f:.]+)\](?::[0-9A-Za-z._-]{1,20})?|([0-9.]+)(?::[0-9A-Za-z._-]{1,20})?|([0-9A-Fa-f:.]+)"
)


class TrustedProxies:
    """Addresses and networks, such as `10.0.0.0/8`; empty: nobody is believed."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Raises: ValueError."""
        self._networks = tuple(ip_network(one, strict=False) for one in networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def covers(self, host: str) -> bool:
        """Whether this address is one of a trusted proxy."""
        if not self._networks:
            return False
        address = _address(host)
        return address is not None and any(address in one for one in self._networks)

    def client_of(self, proxy: str, forwarded_for: Sequence[bytes], forwarded: Sequence[bytes]) -> str:
        """The address of whom a trusted proxy speaks for; its own where it says nothing that can be understood.

        The values of all headers `X-Forwarded-For` and all `Forwarded`, in their order. A proxy that writes one of the
        two hands on the other as a client has made it up: where both say something and differ, neither is believed.
        """
        found = {
            self._first_untrusted(proxy, hops)
            for hops in (_split_hops(forwarded_for), _forwarded_hops(forwarded))
            if hops
        }
        return found.pop() if len(found) == 1 else proxy

    def _first_untrusted(self, proxy: str, hops: Sequence[str]) -> str:
        """From the end; garbage ends what can be believed."""
        client = proxy
        for hop in hops[: -MAX_HOPS - 1 : -1]:
            address = _node(hop)
            if address is None:
                break
            client = str(address)
            if not self.covers(client):
                break
        return client


def is_https(x_forwarded_proto: bytes | None) -> bool:
    """Whether a proxy says that its client speaks TLS with it."""
    return (x_forwarded_proto or b"").partition(b",")[0].strip().lower() == b"https"


def _split_hops(values: Sequence[bytes]) -> list[str]:
    return b",".join(values).decode("latin-1").split(",") if values else []


def _forwarded_hops(values: Sequence[bytes]) -> list[str]:
    """The `for` of each element, empty where it has none; of a header that is not written as the RFC has it, too."""
    return [hop for value in values for hop in _elements(value.decode("latin-1"))]


def _elements(text: str) -> list[str]:
    hops, node, at = [], "", 0
    while True:
        pair = _PAIR.match(text, at)
        if pair is None:
            return [""]
        name, value, mark = pair.groups()
        if name is not None and name.lower() == "for":
            node = value.strip('"')
        at = pair.end()
        if mark != ";":
            hops.append(node)
            node = ""
        if not mark:
            return hops


def _node(text: str) -> IPv4Address | IPv6Address | None:
    """Of `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7`, `[2001:db8::7]:4711`; None for all else."""
    found = _NODE.fullmatch(text.strip())
    return _address(next(one for one in found.groups() if one)) if found is not None else None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An IPv4 address that is written as IPv6 is the IPv4 address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
