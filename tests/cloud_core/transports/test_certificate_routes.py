"""Profiles that admit by chain, certificates as credentials, and what the log says of them, over REST.

Source: wire-contract.md sections 1.1, 1.7, 1.8 and 6.4.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import certifi
import pytest

from cloud_core.core import inventory
from cloud_core.core.certificates import chain_profiles
from cloud_core.model import PresentedChain, ProvisionConfiguration, ProvisionStrategy
from shared import certificates
from shared.credentials import X509Certificate, sha3_id
from shared.errors import InvalidArgument
from tests.support.chains import NOW_S, PEER
from tests.support.pki import CLIENT, Holder, Pki
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import StoreUnderTest

PKI = Pki(datetime.fromtimestamp(NOW_S, UTC))
ROOT = PKI.root("Factory")
LINE = ROOT.intermediate("Line 1")
CHAIN = "X509_CERTIFICATE_CHAIN"


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Rest:
    without_threads(monkeypatch)
    return Rest(sqlite_store)


def body(name: str, secret: Any = None, transport: str = "DEFAULT", **configuration: Any) -> dict[str, Any]:
    settings = {
        "type": CHAIN, "provisionDeviceSecret": LINE.pem if secret is None else secret,
        "certificateRegExPattern": "(.*)", "allowCreateNewDevicesByX509Certificate": True,
    }  # fmt: skip
    return {
        "name": name, "type": "DEFAULT", "transportType": transport, "provisionType": CHAIN,
        "profileData": {"provisionConfiguration": settings | configuration},
    }  # fmt: skip


def refused(rest: Rest, posted: dict[str, Any]) -> str:
    status, answer = rest.call("POST", "/api/deviceProfile", posted)
    assert status == 400, answer
    message: str = answer["message"]
    return message


def show(rest: Rest, leaf: Holder) -> Any:
    """The core's answer to a device with this certificate."""
    return rest.api.outcome(lambda done: rest.api.api.certificates.authenticate(leaf.presented, PEER, done))


# -- saving ---------------------------------------------------------------------------------------


def test_a_chain_profile_shows_what_it_keeps(rest: Rest) -> None:
    """The key is computed from the first certificate, the PEM comes back normalised, and ours has its defaults."""
    given = "Bag Attributes\r\n" + (LINE.pem + ROOT.pem).replace("\n", "\r\n") + LINE.pem
    made = rest.made("/api/deviceProfile", body("line", given) | {"provisionDeviceKey": "what I say"})
    assert made["provisionDeviceKey"] == sha3_id(certificates.certificate_text(LINE.der))
    shown = made["profileData"]["provisionConfiguration"]
    assert shown == {
        "type": CHAIN, "provisionDeviceSecret": LINE.pem + ROOT.pem, "certificateRegExPattern": "(.*)",
        "allowCreateNewDevicesByX509Certificate": True, "acceptDeviceCredentials": False, "approval": "NONE",
        "reprovisioning": "REFUSE",
        "replayWindowSeconds": 3600, "seedErrorMessages": False, "certificateRenewal": "SAME_KEY_OR_WINDOW",
        "certificateRenewalWindowDays": 30, "certificateOverlapDays": 7, "certificateAuthority": None,
        "certificateLifetimeDays": 365,
        "revocation": {"crl": False, "ocsp": False, "crlUrl": None, "ocspUrl": None, "allowUnknown": False},
    }  # fmt: skip
    assert rest.call("GET", f"/api/deviceProfile/{id_of(made)}") == (200, made)
    again = rest.made("/api/deviceProfile", made)  # as it was shown
    assert again == made | {"version": 2}


def test_base64_is_as_good_as_pem(rest: Rest) -> None:
    made = rest.made("/api/deviceProfile", body("line", base64.b64encode(LINE.der).decode()))
    assert made["profileData"]["provisionConfiguration"]["provisionDeviceSecret"] == LINE.pem


