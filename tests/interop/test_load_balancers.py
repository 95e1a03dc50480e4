"""HAProxy before the core: clients keep their addresses, over HTTP, HTTPS and MQTT."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.balancers import BALANCER, CLIENT, HaProxy, free_port
from tests.support.server import CoreProcess

BODY = json.dumps({"provisionDeviceKey": "nobody", "provisionDeviceSecret": "s"})
# CONNECT as `provision`, then the request by QoS 1.
CONNECT = bytes.fromhex("101800044d5154540482003c0001780009") + b"provision"
RESPONSE, REQUEST = b"/provision/response", b"/provision/request"
SUBSCRIBE = bytes((0x82, 5 + len(RESPONSE), 0, 1, 0, len(RESPONSE))) + RESPONSE + b"\1"


def publish() -> bytes:
    body = bytes((0, len(REQUEST))) + REQUEST + b"\0\2" + BODY.encode()
    return b"\x32" + bytes((len(body),)) + body


@pytest.fixture
def core(tmp_path: Path) -> Iterator[CoreProcess]:
    """HTTP as usual, MQTT behind a balancer, and the balancer trusted."""
    process = CoreProcess(
        tmp_path / "data", CLOUD_CORE__HTTP__TRUSTED_PROXIES=BALANCER, CLOUD_CORE__MQTT__PROXY_PROTOCOL="true"
    ).start()
    yield process
    process.stop()


def post(port: int, headers: dict[str, str] | None = None, context: ssl.SSLContext | None = None) -> int:
    """A provision request with a key that nobody has, from the client's own address."""
    made: Any = http.client.HTTPConnection(BALANCER, port, timeout=10, source_address=(CLIENT, 0))
    if context is not None:
        made = http.client.HTTPSConnection(BALANCER, port, timeout=10, source_address=(CLIENT, 0), context=context)
    made.request("POST", "/api/v1/provision", BODY, {"Content-Type": "application/json", **(headers or {})})
    status: int = made.getresponse().status
    made.close()
    return status


def newest_source(core: CoreProcess) -> str:
    (newest,) = core.rest.get("/api/provisioning/attempts", pageSize=1, page=0)["data"]
    return str(newest["source"])


def provision_over_mqtt(port: int) -> bytes:
    """What the core sends; empty where it refuses the connection."""
    received = b""
    try:
        with socket.create_connection((BALANCER, port), timeout=30, source_address=(CLIENT, 0)) as client:
            client.sendall(CONNECT + SUBSCRIBE + publish())
            while b"errorMsg" not in received and (data := client.recv(4096)):
                received += data
    except ConnectionError:
        pass
    return received


def test_clients_of_a_balancer_keep_their_addresses(core: CoreProcess, tmp_path: Path) -> None:
    """X-Forwarded-For over HTTP, the PROXY protocol 1 and 2 over MQTT; what a client claims itself is passed over."""
    balancer = HaProxy(
        tmp_path,
        {
            "web": ("mode http\n  option forwardfor", core.http_port, ""),
            "v1": ("mode tcp", core.mqtt_port, "send-proxy"),
            "v2": ("mode tcp", core.mqtt_port, "send-proxy-v2"),
            "bare": ("mode tcp", core.mqtt_port, ""),
        },
    )
    try:
        assert post(balancer.ports["web"], {"X-Forwarded-For": "198.51.100.1"}) == 200
        assert newest_source(core) == CLIENT
        assert post(core.http_port, {"X-Forwarded-For": "198.51.100.1"}) == 200
        assert newest_source(core) == CLIENT, "who is not trusted speaks for itself"
        for name in ("v1", "v2"):
            assert post(core.http_port) == 200
            before = core.rest.get("/api/provisioning/attempts", pageSize=1, page=0)["totalElements"]
            assert b"errorMsg" in provision_over_mqtt(balancer.ports[name])
            after = core.rest.get("/api/provisioning/attempts", pageSize=1, page=0)["totalElements"]
            assert (after - before, newest_source(core)) == (1, CLIENT)
        assert provision_over_mqtt(balancer.ports["bare"]) == b""
        assert b"errorMsg" in provision_over_mqtt(core.mqtt_port), "who is no balancer speaks for itself"
    finally:
        balancer.stop()


class BalancedCore(CoreProcess):
    """Its HTTP ports are reached by way of a balancer alone."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            data_dir, is_tls=True, CLOUD_CORE__HTTP__TRUSTED_PROXIES=BALANCER, CLOUD_CORE__HTTP__PROXY_PROTOCOL="true"
        )
        self.http_port, self.https_port = free_port(), free_port()
        self.balancer = HaProxy(
            data_dir.parent,
            {
                "http": ("mode tcp", self.http_port, "send-proxy-v2"),
                "https": ("mode tcp", self.https_port, "send-proxy"),
            },
        )

    @property
    def http(self) -> str:
        return f"http://{BALANCER}:{self.balancer.ports['http']}"


def test_http_and_tls_ports_are_behind_a_balancer(tmp_path: Path) -> None:
    """The header comes before TLS; a balancer without one is refused without an answer, a client needs none."""
    core = BalancedCore(tmp_path / "data")
    try:
        core.start()
        assert post(core.balancer.ports["http"]) == 200
        assert newest_source(core) == CLIENT
        context = ssl.create_default_context(cafile=str(core.ca_file))
        assert post(core.balancer.ports["https"], context=context) == 200
        assert newest_source(core) == CLIENT
        bare, claimed = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n", b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"
        assert answer_to(core.http_port, BALANCER, claimed + bare).startswith(b"HTTP/1.1 200")
        assert answer_to(core.http_port, BALANCER, bare) == b""
        assert answer_to(core.http_port, CLIENT, bare).startswith(b"HTTP/1.1 200")
        assert answer_to(core.http_port, CLIENT, claimed + bare).startswith(b"HTTP/1.1 400")
        assert "header of the PROXY protocol" in core.log.read_text()
    finally:
        core.balancer.stop()
        core.stop()


def answer_to(port: int, source: str, data: bytes) -> bytes:
    try:
        with socket.create_connection((BALANCER, port), timeout=30, source_address=(source, 0)) as client:
            client.sendall(data)
            return client.recv(4096)
    except ConnectionError:
        return b""
