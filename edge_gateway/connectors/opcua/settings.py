"""What an `[[opcua]]` table says."""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_gateway.connectors.interface import Settings
from edge_gateway.model import Json

Duration = str | float
"""As `mapping.amounts.parse_duration` reads it."""


class NodeSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A key and the node its value comes from."""

    at: str  # NodeId ("ns=2;i=5") or browse path ("Temp", "Objects/Plant/Boiler*/Temp")
    key: str  # template: captures, and {key}, the BrowseName of the node
    as_: str = msgspec.field(name="as", default="")  # string, int, float, bool, json; empty: as the server has it
    scale: float = 1.0
    offset: float = 0.0
    dead_band: float = 0.0  # the server tells only of greater changes
    every: Duration = ""  # polled so often instead of subscribed; empty: the device's
    report: str = ""
    unit: str = ""  # shown by `try`; not sent


class ActionSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a call or a shared attribute does: one of `write`, `read` and `method`, each a node as in `at`."""

    write: str = ""
    read: str = ""
    method: str = ""
    value: Json = ""  # a path or a constant; empty: $.params of a call, $.value of an attribute
    args: list[Json] = []  # of `method`: paths or constants


class DeviceSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A device, or with captures in `at` as many as the server has."""

    device: str  # template of the captures
    type: str = ""
    at: str = ""  # where the other paths begin: "Objects/Plant/{name}"
    every: Duration = ""  # poll; empty: subscribe
    report: str = ""
    telemetry: list[str | NodeSettings] = []
    attributes: list[str | NodeSettings] = []
    rpc: dict[str, ActionSettings] = {}
    shared: dict[str, ActionSettings] = {}


class OpcuaSettings(Settings, kw_only=True):
    """One server."""

    connect: str  # opc.tcp://host:4840/path
    security: Literal["none", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "none"
    mode: Literal["sign", "sign-and-encrypt"] = "sign-and-encrypt"
    certificate: str = ""  # ours, a .pem or .der file
    private_key: str = ""
    private_key_password: str = ""
    server_certificate: str = ""  # empty: the one that the server shows
    user: str = ""
    password: str = ""
    timeout: Duration = "4 s"
    publishing: Duration = "1 s"  # how often the server sends what has changed
    sampling: Duration = ""  # how often it looks; empty: as often as it publishes
    browse_every: Duration = "10 min"  # paths are looked up again; 0: only after a connect
    device: list[DeviceSettings] = msgspec.field(default_factory=list)
