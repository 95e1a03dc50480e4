"""The entities of the core and who is talking to it. Values only; the rules live in `core`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

from shared.credentials import Credentials
from shared.messages import Value

DEFAULT_TENANT = UUID("6d757374-6572-4000-8000-000000000001")
NIL_CUSTOMER = UUID("13814000-1dd2-11b2-8080-808080808080")  # wire-contract.md section 6.2: unassigned

PROVISION_STATE = "provisionState"
PROVISIONED = "provisioned"


class ProvisionStrategy(StrEnum):
    """`provisionType` of a device profile (wire-contract.md section 1.1)."""

    DISABLED = "DISABLED"
    ALLOW_CREATE_NEW_DEVICES = "ALLOW_CREATE_NEW_DEVICES"
    CHECK_PRE_PROVISIONED_DEVICES = "CHECK_PRE_PROVISIONED_DEVICES"
    X509_CERTIFICATE_CHAIN = "X509_CERTIFICATE_CHAIN"


class Reprovisioning(StrEnum):
    """What a repeated, otherwise refused request of the same device gets (product.md section 5)."""

    REFUSE = "REFUSE"
    REPLAY_UNTIL_CONFIRMED = "REPLAY_UNTIL_CONFIRMED"


class Scope(IntEnum):
    """Attribute scope; the number is stored."""

    CLIENT = 1
    SHARED = 2
    SERVER = 3


class Role(Enum):
    """What kind of identity is talking; `core.permissions` maps it to operations."""

    PROVISIONING = "provisioning"
    DEVICE = "device"
    GATEWAY = "gateway"


class Transport(StrEnum):
    """Which door a request came through, as written to the provisioning log."""

    MQTT = "mqtt"
    HTTP = "http"
    COAP = "coap"


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a request came from: transport and source address (an IP address, no port)."""

    transport: Transport
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionConfiguration:
    """How devices of a profile register themselves; ThingsBoard's fields and ours."""

    strategy: ProvisionStrategy = ProvisionStrategy.DISABLED
    key: str = ""
    secret: str = field(default="", repr=False)
    accept_device_credentials: bool = False
    reprovisioning: Reprovisioning = Reprovisioning.REFUSE
    replay_window_s: int = 3600
    seed_error_messages: bool = False
    certificate_pattern: str = ""
    allow_create_by_certificate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """A kind of device. `document` keeps every other REST member as it was given, secrets excepted."""

    id: int
    uuid: UUID
    tenant_id: int
    name: str
    is_default: bool
    provision: ProvisionConfiguration
    document: dict[str, Any]  # JSON members of REST that have no meaning of their own here
    created_ms: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device. `type` is the name of its profile."""

    id: int
    uuid: UUID
    tenant_id: int
    profile_id: int
    profile_uuid: UUID
    type: str
    name: str
    label: str
    is_gateway: bool
    document: dict[str, Any]  # `additionalInfo` and other REST members kept as given
    created_ms: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCredentials:
    """The credentials of a device and their life: issued, then confirmed by first use."""

    device_id: int
    uuid: UUID
    credentials: Credentials = field(repr=False)
    created_ms: int
    issued_ms: int | None = None  # handed out in a provision response
    confirmed_ms: int | None = None  # first used to log in
    request_digest: bytes | None = None  # keyed hash of the request that issued them
    version: int = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is talking, after authentication. One instance per device is shared by its requests."""

    role: Role
    tenant_id: int = 0
    device_id: int = 0
    device_uuid: UUID | None = None
    device_name: str = ""
    profile_id: int = 0


PROVISIONING_IDENTITY = Identity(Role.PROVISIONING)


@dataclass(slots=True, kw_only=True)
class PresentedCredentials:
    """What a peer shows at login. Absent and empty are the same, except `has_password`."""

    client_id: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    has_password: bool = False
    certificate: str = ""  # base64 of the DER of the TLS peer certificate


@dataclass(frozen=True, slots=True)
class Login:
    """A stored credential together with the identity it opens."""

    identity: Identity
    credentials: Credentials
    is_confirmed: bool


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One line of the provisioning log; never holds a secret."""

    ref: str  # of a refusal; empty for a success
    at_ms: int
    peer: Peer
    outcome: str  # SUCCESS, REPLAYED, or a `Reason`
    stage: str  # which check decided: parse, ration, profile, secret, strategy, credentials, stored
    detail: str = ""
    tenant_id: int | None = None
    profile_id: int | None = None
    device_id: int | None = None
    device_name: str = ""
    key_hint: str = ""  # first characters of the presented key, enough to recognise, not to use
    request: dict[str, Any] = field(default_factory=dict)  # redacted members


@dataclass(frozen=True, slots=True)
class AttributeEntry:
    """One attribute as stored: name, typed value, last update in ms."""

    key: str
    value: Value
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for; `page` counts from 0."""

    size: int = 20
    page: int = 0
    text_search: str = ""
    sort_property: str = "createdTime"
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person or program that administers a tenant."""

    id: int
    uuid: UUID
    tenant_id: int
    username: str
    password_hash: str = field(repr=False)
    authority: str
    created_ms: int
