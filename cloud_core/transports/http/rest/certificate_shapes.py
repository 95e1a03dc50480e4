"""Certificates in ThingsBoard's REST JSON: what a profile says of them, credentials, and how refusals are mended.

Source: wire-contract.md sections 1.1, 1.7 and 1.8.
"""

from __future__ import annotations

from typing import Any

from cloud_core.core.certificates.trust import Fault
from cloud_core.model import ProvisionConfiguration, ProvisionStrategy, Renewal, Revocation
from shared import certificates
from shared.certificates import MalformedCertificate
from shared.errors import InvalidArgument, Reason

_RENEW = "Renew the device's certificate; a CA that ended is replaced in the device profile."
_OWN = "Have the device's certificate issued anew by its CA, as the detail says."
_CA = "Mend the CA's certificate, or have the device's issued by another CA, as the detail says."
_STATUS = (
    "Ask the CA's revocation service why; set allowUnknown in the profile's revocation to let devices in meanwhile."
)
# By outcome and stage of an attempt: how a refusal of certificate chain provisioning is mended.
FIXES: dict[tuple[str, str], str] = {
    **{
        (Reason.UNTRUSTED_CERTIFICATE.value, fault.value): fix
        for fault, fix in {
            Fault.EXPIRED: _RENEW,
            Fault.NOT_YET_VALID: "Correct the clock of whoever issued it, or of this server, or wait.",
            Fault.NOT_A_CA: _CA,
            Fault.CA_AS_DEVICE: "Give the device a certificate of its own; it shows one of a CA.",
            Fault.PATH_TOO_LONG: _CA,
            Fault.WRONG_USAGE: "Have the certificate that the detail names issued with the usage that it lacks.",
            Fault.SELF_SIGNED: "Register the certificate as the device's credentials, or have it issued by a CA.",
            Fault.UNKNOWN_ISSUER: "Save the issuing CA in a device profile, with those in between that devices omit.",
            Fault.BAD_SIGNATURE: "Compare the CA in the device profile with the one that issued the certificate.",
            Fault.WEAK_KEY: "Make a new key, on P-256 or with RSA of 2048 bits or more, and have it certified.",
            Fault.UNSUPPORTED_KEY: "Make a new key, on P-256 or with RSA of 2048 bits or more, and have it certified.",
            Fault.WEAK_SIGNATURE: "Have the certificate issued anew, signed with SHA-256 or better.",
            Fault.CHAIN_TOO_LONG: "Let the device send its own certificate and the CAs up to the profile's alone.",
            Fault.UNKNOWN_EXTENSION: _OWN,
            Fault.NAME_NOT_PERMITTED: _CA,
            Fault.REVOKED: "Give the device a new certificate if it is to be trusted again.",
            Fault.STATUS_UNKNOWN: _STATUS,
            Fault.MALFORMED: _OWN,
            Fault.AGAINST_THE_RULES: _OWN,
        }.items()
    },
    (Reason.INVALID_DEVICE_NAME.value, "name"): (
        "Compare certificateRegExPattern with the common name; its first group must be the device's name, for one "
        "profile of this CA alone."
    ),
    (Reason.DEVICE_NOT_FOUND.value, "strategy"): (
        "Create or import the device under this profile first, or let certificates create devices."
    ),
    (Reason.DEVICE_EXISTS.value, "renewal"): (
        "Store the certificate as the device's credentials if it is right, or change certificateRenewal in the profile."
    ),
    (Reason.DEVICE_EXISTS.value, "credentials"): (
        "Store the certificate as the device's credentials, or delete the device."
    ),
    (Reason.DEVICE_EXISTS.value, "profile"): "Move the device to the profile of its CA, or give it another name.",
}


def text_of(value: str) -> str:
    """Of a certificate its one-line form, the same however it was wrapped; a mere fingerprint as it is.

    Raises: InvalidArgument for a PEM that cannot be read.
    """
    try:
        return certificates.certificate_text(certificates.der(certificates.load(certificates.der_of(value))))
    except MalformedCertificate as error:
        if "-----BEGIN" in value:
            raise InvalidArgument(f"Validation error: credentialsValue is no certificate: {error}") from error
        return value


