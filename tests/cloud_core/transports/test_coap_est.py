"""EST over CoAP: paths, content formats, codes (RFC 9148), on the real core."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from aiocoap.numbers.codes import Code
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud_core.model import PresentedChain, Transport
from cloud_core.transports.coap.adapter import CoapDeviceAdapter
from cloud_core.transports.coap.requests import GET, POST, Answered, Request, route
from shared import certificates
from shared.certificates import certificate_text
from shared.credentials import X509Certificate
from tests.support.api import ApiUnderTest
from tests.support.authorities import add_authority, csr, from_pkcs7
from tests.support.chains import NOW_S
from tests.support.coap import CoapServer
from tests.support.pki import Pki, generate
from tests.support.stores import TENANT, StoreUnderTest

THEN = datetime.fromtimestamp(NOW_S, UTC)
FACTORY = Pki(THEN).root("Factory").leaf("SN-1")
STRANGER = Pki(THEN).root("Factory").leaf("SN-9")
EST = (".well-known", "est")


@dataclass
class Session:
    """A DTLS session, as a request knows it."""

    chain: PresentedChain | None
    is_identified: bool = False


class Est:
    """A device with a factory certificate, and a CA of ours."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.api = ApiUnderTest(store)
        self.adapter = CoapDeviceAdapter(self.api.api)
        self.authority = add_authority(store)
        text = X509Certificate(certificate_text(FACTORY.der))
        store.add_device("SN-1", store.add_profile(), text)

    def ask(self, code: int, *segments: str, shown: bytes | None = FACTORY.der, **members: Any) -> Answered:
        path = EST + segments
        request = Request(
            code=code, path=route(path), segments=path, peer_address="192.0.2.7",
            session=None if shown is None else Session(PresentedChain(shown)),
            **({"content_format": None, "payload": b""} | members),
        )  # fmt: skip
        answered: Answered = self.api.outcome(lambda done: self.adapter.perform(request, done))
        return answered

    def enrol(self, text: str, *segments: str, **members: Any) -> Answered:
        der = x509.load_pem_x509_csr(text.encode()).public_bytes(Encoding.DER)
        return self.ask(POST, *segments, **({"payload": der, "content_format": 286} | members))


@pytest.fixture
def est(sqlite_store: StoreUnderTest) -> Est:
    return Est(sqlite_store)


@pytest.mark.parametrize("segments", [("crts",), ("sensor", "crts")])
def test_the_ca_certificates_come_as_pkcs7(est: Est, segments: tuple[str, ...]) -> None:
    """2.05 in format 281, in binary."""
    answered = est.ask(GET, *segments)
    assert (answered.code, answered.content_format) == (Code.CONTENT, 281)
    assert [certificates.der(one) for one in from_pkcs7(answered.payload)] == [est.authority.chain[0]]


def test_one_certificate_may_be_asked_for_plainly(est: Est) -> None:
    """Format 287 by Accept; of several it cannot be."""
    answered = est.ask(GET, "crts", accept=287)
    assert (answered.code, answered.content_format, answered.payload) == (Code.CONTENT, 287, est.authority.chain[0])
    add_authority(est.api.store, "second")
    assert est.ask(GET, "crts", accept=287).code == Code.NOT_ACCEPTABLE
    assert len(from_pkcs7(est.ask(GET, "crts", accept=281).payload)) == 2


@pytest.mark.parametrize("name", ["sen", "sren"])
def test_a_device_gets_a_certificate_of_ours(est: Est, name: str) -> None:
    """2.04 with the certificate alone; the log says that it came by CoAP."""
    text = csr("SN-1")
    answered = est.enrol(text, name, accept=287)
    assert (answered.code, answered.content_format) == (Code.CHANGED, 287)
    leaf = certificates.load(answered.payload)
    leaf.verify_directly_issued_by(certificates.load(est.authority.chain[0]))
    (again,) = from_pkcs7(est.enrol(text, "sensor", name).payload)
    assert again == leaf  # the answer was lost, and is asked for again
    line = est.api.store.read(lambda tx: tx.attempts(1))[0]
    assert (line.peer.transport, line.device_name) == (Transport.COAP, "SN-1")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ((GET, "sen"), Code.METHOD_NOT_ALLOWED), ((POST, "crts"), Code.METHOD_NOT_ALLOWED),
        ((GET, "att"), Code.NOT_FOUND), ((POST, "skg"), Code.NOT_FOUND), ((GET,), Code.NOT_FOUND),
        ((GET, "a", "b", "crts"), Code.NOT_FOUND), ((GET, "unknown", "crts"), Code.NOT_FOUND),
    ],
)  # fmt: skip
def test_what_there_is_not_is_refused_by_code(est: Est, asked: tuple[Any, ...], code: Code) -> None:
    """Server-side keys and attributes are not offered."""
    assert est.ask(*asked).code == code


