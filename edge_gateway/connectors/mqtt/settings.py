"""The table `[[mqtt]]`, and what types cannot say about it."""

from __future__ import annotations

import msgspec

from edge_gateway.connectors.interface import Settings
from edge_gateway.mapping.interface import MapSettings

Duration = str | float
"""As `mapping.amounts.parse_duration` reads it."""
Size = str | int
"""As `mapping.amounts.parse_size` reads it."""

LOGIN_CAPTURES = frozenset({"client_id", "username", "login"})
"""What a map of a listener may use beside the captures of its topic; `login` is the device that logged in."""


class SharedPublish(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How changes of shared attributes go to the device: one message for each key when `{key}` is used, else one."""

    publish: str
    body: str = ""
    retain: bool = False
    keys: list[str] = []  # empty: all


class RpcPublish(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How a call goes to the device. Without `reply` it is answered when the device has the message."""

    publish: str
    body: str = "$.params"
    reply: str = ""
    answer: str = ""  # path of the answer in the reply; empty: all of it
    timeout: Duration = 10.0


class TopicMap(MapSettings, kw_only=True, forbid_unknown_fields=True):
    """Messages on topics that fit `topic`, and the way back to the device."""

    topic: str
    shared: SharedPublish | None = None
    rpc: dict[str, RpcPublish] = msgspec.field(default_factory=dict)


class MqttSettings(Settings, kw_only=True, forbid_unknown_fields=True):
    """Either `listen` or `connect`."""

    listen: str = ""
    connect: str = ""  # mqtt://host:1883, mqtts://host:8883
    map: list[TopicMap] = msgspec.field(default_factory=list)
    max_payload: Size = 65_536

    # for both: our own login at the broker, or the one that all devices share
    username: str = ""
    password: str = ""
    certificate: str = ""
    private_key: str = ""

    # of a listener
    users: str = ""
    anonymous: bool = False
    insecure_lan: bool = False
    own_device: bool = False  # a login may speak only for its own device
    login_from: str = "auto"  # auto | username | client_id: which of the two names the device
    preset: str = ""  # thingsboard
    type: str = ""  # device profile of the preset's devices
    max_connections: int = 10_000
    max_rate: float = 0.0  # messages a second of one connection; 0: any

    # of a client
    client_id: str = ""
    version: str = "auto"  # auto | 5 | 3.1.1
    ca_file: str = ""
    insecure: bool = False
    keep_alive: Duration = 60.0
    session_expiry: Duration = 86_400.0
    max_waiting: int = 1_000  # messages that the broker may send before the first is acknowledged
    skip_retained: bool = False

    def __repr__(self) -> str:
        return f"MqttSettings({self.name})"


LISTENER_ONLY = (
    "users", "anonymous", "insecure_lan", "own_device", "login_from", "preset", "type", "max_connections", "max_rate",
)  # fmt: skip
CLIENT_ONLY = (
    "client_id", "version", "ca_file", "insecure", "keep_alive", "session_expiry", "max_waiting", "skip_retained",
)  # fmt: skip
