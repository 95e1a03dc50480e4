"""What becomes of provision requests, in words for people."""

from __future__ import annotations

from typing import NamedTuple

from cloud_core.transports.http.rest.attempt_queries import REFUSED
from shared.errors import Reason


class Said(NamedTuple):
    """`kind`: of the badge."""

    text: str
    kind: str


_WORDS = {
    "SUCCESS": Said("Granted", "good"),
    "REPLAYED": Said("Granted again", "good"),
    Reason.APPROVAL_PENDING.value: Said("Waits for approval", "warn"),
    Reason.INVALID_PROVISION_CREDENTIALS.value: Said("Wrong key or secret", "bad"),
    Reason.PROVISIONING_DISABLED.value: Said("Provisioning disabled", "bad"),
    Reason.DEVICE_EXISTS.value: Said("Device exists already", "bad"),
    Reason.DEVICE_NOT_FOUND.value: Said("Device not known", "bad"),
    Reason.ALREADY_PROVISIONED.value: Said("Already provisioned", "bad"),
    Reason.CREDENTIALS_IN_USE.value: Said("Credentials in use", "bad"),
    Reason.INVALID_CREDENTIALS.value: Said("Unusable credentials", "bad"),
    Reason.INVALID_DEVICE_NAME.value: Said("Unusable device name", "bad"),
    Reason.MALFORMED_REQUEST.value: Said("Malformed request", "bad"),
    Reason.RATE_LIMITED.value: Said("Too many failed attempts", "bad"),
    Reason.QUOTA_EXCEEDED.value: Said("No room left", "bad"),
    Reason.NO_CERTIFICATE_AUTHORITY.value: Said("No CA to sign", "bad"),
    Reason.UNTRUSTED_CERTIFICATE.value: Said("Certificate not trusted", "bad"),
    Reason.UNAVAILABLE.value: Said("Core was busy", "bad"),
}
CHOICES = [
    ("", "Any"), (REFUSED, "All that were not granted"),
    *((name, said.text) for name, said in _WORDS.items()),
]  # fmt: skip
_STAGES = {
    "parse": "reading the request", "ration": "counting failed attempts of the source",
    "profile": "finding the profile by key and secret", "secret": "comparing the secret",
    "key": "the rules of the provision key", "strategy": "the strategy of the device profile",
    "credentials": "checking the credentials", "stored": "all checks passed, stored",
    "renewal": "renewing a certificate", "store": "writing to the database",
}  # fmt: skip


def said(outcome: str) -> Said:
    """Of an outcome in the provisioning log; unknown ones are shown as they are."""
    return _WORDS.get(outcome) or Said(outcome, "bad")


def stage_text(stage: str) -> str:
    return _STAGES.get(stage, stage)
