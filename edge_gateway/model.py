"""What the parts of the gateway tell each other.

A *reading* is what one sub-device said at one instant. A *record* is a reading, or a part of one, on its way through
the spool. A *call* is a command (RPC) for a sub-device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

Json = Any
"""What a JSON document can be: None, bool, int, float, str, list, dict."""


@dataclass(slots=True)
class Reading:
    """What a sub-device said. Built for every message: treat it as read-only.

    `device` is the name the mapping gave it; `type` its device profile, empty when unknown. `ts_ms` is the source's
    own time (Unix epoch, UTC), None when it gave none: the gateway then stamps it on arrival. `reports` says by key
    when a value is worth sending; a key that it does not name is always sent. `raw` is filled only for `edge-gateway
    try` and `tap`: by key, what stood on the wire, in words."""

    device: str
    type: str = ""
    ts_ms: int | None = None
    telemetry: Mapping[str, Json] | None = None
    attributes: Mapping[str, Json] | None = None
    reports: Mapping[str, ReportRule] | None = None
    raw: Mapping[str, str] | None = None


class ReportOn(StrEnum):
    """When a value is sent."""

    RECEIVED = "received"  # always
    CHANGE = "change"  # when it differs from the last one sent
    PERIOD = "period"  # the newest, once in a period, with the source's time
    CHANGE_OR_PERIOD = "change or period"  # at a change, and at the latest after a period


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRule:
    """A key's report strategy. `dead_band` is the change that counts, absolute or, with `is_percent`, in percent of
    the last value sent; it is meaningless for what is no number."""

    on: ReportOn = ReportOn.RECEIVED
    period_s: float = 0.0
    dead_band: float = 0.0
    is_percent: bool = False


class Content(IntEnum):
    """What a record holds; stored as its number."""

    TELEMETRY = 0
    ATTRIBUTES = 1


class Lane(IntEnum):
    """How a record is sent; stored as its number."""

    LIVE = 0  # handed on in memory as soon as it is durable
    HISTORY = 1  # read back from disk when its turn comes


@dataclass(slots=True)
class Record:
    """One entry of the spool.

    `number` is unique and grows in the order of acceptance. `device` is the mapping's name, "" the gateway itself.
    `ts_ms` is 0 while the gateway does not know the time; `boot` (number of this start of the machine) and
    `elapsed_ms` (monotonic, since then) are the instant of acceptance and let it be found later. `body` is the JSON
    object of the values."""

    number: int
    device: str
    content: Content
    lane: Lane
    ts_ms: int
    boot: int
    elapsed_ms: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The gateway cannot take a reading now: `reason` in a sentence; the source may try again after `retry_after_s`,
    or must not when it is None (the device is not allowed, the name is impossible)."""

    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A command for a sub-device; an answer after `timeout_s` is useless."""

    device: str
    method: str
    params: Json
    timeout_s: float


class CallFailed(Exception):
    """A call that could not be carried out; `str()` is sent to the caller."""


class Health(StrEnum):
    """How a connector is; shown with a reason."""

    STARTING = "starting"
    HEALTHY = "healthy"
    DEGRADED = "degraded"  # works in part: a slave is silent, messages cannot be read
    FAILED = "failed"  # ended by an error; it is started again after a while
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class SubDevice:
    """A device behind the gateway, as it is remembered.

    `name` is the mapping's; `upstream_name` the core's, another one after a rename there. `type` is the device profile.
    `is_deleted`: the core deleted it; forgotten until it speaks again.
    """

    name: str
    upstream_name: str
    type: str
    connector: str
    last_seen_ms: int = 0
    is_deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the gateway logs in with: an access token, an MQTT user with password and client id, or a certificate."""

    kind: str  # ACCESS_TOKEN | MQTT_BASIC | X509_CERTIFICATE
    token: str = ""
    client_id: str = ""
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.kind})"


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in the settings: `path` leads to it, such as ("map", 0, "telemetry", 2); `text` says the fix."""

    path: tuple[str | int, ...]
    text: str
