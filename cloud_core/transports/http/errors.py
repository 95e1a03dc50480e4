"""Refusals as HTTP: status codes and the REST error object (wire-contract.md sections 3.2 and 6.2)."""

from __future__ import annotations

import time

import msgspec

from cloud_core.core.people.logins import EXPIRED
from shared import errors
from shared.errors import PlatformError

# On the device API and REST. Evaluated provision refusals are answered 200 with their body (section 3.1).
STATUS: dict[type[PlatformError], int] = {
    errors.MalformedRequest: 400,
    errors.RequestTooLarge: 413,
    errors.RateLimited: 429,
    errors.NotAuthenticated: 401,
    errors.NotAuthorized: 403,
    errors.UntrustedCertificate: 401,
    errors.Unavailable: 503,
    errors.NotFound: 404,
    errors.InvalidArgument: 400,
    errors.VersionConflict: 409,
    errors.DeviceOffline: 504,
    errors.DeviceTimeout: 504,
    errors.ClaimRefused: 400,
    errors.PackageNotFound: 404,
    errors.InvalidProvisionCredentials: 200,
    errors.ProvisioningDisabled: 200,
    errors.DeviceAlreadyExists: 200,
    errors.DeviceNotFound: 200,
    errors.AlreadyProvisioned: 200,
    errors.CredentialsInUse: 200,
    errors.InvalidCredentials: 200,
    errors.InvalidDeviceName: 200,
    errors.QuotaExceeded: 200,
    errors.NoAuthority: 200,
    errors.ApprovalPending: 200,
}

# On the device API, where it differs: a device whose call to the server is not answered in time asks again.
_DEVICE_STATUS: dict[type[PlatformError], int] = {errors.DeviceTimeout: 408}

_ERROR_CODES = {400: 31, 401: 10, 403: 20, 404: 32, 405: 31, 409: 35, 413: 31, 429: 33}
EXPIRED_CODE = 11
GENERAL_CODE = 2


def device_status(error: PlatformError) -> int:
    """The status with which the device API refuses (wire-contract.md section 3.2)."""
    kind = type(error)
    return _DEVICE_STATUS.get(kind) or STATUS[kind]


def error_body(status: int, message: str, error_code: int | None = None) -> bytes:
    """`{"status", "message", "errorCode", "timestamp"}` with the time in ms."""
    code = error_code or _ERROR_CODES.get(status, GENERAL_CODE)
    return msgspec.json.encode(
        {"status": status, "message": message, "errorCode": code, "timestamp": int(time.time() * 1000)}
    )


def refusal_body(error: PlatformError) -> tuple[int, bytes]:
    """The status with which REST refuses, and the error object."""
    status = STATUS[type(error)]
    if status == 200:
        status = 400  # a provision refusal cannot reach REST; if a rule does, it is a bad argument here
    text = str(error) or error.public_text
    return status, error_body(status, text, EXPIRED_CODE if text == EXPIRED else None)


def retry_after(error: PlatformError) -> int | None:
    """Whole seconds for the `Retry-After` header, rounded up; None when the error names no time."""
    return None if error.retry_after_s is None else max(1, -int(-error.retry_after_s // 1))
