"""`/metrics` and `/health`, over the real listener."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address

from cloud_core.transports.http.rest.observing_routes import ObservingRoutes
from tests.support.api import ApiUnderTest
from tests.support.http import HttpPeer
from tests.support.metrics import parsed
from tests.support.stores import StoreUnderTest


@pytest.fixture
def peer(store: StoreUnderTest) -> Iterator[HttpPeer]:
    store.add_profile()
    api = ApiUnderTest(store, call_later=lambda *_: None)
    yield HttpPeer(api)


def routes(peer: HttpPeer) -> Any:
    return peer.service._site.resource.routes._observing_routes


def get(
    peer: HttpPeer, path: str, headers: str = "", *, source: str = "127.0.0.1"
) -> tuple[int, dict[str, str], bytes]:
    peer.transport.peerAddr = IPv4Address("TCP", source, 50_000)
    peer.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n".encode())
    ((status, found, body),) = peer.responses()
    return status, found, body


def test_a_core_whose_fabric_is_away_is_ready_and_says_so(peer: HttpPeer) -> None:
    """A load balancer goes on asking it; people see what is missing."""
    health = peer.api.api.health
    health.checks = []
    health.degradations = [lambda: "FABRIC"]
    status, _, body = get(peer, "/health/ready")
    assert (status, json.loads(body)) == (200, {"status": "ready", "degraded": ["FABRIC"]})


def test_metrics_are_prometheus_text_for_this_machine(peer: HttpPeer) -> None:
    """A local scraper gets the text, with what has been counted so far."""
    peer.api.provision(device_name="d-1")
    status, headers, body = get(peer, "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    attempt = (("outcome", "SUCCESS"), ("stage", "stored"), ("transport", "http"))
    assert parsed(body.decode())["muster_provision_attempts_total", attempt] == 1


@pytest.mark.parametrize("source", ["::1", "::ffff:127.0.0.1", "127.9.9.9"])
def test_every_loopback_address_is_this_machine(peer: HttpPeer, source: str) -> None:
    """Addresses of the loopback network count, mapped ones too."""
    assert get(peer, "/metrics", source=source)[0] == 200


def test_metrics_are_not_for_other_machines_without_a_token(peer: HttpPeer) -> None:
    """Another machine is refused, and so is one behind a proxy on this machine."""
    assert get(peer, "/metrics", source="192.0.2.7")[0] == 403
    for said in (
        "X-Forwarded-For: 192.0.2.7",
        "X-Forwarded-Host: core.example",
        "X-Forwarded-Proto: https",
        "Via: 1.1 p",
    ):
        assert get(peer, "/metrics", f"{said}\r\n")[0] == 403


def test_with_a_token_metrics_are_for_whoever_shows_it(peer: HttpPeer) -> None:
    """Then the token alone counts, from anywhere, and this machine needs it as well."""
    routes(peer)._token = b"scrape-me"
    assert get(peer, "/metrics")[0] == 401
    assert get(peer, "/metrics", "Authorization: Bearer wrong\r\n")[0] == 401
    assert get(peer, "/metrics", "Authorization: Bearer scrape-me\r\n", source="192.0.2.7")[0] == 200


def test_live_says_that_the_reactor_turns(peer: HttpPeer) -> None:
    """Liveness asks nothing but that somebody answers."""
    status, _, body = get(peer, "/health/live", source="192.0.2.7")
    assert (status, json.loads(body)) == (200, {"status": "live"})


def test_ready_says_what_is_wrong_by_fixed_words(peer: HttpPeer) -> None:
    """503 with the words while something is wrong; 200 when the checks and the store agree."""
    health = peer.api.api.health
    status, headers, body = get(peer, "/health/ready")
    assert (status, headers["retry-after"]) == (503, "1")
    assert json.loads(body) == {"status": "not ready", "reasons": ["STARTING"]}
    health.checks = []
    status, _, body = get(peer, "/health/ready")
    assert (status, json.loads(body)) == (200, {"status": "ready"})


def test_refused_requests_and_logins_are_counted(peer: HttpPeer) -> None:
    """A token that nobody has counts as a failed login and as a refused request."""
    peer.post("/api/v1/nobody/telemetry", b'{"a":1}')
    peer.responses()
    found = parsed(get(peer, "/metrics")[2].decode())
    assert found["muster_logins_total", (("outcome", "NOT_AUTHENTICATED"), ("transport", "http"))] == 1
    assert found["muster_refused_total", (("reason", "NOT_AUTHENTICATED"), ("transport", "http"))] == 1


def test_telemetry_is_counted_by_message_and_value(peer: HttpPeer) -> None:
    """Two messages with three values between them."""
    token = peer.api.provision(device_name="d-1").credentials.token
    peer.post(f"/api/v1/{token}/telemetry", b'{"a":1,"b":2}')
    peer.post(f"/api/v1/{token}/telemetry", b'{"a":1}')
    peer.responses()
    found = parsed(get(peer, "/metrics")[2].decode())
    assert found["muster_messages_total", (("kind", "telemetry"), ("transport", "http"))] == 2
    assert found["muster_data_points_total", (("transport", "http"),)] == 3


def test_the_routes_are_one_class() -> None:
    """Whoever mounts them gets all three."""
    assert {str(rule) for rule in ObservingRoutes.app.url_map.iter_rules()} == {
        "/metrics", "/health/live", "/health/ready",
    }  # fmt: skip
