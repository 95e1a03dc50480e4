"""Every refusal the platform can express, as one class each with its fixed public text.

The core raises these and knows no status codes; each transport's `errors.py` translates the leaf
classes into its own codes. `reason` and `errorMsg` are what a device may see (product.md section 5,
wire-contract.md section 1.6); whatever helps only an operator goes to the provisioning log.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Machine-readable cause of a refusal, sent as the additional member `reason`."""

    INVALID_PROVISION_CREDENTIALS = "INVALID_PROVISION_CREDENTIALS"
    PROVISIONING_DISABLED = "PROVISIONING_DISABLED"
    DEVICE_EXISTS = "DEVICE_EXISTS"
    DEVICE_NOT_FOUND = "DEVICE_NOT_FOUND"
    ALREADY_PROVISIONED = "ALREADY_PROVISIONED"
    CREDENTIALS_IN_USE = "CREDENTIALS_IN_USE"
    INVALID_CREDENTIALS = "INVALID_CREDENTIALS"
    INVALID_DEVICE_NAME = "INVALID_DEVICE_NAME"
    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    RATE_LIMITED = "RATE_LIMITED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    NO_CERTIFICATE_AUTHORITY = "NO_CERTIFICATE_AUTHORITY"
    APPROVAL_PENDING = "APPROVAL_PENDING"
    UNTRUSTED_CERTIFICATE = "UNTRUSTED_CERTIFICATE"
    UNAVAILABLE = "UNAVAILABLE"
    # Never the outcome of a provision request; used on the other device and admin operations.
    NOT_AUTHENTICATED = "NOT_AUTHENTICATED"
    NOT_AUTHORIZED = "NOT_AUTHORIZED"
    NOT_FOUND = "NOT_FOUND"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    DEVICE_OFFLINE = "DEVICE_OFFLINE"
    DEVICE_TIMEOUT = "DEVICE_TIMEOUT"
    CLAIM_REFUSED = "CLAIM_REFUSED"
    PACKAGE_NOT_FOUND = "PACKAGE_NOT_FOUND"


class ProvisionStatus(StrEnum):
    """`status` of a provision response (wire-contract.md section 1.6)."""

    SUCCESS = "SUCCESS"
    NOT_FOUND = "NOT_FOUND"
    FAILURE = "FAILURE"


NOT_FOUND_TEXT = "Provision data was not found!"
FAILURE_TEXT = "Failed to provision device!"


class PlatformError(Exception):
    """A refusal with a public text. `str(error)` is safe to show to the peer and to log."""

    reason: ClassVar[Reason]
    public_text: ClassVar[str] = ""

    def __init__(self, detail: str = "", *, retry_after_s: float | None = None) -> None:
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.ref: str | None = None  # set once the refusal stands in the provisioning log
        self.stage = ""  # of a provision attempt: which check has refused it
        super().__init__(detail or self.public_text)


class MalformedRequest(PlatformError):
    """The peer sent something that is not the agreed shape; `detail` names the first fault."""

    reason = Reason.MALFORMED_REQUEST
    public_text = "The request is malformed."


class RequestTooLarge(PlatformError):
    """The payload is above the limit of its operation."""

    reason = Reason.REQUEST_TOO_LARGE
    public_text = "The request is too large."


FAILED_ATTEMPTS_TEXT = "Too many failed attempts; try again later."


class RateLimited(PlatformError):
    """The peer used up a ration or a message rate; `detail` says which, `retry_after_s` when it may ask again."""

    reason = Reason.RATE_LIMITED
    public_text = "Too many requests; try again later."


class NotAuthenticated(PlatformError):
    """The presented credentials are unknown or do not match."""

    reason = Reason.NOT_AUTHENTICATED
    public_text = "Authentication failed."


class NotAuthorized(PlatformError):
    """The identity is known but may not do this."""

    reason = Reason.NOT_AUTHORIZED
    public_text = "You don't have permission to perform this operation!"


