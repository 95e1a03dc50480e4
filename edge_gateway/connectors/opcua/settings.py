"""What an `[[opcua]]` table says."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from edge_gateway.connectors.interface import Settings
from edge_gateway.settings import Duration

MAX_VALUE_BYTES: Final = 65_536
Limit = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class PointSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A key and the node it comes from; the text form is `"Temp -> temperature: float"`."""

    at: str  # path from the device's root, with captures for several nodes; or a node id
    key: str  # a template of the captures
    as_: str = msgspec.field(name="as", default="")  # string, int, float, bool, json; empty: as the node has it
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""  # shown by `try`; not sent
    report: str = ""
    every: Duration = 0.0  # polled; 0: the table's way
    sampling: Duration | None = None  # of the server; None: the table's


class ActionSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a call or a shared attribute does: one of `write`, `read` and `method`; nodes as in `at`."""

    write: str = ""
    read: str = ""
    method: str = ""
    object: str = ""  # the method's; empty: the node above it, or the device's root for a method by node id
    value: str = ""  # path of what is written: $.params of a call, $.value of an attribute
    args: list[str | int | float | bool] | None = None  # paths ("$.params.a") and constants; none: the params
    as_: str = msgspec.field(name="as", default="")  # of what is read
    scale: float = 1.0  # of what is read; written the other way round
    offset: float = 0.0


class DeviceSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A device, or as many as the captures of `root` find."""

    device: str  # template: captures of root, {connector}
    type: str = ""
    root: str = "Objects"  # path from the server's Root folder, or a node id
    report: str = ""
    telemetry: list[str | PointSettings] = msgspec.field(default_factory=list)
    attributes: list[str | PointSettings] = msgspec.field(default_factory=list)
    rpc: dict[str, ActionSettings] = msgspec.field(default_factory=dict)
    shared: dict[str, ActionSettings] = msgspec.field(default_factory=dict)


class OpcuaSettings(Settings, kw_only=True):
    """One server."""

    connect: str  # opc.tcp://host:4840/path
    security: Literal["None", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "None"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    certificate: str = ""  # files, .pem or .der
    private_key: str = ""
    server_certificate: str = ""
    insecure: bool = False  # takes any server's certificate; sends the password even when it would not be encrypted
    username: str = ""
    password: str = ""
    timeout: Duration = 5.0
    every: Duration = 0.0  # 0: subscribe
    publishing: Duration = 1.0
    sampling: Duration | None = None  # None: the publishing interval
    queue: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 10  # values of a node that the server keeps for us
    timestamp: Literal["source", "server", "gateway"] = "source"
    browse_every: Duration = 300.0  # 0: only at the start of a connection
    backoff_min: Duration = 1.0
    backoff_max: Duration = 60.0
    max_nodes: Limit = 10_000
    device: list[DeviceSettings] = msgspec.field(default_factory=list)
