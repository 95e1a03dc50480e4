"""What a `[[modbus]]` table says."""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_gateway.connectors.interface import Settings
from edge_gateway.settings import Duration

Order = Literal["big", "little", "big-swapped", "little-swapped"]
"""Of bytes and registers: big (ABCD), little (DCBA), big-swapped (CDAB: registers exchanged), little-swapped (BADC)."""


class PointSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A key and where its value stands; the text form `"holding:100 -> key: type"` is short for the first three."""

    at: str  # holding:100 | input:… | coil:7 | discrete:… | holding:0-7 | holding:5.3 (a bit) | 40101
    key: str
    as_: str = msgspec.field(name="as", default="")  # of mapping.words; empty: uint16, or bool for a coil or bit
    words: Order | None = None  # absent: the device's
    scale: float = 1.0
    offset: float = 0.0
    bit: int | None = None  # of a register, the lowest is 0
    every: Duration | None = None  # absent: the device's
    report: str = ""
    unit: str = ""  # shown by `try`; not sent
    alone: bool = False  # read by a request of its own


class ActionSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a call or a shared attribute does: one of `write` and `read`, places as in `at`."""

    write: str = ""
    read: str = ""
    as_: str = msgspec.field(name="as", default="")
    words: Order | None = None
    scale: float = 1.0
    offset: float = 0.0
    bit: int | None = None
    value: str = ""  # path of the value; empty: $.params of a call, $.value of an attribute
    verify: bool = False  # read back, and fail when another value stands there
    multiple: bool = False  # write a single register or coil with the function for several (16, 15)


class DeviceSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A slave, or several of the same kind."""

    device: str  # template: {unit}, {connector}
    unit: int | None = None
    units: str = ""  # "1-32,40": the table counts for each
    type: str = ""  # template, too
    every: Duration | None = None  # absent: the connector's
    base: Literal[0, 1] | None = None
    words: Order = "big"
    report: str = ""  # for the keys that say none themselves
    telemetry: list[str | PointSettings] = []
    attributes: list[str | PointSettings] = []
    rpc: dict[str, ActionSettings] = {}
    shared: dict[str, ActionSettings] = {}


class ModbusSettings(Settings, kw_only=True):
    """One bus, gateway box or PLC."""

    connect: str  # tcp://host:502 | rtu+tcp://host:502 | serial:///dev/ttyUSB0?baud=19200&parity=E&stop=1
    every: Duration = 5.0
    timeout: Duration = 1.0  # for an answer
    retries: int = 1  # further attempts before a unit counts as silent
    pause: Duration = 0.0  # between two requests, for slaves that need one
    connections: Literal[1, 2] = 2  # of tcp://; the second one asks silent units
    base: Literal[0, 1] = 0  # the number by which the first register is called
    max_gap: int = 8  # registers read without need, to save a request
    max_block: int = 125  # registers of one request
    device: list[DeviceSettings] = msgspec.field(default_factory=list)
