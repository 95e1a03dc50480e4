"""Records as the payload of one publish: many devices, many instants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from edge_gateway.model import Content, Lane, Record

ENTRY_BYTES = len('{"ts":1700000000000,"values":},')
DEVICE_BYTES = len(":[],")


class Kind(Enum):
    """What a publish holds; its value is the topic."""

    TELEMETRY = "v1/gateway/telemetry"
    ATTRIBUTES = "v1/gateway/attributes"
    OWN_TELEMETRY = "v1/devices/me/telemetry"
    OWN_ATTRIBUTES = "v1/devices/me/attributes"

    @property
    def is_telemetry(self) -> bool:
        return self is Kind.TELEMETRY or self is Kind.OWN_TELEMETRY

    @property
    def is_own(self) -> bool:
        return self is Kind.OWN_TELEMETRY or self is Kind.OWN_ATTRIBUTES


def kind_of(record: Record) -> Kind:
    """How a record is published."""
    if record.content is Content.TELEMETRY:
        return Kind.TELEMETRY if record.device else Kind.OWN_TELEMETRY
    return Kind.ATTRIBUTES if record.device else Kind.OWN_ATTRIBUTES


def points_in(record: Record) -> int:
    """Data points, never too few: text that looks like a member counts too."""
    return record.body.count(b'":') or 1


@dataclass(slots=True, eq=False)
class Batch:
    """One publish and what follows it.

    `devices` are free for others when it and `then`, its next piece, and so on are through. `missing` are those that
    the core must be told of before it may go again.
    """

    kind: Kind
    lane: Lane
    records: list[Record]
    devices: set[str]
    payload: bytes = b""
    then: Batch | None = None
    missing: set[str] = field(default_factory=set)
    attempts: int = 0
    not_before_s: float = 0.0
    sent_before: int = -1  # records that the core had taken when it refused this one first
    silent_ends: int = 0  # connections that ended without any acknowledgement while it was first on its way
    is_stale: bool = False  # must be encoded again: a name has changed, a record was taken out

    def halves(self) -> Batch:
        """The first half, followed by the second and what followed before."""
        middle = len(self.records) // 2
        second = Batch(self.kind, self.lane, self.records[middle:], self.devices, then=self.then, is_stale=True)
        return Batch(self.kind, self.lane, self.records[:middle], self.devices, then=second, is_stale=True)

    def by_device(self) -> list[Batch]:
        """It and what follows as batches that do not wait for each other, one for each device."""
        apart: dict[str, Batch] = {device: Batch(self.kind, self.lane, [], {device}) for device in self.devices}
        for record in self.all_records():
            apart[record.device].records.append(record)
        for batch in apart.values():
            batch.is_stale, batch.attempts = True, self.attempts
        return list(apart.values())

    def chain(self) -> list[Batch]:
        """It and its later pieces."""
        pieces, piece = [], self
        while True:
            pieces.append(piece)
            if piece.then is None:
                return pieces
            piece = piece.then

    def all_records(self) -> list[Record]:
        """Of it and of its later pieces, in order."""
        return [record for piece in self.chain() for record in piece.records]


def encode(kind: Kind, records: Sequence[Record], json_name: Callable[[str], bytes]) -> bytes:
    """The payload. Telemetry must have its time in `ts_ms`; of attributes that come twice the later value goes."""
    if kind is Kind.OWN_TELEMETRY:
        return b"[" + b",".join([b'{"ts":%d,"values":%b}' % (one.ts_ms, one.body) for one in records]) + b"]"
    if kind is Kind.OWN_ATTRIBUTES:
        return _merged([one.body for one in records])
    by_device: dict[str, list[bytes]] = {}
    if kind is Kind.ATTRIBUTES:
        for one in records:
            by_device.setdefault(one.device, []).append(one.body)
        return b"{" + b",".join([json_name(name) + b":" + _merged(all) for name, all in by_device.items()]) + b"}"
    for one in records:
        by_device.setdefault(one.device, []).append(b'{"ts":%d,"values":%b}' % (one.ts_ms, one.body))
    return b"{" + b",".join([b"%b:[%b]" % (json_name(name), b",".join(all)) for name, all in by_device.items()]) + b"}"


def _merged(bodies: list[bytes]) -> bytes:
    if len(bodies) == 1:
        return bodies[0]
    values: dict[str, msgspec.Raw] = {}
    for body in bodies:
        values |= msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(values)