def test_what_is_said_of_certificates_is_kept(rest: Rest) -> None:
    revocation = {
        "crl": True, "ocsp": True, "crlUrl": "http://ca.test/crl", "ocspUrl": "https://ca.test/ocsp",
        "allowUnknown": True,
    }  # fmt: skip
    said = {
        "certificateRenewal": "ALWAYS", "certificateRenewalWindowDays": 0, "certificateOverlapDays": 0,
        "certificateAuthority": "ours", "certificateLifetimeDays": 90, "revocation": revocation,
    }  # fmt: skip
    shown = rest.made("/api/deviceProfile", body("line", **said))["profileData"]["provisionConfiguration"]
    assert {name: shown[name] for name in said} == said


def test_a_certificate_has_one_profile_of_a_pattern(rest: Rest) -> None:
    """The same CA with the same pattern is refused in ThingsBoard's words; with another pattern it is shared (D4)"""
    rest.made("/api/deviceProfile", body("pumps", certificateRegExPattern="pump-(.*)"))
    again = refused(rest, body("again", certificateRegExPattern="pump-(.*)"))
    assert again == "Device profile with such provision device key already exists!"
    valves = rest.made("/api/deviceProfile", body("valves", certificateRegExPattern="valve-(.*)"))
    assert [show(rest, LINE.leaf(name)).device_name for name in ("pump-1", "valve-2")] == ["1", "2"]
    valves["profileData"]["provisionConfiguration"]["certificateRegExPattern"] = "pump-(.*)"
    assert refused(rest, valves) == again


def test_a_ca_is_one_tenants(rest: Rest, sqlite_store: StoreUnderTest) -> None:
    """Else whose devices would they be? Another CA of the same name is another CA (D4)"""
    made = rest.made("/api/deviceProfile", body("line"))
    secret = made["profileData"]["provisionConfiguration"]["provisionDeviceSecret"]
    provision = ProvisionConfiguration(
        strategy=ProvisionStrategy.X509_CERTIFICATE_CHAIN, key=made["provisionDeviceKey"], secret=secret,
        certificate_pattern="other-(.*)",
    )  # fmt: skip
    with pytest.raises(InvalidArgument, match="such provision device key already exists"):
        sqlite_store.run(inventory.save_profile, 2, None, "theirs", provision, {}, None, 1)
    rest.made("/api/deviceProfile", body("namesake", PKI.root("Line 1").pem))


REFUSED: list[tuple[str, Any, str]] = [
    ("nothing", "", "must be the certificate of the CA"),
    ("no certificate", "secret456def!", "neither PEM nor base64"),
    ("no certificate either", base64.b64encode(b"x" * 40).decode(), "no X.509 certificate"),
    ("a key", LINE.key_pem + LINE.pem, "holds a private key"),
    ("too many", "".join(PKI.root(f"R{n}").pem for n in range(11)), "at most 10"),
    ("too long", "x" * 100_001, "above 100000 characters"),
    ("a device's", LINE.leaf("d").pem, "is no CA's"),
    ("a device's beside it", LINE.pem + LINE.leaf("d").pem, "is no CA's: leave it out"),
    ("no constraints", PKI.root("R", has_constraints=False).pem, "is no CA's"),
    ("no signer", PKI.root("R", key_usage=("digital_signature",)).pem, "lacks keyCertSign"),
    ("ended", PKI.root("R", not_after=PKI.now - timedelta(days=1)).pem, "ended at"),
    ("weak", PKI.root("R", key="rsa1024").pem, "1024 bits"),
]


