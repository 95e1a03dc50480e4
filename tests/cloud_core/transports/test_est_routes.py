"""EST over HTTPS, in memory: what a standard client sends and gets (RFC 7030)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from cloud_core.model import PresentedChain
from shared import certificates
from tests.support.api import ApiUnderTest
from tests.support.authorities import add_authority, csr, from_pkcs7
from tests.support.http import HttpPeer, HttpServer, Response
from tests.support.pki import generate
from tests.support.stores import TENANT, StoreUnderTest

EST = "/.well-known/est"
PKCS10 = "Content-Type: application/pkcs10\r\nContent-Transfer-Encoding: base64\r\n"
BASIC = "Authorization: Basic " + base64.b64encode(b"sensor-key:sensor-secret").decode() + "\r\n"


@implementer(ISSLTransport)
class SecureTransport(StringTransport):
    """As a TLS connection looks to a protocol; `chain` is what the peer has shown."""

    chain: PresentedChain | None = None

    def getPeerCertificate(self) -> Any:
        return None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Twisted sets it for whatever is TCP beneath."""


class EstPeer(HttpPeer):
    """A client on a connection with TLS, and one without."""

    def __init__(self, api: ApiUnderTest, server: HttpServer, *, shown: bytes | None = None, is_secure: bool = True):
        super().__init__(api, server=server)
        if is_secure:
            self.transport = SecureTransport()
            self.transport.chain = None if shown is None else PresentedChain(shown)
            self.transport.protocol = self.factory.buildProtocol(None)
            self.transport.protocol.makeConnection(self.transport)

    def enrol(self, body: str | bytes, *, how: str = "simpleenroll", headers: str = PKCS10) -> Response:
        return self.post(f"{EST}/{how}", body.encode() if isinstance(body, str) else body, headers)


class Est:
    """A server with a CA and a profile."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.store, self.api = store, ApiUnderTest(store)
        self.server = HttpServer(self.api, is_fast=True)
        self.authority = add_authority(store)
        store.add_profile()

    def peer(self, **options: Any) -> EstPeer:
        return EstPeer(self.api, self.server, **options)

    def first(self, name: str = "SN-1") -> bytes:
        (leaf,) = certificates_in(self.peer().enrol(base64_of(csr(name)), headers=PKCS10 + BASIC))
        return certificates.der(leaf)


@pytest.fixture
def est(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Est]:
    made = Est(sqlite_store)
    yield made
    made.server.factory.stopFactory()


def der_of(pem: str) -> bytes:
    return x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER)


def base64_of(pem: str) -> str:
    return base64.encodebytes(der_of(pem)).decode()


def certificates_in(response: Response) -> list[x509.Certificate]:
    status, headers, body = response
    assert status == 200, body
    assert headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert headers["content-transfer-encoding"] == "base64"
    assert max(map(len, body.splitlines())) == 64
    return from_pkcs7(base64.b64decode(body))


@pytest.mark.parametrize("label", ["", "/sensor"])
def test_the_ca_certificates_are_for_everybody(est: Est, label: str) -> None:
    """Of the whole server, and of the profile that the path names."""
    (found,) = certificates_in(est.peer().get(f"{EST}{label}/cacerts"))
    assert certificates.der(found) == est.authority.chain[0]


@pytest.mark.parametrize("form", ["base64", "one line", "PEM", "DER"])
def test_a_client_enrols_by_key_and_secret(est: Est, form: str) -> None:
    """The answer holds its certificate alone (RFC 7030 section 4.2.3), however it wrote its request."""
    text = csr("SN-1")
    body = {
        "base64": base64_of(text), "one line": base64.b64encode(der_of(text)), "PEM": text, "DER": der_of(text),
    }[form]  # fmt: skip
    (leaf,) = certificates_in(est.peer().enrol(body, headers=PKCS10 + BASIC))
    assert certificates.common_name(leaf) == "SN-1"
    device = est.store.read(lambda tx: tx.device_by_name(TENANT, "SN-1"))
    assert est.store.read(lambda tx: tx.credentials(device.id)).credentials.certificate == (
        certificates.certificate_text(certificates.der(leaf))
    )


@pytest.mark.parametrize("how", ["simplereenroll", "simpleenroll", "sensor/simplereenroll"])
def test_a_device_renews_by_its_certificate(est: Est, how: str) -> None:
    """The certificate of the connection says who it is; no secret is sent."""
    old = est.first()
    (leaf,) = certificates_in(est.peer(shown=old).enrol(base64_of(csr("SN-1", generate("p256"))), how=how))
    assert certificates.common_name(leaf) == "SN-1" and certificates.der(leaf) != old


def text_of(response: Response, status: int) -> str:
    assert response[0] == status, response
    assert response[1]["content-type"] == "text/plain; charset=utf-8"
    return response[2].decode()


@pytest.mark.parametrize("how", ["cacerts", "simpleenroll", "simplereenroll"])
def test_without_tls_nothing_is_served(est: Est, how: str) -> None:
    """A provision secret must not travel in the clear; the sentence says where to go."""
    peer = est.peer(is_secure=False)
    headers = PKCS10 + BASIC
    response = peer.get(f"{EST}/{how}") if how == "cacerts" else peer.enrol(base64_of(csr()), how=how, headers=headers)
    assert "HTTPS" in text_of(response, 403)
    assert est.store.read(lambda tx: tx.device_by_name(TENANT, "SN-1")) is None


def test_a_stranger_is_asked_to_authenticate(est: Est) -> None:
    """401 with the scheme, for a missing, a wrong and an unreadable secret."""
    wrong = "Authorization: Basic " + base64.b64encode(b"sensor-key:x").decode() + "\r\n"
    for headers in ("", wrong, "Authorization: Basic %%%\r\n", "Authorization: Bearer x\r\n"):
        response = est.peer().enrol(base64_of(csr()), headers=PKCS10 + headers)
        assert response[1]["www-authenticate"] == 'Basic realm="est"'
        assert text_of(response, 401)


@pytest.mark.parametrize("path", [f"{EST}/simpleenroll", "/api/ca"])
def test_a_header_that_is_no_text_is_one_that_cannot_be_read(est: Est, path: str) -> None:
    """Anybody can send one: it is no fault of the server's, and leaves no trace of it in the log."""
    peer = est.peer()
    peer.send(
        f"POST {path} HTTP/1.1\r\nHost: h\r\n".encode() + b"Authorization: Basic \xff\r\nContent-Length: 0\r\n\r\n"
    )
    assert peer.responses()[0][0] == 401


