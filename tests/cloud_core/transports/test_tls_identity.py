"""Client certificates as identity: MQTT by CONNECT, HTTP by paths without a token; real TLS, no sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloud_core.model import Identity, Peer, PresentedChain, Role, Transport
from shared.errors import (
    InvalidDeviceName,
    NotAuthenticated,
    PlatformError,
    RateLimited,
    Unavailable,
    UntrustedCertificate,
)
from shared.mqtt.codec import Decoder, encode
from shared.mqtt.codes import Property
from shared.mqtt.packets import Connect, Publish
from tests.support.api import ApiUnderTest
from tests.support.http import HttpServer
from tests.support.mqtt import MqttServer, server_with_device
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.tls import CertificatesFake, Site, TlsClient, TlsListener

# -- MQTT -----------------------------------------------------------------------------------------


class SecureMqtt:
    """An MQTT service behind TLS; the device `dev` is known by the site's device certificate."""

    def __init__(self, server: MqttServer, site: Site) -> None:
        self.server = server
        self.site = site
        self.certificates = CertificatesFake()
        self.identity = Identity(Role.DEVICE, tenant_id=1, device_id=server.device_id(), device_name="dev")
        api: Any = server.api.api
        api.certificates = self.certificates
        self.listener = TlsListener(site.tls, server.service, clock=server.clock)

    def connect(self, leaf: Any, version: int = 4, **members: Any) -> TlsClient:
        client = TlsClient(self.listener, leaf).shake_hands()
        packet = Connect(**({"client_id": "c", "version": version} | members))
        client.send(encode(packet, version))
        self.server.settle()
        client.to_client()
        return client

    def answers(self, client: TlsClient, version: int = 4) -> list[Any]:
        decoder = Decoder(70_000)
        decoder.version = version
        self.server.settle()
        client.to_client()
        data, client.data = client.data, b""
        return list(decoder.feed(data))

    def refused(self, error: PlatformError, version: int = 4, **members: Any) -> Any:
        """The CONNACK of a certificate that is refused with `error`."""
        self.certificates.outcome = error
        (answer,) = self.answers(self.connect(self.site.device, version, **members), version)
        return answer


@pytest.fixture
def mqtt(sqlite_store: StoreUnderTest, tmp_path: Path) -> SecureMqtt:
    return SecureMqtt(server_with_device(sqlite_store), Site(tmp_path))


def test_a_certificate_logs_in_whatever_user_name_says(mqtt: SecureMqtt) -> None:
    """User name and password do not count beside it."""
    mqtt.certificates.outcome = mqtt.identity
    client = mqtt.connect(mqtt.site.device, user_name="nonsense", password=b"wrong")
    assert mqtt.answers(client)[0].reason_code == 0
    client.send(encode(Publish("v1/devices/me/telemetry", b'{"t":1}', 1, 7), 4))
    assert mqtt.answers(client)[0].packet_id == 7


def test_a_certificate_is_asked_for_with_its_chain(mqtt: SecureMqtt) -> None:
    """And whence it comes."""
    mqtt.certificates.outcome = mqtt.identity
    client = mqtt.connect(mqtt.site.device)
    assert mqtt.answers(client)[0].reason_code == 0
    peer = Peer(Transport.MQTT, client.wire.getPeer().host)
    assert mqtt.certificates.asked == [(mqtt.site.device.presented, peer)]


def test_a_token_is_no_way_in_beside_a_refused_certificate(mqtt: SecureMqtt) -> None:
    """No fall-back."""
    assert mqtt.refused(NotAuthenticated(), user_name="tok").reason_code == 5


def test_without_a_certificate_a_token_opens_the_door_as_ever(mqtt: SecureMqtt) -> None:
    client = mqtt.connect(None, user_name="tok")
    assert mqtt.answers(client)[0].reason_code == 0
    assert mqtt.certificates.asked == []


@pytest.mark.parametrize("members", [{"user_name": "provision"}, {"client_id": "provision"}])
def test_provision_comes_before_the_certificate(mqtt: SecureMqtt, members: dict[str, Any]) -> None:
    """Such a session never asks for it."""
    client = mqtt.connect(mqtt.site.device, **members)
    assert mqtt.answers(client)[0].reason_code == 0
    assert (mqtt.certificates.known_asked, mqtt.certificates.asked) == (0, [])


def test_a_handshake_alone_has_no_effect(mqtt: SecureMqtt) -> None:
    """No device, no line in the log of attempts: nobody is asked."""
    client = TlsClient(mqtt.listener, mqtt.site.device).shake_hands()
    client.close()
    mqtt.server.settle()
    assert (mqtt.certificates.known_asked, mqtt.certificates.asked) == (0, [])


