"""What a profile that admits by certificate chain must keep when it is saved.

Source: wire-contract.md sections 1.1 and 6.4 (ThingsBoard's DeviceProfileServiceImpl).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography import x509

from cloud_core.core.certificates import trust_faults
from cloud_core.core.certificates.chain_matching import BadPattern, anchors_of, compiled
from cloud_core.model import ProvisionConfiguration, ProvisionStrategy
from cloud_core.storage.interface import ReadTx
from shared import certificates
from shared.certificates import MalformedCertificate
from shared.credentials import sha3_id
from shared.errors import InvalidArgument

MAX_CERTIFICATES = 10
MAX_PEM_CHARS = 100_000
TRANSPORTS = ("DEFAULT", "MQTT", "COAP")  # whose devices can show a certificate here
SAME_KEY = "Device profile with such provision device key already exists!"
_BEGIN = "-----BEGIN CERTIFICATE-----"
_MEMBER = "profileData.provisionConfiguration.provisionDeviceSecret"


def is_by_chain(provision: ProvisionConfiguration) -> bool:
    return provision.strategy is ProvisionStrategy.X509_CERTIFICATE_CHAIN


def checked(provision: ProvisionConfiguration, document: Mapping[str, Any], now_ms: int) -> ProvisionConfiguration:
    """The configuration of a chain profile in its stored form: PEM as written by us, key computed from it.

    Takes some milliseconds, at its first call more: not for the reactor thread. Raises: InvalidArgument, which says
    what to mend.
    """
    transport = document.get("transportType") or "DEFAULT"
    if transport not in TRANSPORTS:
        raise InvalidArgument(
            f"Devices of the transport type {transport} show no certificates here: choose one of "
            f"{', '.join(TRANSPORTS)}, or another provision strategy"
        )
    try:
        compiled(provision.certificate_pattern)
    except BadPattern as error:
        raise InvalidArgument(f"certificateRegExPattern cannot be used: {error}") from error
    anchor, *helpers = _certificates(provision.secret)
    _check(anchor, now_ms)
    for helper in helpers:
        if not trust_faults.is_ca(helper):
            raise InvalidArgument(
                f"The certificate {trust_faults.of(helper)} in {_MEMBER} is no CA's: leave it out; only the CA, and "
                "others that help to lead to it, belong there"
            )
    if certificates.key_hash(anchor) in _well_known_keys():
        raise InvalidArgument("Device profile certificate cannot be well known root CA!")
    pem = "".join(certificates.pem(one) for one in (anchor, *helpers))
    return replace(provision, secret=pem, key=sha3_id(certificates.certificate_text(certificates.der(anchor))))


def _certificates(secret: str) -> list[x509.Certificate]:
    if not secret.strip():
        raise InvalidArgument(
            f"{_MEMBER} must be the certificate of the CA that issues the devices' certificates, as PEM or base64"
        )
    if len(secret) > MAX_PEM_CHARS:
        raise InvalidArgument(f"{_MEMBER} is above {MAX_PEM_CHARS} characters")
    if "PRIVATE KEY-----" in secret:
        raise InvalidArgument(f"{_MEMBER} holds a private key: nobody but the CA needs it; give the certificate alone")
    try:
        found = certificates.load_all(secret)
    except MalformedCertificate as error:
        raise InvalidArgument(
            f"{_MEMBER} cannot be read: {error} Give the CA's certificate as PEM or as base64 of its DER"
        ) from error
    if len(found) > MAX_CERTIFICATES:
        raise InvalidArgument(f"{_MEMBER} holds {len(found)} certificates; at most {MAX_CERTIFICATES} are taken")
    return list(dict.fromkeys(found))


def _check(anchor: x509.Certificate, now_ms: int) -> None:
    """A CA that could not verify anybody is better refused here than at every device."""
    try:
        validity = trust_faults.validity_fault(anchor, trust_faults.second_of(now_ms))
        if validity is not None and validity.fault == trust_faults.Fault.NOT_YET_VALID:
            validity = None  # may be put in ahead of time
        if not trust_faults.is_ca(anchor):
            raise InvalidArgument(
                f"The first certificate in {_MEMBER}, {trust_faults.of(anchor)}, is no CA's: give that of the CA that "
                "issues the devices' certificates (it has basicConstraints CA:TRUE)"
            )
        fault = validity or trust_faults.key_fault(anchor) or trust_faults.ca_fault(anchor)
        fault = fault or trust_faults.extension_fault(anchor, is_issuer=True)
    except ValueError as error:  # of a part that cannot be read
        raise InvalidArgument(f"A part of the certificate in {_MEMBER} cannot be read: have it issued anew") from error
    if fault is not None:
        raise InvalidArgument(f"{_MEMBER}: {fault.detail}") from fault


@lru_cache(maxsize=1)
def _well_known_keys() -> frozenset[bytes]:
    """Public keys of the CAs that everybody on the web trusts: to trust one would be to trust anybody's certificate."""
    import certifi  # of `requests`; loaded where it is needed, since few installations need it

    keys: set[bytes] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of them are older than the rules of today
        for block in Path(certifi.where()).read_text("utf-8").split(_BEGIN)[1:]:
            try:
                keys.add(certificates.key_hash(certificates.load(certificates.der_of(_BEGIN + block))))
            except (MalformedCertificate, ValueError):
                continue  # what this library cannot read cannot be anybody's CA here either
    return frozenset(keys)


def check_unique(tx: ReadTx, provision: ProvisionConfiguration, tenant_id: int, profile_id: int | None) -> None:
    """A CA is one tenant's; several profiles of it may share the CA where their patterns differ.

    Raises: InvalidArgument.
    """
    anchor = anchors_of(provision.secret)[0]
    for other in tx.profiles_by_issuer([certificates.name_hash(anchor.subject)]):
        if other.id == profile_id or other.provision.key != provision.key:
            continue
        if other.tenant_id != tenant_id or other.provision.certificate_pattern == provision.certificate_pattern:
            raise InvalidArgument(SAME_KEY)
