"""The small CA over REST, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import succeed

from cloud_core.core.certificates import authorities, authority_admin
from cloud_core.core.certificates.authorities import Which
from cloud_core.core.downlinks import Ending
from cloud_core.core.provisioning import Policy
from shared import certificates
from shared.credentials import X509Certificate
from tests.support.authorities import csr
from tests.support.pki import Pki
from tests.support.rest import Rest, without_threads
from tests.support.stores import TENANT, StoreUnderTest

DAY_MS = 86_400_000
ROOT = Pki().root("Factory")


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    without_threads(monkeypatch)
    monkeypatch.setattr(authority_admin, "deferToThread", lambda work, *args: succeed(work(*args)))
    peer = Rest(sqlite_store, policy=Policy(public_url="http://core:8080"))
    yield peer
    peer.close()


def issue(rest: Rest, name: str = "SN-1", **options: Any) -> dict[str, Any]:
    return rest.made("/api/ca/plant/issue", {"name": name, "csr": csr(), **options})


def got(rest: Rest, path: str) -> Any:
    status, answer = rest.call("GET", path)
    assert status == 200, answer
    return answer


def fetched(rest: Rest, path: str) -> tuple[int, dict[str, str], bytes]:
    """Without a login."""
    return rest.get(path)


def fetched_crl(rest: Rest, made: dict[str, Any]) -> x509.CertificateRevocationList:
    status, headers, body = fetched(rest, f"/api/ca/{made['id']['id']}/crl")
    assert (status, headers["content-type"]) == (200, "application/pkix-crl")
    assert headers["cache-control"] == "public, max-age=60"
    return x509.load_der_x509_crl(body)


def test_a_ca_is_made_listed_and_found(rest: Rest) -> None:
    """By name and by id, with all that identifies it, and without its key."""
    made = rest.made("/api/ca", {"name": "plant one", "keyType": "P-384", "years": 3})
    own = certificates.load_all(made["certificateChain"])[0]
    assert (made["name"], made["subject"], made["keyType"]) == ("plant one", "CN=plant one", "P-384")
    assert made["notAfter"] == certificates.not_after_ms(own)
    assert made["fingerprint"] == certificates.fingerprint(certificates.der(own)).hex()
    assert made["crlUrl"] == f"http://core:8080/api/ca/{made['id']['id']}/crl"
    assert got(rest, "/api/ca") == [made]
    assert got(rest, "/api/ca/plant%20one") == got(rest, f"/api/ca/{made['id']['id']}") == made
    assert "PRIVATE" not in str(made) and not {"key", "privateKey"} & set(made)


def test_a_name_with_a_percent_sign_is_that_name(rest: Rest) -> None:
    """And never the name that its signs would stand for in a path."""
    rest.made("/api/ca", {"name": "plantA"})
    rest.made("/api/ca", {"name": "plant%41"})
    assert got(rest, "/api/ca/plant%2541")["name"] == "plant%41"
    issued = rest.made("/api/ca/plant%2541/issue", {"name": "SN-1", "csr": csr()})
    assert issued["authority"] == "plant%41"


def test_a_list_is_made_anew_when_the_clock_was_put_back(rest: Rest) -> None:
    """It would be served until the clock is where it was, and be from the future for whoever reads it."""
    made = rest.made("/api/ca", {"name": "plant"})
    fetched_crl(rest, made)
    rest.api.now_s -= 3_600
    older = fetched_crl(rest, made)
    assert older.last_update_utc.timestamp() < rest.api.now_s


def test_a_ca_is_taken_over(rest: Rest) -> None:
    """Its chain comes back; a fault is the client's."""
    body = {"name": "old", "chain": ROOT.pem, "key": ROOT.key_pem}
    rest.api.now_s = certificates.not_before_ms(ROOT.certificate) / 1000 + 3_600
    assert rest.made("/api/ca/import", body)["certificateChain"] == ROOT.pem
    status, error = rest.call("POST", "/api/ca/import", {"name": "x", "chain": "x", "key": "y"})
    assert (status, error["message"][:12]) == (400, "The chain ca")


