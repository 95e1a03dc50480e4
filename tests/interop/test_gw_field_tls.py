"""TLS on the field side: listeners with a certificate, and clients that trust it or not."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.server as http_server
import ipaddress
import socket
import ssl
import threading
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_gateway.connectors import http, mqtt
from edge_gateway.connectors.mqtt import listener as mqtt_listener
from edge_gateway.model import Health
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_sites import FakeSite, until


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate of its own for 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = {"certificate": str(folder / "c.pem"), "private_key": str(folder / "k.pem")}
    Path(paths["certificate"]).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    Path(paths["private_key"]).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@contextlib.asynccontextmanager
async def running(kind: Any, site: FakeSite, **settings: Any) -> AsyncIterator[Any]:
    connector = kind.build(msgspec.convert({"name": site.name} | settings, kind.settings), site)
    task = asyncio.ensure_future(connector.run())
    try:
        await until(lambda: getattr(connector, "port", 1) or task.done())
        yield connector
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


FEED = {"topic": "{device}/t", "device": "{device}", "telemetry": ["$.t -> t"]}


@asyncio_test
async def test_mqtt_over_tls_is_trusted_by_its_authority(files: dict[str, str]) -> None:
    """Both connectors speak TLS to each other; without `ca_file` the client says what to set."""
    broker_map = FEED | {"shared": {"publish": "{device}/{key}"}}
    table = {"listen": "127.0.0.1:0", "anonymous": True, "map": [broker_map], **files}
    async with running(mqtt.KINDS[0], FakeSite("far"), **table) as broker:
        near, doubtful = FakeSite("near"), FakeSite("doubtful")
        address = {"connect": f"mqtts://127.0.0.1:{broker.port}", "map": [FEED]}
        async with (
            running(mqtt.KINDS[0], near, **address, ca_file=files["certificate"]),
            running(mqtt.KINDS[0], doubtful, **address),
        ):
            await until(lambda: near.healths and near.healths[-1][0] is Health.HEALTHY)
            await broker.attributes_changed("a", {"t": {"t": 1}}, [])
            await until(lambda: near.readings)
            await until(lambda: doubtful.healths)
    assert near.values() == [("a", {"t": 1})]
    assert "not trusted" in doubtful.healths[0][1] and "set ca_file" in doubtful.healths[0][1]


@asyncio_test
async def test_who_begins_no_handshake_is_hung_up_on(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And at the end of the connector nobody is kept: a connection that says nothing costs a socket for a moment."""
    monkeypatch.setattr(mqtt_listener, "HANDSHAKE_S", 0.1)
    table = {"listen": "127.0.0.1:0", "anonymous": True, "map": [FEED], **files}
    async with running(mqtt.KINDS[0], FakeSite("far"), **table) as broker:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


@pytest.mark.parametrize(("trust", "is_fine"), [("ca_file", True), ("insecure", True), ("", False)])
@asyncio_test
async def test_https_is_polled_as_it_is_trusted(trust: str, is_fine: bool, files: dict[str, str]) -> None:
    """By `ca_file`, by nobody with `insecure`, and otherwise not."""
    table = {"listen": "127.0.0.1:0", "anonymous": True, "map": [{"path": "/in/{device}"}], **files}
    table["map"][0]["telemetry"] = ["$.* -> {key}"]
    settings: dict[str, Any] = {"ca_file": files["certificate"]} if trust == "ca_file" else {}
    settings |= {"insecure": True} if trust == "insecure" else {}
    async with running(http.KINDS[0], FakeSite("far"), **table) as listener:
        await listener.attributes_changed("a", {"t": 5}, [])
        near = FakeSite("near")
        url = f"https://127.0.0.1:{listener.port}/in/a/attributes"
        polled = {"url": url, "device": "a", "every": 30, "telemetry": ["$.t -> t"]}
        async with running(http.KINDS[0], near, map=[polled], **settings):
            await until(lambda: near.readings or any(one[0] is Health.DEGRADED for one in near.healths))
    assert near.values() == ([("a", {"t": 5})] if is_fine else [])


def test_a_running_gateway_speaks_https_on_both_sides(files: dict[str, str], tmp_path: Path) -> None:
    """Its reactor starts without OpenSSL; connectors bring it when a table asks for it."""
    asked = threading.Event()

    class Sensor(http_server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            self.send_error(404)

    sensor = http_server.HTTPServer(("127.0.0.1", 0), Sensor)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate"], files["private_key"])
    sensor.socket = context.wrap_socket(sensor.socket, server_side=True)
    threading.Thread(target=sensor.serve_forever, daemon=True).start()
    port = free_port()
    text = HTTPS.format(port=port, sensor=sensor.server_port, **files)
    gateway = GatewayProcess(tmp_path / "gateway", text).start()
    try:
        assert post(f"https://127.0.0.1:{port}/in/a", b'{"t": 1}', files["certificate"]) == 200
        assert asked.wait(10), gateway.log.read_text()
    finally:
        sensor.shutdown()
        assert gateway.stop() == 0


def post(url: str, body: bytes, ca_file: str) -> int:
    """The status. A gateway that is ready listens."""
    context = ssl.create_default_context(cafile=ca_file)
    request = urllib.request.Request(url, data=body, method="POST")
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        status: int = answer.status
        return status


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number: int = taken.getsockname()[1]
    return number


HTTPS = """
[core]
url = "mqtt://127.0.0.1:1"
token = "T"
[local]
enabled = false
[[http]]
name = "far"
listen = "127.0.0.1:{port}"
anonymous = true
certificate = "{certificate}"
private_key = "{private_key}"
[[http.map]]
path = "/in/{{device}}"
telemetry = ["$.* -> {{key}}"]
[[http]]
name = "near"
ca_file = "{certificate}"
[[http.map]]
url = "https://127.0.0.1:{sensor}/nowhere"
device = "b"
every = 0.5
telemetry = ["$.t -> t"]
"""
