"""Headers of the PROXY protocol, versions 1 and 2: whole, in pieces, broken."""

from __future__ import annotations

import contextlib
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_core.transports.proxy_header import MAX_HEADER_BYTES, ProxyHeader, ProxyHeaderFault, Source, read_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REST = b"\x10\x0c behind"


def v2(source: str, port: int, *, command: int = 0x21, family: int | None = None, more: bytes = b"") -> bytes:
    packed = ipaddress.ip_address(source).packed
    kind = family if family is not None else {4: 0x11, 16: 0x21}[len(packed)]
    body = packed + bytes(len(packed)) + struct.pack("!HH", port, 1883) + more
    return SIGNATURE + bytes((command, kind)) + struct.pack("!H", len(body)) + body


V1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 1883\r\n"
GOOD = [
    (V1, Source("203.0.113.7", 4711)),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 65535 0\r\n", Source("2001:db8::7", 65535)),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", Source("203.0.113.7", 1)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN what ever\r\n", None),
    (v2("203.0.113.7", 4711), Source("203.0.113.7", 4711)),
    (v2("2001:db8::7", 1, more=b"\x04\0\x03abc"), Source("2001:db8::7", 1)),
    (v2("::ffff:203.0.113.7", 1), Source("203.0.113.7", 1)),
    (v2("203.0.113.7", 1, command=0x20), None),  # the balancer's own check
    (v2("203.0.113.7", 1, family=0), None),
    (SIGNATURE + b"\x20\0\0\0", None),
    (SIGNATURE + b"\x21\x31" + struct.pack("!H", 216) + bytes(216), None),  # of a socket file
]


@pytest.mark.parametrize(("header", "source"), GOOD)
def test_a_header_says_whom_the_connection_is_for(header: bytes, source: Source | None) -> None:
    """However it is cut into pieces, and with what stands behind it left alone."""
    assert read_header(header + REST) == ProxyHeader(source, len(header))
    assert {read_header(header[:end]) for end in range(len(header))} == {None}


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n", b"\x10\x0c\0\x04MQTT", b"\x16\x03\x01", b"PROXX", b"\r\n\r\n\1", b"proxy tcp4",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n", b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 70000\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 04711 1\r\n", b"PROXY TCP4 203.0.113.777 192.0.2.1 1 1\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 1\r\n", b"PROXY TCP6 203.0.113.7 192.0.2.1 1 1\r\n",
        b"PROXY UDP4 203.0.113.7 192.0.2.1 1 1\r\n", b"PROXY  \r\n", b"PROXY TCP4 \xff 192.0.2.1 1 1\r\n",
        b"PROXY " + b"x" * 200, V1.replace(b" 1883\r\n", b" 1883" + b" " * 80 + b"\r\n"),
        v2("203.0.113.7", 1, command=0x22), v2("203.0.113.7", 1, command=0x11), v2("203.0.113.7", 1, family=0x12),
        v2("203.0.113.7", 1, family=0x21), SIGNATURE + b"\x21\x11\0\x04abcd",
        SIGNATURE + b"\x21\x11" + struct.pack("!H", MAX_HEADER_BYTES),
    ],
)  # fmt: skip
def test_what_is_no_header_is_refused(data: bytes) -> None:
    """At once, or when as much has come as shows it; nothing grows without bound."""
    with pytest.raises(ProxyHeaderFault):
        read_header(data)


@given(st.binary(max_size=300), st.sampled_from([b"", SIGNATURE, b"PROXY ", SIGNATURE + b"\x21\x11"]))
def test_no_bytes_break_the_reader(data: bytes, start: bytes) -> None:
    """A header, more to come, or a refusal: nothing else."""
    with contextlib.suppress(ProxyHeaderFault):
        header = read_header(start + data)
        assert header is None or 0 < header.length <= len(start + data)
