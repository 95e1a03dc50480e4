"""What a `[[modbus]]` table says."""

from __future__ import annotations

import msgspec

from edge_gateway.connectors.interface import Settings

Duration = str | float
"""As `mapping.amounts.parse_duration` reads it."""


class PointSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A key and where its value stands."""

    at: str  # holding:100 | input:… | coil:7 | discrete:… | holding:0-7 | holding:5.3 (a bit) | 40101
    key: str
    as_: str = msgspec.field(name="as", default="")  # of mapping.words; empty: uint16, or bool for a coil or bit
    words: str = ""  # big, little, big-swapped, little-swapped; empty: the device's
    scale: float = 1.0
    offset: float = 0.0
    bit: int | None = None  # of a register, the lowest is 0
    every: Duration = ""  # empty: the device's
    report: str = ""
    unit: str = ""  # shown by `try`; not sent
    no_group: bool = False  # read by a request of its own


class ActionSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a call or a shared attribute does: one of `write` and `read`, places as in `at`."""

    write: str = ""
    read: str = ""
    as_: str = msgspec.field(name="as", default="")
    words: str = ""
    scale: float = 1.0
    offset: float = 0.0
    bit: int | None = None
    value: str | bool | int | float = ""  # a path or a constant; empty: $.params of a call, $.value of an attribute
    verify: bool = False  # read back, and fail when another value stands there
    multiple: bool = False  # write a single register or coil with the function for several (16, 15)


class DeviceSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A slave, or several of the same kind."""

    device: str  # template: {unit}, {connector}
    unit: int | None = None
    units: str = ""  # "1-32,40": the table counts for each
    type: str = ""
    every: Duration = ""
    base: int | None = None
    words: str = "big"
    report: str = ""
    telemetry: list[str | PointSettings] = []
    attributes: list[str | PointSettings] = []
    rpc: dict[str, ActionSettings] = {}
    shared: dict[str, ActionSettings] = {}


class ModbusSettings(Settings, kw_only=True):
    """One bus, gateway box or PLC."""

    connect: (
        str  # tcp://host:502 | rtu+tcp://host:502 | udp://host:502 | serial:///dev/ttyUSB0?baud=19200&parity=E&stop=1
    )
    every: Duration = "5 s"
    timeout: Duration = "1 s"
    retries: int = 1
    pipelines: int = 2  # connections of tcp://; the second is opened when units are silent or the first is busy
    base: int = 0  # the number by which the first register is called
    max_gap: int = 8  # registers read without need, to save a request
    max_block: int = 125  # registers of one request
    device: list[DeviceSettings] = msgspec.field(default_factory=list)
