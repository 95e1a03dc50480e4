"""Refusals as CoAP response codes (wire-contract.md section 4.2; numbers are class * 32 + detail)."""

from __future__ import annotations

from shared import errors
from shared.errors import PlatformError


def code(text: str) -> int:
    """`4.29` as the byte on the wire (RFC 7252 section 3)."""
    major, minor = text.split(".")
    return int(major) << 5 | int(minor)


CODES: dict[type[PlatformError], int] = {
    errors.MalformedRequest: code("4.00"),
    errors.RequestTooLarge: code("4.13"),
    errors.RateLimited: code("4.29"),  # RFC 8516, with Max-Age as the time to wait
    errors.NotAuthenticated: code("4.01"),
    errors.NotAuthorized: code("4.03"),
    errors.UntrustedCertificate: code("4.01"),
    errors.Unavailable: code("5.03"),  # with Max-Age as the time to wait
    errors.NotFound: code("4.04"),
    errors.InvalidArgument: code("4.00"),
    errors.VersionConflict: code("4.09"),
    errors.InvalidProvisionCredentials: code("4.00"),
    errors.ProvisioningDisabled: code("4.00"),
    errors.DeviceAlreadyExists: code("4.00"),
    errors.DeviceNotFound: code("4.00"),
    errors.AlreadyProvisioned: code("4.00"),
    errors.CredentialsInUse: code("4.00"),
    errors.InvalidCredentials: code("4.00"),
    errors.InvalidDeviceName: code("4.00"),
    errors.QuotaExceeded: code("4.00"),
}


def max_age(error: PlatformError) -> int | None:
    """Whole seconds to wait, rounded up; None when the error names no time."""
    return None if error.retry_after_s is None else max(1, -int(-error.retry_after_s // 1))