@pytest.mark.parametrize(("secret", "says"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_what_is_no_ca_is_refused_with_the_reason(rest: Rest, secret: str, says: str) -> None:
    """A profile that could verify nobody is better refused now than at every device (D4)"""
    message = refused(rest, body("line", secret))
    assert says in message and "S3CRET" not in message


def test_a_ca_of_tomorrow_may_be_put_in_today(rest: Rest) -> None:
    rest.made("/api/deviceProfile", body("line", PKI.root("R", not_before=PKI.now + timedelta(days=1)).pem))


def test_a_well_known_root_is_refused(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may buy a certificate there could come in; a cross-signed twin of its key is no better (D4)"""
    blocks = Path(certifi.where()).read_text().split("-----BEGIN CERTIFICATE-----")[1:]
    key = certificates.load(certificates.der_of(blocks[0].split("-----END")[0]))
    rest.api.now_s = key.not_valid_before_utc.timestamp() + 1
    words = "Device profile certificate cannot be well known root CA!"
    assert refused(rest, body("web", certificates.pem(key))) == words
    rest.api.now_s = NOW_S
    web = PKI.root("Web")
    monkeypatch.setattr(chain_profiles, "_well_known_keys", lambda: {certificates.key_hash(web.certificate)})
    assert refused(rest, body("twin", ROOT.cross_sign(web).pem)) == words


@pytest.mark.parametrize("transport", ["SNMP", "LWM2M"])
def test_a_transport_without_certificates_is_refused(rest: Rest, transport: str) -> None:
    assert "show no certificates here: choose one of DEFAULT, MQTT, COAP" in refused(
        rest, body("line", None, transport)
    )


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"certificateRegExPattern": ""}, "certificateRegExPattern cannot be used: it is empty"),
    ({"certificateRegExPattern": "sn-.*"}, "it has no group; put the part"),
    ({"certificateRegExPattern": "(sn"}, "it is no regular expression"),
    ({"certificateRenewal": "SOMETIMES"}, "SAME_KEY_OR_WINDOW, SAME_KEY, ALWAYS, NEVER"),
    ({"certificateRenewalWindowDays": -1}, "certificateRenewalWindowDays must be 0 to 36500"),
    ({"certificateOverlapDays": "7"}, "certificateOverlapDays must be 0 to 3650"),
    ({"certificateLifetimeDays": 0}, "certificateLifetimeDays must be 1 to 36500"),
    ({"certificateLifetimeDays": True}, "certificateLifetimeDays must be 1 to 36500"),
    ({"certificateAuthority": 7}, "certificateAuthority must be the name of a CA"),
    ({"revocation": True}, "revocation must be an object"),
    ({"revocation": {"CRL": True}}, "revocation has no member 'CRL'; it has crl, ocsp"),
    ({"revocation": {"crl": "yes"}}, "revocation.crl must be true or false"),
    ({"revocation": {"crlUrl": "ldap://ca.test"}}, "must be a URL that begins with http:// or https://"),
]


@pytest.mark.parametrize(("option", "says"), OPTIONS)
def test_a_bad_option_is_refused_with_its_range(rest: Rest, option: dict[str, Any], says: str) -> None:
    assert says in refused(rest, body("line", **option))


def test_revocation_needs_a_ca(rest: Rest) -> None:
    """A check that cannot be made is not silently off."""
    posted = body("line", type="DISABLED", revocation={"crl": True}) | {"provisionType": "DISABLED"}
    assert "revocation needs the CA's certificate" in refused(rest, posted)


# -- changes of profiles --------------------------------------------------------------------------


def test_saving_and_deleting_tell_whoever_keeps_anchors(rest: Rest) -> None:
    """Of a strict listener the contexts are renewed; a new profile admits at once."""
    changes: list[int] = []
    rest.api.api.certificates.on_anchors_changed(lambda: changes.append(1))
    made = rest.made("/api/deviceProfile", body("line"))
    assert len(changes) == 1
    rest.made("/api/deviceProfile", made)
    assert len(changes) == 2
    assert rest.call("DELETE", f"/api/deviceProfile/{id_of(made)}")[0] == 200
    assert len(changes) == 3
    assert show(rest, LINE.leaf("d")).reason == "UNTRUSTED_CERTIFICATE"


def test_a_device_whose_profile_is_renamed_is_read_anew(rest: Rest) -> None:
    made = rest.made("/api/deviceProfile", body("line"))
    leaf = LINE.leaf("d")
    show(rest, leaf)
    rest.made("/api/deviceProfile", made | {"name": "renamed"})
    assert rest.api.api.certificates.known(leaf.der) is None


# -- credentials ----------------------------------------------------------------------------------


def credentials_of(rest: Rest, name: str) -> dict[str, Any]:
    device = rest.call("GET", f"/api/tenant/devices?deviceName={name}")[1]
    found: dict[str, Any] = rest.call("GET", f"/api/device/{id_of(device)}/credentials")[1]
    return found


def with_certificate(rest: Rest, name: str, value: str) -> tuple[int, Any]:
    known = credentials_of(rest, name)
    return rest.call(
        "POST", "/api/device/credentials",
        known | {"credentialsType": "X509_CERTIFICATE", "credentialsId": None, "credentialsValue": value},
    )  # fmt: skip


LEAF = PKI.self_signed("d", extended_usage=(CLIENT,))
TEXT = certificates.certificate_text(LEAF.der)
FORMS = [
    LEAF.pem, LEAF.pem.replace("\n", "\r\n"), LEAF.pem + ROOT.pem,
    TEXT, "\n".join(TEXT[at : at + 64] for at in range(0, 2_000, 64)),
    "Bag Attributes\n  friendlyName: d\n" + LEAF.pem,
]  # fmt: skip


@pytest.mark.parametrize("value", FORMS, ids=["pem", "crlf", "chain", "text", "wrapped text", "with attributes"])
def test_a_certificate_is_stored_normalised(rest: Rest, value: str) -> None:
    """However it was written it is one id, and opens the device's door."""
    rest.made("/api/device", {"name": "d"})
    status, saved = with_certificate(rest, "d", value)
    assert (status, saved["credentialsValue"], saved["credentialsId"]) == (200, TEXT, sha3_id(TEXT))
    assert show(rest, LEAF).device_name == "d"


def test_a_fingerprint_is_taken_as_it_is(rest: Rest) -> None:
    rest.made("/api/device", {"name": "d"})
    value = certificates.fingerprint_texts(LEAF.der)[3]
    status, saved = with_certificate(rest, "d", value)
    assert (status, saved["credentialsValue"], saved["credentialsId"]) == (200, value, sha3_id(value))
    assert show(rest, LEAF).device_name == "d"


def test_a_broken_pem_is_refused(rest: Rest) -> None:
    rest.made("/api/device", {"name": "d"})
    status, answer = with_certificate(rest, "d", "-----BEGIN CERTIFICATE-----\nS3CRET!\n-----END CERTIFICATE-----\n")
    assert status == 400 and "is no certificate" in answer["message"] and "S3CRET" not in answer["message"]


def test_a_former_certificate_of_another_device_is_in_use(rest: Rest) -> None:
    """As long as it still opens that one's door: by credentials, with a new device, and in a provision request."""
    rest.made("/api/deviceProfile", body("line"))
    old = LINE.leaf("first")
    show(rest, old)
    show(rest, LINE.leaf("first", key=old.key))
    rest.made("/api/device", {"name": "second"})
    words = "Specified credentials are already registered!"
    status, answer = with_certificate(rest, "second", old.pem)
    assert (status, answer["message"]) == (400, words)
    text = certificates.certificate_text(old.der)
    third = {
        "device": {"name": "third"},
        "credentials": {"credentialsType": "X509_CERTIFICATE", "credentialsValue": text},
    }
    status, answer = rest.call("POST", "/api/device-with-credentials", third)
    assert (status, answer["message"]) == (400, words)
    rest.api.now_s += 8 * 86_400
    assert with_certificate(rest, "second", old.pem)[0] == 200


# -- the log --------------------------------------------------------------------------------------


def test_a_refusal_is_explained_with_its_fix(rest: Rest) -> None:
    """By its reference; the fault is the stage."""
    rest.made("/api/deviceProfile", body("line", allowCreateNewDevicesByX509Certificate=False))
    for leaf, stage, fix in [
        (PKI.root("Elsewhere").leaf("d"), "UNKNOWN_ISSUER", "Save the issuing CA"),
        (LINE.leaf("d", not_after=PKI.now - timedelta(days=1)), "EXPIRED", "Renew"),
        (LINE.leaf("d"), "strategy", "let certificates create devices"),
    ]:
        refusal = show(rest, leaf)
        status, line = rest.call("GET", f"/api/provisioning/attempts/{refusal.ref}")
        assert status == 200 and line["stage"] == stage and fix in line["fix"] and line["detail"]
        assert line["request"]["subject"] == "CN=d"


def test_a_presented_chain_is_no_credential_text() -> None:
    """Nothing of it stands where it could be logged by accident."""
    assert "CN=" not in repr(X509Certificate(TEXT)) and TEXT not in repr(PresentedChain(b""))
