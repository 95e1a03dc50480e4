"""Refusals as CoAP: response codes and Max-Age (wire-contract.md section 4.2, product.md section 5)."""

from __future__ import annotations

import math

from shared import errors
from shared.errors import PlatformError

# Codes as they stand in the header byte: class in the upper three bits (RFC 7252 section 12.1).
CREATED = 0x41
DELETED = 0x42
VALID = 0x43
CHANGED = 0x44
CONTENT = 0x45
CONTINUE = 0x5F
BAD_REQUEST = 0x80
UNAUTHORIZED = 0x81
BAD_OPTION = 0x82
FORBIDDEN = 0x83
NOT_FOUND = 0x84
METHOD_NOT_ALLOWED = 0x85
NOT_ACCEPTABLE = 0x86
INCOMPLETE = 0x88
CONFLICT = 0x89
TOO_LARGE = 0x8D
UNSUPPORTED_FORMAT = 0x8F
TOO_MANY_REQUESTS = 0x9D  # RFC 8516
INTERNAL_ERROR = 0xA0
SERVICE_UNAVAILABLE = 0xA3
GATEWAY_TIMEOUT = 0xA4
PROXYING_NOT_SUPPORTED = 0xA5

CODES: dict[type[PlatformError], int] = {
    errors.MalformedRequest: BAD_REQUEST,
    errors.RequestTooLarge: TOO_LARGE,
    errors.RateLimited: TOO_MANY_REQUESTS,
    errors.NotAuthenticated: UNAUTHORIZED,
    errors.NotAuthorized: FORBIDDEN,
    errors.UntrustedCertificate: UNAUTHORIZED,
    errors.Unavailable: SERVICE_UNAVAILABLE,
    errors.NotFound: NOT_FOUND,
    errors.InvalidArgument: BAD_REQUEST,
    errors.VersionConflict: CONFLICT,
    errors.DeviceOffline: GATEWAY_TIMEOUT,
    errors.DeviceTimeout: GATEWAY_TIMEOUT,
    errors.ClaimRefused: BAD_REQUEST,
    errors.PackageNotFound: NOT_FOUND,
    errors.InvalidProvisionCredentials: BAD_REQUEST,
    errors.ProvisioningDisabled: BAD_REQUEST,
    errors.DeviceAlreadyExists: BAD_REQUEST,
    errors.DeviceNotFound: BAD_REQUEST,
    errors.AlreadyProvisioned: BAD_REQUEST,
    errors.CredentialsInUse: BAD_REQUEST,
    errors.InvalidCredentials: BAD_REQUEST,
    errors.InvalidDeviceName: BAD_REQUEST,
    errors.QuotaExceeded: BAD_REQUEST,
    errors.NoAuthority: BAD_REQUEST,
    errors.ApprovalPending: BAD_REQUEST,
}

_COME_BACK = (TOO_MANY_REQUESTS, SERVICE_UNAVAILABLE)
_DEFAULT_MAX_AGE_S = 5


def max_age_s(error: PlatformError, code: int | None = None) -> int | None:
    """Whole seconds after which the device may ask again, rounded up; None where that has no meaning.

    `code`: with which it is refused, where that is not the one of `CODES`.

    Source: RFC 7252 section 5.9.3.4, RFC 8516.
    """
    if (CODES[type(error)] if code is None else code) not in _COME_BACK:
        return None
    if error.retry_after_s is None:
        return _DEFAULT_MAX_AGE_S
    return max(1, math.ceil(error.retry_after_s))
