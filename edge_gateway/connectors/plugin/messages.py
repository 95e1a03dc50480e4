"""What the gateway and a plug-in process tell each other: one JSON object a line (UTF-8, at most 1 MiB).

They go over the plug-in's standard input and output. Its standard error is for words, which go to the gateway's log.
`do` says what a line is:

From the gateway
    {"do": "hello", "version": 1, "name": "plant", "settings": {…}, "wants_raw": false}    first; answer by hello
    {"do": "ack", "seq": 7}                             the readings are on disk: the source may be told so now
    {"do": "refuse", "seq": 7, "reason": "…", "retry_after_s": 5.0}    not taken; null: do not try again
    {"do": "call", "id": 3, "device": "a", "method": "m", "params": …, "timeout_s": 10}    answer by result or failed
    {"do": "attributes", "id": 4, "device": "a", "values": {…}, "deleted": [...]}          answer by result or failed
    {"do": "congested"}   {"do": "room"}                stop reading from the source; go on
    {"do": "raw", "is_wanted": true}                    readings should carry `raw`, or not any more
    {"do": "ping", "number": 5}                         answer by pong within 30 s, or be killed
    {"do": "stop"}                                      end within a second; SIGTERM follows, then SIGKILL

From the plug-in
    {"do": "hello", "version": 1}
    {"do": "readings", "seq": 7, "readings": [{"device": "a", "type": "", "ts_ms": null, "telemetry": {"t": 1},
        "attributes": {…}, "raw": {"t": "0x01"}}]}      seq grows; 0: nobody needs to know what became of them
    {"do": "reject", "source": "…", "payload": "<base64>", "why": "…"}
    {"do": "seen", "device": "a", "type": ""}   {"do": "gone", "device": "a"}
    {"do": "health", "health": "healthy", "reason": ""}    starting, healthy, degraded; say healthy when it works
    {"do": "result", "id": 3, "value": …}   {"do": "failed", "id": 3, "error": "…"}
    {"do": "pong", "number": 5}
    {"do": "ended", "why": "…"}                         it cannot go on; started again after a while

Unknown members are ignored, so that either side may be older; an unknown `do` is an error.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from edge_gateway.model import Health, Json, ReportRule

VERSION: Final = 1
MAX_LINE_BYTES: Final = 1_048_576


def _tag(name: str) -> str:
    return name.removesuffix("Order").lower()


class Message(msgspec.Struct, kw_only=True, tag_field="do", tag=_tag):
    """Base of the messages."""


class Hello(Message):
    version: int
    name: str = ""
    settings: dict[str, Json] = {}
    wants_raw: bool = False


class Ack(Message):
    seq: int


class Refuse(Message):
    seq: int
    reason: str
    retry_after_s: float | None = None


class CallOrder(Message):
    id: int
    device: str
    method: str
    params: Json = None
    timeout_s: float = 10.0


class Attributes(Message):
    id: int
    device: str
    values: dict[str, Json] = {}
    deleted: list[str] = []


class Congested(Message):
    pass


class Room(Message):
    pass


class Raw(Message):
    is_wanted: bool


class Ping(Message):
    number: int


class Stop(Message):
    pass


class OneReading(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A `Reading`."""

    device: str
    type: str = ""
    ts_ms: int | None = None
    telemetry: dict[str, Json] | None = None
    attributes: dict[str, Json] | None = None
    reports: dict[str, ReportRule] | None = None
    raw: dict[str, str] | None = None


class Readings(Message):
    readings: list[OneReading]
    seq: int = 0


class Reject(Message):
    source: str
    payload: bytes = b""  # base64 in JSON
    why: str = ""


class Seen(Message):
    device: str
    type: str = ""


class Gone(Message):
    device: str


class HealthOrder(Message):
    health: Health
    reason: str = ""


class Result(Message):
    id: int
    value: Json = None


class Failed(Message):
    id: int
    error: str


class Pong(Message):
    number: int


class Ended(Message):
    why: str


ToPlugin = Hello | Ack | Refuse | CallOrder | Attributes | Congested | Room | Raw | Ping | Stop
FromPlugin = Hello | Readings | Reject | Seen | Gone | HealthOrder | Result | Failed | Pong | Ended

decode_to_plugin = msgspec.json.Decoder(ToPlugin).decode
decode_from_plugin = msgspec.json.Decoder(FromPlugin).decode


def encode(message: Any) -> bytes:
    """The line."""
    return msgspec.json.encode(message) + b"\n"