@pytest.mark.parametrize(
    ("error", "v3", "v5"),
    [
        (NotAuthenticated(), 5, 0x87),
        (UntrustedCertificate("expired"), 5, 0x87),
        (InvalidDeviceName(), 5, 0x87),
        (Unavailable(), 3, 0x88),
        (RateLimited(), 3, 0x9F),
    ],
)
def test_each_refusal_has_its_code(mqtt: SecureMqtt, error: PlatformError, v3: int, v5: int) -> None:
    assert mqtt.refused(error).reason_code == v3
    assert mqtt.refused(error, 5).reason_code == v5


def test_mqtt_5_says_why_a_certificate_is_refused(mqtt: SecureMqtt) -> None:
    """With the reference that finds the attempt in the provisioning log."""
    error = UntrustedCertificate("the certificate of sensor-1 has expired")
    error.ref = "r-17"
    answer = mqtt.refused(error, 5)
    assert answer.properties[Property.REASON_STRING] == "the certificate of sensor-1 has expired (ref r-17)"


def test_the_reason_is_left_out_where_the_client_takes_no_such_packet(mqtt: SecureMqtt) -> None:
    """The code is not [MQTT-3.2.2-19]."""
    answer = mqtt.refused(UntrustedCertificate("x" * 100), 5, properties={Property.MAXIMUM_PACKET_SIZE: 50})
    assert (answer.reason_code, answer.properties) == (0x87, None)


def test_a_wrong_token_is_refused_without_a_word_more(mqtt: SecureMqtt) -> None:
    """Whoever guesses learns nothing."""
    (answer,) = mqtt.answers(mqtt.connect(None, 5, user_name="guess"), 5)
    assert (answer.reason_code, answer.properties) == (0x86, None)


def test_a_client_that_leaves_while_it_is_looked_up_does_no_harm(mqtt: SecureMqtt) -> None:
    """The answer finds nobody."""
    mqtt.certificates.waiting = []
    mqtt.certificates.outcome = UntrustedCertificate("late")
    client = mqtt.connect(mqtt.site.device)
    client.lose()
    mqtt.certificates.waiting[0]()
    assert mqtt.server.service.connection_count == 0


def test_a_tls_client_on_the_plain_port_ends_at_once(mqtt: SecureMqtt) -> None:
    """With a line in the log."""
    peer = mqtt.server.connect()
    plain = type(peer)(mqtt.server)
    plain.protocol.dataReceived(b"\x16\x03\x01\x02\x00\x01")
    assert plain.is_closed
    assert mqtt.server.service.counters.violations == 1


# -- HTTP -----------------------------------------------------------------------------------------


class SecureHttp:
    """The HTTP service behind TLS."""

    def __init__(self, store: StoreUnderTest, site: Site, *, is_fast: bool) -> None:
        self.api = ApiUnderTest(store)
        self.site = site
        self.certificates = CertificatesFake()
        api: Any = self.api.api
        api.certificates = self.certificates
        self.server = HttpServer(self.api, is_fast=is_fast)
        self.device_id = int(store.read(lambda tx: tx.device_by_name(TENANT, "dev").id))
        self.identity = Identity(Role.DEVICE, tenant_id=1, device_id=self.device_id, device_name="dev")
        self.server.factory.numPorts += 1  # started already
        self.listener = TlsListener(site.tls, self.server.factory, clock=self.server.clock)

    def client(self, leaf: Any = None) -> TlsClient:
        return TlsClient(self.listener, leaf).shake_hands()

    def ask(self, client: TlsClient, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        client.send(head + body)
        for _ in range(8):
            for work in (self.api.store.run, self.api.store.read):
                work(lambda tx: None)
            self.server.clock.advance(0.02)
        client.to_client()
        data, client.data = client.data, b""
        answer_head, _, rest = data.partition(b"\r\n\r\n")
        return int(answer_head.split()[1]) if answer_head else 0, rest


@pytest.fixture(params=[True, False], ids=["front", "klein"])
def http(request: pytest.FixtureRequest, sqlite_store: StoreUnderTest, tmp_path: Path) -> SecureHttp:
    server_with_device(sqlite_store)
    return SecureHttp(sqlite_store, Site(tmp_path), is_fast=request.param)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v1/telemetry", b'{"t":1}', 200),
        ("POST", "/api/v1/attributes", b'{"serial":"s"}', 200),
        ("GET", "/api/v1/attributes", b"", 200),
        ("GET", "/api/v1/attributes?clientKeys=serial", b"", 200),
        ("POST", "/api/v1/claim", b"", 200),
        ("GET", "/api/v1/rpc?timeout=20", b"", 408),
        ("GET", "/api/v1/attributes/updates?timeout=20", b"", 408),
        ("POST", "/api/v1/rpc", b'{"method":"getCurrentTime","params":{}}', 200),
        ("POST", "/api/v1/rpc/17", b"{}", 200),
        ("GET", "/api/v1/firmware?title=a&version=1", b"", 404),
        ("GET", "/api/v1/software?title=a&version=1", b"", 404),
    ],
)
def test_a_path_without_a_token_goes_by_the_certificate(
    http: SecureHttp, method: str, path: str, body: bytes, status: int
) -> None:
    """All that a device can ask; without a certificate the same paths are refused."""
    http.certificates.identities[http.site.device.der] = http.identity
    assert http.ask(http.client(http.site.device), method, path, body)[0] == status
    refused, answer = http.ask(http.client(), method, path, body)
    assert refused == 401
    assert "show a client certificate" in json.loads(answer)["message"]