def test_without_dtls_and_a_certificate_nothing_is_served(est: Est) -> None:
    """4.01 with what is missing; so it is for a certificate of nobody."""
    for segments in ((GET, "crts"), (POST, "sen")):
        answered = est.ask(*segments, shown=None)
        assert (answered.code, b"DTLS" in answered.payload) == (Code.UNAUTHORIZED, True)
    assert est.enrol(csr("SN-9"), "sren", shown=STRANGER.der).code == Code.UNAUTHORIZED


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"payload": b"nonsense"}, Code.BAD_REQUEST), ({"payload": b""}, Code.BAD_REQUEST),
        ({"content_format": 50}, Code.UNSUPPORTED_CONTENT_FORMAT), ({"accept": 50}, Code.NOT_ACCEPTABLE),
        ({"payload": b"x" * 20_000}, Code.REQUEST_ENTITY_TOO_LARGE),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_by_code(est: Est, members: dict[str, Any], code: Code) -> None:
    """With a sentence where the request is the matter."""
    answered = est.enrol(csr("SN-1"), "sen", **members)
    assert answered.code == code
    assert code != Code.BAD_REQUEST or b"INVALID_CREDENTIALS" in answered.payload


def test_a_device_gets_no_certificate_in_another_name(est: Est) -> None:
    """4.00, and the name that it must be."""
    assert b"CN=SN-1" in est.enrol(csr("SN-2"), "sen").payload


def test_without_a_ca_of_its_own_a_profile_has_none(est: Est) -> None:
    """4.04; and too many renewals are 4.29 with a time."""
    for _ in range(10):
        assert est.enrol(csr("SN-1", generate("p256")), "sren").code == Code.CHANGED
    limited = est.enrol(csr("SN-1", generate("p256")), "sren")
    assert limited.code == Code.TOO_MANY_REQUESTS and limited.max_age_s is not None
    est.api.now_s += 86_400 * 2
    add_authority(est.api.store, "second")
    assert est.enrol(csr("SN-1", generate("p256")), "sren").code == Code.NOT_FOUND


def test_est_is_reached_through_the_fast_path_and_asks_for_dtls(est: Est) -> None:
    """On a socket without DTLS; an Accept of its own formats does not keep it from that."""
    server = CoapServer()
    server.api.enrolment = est.api.api.enrolment  # type: ignore[attr-defined]  # the fake has none
    for options in ({"mid": 1}, {"mid": 2, "accept": 281}):
        answer = server.get(".well-known/est/crts", **options)
        assert (answer.code, b"DTLS" in answer.payload) == (Code.UNAUTHORIZED, True)
    assert server.post(".well-known/est/sen").code == Code.UNAUTHORIZED
    assert server.get("api/v1/tok/attributes", mid=3, accept=281).code == Code.NOT_ACCEPTABLE


def test_the_session_says_whose_device_asks_where_tenants_call_their_profiles_alike(est: Est) -> None:
    """Its tenant's CA, with and without the label; a stranger names the profile by its id, or is told to."""
    store = est.api.store
    second = store.add_tenant("second")
    there = add_authority(store, "there", tenant_id=second)
    store.add_profile("sensor", tenant_id=second, key="second-key", secret="second-secret")
    uuid = str(store.read(lambda tx: tx.profile_by_name(second, "sensor")).uuid)
    for label in ((), ("sensor",)):
        assert est.ask(GET, *label, "crts", accept=287).payload == est.authority.chain[0]
        refused = est.ask(GET, *label, "crts", shown=STRANGER.der)
        assert (refused.code, b"id of the device profile" in refused.payload) == (Code.BAD_REQUEST, True)
    assert est.ask(GET, uuid, "crts", shown=STRANGER.der, accept=287).payload == there.chain[0]
    assert est.ask(GET, uuid, "crts").code == Code.NOT_FOUND
    assert est.enrol(csr("SN-1"), uuid, "sren").code == Code.FORBIDDEN
    own = str(store.read(lambda tx: tx.profile_by_name(TENANT, "sensor")).uuid)
    assert est.enrol(csr("SN-1"), own, "sren").code == Code.CHANGED
