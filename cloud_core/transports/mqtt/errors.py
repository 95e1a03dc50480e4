"""Refusals as MQTT codes: PUBACK reason (5.0) and the CONNACK codes of a refused login."""

from __future__ import annotations

from cloud_core.model import PresentedCredentials
from shared import errors
from shared.errors import PlatformError

# PUBACK / DISCONNECT reason codes of MQTT 5.0 (OASIS section 2.4); a 3.1.1 client gets a plain PUBACK.
REASONS: dict[type[PlatformError], int] = {
    errors.MalformedRequest: 0x99,
    errors.RequestTooLarge: 0x99,  # PUBACK knows no 0x95
    errors.RateLimited: 0x97,
    errors.NotAuthenticated: 0x87,
    errors.NotAuthorized: 0x87,
    errors.UntrustedCertificate: 0x87,
    errors.Unavailable: 0x97,
    errors.NotFound: 0x90,
    errors.InvalidArgument: 0x83,
    errors.VersionConflict: 0x83,
    errors.DeviceOffline: 0x83,
    errors.DeviceTimeout: 0x83,
    errors.ClaimRefused: 0x83,
    errors.PackageNotFound: 0x83,
    errors.InvalidProvisionCredentials: 0x00,  # provisioning answers in the response message
    errors.ProvisioningDisabled: 0x00,
    errors.DeviceAlreadyExists: 0x00,
    errors.DeviceNotFound: 0x00,
    errors.AlreadyProvisioned: 0x00,
    errors.CredentialsInUse: 0x00,
    errors.InvalidCredentials: 0x00,
    errors.InvalidDeviceName: 0x00,
    errors.QuotaExceeded: 0x00,
    errors.NoAuthority: 0x00,
    errors.ApprovalPending: 0x00,
}

UNAVAILABLE = (3, 0x88)  # also for a profile of another transport
RATE_EXCEEDED = (3, 0x9F)
NOT_AUTHORIZED = (5, 0x87)


def explained(error: PlatformError) -> str:
    """With the reference that finds it in the provisioning log, where it stands there."""
    return f"{error} (ref {error.ref})" if error.ref else str(error)


def connack_codes(error: PlatformError, presented: PresentedCredentials) -> tuple[int, int]:
    """(3.1.1 return code, 5.0 reason code) of a refused CONNECT; wire-contract.md section 2.4."""
    if isinstance(error, errors.RateLimited):
        return RATE_EXCEEDED
    is_refused = errors.NotAuthenticated, errors.UntrustedCertificate, errors.ProvisionRefused
    if not isinstance(error, is_refused):
        return UNAVAILABLE
    if presented.chain is not None:
        return NOT_AUTHORIZED
    if presented.username or presented.has_password:
        return 5, 0x86
    return (2, 0x85) if presented.client_id.strip() else (5, 0x87)