@pytest.mark.parametrize(
    "body",
    [{}, {"name": 1}, {"name": "x", "years": "2"}, {"name": "x", "years": True}, {"name": "x", "keyType": "RSA"}],
)
def test_a_strange_ca_is_a_bad_request(rest: Rest, body: dict[str, Any]) -> None:
    """400 with what is allowed."""
    status, error = rest.call("POST", "/api/ca", body)
    assert status == 400 and error["message"]


def test_a_certificate_is_issued_for_a_request(rest: Rest) -> None:
    """Certificate, chain, and what to revoke it by."""
    made = rest.made("/api/ca", {"name": "plant"})
    issued = issue(rest, days=10)
    leaf, issuer = certificates.load_all(issued["certificateChain"])
    assert certificates.pem(issuer) == made["certificateChain"]
    assert (certificates.pem(leaf), issued["authority"]) == (issued["certificate"], "plant")
    assert issued["serial"] == f"{leaf.serial_number:x}"
    assert issued["fingerprint"] == certificates.fingerprint(certificates.der(leaf)).hex()
    assert issued["notAfter"] == rest.api.now_s * 1000 + 10 * DAY_MS
    assert rest.call("POST", "/api/ca/x/issue", {"name": "a", "csr": csr()})[0] == 404
    assert rest.call("POST", "/api/ca/plant/issue", {"name": "a", "csr": "x!"})[0] == 400


@pytest.mark.parametrize("how", ["serial", "fingerprint"])
def test_what_is_revoked_stands_in_the_list_at_once(rest: Rest, how: str) -> None:
    """The list that everybody may fetch; it was cached until then."""
    made, issued = rest.made("/api/ca", {"name": "plant"}), issue(rest)
    assert len(fetched_crl(rest, made)) == 0
    value = issued[how] if how == "serial" else ":".join(issued[how][at : at + 2] for at in range(0, 64, 2)).upper()
    status, rows = rest.call("POST", "/api/certificates/revoke", {how: value, "reason": "keyCompromise"})
    assert status == 200
    assert [(one["serial"], one["revocationReason"]) for one in rows] == [(issued["serial"], "keyCompromise")]
    assert fetched_crl(rest, made).get_revoked_certificate_by_serial_number(int(issued["serial"], 16)) is not None


