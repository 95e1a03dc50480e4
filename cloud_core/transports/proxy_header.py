"""The header of the PROXY protocol, which TCP load balancers send before a client's first byte. Pure.

Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, versions 1 (text) and 2 (binary).
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

MAX_HEADER_BYTES = 4_096  # of version 2, whose addresses may be followed by anything
_MAX_LINE_BYTES = 107  # of version 1, with the line's end
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1 = b"PROXY "
_FIXED_BYTES = 16
_LOCAL, _PROXY = 0x20, 0x21  # version 2 and command
_UNKNOWN, _UNIX = 0x00, 0x31
_ADDRESS_BYTES = {0x11: 4, 0x21: 16}  # TCP over IPv4, over IPv6
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")


class ProxyHeaderFault(Exception):
    """What came is no header that can be used; `str()` says why."""


class Source(NamedTuple):
    """Whom a connection is for."""

    host: str
    port: int


class ProxyHeader(NamedTuple):
    """`source` is None where the load balancer speaks for itself, or does not say; `length` in bytes."""

    source: Source | None
    length: int


def read_header(data: bytes) -> ProxyHeader | None:
    """The header at the start of what was received; None where it is not complete. Raises: ProxyHeaderFault."""
    if data.startswith(_SIGNATURE):
        return _read_v2(data)
    if data.startswith(_V1):
        return _read_v1(data)
    if _SIGNATURE.startswith(data) or _V1.startswith(data):
        return None
    raise ProxyHeaderFault("it does not begin with a header of the PROXY protocol")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _MAX_LINE_BYTES)
    if end < 0:
        if len(data) >= _MAX_LINE_BYTES:
            raise ProxyHeaderFault("the line of its header is too long")
        return None
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(None, end + 2)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6") or not all(map(_is_port, words[4:])):
        raise ProxyHeaderFault("the line of its header cannot be understood")
    kind = IPv4Address if words[1] == b"TCP4" else IPv6Address
    try:
        source, _ = (kind(word.decode("latin-1")) for word in words[2:4])
    except AddressValueError as error:
        raise ProxyHeaderFault("the line of its header has no valid addresses") from error
    return ProxyHeader(Source(_plain(source), int(words[4])), end + 2)


def _is_port(word: bytes) -> bool:
    return _PORT.fullmatch(word) is not None and int(word) <= 65_535


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _FIXED_BYTES:
        return None
    command, family = data[12], data[13]
    length = _FIXED_BYTES + int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderFault(f"its header has the unknown version and command 0x{command:02x}")
    if length > MAX_HEADER_BYTES:
        raise ProxyHeaderFault(f"its header has more than {MAX_HEADER_BYTES} bytes")
    if len(data) < length:
        return None
    if command == _LOCAL or family in (_UNKNOWN, _UNIX):
        return ProxyHeader(None, length)
    size = _ADDRESS_BYTES.get(family)
    if size is None:
        raise ProxyHeaderFault(f"its header is not for TCP (address family 0x{family:02x})")
    if length < _FIXED_BYTES + 2 * size + 4:
        raise ProxyHeaderFault("its header is too short for its addresses")
    packed = data[_FIXED_BYTES : _FIXED_BYTES + size]
    port = int.from_bytes(data[_FIXED_BYTES + 2 * size :][:2])
    return ProxyHeader(Source(_plain(IPv4Address(packed) if size == 4 else IPv6Address(packed)), port), length)


def _plain(address: IPv4Address | IPv6Address) -> str:
    """An IPv4 address that is written as IPv6 is the IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
