"""The token of the core's own machine over HTTP: whose address counts, and who hands on for others."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address

from tests.support.rest import Rest, without_threads
from tests.support.stores import TENANT, StoreUnderTest

PATHS = ("/api/customers?pageSize=1&page=0", "/api/tenant/devices?pageSize=1&page=0", "/api/gateways?pageSize=1&page=0")


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Rest:
    without_threads(monkeypatch)
    return Rest(sqlite_store)


def statuses(rest: Rest, token: str, address: str, extra: str = "") -> set[int]:
    """Of several routes, on a connection from this address."""
    peer: Any = rest.another_caller()
    peer.transport.peerAddr = IPv4Address("TCP", address, 40_000)
    found = set()
    for path in PATHS:
        peer.send(f"GET {path} HTTP/1.1\r\nHost: h\r\nX-Authorization: Bearer {token}\r\n{extra}\r\n".encode())
        found |= {status for status, _, _ in peer.responses()}
    return found


def test_the_token_is_good_from_loopback_alone(rest: Rest) -> None:
    """From the network the right token is as wrong as any, and a header that claims loopback changes nothing."""
    admin = rest.service._site.resource.routes._admin
    token = admin.local_access.open(TENANT)
    assert statuses(rest, token, "127.0.0.1") == {200}
    assert statuses(rest, token, "192.0.2.7") == {401}
    assert statuses(rest, token, "192.0.2.7", "X-Forwarded-For: 127.0.0.1\r\n") == {401}
    assert statuses(rest, token, "127.0.0.1", "X-Forwarded-For: 192.0.2.7\r\n") == {401}
    assert statuses(rest, token, "127.0.0.1", "Forwarded: for=192.0.2.7\r\n") == {401}
    assert statuses(rest, "local-guess", "127.0.0.1") == {401}


def test_the_token_ends_with_the_core(rest: Rest) -> None:
    """And an administrator's login goes on beside it."""
    admin = rest.service._site.resource.routes._admin
    token = admin.local_access.open(TENANT)
    assert statuses(rest, rest.caller, "192.0.2.7") == {200}
    admin.local_access.close()
    assert statuses(rest, token, "127.0.0.1") == {401}
    assert statuses(rest, rest.caller, "192.0.2.7") == {200}
