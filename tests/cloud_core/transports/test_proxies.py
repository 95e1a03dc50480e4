"""Whom a reverse proxy speaks for, by its headers (RFC 7239)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_core.transports.proxies import MAX_HOPS, TrustedProxies, is_https

PROXY = "10.0.0.1"
TRUSTED = TrustedProxies(["10.0.0.0/8", "192.0.2.9", "fd00::/8"])


def client(x_forwarded_for: str | None = None, forwarded: str | None = None) -> str:
    return TRUSTED.client_of(
        PROXY,
        [one.encode("latin-1") for one in (x_forwarded_for or "").split("|") if x_forwarded_for is not None],
        [one.encode("latin-1") for one in (forwarded or "").split("|") if forwarded is not None],
    )


@pytest.mark.parametrize(
    ("host", "is_covered"),
    [
        ("10.255.0.3", True), ("192.0.2.9", True), ("192.0.2.8", False), ("::ffff:10.0.0.1", True), ("fd12::1", True),
        ("fe80::1%eth0", False), ("", False), ("proxy.example", False),
    ],
)  # fmt: skip
def test_addresses_and_networks_are_trusted(host: str, is_covered: bool) -> None:
    """IPv4 that is written as IPv6 is IPv4; what is no address is not trusted."""
    assert TRUSTED.covers(host) is is_covered
    assert TrustedProxies().covers(host) is False


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("1.1.1.1, 203.0.113.7", "203.0.113.7"),  # the first one is the client's own invention
        ("203.0.113.7, 10.2.2.2", "203.0.113.7"),
        ("1.1.1.1 ,203.0.113.7,192.0.2.9 , 10.2.2.2", "203.0.113.7"),
        ("1.1.1.1|203.0.113.7|10.2.2.2", "203.0.113.7"),  # several headers
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:DB8::7]:4711", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("10.3.3.3, 10.2.2.2", "10.3.3.3"),  # a client within the trusted network
        ("", PROXY), ("unknown", PROXY), ("203.0.113", PROXY), ("203.0.113.7.", PROXY), ("0x7f.1", PROXY),
        ("localhost", PROXY), ("1.1.1.1, unknown", PROXY), ("1.1.1.1,", PROXY), ("\xff\xfe", PROXY),
        ("1.1.1.1, unknown, 10.2.2.2", "10.2.2.2"),  # what stands before garbage is not believed
        ("1.1.1.1" + ", 10.2.2.2" * MAX_HOPS, "10.2.2.2"),
    ],
)  # fmt: skip
def test_the_last_address_that_is_no_proxys_is_the_clients(header: str, expected: str) -> None:
    """Of X-Forwarded-For; garbage ends what can be believed."""
    assert client(header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("for=203.0.113.7", "203.0.113.7"),
        ('For="203.0.113.7:4711";proto=https;by=10.0.0.1', "203.0.113.7"),
        ('for="[2001:db8::7]:4711"', "2001:db8::7"),
        ("for=1.1.1.1, for=203.0.113.7;proto=http, for=10.2.2.2", "203.0.113.7"),
        ("for=1.1.1.1|for=203.0.113.7", "203.0.113.7"),
        ('host="x;for=1.1.1.1,for=2.2.2.2";for=203.0.113.7', "203.0.113.7"),  # within quotes
        (r'host="a\"b";for=203.0.113.7', "203.0.113.7"),
        ('for="1.1.1.1|for=203.0.113.7', "203.0.113.7"),  # a broken header before a good one
        ("for=_hidden", PROXY), ("for=unknown", PROXY), ("proto=https", PROXY), ("203.0.113.7", PROXY),
        ('for="203.0.113.7', PROXY), ("for=1.1.1.1 2.2.2.2", PROXY), ("", PROXY), (";;,;", PROXY),
    ],
)  # fmt: skip
def test_the_standard_header_is_read_alike(header: str, expected: str) -> None:
    assert client(forwarded=header) == expected


def test_of_two_headers_that_differ_neither_is_believed() -> None:
    """A proxy that writes one hands on the other as the client sent it."""
    assert client("203.0.113.7", "for=203.0.113.7") == "203.0.113.7"
    assert client("203.0.113.7", "for=1.1.1.1") == PROXY


@pytest.mark.parametrize(
    ("header", "expected"),
    [(b"https", True), (b"HTTPS", True), (b"https, http", True), (b"http", False), (b"", False), (None, False)],
)
def test_a_proxy_says_that_its_client_speaks_tls(header: bytes | None, expected: bool) -> None:
    assert is_https(header) is expected


@given(invented=st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60))
def test_what_a_client_sends_never_chooses_its_address(invented: str) -> None:
    """Whatever stands before what the proxy adds."""
    assert client(f"{invented}, 203.0.113.7") == "203.0.113.7"
    assert client(forwarded=f"{invented}, for=203.0.113.7") in ("203.0.113.7", PROXY)


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="proxy"):
        TrustedProxies(["proxy.example"])