def test_the_chain_is_read_once_for_a_connection(http: SecureHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that follow cost one look into the cache each."""
    from cloud_core.transports import tls_connection

    reads: list[Any] = []
    read = tls_connection.chain_of
    monkeypatch.setattr(tls_connection, "chain_of", lambda ssl: reads.append(1) or read(ssl))
    http.certificates.identities[http.site.device.der] = http.identity
    client = http.client(http.site.device)
    for _ in range(3):
        assert http.ask(client, "POST", "/api/v1/telemetry", b'{"t":1}')[0] == 200
    assert (len(reads), http.certificates.known_asked) == (1, 3)


def test_an_unknown_certificate_is_asked_for_with_its_chain_over_http(http: SecureHttp) -> None:
    http.certificates.outcome = http.identity
    client = http.client(http.site.device)
    assert http.ask(client, "POST", "/api/v1/telemetry", b'{"t":1}')[0] == 200
    chain, peer = http.certificates.asked[0]
    assert chain == PresentedChain(http.site.device.der, http.site.device.presented.others)
    assert peer == Peer(Transport.HTTP, client.wire.getPeer().host)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UntrustedCertificate("the certificate of sensor-1 has expired"), 401),
        (InvalidDeviceName("the certificate's name does not match"), 401),
        (RateLimited("too many", retry_after_s=3.0), 429),
        (Unavailable("busy"), 503),
    ],
)
def test_a_refused_certificate_is_told_why(http: SecureHttp, error: PlatformError, status: int) -> None:
    """In the error object, with the reference of the attempt."""
    error.ref = "r-17"
    http.certificates.outcome = error
    found, body = http.ask(http.client(http.site.device), "POST", "/api/v1/telemetry", b"{}")
    assert found == status
    assert json.loads(body)["message"] == f"{error} (ref r-17)"


def test_a_token_in_the_path_counts_before_the_certificate(http: SecureHttp) -> None:
    """A right one opens, a wrong one is refused, whatever certificate there is."""
    http.certificates.identities[http.site.device.der] = http.identity
    client = http.client(http.site.device)
    assert http.ask(client, "POST", "/api/v1/tok/telemetry", b'{"t":1}')[0] == 200
    assert http.ask(client, "POST", "/api/v1/wrong/telemetry", b'{"t":1}') == (401, b"")
    assert http.certificates.known_asked == 0


@pytest.mark.parametrize("token", ["telemetry", "attributes", "rpc", "claim"])
def test_tokens_that_are_called_like_a_path_are_tokens(http: SecureHttp, token: str) -> None:
    """Who has such a token is refused for it, not for a missing certificate."""
    for path in ("telemetry", "attributes", "rpc", "claim", "rpc/5"):
        assert http.ask(http.client(), "POST", f"/api/v1/{token}/{path}", b"{}") == (401, b"")


def test_provisioning_never_asks_for_the_certificate(http: SecureHttp) -> None:
    status, _ = http.ask(http.client(http.site.device), "POST", "/api/v1/provision", b"{}")
    assert status != 401
    assert (http.certificates.known_asked, http.certificates.asked) == (0, [])


def test_a_connection_keeps_its_certificate_when_klein_takes_it(http: SecureHttp) -> None:
    """A request of an odd form hands it over for good."""
    http.certificates.identities[http.site.device.der] = http.identity
    client = http.client(http.site.device)
    assert http.ask(client, "POST", "/api/v1/telemetry", b'{"t":1}')[0] == 200
    assert http.ask(client, "PUT", "/api/v1/telemetry")[0] == 405
    assert http.ask(client, "POST", "/api/v1/telemetry", b'{"t":2}')[0] == 200


def test_a_request_that_is_never_finished_is_cut_as_without_tls(http: SecureHttp) -> None:
    client = http.client(http.site.device)
    client.send(b"POST /api/v1/telemetry HTTP/1.1\r\nHost")
    http.server.clock.pump([1.0] * 40)
    assert client.wire.disconnecting or client.wire.is_aborted


def test_a_tls_client_on_the_plain_http_port_ends_at_once(http: SecureHttp) -> None:
    """Front and klein alike."""
    from tests.support.http import HttpPeer

    plain = HttpPeer(http.api, server=http.server)
    plain.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert (plain.transport.disconnecting, plain.transport.value()) == (True, b"")