def number_of(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_a_list_is_kept_until_something_is_revoked(rest: Rest) -> None:
    """However often it is fetched, strangers cost a look-up a minute; that finds what another node has revoked."""
    made = rest.made("/api/ca", {"name": "plant"})
    serial = int(issue(rest)["serial"], 16)
    numbers = []
    for _ in range(5):
        numbers.append(number_of(fetched_crl(rest, made)))
        rest.api.now_s += 61
    assert numbers == [1] * 5
    rest.api.store.run(authorities.revoke, TENANT, Which(serial=f"{serial:x}"), "keyCompromise", 1)
    found = fetched_crl(rest, made)
    assert number_of(found) == 2 and found.get_revoked_certificate_by_serial_number(serial) is not None


def test_a_list_is_made_anew_long_before_its_next_update(rest: Rest) -> None:
    """Nobody may find it outdated while the server is there; in the PEM that is kept, too."""
    made = rest.made("/api/ca", {"name": "plant"})
    for number in (1, 2, 3):
        found = fetched_crl(rest, made)
        in_pem = x509.load_pem_x509_crl(fetched(rest, f"/api/ca/{made['id']['id']}/crl?format=pem")[2])
        assert number_of(found) == number_of(in_pem) == number and in_pem == found
        assert found.next_update_utc.timestamp() - rest.api.now_s > 5 * 86_400
        rest.api.now_s += 86_401


def test_many_who_fetch_at_the_same_time_get_the_same_list(rest: Rest) -> None:
    """One is made for all of them."""
    made = rest.made("/api/ca", {"name": "plant"})
    peers = [rest.another_caller() for _ in range(4)]
    for peer in peers:
        peer.send(f"GET /api/ca/{made['id']['id']}/crl HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    bodies = {peer.responses()[0][2] for peer in peers}
    assert len(bodies) == 1 and number_of(x509.load_der_x509_crl(bodies.pop())) == 1


def test_lists_and_chains_are_for_everybody_in_pem_too(rest: Rest) -> None:
    """Without a login; of no CA there is none."""
    made = rest.made("/api/ca", {"name": "plant"})
    path = f"/api/ca/{made['id']['id']}"
    status, headers, body = fetched(rest, f"{path}/crl?format=pem")
    assert (status, headers["content-type"]) == (200, "application/x-pem-file")
    assert body == x509.load_pem_x509_crl(body).public_bytes(Encoding.PEM)
    assert fetched(rest, f"{path}/crl?format=pem")[2] == body
    assert fetched(rest, f"{path}/certificates")[2].decode() == made["certificateChain"]
    for missing in ("crl", "certificates"):
        assert fetched(rest, f"/api/ca/00000000-0000-4000-8000-000000000000/{missing}")[0] == 404
        assert fetched(rest, f"/api/ca/plant/{missing}")[0] == 404  # names are not for everybody


def test_the_sessions_of_a_device_end_with_its_certificate(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its credentials are changed."""
    told: list[Any] = []
    leaf = ROOT.leaf("SN-1")
    store = rest.api.store
    text = X509Certificate(certificates.certificate_text(leaf.der))
    device_id = store.add_device("SN-1", store.add_profile(), text)
    monkeypatch.setattr(rest.service._site.resource.routes._admin.authorities, "_device_changed",
                        lambda *what: told.append(what))  # fmt: skip
    status, rows = rest.call("POST", "/api/certificates/revoke", {"deviceName": "SN-1"})
    assert (status, rows[0]["name"]) == (200, "SN-1")
    assert told == [(device_id, Ending.CREDENTIALS_CHANGED)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"serial": "1"}, 404), ({"fingerprint": "ab" * 32}, 404), ({"fingerprint": "ab"}, 400),
        ({"fingerprint": "x"}, 400), ({}, 400), ({"serial": "1", "reason": "boredom"}, 400), ({"serial": 1}, 400),
    ],
)  # fmt: skip
def test_what_cannot_be_revoked_is_refused(rest: Rest, body: dict[str, Any], status: int) -> None:
    """404 where it is not known, 400 where the question is none."""
    assert rest.call("POST", "/api/certificates/revoke", body)[0] == status


def test_the_overview_has_everything_and_what_ends_soon(rest: Rest) -> None:
    """A page of the devices', those that end first foremost; all others beside it."""
    rest.made("/api/ca", {"name": "plant", "years": 1})
    for name, days in (("a", 20), ("b", 10)):
        issue(rest, name, days=days)
    admin = rest.service._site.resource.routes._admin
    admin.authorities.server_certificates = lambda: [("/tls/server.pem", int(rest.api.now_s * 1000) + 5 * DAY_MS)]
    page = got(rest, "/api/certificates?pageSize=1")
    assert ([one["subject"] for one in page["data"]], page["totalElements"], page["hasNext"]) == (["CN=b"], 2, True)
    assert [(one["kind"], one["name"]) for one in page["others"]] == [
        ("SERVER", "/tls/server.pem"), ("AUTHORITY", "plant"),
    ]  # fmt: skip
    soon = got(rest, "/api/certificates?endsWithinDays=30")
    assert (soon["data"], [one["kind"] for one in soon["others"]]) == ([], ["SERVER"])  # a and b are of no device
    for query in ("endsWithinDays=x", "endsWithinDays=-2", "pageSize=0", "sortProperty=x"):
        assert rest.call("GET", f"/api/certificates?{query}")[0] == 400


def test_warnings_are_said_once_a_day(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called every minute; a line for each kind."""
    said: list[list[str]] = []
    monkeypatch.setattr(authority_admin, "_say", said.append)
    rest.made("/api/ca", {"name": "plant", "years": 1})
    admin = rest.service._site.resource.routes._admin
    for days in (0, 0.5, 340, 341):
        rest.api.now_s = 1_700_000_000.0 + days * 86_400
        admin.authorities.warn_of_expiry()
        rest.settle()
    assert [len(lines) for lines in said] == [0, 1, 1]
    assert "'plant'" in said[1][0]
