"""Devices, their profiles, credentials and certificates, and who is talking to the core."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

from cloud_core.profile_options import DEFAULT_OPTIONS, ProfileOptions
from shared.credentials import Credentials
from shared.messages import Value

DEFAULT_TENANT = UUID("6d757374-6572-4000-8000-000000000001")
NIL_UUID = UUID(int=0)
NIL_CUSTOMER = UUID("13814000-1dd2-11b2-8080-808080808080")  # wire-contract.md section 6.2: unassigned

SYSTEM_TENANT = NIL_CUSTOMER  # ThingsBoard's: where system administrators are at home

PROVISION_STATE = "provisionState"
PROVISIONED = "provisioned"

# Server attributes that say when a device was heard of (wire-contract.md section 6.3): read-only, kept by `presence`.
ACTIVE = "active"
LAST_CONNECT_TIME = "lastConnectTime"
LAST_DISCONNECT_TIME = "lastDisconnectTime"
LAST_ACTIVITY_TIME = "lastActivityTime"
INACTIVITY_ALARM_TIME = "inactivityAlarmTime"
PRESENCE_KEYS = frozenset((ACTIVE, LAST_CONNECT_TIME, LAST_DISCONNECT_TIME, LAST_ACTIVITY_TIME, INACTIVITY_ALARM_TIME))
INACTIVITY_TIMEOUT = "inactivityTimeout"  # set by operators, in ms


def inactivity_timeout_ms(value: Value | None) -> int | None:
    """The attribute `inactivityTimeout` as a time; None where it is no positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**63:
        return None
    return int(value) or None


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


class Approval(StrEnum):
    """Whether an operator has to let each device in, beside all checks (`approval` of a profile)."""

    NONE = "NONE"
    REQUIRED = "REQUIRED"


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
    """Where a request came from: transport and source address (an IP address, no port).

    `traceparent`: the span that the peer says it is in, as it was sent.
    """

    transport: Transport
    address: str
    traceparent: str = ""


class Renewal(StrEnum):
    """What a certificate for the name of a device that has another one gets (chain provisioning)."""

    SAME_KEY_OR_WINDOW = "SAME_KEY_OR_WINDOW"
    """Taken when it is of the same key, or when the stored one is within its renewal window or over."""
    SAME_KEY = "SAME_KEY"
    ALWAYS = "ALWAYS"
    """As in ThingsBoard: the newest certificate of that name wins."""
    NEVER = "NEVER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """How the certificates of a profile's devices are checked for having been revoked; off unless one is on."""

    crl: bool = False
    ocsp: bool = False
    crl_url: str = ""  # empty: where the certificate says
    ocsp_url: str = ""
    allows_unknown: bool = False  # whether a certificate whose status cannot be had is taken

    @property
    def is_on(self) -> bool:
        return self.crl or self.ocsp


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionConfiguration:
    """How devices of a profile register themselves; ThingsBoard's fields and ours.

    Of X509_CERTIFICATE_CHAIN `secret` is the PEM of the issuing CA, whose first certificate is the trust anchor and
    whose others help to build paths, and `key` the SHA3 id of that first one.
    """

    strategy: ProvisionStrategy = ProvisionStrategy.DISABLED
    key: str = ""
    secret: str = field(default="", repr=False)
    accept_device_credentials: bool = False
    reprovisioning: Reprovisioning = Reprovisioning.REFUSE
    replay_window_s: int = 3600
    approval: Approval = Approval.NONE
    seed_error_messages: bool = False
    certificate_pattern: str = ""
    allow_create_by_certificate: bool = False
    renewal: Renewal = Renewal.SAME_KEY_OR_WINDOW
    renewal_window_days: int = 30  # before a certificate's end
    revocation: Revocation = field(default_factory=Revocation)
    authority: str = ""  # name of the tenant's CA that signs what devices ask for; empty: its only one
    certificate_days: int = 365  # how long a certificate is valid that the CA issues to a device
    former_secret: str = field(default="", repr=False)  # valid until `former_until_ms`, after a rotation
    former_until_ms: int = 0
    overlap_days: int = 7  # so long a device's former certificate still opens its door after a renewal


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
    customer_id: int | None = None
    customer_uuid: UUID | None = None


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
    """Who is talking, after authentication. One instance per device is shared by its requests.

    A copy of what the device was at login: changes end its sessions and drop it from every cache.
    """

    role: Role
    tenant_id: int = 0
    device_id: int = 0
    device_uuid: UUID | None = None
    device_name: str = ""
    profile_id: int = 0
    options: ProfileOptions = DEFAULT_OPTIONS


PROVISIONING_IDENTITY = Identity(Role.PROVISIONING)


@dataclass(frozen=True, slots=True)
class PresentedChain:
    """The certificates (DER) that a peer showed in its handshake: its own, and others as they came.

    That it has the key of `leaf` is proven; nothing else is. A resumed session shows the leaf alone.
    """

    leaf: bytes
    others: tuple[bytes, ...] = ()


@dataclass(slots=True, kw_only=True)
class PresentedCredentials:
    """What a peer shows at login. Absent and empty are the same, except `has_password`."""

    client_id: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    has_password: bool = False
    chain: PresentedChain | None = None  # of a TLS peer that showed a certificate


@dataclass(frozen=True, slots=True)
class Login:
    """A stored credential together with the identity it opens."""

    identity: Identity
    credentials: Credentials
    is_confirmed: bool


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One line of the provisioning log; never holds a secret."""

    ref: str  # also in the log lines of the attempt
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


class DeviceStage(StrEnum):
    """How far a device has come, by its credentials."""

    CREATED = "CREATED"
    """By an operator, an import or a gateway; nobody has asked for its credentials."""
    ISSUED = "ISSUED"
    """Its credentials were handed out in a provision response, and were not used yet."""
    CONFIRMED = "CONFIRMED"
    """It has logged in with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFilter:
    """Which devices a list is to show; what is empty or None asks for nothing."""

    profile_name: str = ""
    profile_uuid: UUID | None = None
    is_active: bool | None = None
    is_gateway: bool | None = None
    stage: DeviceStage | None = None


EVERY_DEVICE = DeviceFilter()


@dataclass(slots=True, kw_only=True)
class DevicePresence:
    """When a device was seen; ms since the epoch, 0 for never. Read-only but for `core.presence`."""

    device_id: int
    is_active: bool = False
    last_connect_ms: int = 0
    last_disconnect_ms: int = 0
    last_activity_ms: int = 0
    inactivity_alarm_ms: int = 0
    silent_since_ms: int = 0
    """Of one that is to be inactive: not where several nodes share the database and one has heard of it since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A small CA of a tenant. `chain` is DER: its own certificate first, then its issuers up to the root."""

    id: int
    uuid: UUID
    tenant_id: int
    name: str
    chain: tuple[bytes, ...]
    key: bytes = field(repr=False)  # PKCS#8 DER; sealed at rest
    created_ms: int
    crl_number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCertificate:
    """A certificate of a device, current or former. Times in ms since the epoch.

    `until_ms` is set when another has taken its place: until then it still opens the device's door.
    """

    id: int
    tenant_id: int
    device_id: int | None  # None: issued, and of no device (any more)
    authority_id: int | None  # of ours that issued it
    fingerprint: bytes  # SHA-256 of the DER
    serial: str  # hex, lower case, without leading zeros
    subject: str  # RFC 4514
    issuer: str
    not_before_ms: int
    not_after_ms: int
    created_ms: int
    until_ms: int | None = None
    revoked_ms: int | None = None
    revocation_reason: str = ""
    device_name: str = ""  # filled in by lists
