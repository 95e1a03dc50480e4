"""A certificate of our CA in answer to a signing request: the same on every transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud_core.rest_client import RestError
from shared import certificates
from shared.credentials import sha3_id
from tests.contract.drivers import Driver
from tests.contract.operators import explained_at
from tests.support.pki import generate, request_pem
from tests.support.server import CoreProcess

Make = Callable[..., dict[str, str]]
CA = "contract-csr"
KEY = generate("p256")


@pytest.fixture
def authority(core: CoreProcess) -> dict[str, Any]:
    try:
        found: dict[str, Any] = core.rest.get(f"/api/ca/{CA}")
    except RestError:
        found = core.rest.post("/api/ca", {"name": CA})
    return found


def asking(name: str, profile: dict[str, str], csr: str | None = None) -> dict[str, Any]:
    csr = request_pem(name, KEY) if csr is None else csr
    return {"deviceName": name, "credentialsType": "X509_CSR", "csr": csr, **profile}


def test_a_device_with_only_a_key_gets_certificate_and_chain(
    driver: Driver, core: CoreProcess, make_profile: Make, name: str, authority: dict[str, Any]
) -> None:
    """Larger than a CoAP message, and whole; the text of the certificate is what ThingsBoard calls its value."""
    answer = driver.provision(asking(name, make_profile(certificateAuthority=CA)))
    assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "X509_CERTIFICATE")
    leaf, issuer = certificates.load_all(answer["certificateChain"])
    leaf.verify_directly_issued_by(issuer)
    assert certificates.pem(issuer) == authority["certificateChain"]
    assert (certificates.common_name(leaf), leaf.public_key()) == (name, KEY.public_key())
    assert answer["credentialsValue"] == certificates.certificate_text(certificates.der(leaf))
    stored = core.rest.get(f"/api/device/{core.device(name)['id']['id']}/credentials")
    assert (stored["credentialsType"], stored["credentialsId"]) == (
        "X509_CERTIFICATE",
        sha3_id(answer["credentialsValue"]),
    )


def test_a_request_in_base64_is_taken_too(
    driver: Driver, make_profile: Make, name: str, authority: dict[str, Any]
) -> None:
    """As small devices send it."""
    der = x509.load_pem_x509_csr(request_pem(name, KEY).encode()).public_bytes(Encoding.DER)
    answer = driver.provision(asking(name, make_profile(certificateAuthority=CA), certificates.certificate_text(der)))
    assert answer["status"] == "SUCCESS"


def test_a_lost_answer_is_given_again(driver: Driver, make_profile: Make, name: str, authority: dict[str, Any]) -> None:
    """The same certificate to the same request, where the profile replays."""
    request = asking(name, make_profile(certificateAuthority=CA, reprovisioning="REPLAY_UNTIL_CONFIRMED"))
    first, again = driver.provision(request), driver.provision(request)
    assert first == again and first["status"] == "SUCCESS"
    refused = driver.provision(request | {"csr": request_pem(name, generate("p256"))})
    assert refused["reason"] == "DEVICE_EXISTS"


@pytest.mark.parametrize(
    ("csr", "reason", "words"),
    [("nonsense!", "INVALID_CREDENTIALS", "neither PEM nor base64"), ("", "MALFORMED_REQUEST", "csr is empty")],
)
def test_a_bad_request_is_refused_and_explained(
    driver: Driver, core: CoreProcess, make_profile: Make, name: str, authority: dict[str, Any],
    csr: str, reason: str, words: str,
) -> None:  # fmt: skip
    """Reason and reference for the device, cause and fix for whoever looks the reference up."""
    answer = driver.provision(asking(name, make_profile(certificateAuthority=CA), csr))
    assert (answer["status"], answer["reason"]) == ("FAILURE", reason)
    explained = explained_at(core, answer["ref"])
    assert words in explained["detail"] and explained["fix"]
