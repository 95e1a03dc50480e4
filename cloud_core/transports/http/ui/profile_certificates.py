"""The CA of a profile that admits by certificates: what people are told of it, and the name rule tried out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cloud_core.core.certificates import chain_matching
from cloud_core.model import NIL_UUID, Authority, DeviceProfile, ProvisionConfiguration, ProvisionStrategy
from shared import certificates
from shared.certificates import MalformedCertificate
from shared.errors import InvalidDeviceName


class ShownAuthority(NamedTuple):
    """Of a CA's certificate. `fingerprint`: SHA-256 of its DER, in hex."""

    subject: str
    not_after_ms: int
    fingerprint: str
    others: int  # further certificates beside it


def authority_of(pem: str) -> ShownAuthority | None:
    """None for what cannot be read: the refusal of the form says so."""
    try:
        anchor, *others = certificates.load_all(pem)
        subject = certificates.name_text(anchor.subject)
        end_ms = int(anchor.not_valid_after_utc.timestamp() * 1000)
        return ShownAuthority(subject, end_ms, certificates.fingerprint(certificates.der(anchor)).hex(), len(others))
    except (MalformedCertificate, ValueError):
        return None


def pem_of(values: Mapping[str, str], authorities: list[Authority]) -> str:
    """Of the CA that was chosen by name, or what was pasted."""
    for one in authorities:
        if values["ca"] and one.name == values["ca"]:
            return "".join(certificates.pem(certificates.load(der)) for der in one.chain)
    return values["pem"]


def try_pattern(pattern: str, common_name: str) -> tuple[bool, str]:
    """Whether a certificate of that common name gets in, and its device's name or why not."""
    if not common_name:
        return False, "type a common name to try the rule with"
    provision = ProvisionConfiguration(strategy=ProvisionStrategy.X509_CERTIFICATE_CHAIN, certificate_pattern=pattern)
    profile = DeviceProfile(
        id=0, uuid=NIL_UUID, tenant_id=0, name="this profile", is_default=False, provision=provision,
        document={}, created_ms=0, version=0,
    )  # fmt: skip
    try:
        return True, chain_matching.device_name(profile, common_name)
    except InvalidDeviceName as error:
        said = str(error).replace(f" of profile '{profile.name}'", "").replace("certificateRegExPattern", "the rule")
        return False, said.rstrip(".")