def number_of(given: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = given.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidArgument(f"Validation error: {name} must be {least} to {most}")
    return value


def options_from(given: dict[str, Any], strategy: ProvisionStrategy) -> dict[str, Any]:
    """What the provision configuration says of certificates; ThingsBoard's members and ours.

    Raises: InvalidArgument.
    """
    default = ProvisionConfiguration()
    try:
        renewal = Renewal(given.get("certificateRenewal") or default.renewal)
    except ValueError as error:
        raise InvalidArgument(f"Validation error: certificateRenewal must be one of {', '.join(Renewal)}") from error
    revocation = _revocation(given.get("revocation"))
    if revocation.is_on and strategy is not ProvisionStrategy.X509_CERTIFICATE_CHAIN:
        raise InvalidArgument(
            "Validation error: revocation needs the CA's certificate: choose the strategy X509_CERTIFICATE_CHAIN, "
            "or switch revocation.crl and revocation.ocsp off"
        )
    return {
        "certificate_pattern": str(given.get("certificateRegExPattern") or ""),
        "allow_create_by_certificate": given.get("allowCreateNewDevicesByX509Certificate") is True,
        "renewal": renewal, "revocation": revocation,
        "renewal_window_days": number_of(given, "certificateRenewalWindowDays", default.renewal_window_days, 0, 36_500),
        "authority": _name(given.get("certificateAuthority")),
        "certificate_days": number_of(given, "certificateLifetimeDays", default.certificate_days, 1, 36_500),
        "overlap_days": number_of(given, "certificateOverlapDays", default.overlap_days, 0, 3_650),
    }  # fmt: skip


_REVOCATION_MEMBERS = {
    "crl": "crl", "ocsp": "ocsp", "crlUrl": "crl_url", "ocspUrl": "ocsp_url", "allowUnknown": "allows_unknown",
}  # fmt: skip


def _revocation(given: Any) -> Revocation:  # Any: decoded JSON
    if given is None:
        return Revocation()
    if not isinstance(given, dict):
        raise InvalidArgument('Validation error: revocation must be an object such as {"crl": true}')
    unknown = [name for name in given if name not in _REVOCATION_MEMBERS]
    if unknown:  # a check that is misspelt would be a check that is off
        known = ", ".join(_REVOCATION_MEMBERS)
        raise InvalidArgument(f"Validation error: revocation has no member '{str(unknown[0])[:50]}'; it has {known}")
    members: dict[str, Any] = {}
    for name, field in _REVOCATION_MEMBERS.items():
        value = given.get(name)
        if name.endswith("Url"):
            members[field] = _url(value, f"revocation.{name}")
        elif value is None or isinstance(value, bool):
            members[field] = value is True
        else:
            raise InvalidArgument(f"Validation error: revocation.{name} must be true or false")
    return Revocation(**members)


def _url(value: Any, name: str) -> str:  # Any: decoded JSON
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not value.startswith(("http://", "https://")) or len(value) > 1_000:
        raise InvalidArgument(f"Validation error: {name} must be a URL that begins with http:// or https://")
    return value


def members_of(provision: ProvisionConfiguration) -> dict[str, Any]:
    """The members that `options_from` reads; those of chain profiles only where there is a chain."""
    members: dict[str, Any] = {
        "certificateAuthority": provision.authority or None, "certificateLifetimeDays": provision.certificate_days,
        "certificateOverlapDays": provision.overlap_days,
    }  # fmt: skip
    if provision.strategy is not ProvisionStrategy.X509_CERTIFICATE_CHAIN:
        return members
    revocation = {name: getattr(provision.revocation, field) for name, field in _REVOCATION_MEMBERS.items()}
    return members | {
        "certificateRegExPattern": provision.certificate_pattern,
        "allowCreateNewDevicesByX509Certificate": provision.allow_create_by_certificate,
        "certificateRenewal": provision.renewal.value,
        "certificateRenewalWindowDays": provision.renewal_window_days,
        "revocation": {name: value if value != "" else None for name, value in revocation.items()},
    }


def _name(value: Any) -> str:  # Any: decoded JSON
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 255:
        raise InvalidArgument("Validation error: certificateAuthority must be the name of a CA")
    return value.strip()
