"""What devices say and hear, as frozen values, free of any encoding.

Values on the per-message path use `slots` only and are treated as read-only (building a frozen one
costs four times as much).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """A device asks for credentials (wire-contract.md section 1.2). Empty strings mean absent."""

    provision_key: str
    provision_secret: str = field(repr=False)
    device_name: str = ""
    credentials_type: CredentialsType = CredentialsType.ACCESS_TOKEN
    token: str = field(default="", repr=False)
    client_id: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    is_gateway: bool = False

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributesRequest:
    """Which attributes a device asks for; None for a scope means it was not named."""

    client_keys: tuple[str, ...] | None
    shared_keys: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcRequest:
    """A device calls a method of the server; `params` is any decoded JSON."""

    method: str
    params: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConnect:
    """A gateway announces a sub-device (wire-contract.md section 5.2)."""

    device: str
    type: str = "default"


Attributes = Mapping[str, Value]
