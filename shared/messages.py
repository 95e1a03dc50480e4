"""What devices say and hear, as frozen values, free of any encoding.

Values on the per-message path use `slots` only and are treated as read-only (building a frozen one
costs four times as much).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared.credentials import Credentials, CredentialsType
from shared.errors import ProvisionStatus

# A value of a telemetry point or an attribute after typing (wire-contract.md section 7.1).
Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class JsonValue:
    """An object or array value; `text` is its JSON without insignificant white space."""

    text: str


Value = Scalar | JsonValue

# One telemetry pack: (`ts_ms` since the Unix epoch, {key: value}). A bare tuple, because it is built
# for every message: 80,000 a second and more.
Sample = tuple[int, dict[str, Value]]


@dataclass(slots=True, kw_only=True)
class ProvisionRequest:
    """A device asks for credentials (wire-contract.md section 1.2). Empty strings mean absent.

    `credentials_type` is the kind that it shall have in the end: a request of the wire's type `X509_CSR` is one for
    X509_CERTIFICATE with a `csr`, and its other credential members are not looked at. No other request has a `csr`.
    """

    provision_key: str
    provision_secret: str = field(repr=False)
    device_name: str = ""
    credentials_type: CredentialsType = CredentialsType.ACCESS_TOKEN
    token: str = field(default="", repr=False)
    client_id: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    csr: str = field(default="", repr=False)  # PEM or base64: the core's CA signs it
    is_gateway: bool = False
    profile_name: str = ""  # of the profile that is meant, where the request's path says it (EST)

    @property
    def brings_credentials(self) -> bool:
        """Whether any credential member is set, whatever `credentialsType` says (section 1.5)."""
        return bool(self.token or self.client_id or self.username or self.password or self.certificate)


@dataclass(slots=True, kw_only=True)
class ProvisionResponse:
    """The outcome of a provision request: credentials, or a refusal with `reason` and `ref`."""

    status: ProvisionStatus
    credentials: Credentials | None = field(default=None, repr=False)
    error_msg: str = ""
    reason: str = ""
    ref: str = ""
    retry_after_s: float | None = None
    device_name: str = ""  # only where the server generated the name
    warning: str = ""
    certificate_chain: str = ""  # PEM, of a certificate that the core's CA has issued: it, then its issuers


Attributes = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributesRequest:
    """Which attributes a device asks for (wire-contract.md section 2.8).

    None for a scope means that it was not named; when neither is named, all of both are wanted.
    """

    client_keys: tuple[str, ...] | None = None
    shared_keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributesAnswer:
    """What was found; a scope that was not asked for is empty, and so are missing keys."""

    client: Attributes = field(default_factory=dict)
    shared: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributesChange:
    """Shared attributes that were written, or the names of those that were deleted; never both."""

    values: Attributes = field(default_factory=dict)
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcRequest:
    """A device calls a method of the server; `params` is any decoded JSON."""

    method: str
    params: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcCommand:
    """The server calls a method of a device. The reply names `number`, which is unique per device."""

    number: int
    method: str
    params: Any = None  # decoded JSON
    is_oneway: bool = False


DEFAULT_CLAIM_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """A device offers itself to whoever shows `secret` (wire-contract.md section 7.3)."""

    secret: str = field(default="", repr=False)
    duration_ms: int = DEFAULT_CLAIM_MS


class PackageKind(StrEnum):
    """Which of the two packages a device can be assigned; the value is ThingsBoard's `type`."""

    FIRMWARE = "FIRMWARE"
    SOFTWARE = "SOFTWARE"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageRequest:
    """A piece of the assigned package.

    `title` and `version`, where given, must be those of the assigned one. `chunk_bytes` 0 means the
    whole package; `chunk` counts from 0.
    """

    kind: PackageKind
    title: str = ""
    version: str = ""
    chunk_bytes: int = 0
    chunk: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageChunk:
    """The bytes asked for, empty past the end, and what the whole package is called."""

    data: bytes = field(repr=False)
    file_name: str
    content_type: str
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConnect:
    """A gateway announces a sub-device (wire-contract.md section 5.2)."""

    device: str
    type: str = ""  # empty: not given