class UntrustedCertificate(PlatformError):
    """A certificate chain does not lead to a trusted issuer."""

    reason = Reason.UNTRUSTED_CERTIFICATE
    public_text = "The certificate is not trusted."

    def __init__(self, detail: str = "", *, fault: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.fault = fault  # one of `core.trust.Fault`, where a chain was looked at


class Unavailable(PlatformError):
    """The platform cannot take the request now (queue full, draining, storage down)."""

    reason = Reason.UNAVAILABLE
    public_text = "The service is busy; try again later."


class NotFound(PlatformError):
    """An administrator asked for something that does not exist."""

    reason = Reason.NOT_FOUND
    public_text = "Requested item wasn't found!"


class InvalidArgument(PlatformError):
    """An administrator's request breaks a validation rule; `detail` is the message to show."""

    reason = Reason.INVALID_ARGUMENT
    public_text = "Invalid arguments."


class VersionConflict(PlatformError):
    """The entity was changed by somebody else since it was read."""

    reason = Reason.VERSION_CONFLICT
    public_text = "The entity was already changed by someone else; read it again."


class DeviceOffline(PlatformError):
    """No connection of the device is open that could take the command."""

    reason = Reason.DEVICE_OFFLINE
    public_text = "The device is not connected; send the command as persistent to have it wait."


class DeviceTimeout(PlatformError):
    """The device, or the server method that it called, did not answer in time."""

    reason = Reason.DEVICE_TIMEOUT
    public_text = "No answer in time."


class ClaimRefused(PlatformError):
    """The device may not be claimed: it has an owner, or claiming is not allowed."""

    reason = Reason.CLAIM_REFUSED
    public_text = "The device cannot be claimed."


class PackageNotFound(PlatformError):
    """No package of this kind is assigned to the device."""

    reason = Reason.PACKAGE_NOT_FOUND
    public_text = "No such package is assigned to the device."


class ProvisionRefused(PlatformError):
    """A provision request was evaluated and refused.

    `status` and `public_text` are ThingsBoard's; `seed_text` is the wording of the specification,
    used instead when the profile asks for it (`seedErrorMessages`).
    """

    status: ClassVar[ProvisionStatus] = ProvisionStatus.FAILURE
    public_text = FAILURE_TEXT
    seed_text: ClassVar[str] = FAILURE_TEXT
    seed_worded = False  # set by the core when the profile asks for the specification's wording

    @property
    def error_msg(self) -> str:
        """`errorMsg` of the response."""
        return self.seed_text if self.seed_worded else self.public_text


class InvalidProvisionCredentials(ProvisionRefused):
    """Unknown key or wrong secret: the same answer, so that neither can be guessed apart."""

    reason = Reason.INVALID_PROVISION_CREDENTIALS
    status = ProvisionStatus.NOT_FOUND
    public_text = NOT_FOUND_TEXT
    seed_text = "Invalid provision key or secret"


class ProvisioningDisabled(ProvisionRefused):
    """The profile's strategy admits nobody through a provision request."""

    reason = Reason.PROVISIONING_DISABLED
    status = ProvisionStatus.NOT_FOUND
    public_text = NOT_FOUND_TEXT
    seed_text = "Provisioning is disabled"


class DeviceAlreadyExists(ProvisionRefused):
    """A device of that name exists and the strategy only creates new ones."""

    reason = Reason.DEVICE_EXISTS
    seed_text = "Device with this name already exists"


class DeviceNotFound(ProvisionRefused):
    """The strategy needs a pre-provisioned device of that name in the profile; there is none."""

    reason = Reason.DEVICE_NOT_FOUND
    seed_text = "Device not found"


class AlreadyProvisioned(ProvisionRefused):
    """The pre-provisioned device has been provisioned before."""

    reason = Reason.ALREADY_PROVISIONED
    seed_text = "Device is already provisioned"


class CredentialsInUse(ProvisionRefused):
    """The credentials that the device brings belong to another device."""

    reason = Reason.CREDENTIALS_IN_USE
    seed_text = "Specified credentials are already registered"


class InvalidCredentials(ProvisionRefused):
    """The credentials that the device brings break the rules of their type."""

    reason = Reason.INVALID_CREDENTIALS
    seed_text = "Invalid device credentials"


class InvalidDeviceName(ProvisionRefused):
    """The device name is blank, too long, or looks like markup."""

    reason = Reason.INVALID_DEVICE_NAME
    seed_text = "Invalid device name"


class QuotaExceeded(ProvisionRefused):
    """The tenant may not have more devices."""

    reason = Reason.QUOTA_EXCEEDED
    seed_text = "Device limit reached"


class NoAuthority(ProvisionRefused):
    """A certificate is asked for, and the profile has no CA that could issue it now."""

    reason = Reason.NO_CERTIFICATE_AUTHORITY
    seed_text = "No certificate authority"


class ApprovalPending(ProvisionRefused):
    """The request is right and waits for an operator; the same request may be asked again later."""

    reason = Reason.APPROVAL_PENDING
    seed_text = "Waiting for approval"


def leaf_classes(root: type[PlatformError] = PlatformError) -> set[type[PlatformError]]:
    """All refusals without subclasses; every transport's table has exactly these keys."""
    children = root.__subclasses__()
    if not children:
        return {root}
    return set().union(*(leaf_classes(child) for child in children))


def status_of(error: PlatformError) -> ProvisionStatus:
    """`status` of the provision response that carries `error`; FAILURE unless the class says more."""
    return error.status if isinstance(error, ProvisionRefused) else ProvisionStatus.FAILURE