def test_a_renewal_needs_a_certificate(est: Est) -> None:
    """Whoever knows a fleet's secret must not take over one of its devices; nor may a certificate of nobody."""
    est.first()
    response = est.peer().enrol(base64_of(csr()), how="simplereenroll", headers=PKCS10 + BASIC)
    assert "current certificate" in text_of(response, 401)
    text_of(est.peer(shown=est.authority.chain[0]).enrol(base64_of(csr()), how="simplereenroll"), 401)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("nonsense!", 400, "neither PEM nor base64"),
        (base64_of(csr("SN-2", "rsa1024")), 400, "too weak"),
        ("A" * 20_000, 413, "above 16384 bytes"),
        (base64_of(csr("<script>")), 400, "malformed"),
        (base64_of(csr("SN-1", generate("p256"))), 403, "DEVICE_EXISTS"),
    ],
)
def test_a_refusal_is_a_sentence_with_a_reason(est: Est, body: str, status: int, words: str) -> None:
    """What the client has sent wrongly it is told; why it may not come in, the operator."""
    est.first()
    text = text_of(est.peer().enrol(body, headers=PKCS10 + BASIC), status)
    assert words in text
    assert status == 413 or "Reference " in text


def test_without_a_ca_there_is_nothing_to_tell(sqlite_store: StoreUnderTest) -> None:
    """404, with what to do."""
    api = ApiUnderTest(sqlite_store)
    peer = EstPeer(api, HttpServer(api, is_fast=True))
    assert "cloud-core ca init" in text_of(peer.get(f"{EST}/cacerts"), 404)
    sqlite_store.add_profile()
    assert "NO_CERTIFICATE_AUTHORITY" in text_of(peer.enrol(base64_of(csr()), headers=PKCS10 + BASIC), 404)
    peer.close()


def test_other_paths_and_methods_say_what_there_is(est: Est) -> None:
    """Full CMC, server-side keys and attributes are not offered."""
    for path, method, status in (
        (f"{EST}/serverkeygen", "POST", 404), (f"{EST}/csrattrs", "GET", 404), (f"{EST}/simpleenroll", "GET", 405),
    ):  # fmt: skip
        assert "simplereenroll" in text_of(est.peer().get(path, method=method), status)


def test_a_renewal_too_often_is_told_when_to_come_back(est: Est) -> None:
    """429 with Retry-After."""
    shown = est.first()
    peer = est.peer(shown=shown)
    responses = [peer.enrol(base64_of(csr("SN-1", generate("p256")))) for _ in range(12)]
    assert responses[-1][0] == 429 and int(responses[-1][1]["retry-after"]) > 1_000


def test_a_profile_of_another_tenant_enrols_by_its_own_key(est: Est) -> None:
    """HTTP Basic and the label, by name or id, where both tenants have a profile of this name."""
    second = est.store.add_tenant("second")
    there = add_authority(est.store, "there", tenant_id=second)
    est.store.add_profile("sensor", tenant_id=second, key="second-key", secret="second-secret")
    uuid = est.store.read(lambda tx: tx.profile_by_name(second, "sensor")).uuid
    basic = "Authorization: Basic " + base64.b64encode(b"second-key:second-secret").decode() + "\r\n"
    for number, how in enumerate(("simpleenroll", "sensor/simpleenroll", f"{uuid}/simpleenroll")):
        name = f"SN-{number}"
        (leaf,) = certificates_in(est.peer().enrol(base64_of(csr(name)), how=how, headers=PKCS10 + basic))
        leaf.verify_directly_issued_by(certificates.load(there.chain[0]))
        assert est.store.read(lambda tx, name=name: tx.device_by_name(second, name)) is not None
    shown = certificates.der(leaf)
    (renewed,) = certificates_in(
        est.peer(shown=shown).enrol(base64_of(csr("SN-2", generate("p256"))), how="sensor/simplereenroll")
    )
    renewed.verify_directly_issued_by(certificates.load(there.chain[0]))
    for peer, label in ((est.peer(), f"/{uuid}"), (est.peer(shown=shown), ""), (est.peer(shown=shown), "/sensor")):
        (found,) = certificates_in(peer.get(f"{EST}{label}/cacerts"))
        assert certificates.der(found) == there.chain[0]


@pytest.mark.parametrize("label", ["", "/sensor"])
def test_a_label_that_could_be_several_tenants_is_refused_with_what_to_do(est: Est, label: str) -> None:
    """400: nobody gets the CA of another tenant to trust."""
    second = est.store.add_tenant("second")
    add_authority(est.store, "there", tenant_id=second)
    est.store.add_profile("sensor", tenant_id=second, key="second-key", secret="second-secret")
    assert "id of the device profile" in text_of(est.peer().get(f"{EST}{label}/cacerts"), 400)
