"""The table `[[http]]`."""

from __future__ import annotations

import msgspec

from edge_gateway.connectors.interface import Settings
from edge_gateway.mapping.interface import MapSettings

Duration = str | float
"""As `mapping.amounts.parse_duration` reads it."""
Size = str | int
"""As `mapping.amounts.parse_size` reads it."""

POLLER_CAPTURES = frozenset({"host"})
"""What a map with `url` may use; `host` is the url's."""


class Login(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How a poller logs in: by user name and password, or by a bearer token."""

    username: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "Login(…)"


class HttpRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A request on the way to a device. `answer` is the path of the answer in the response; empty: all of it."""

    url: str
    method: str = "POST"
    body: str = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    answer: str = ""
    timeout: Duration = 10.0
    keys: list[str] = msgspec.field(default_factory=list)  # of `shared`: which attributes; empty: all


class HttpMap(MapSettings, kw_only=True, forbid_unknown_fields=True):
    """With `path`: what devices post to us. With `url`: what we ask them for."""

    device: str = "{device}"
    path: str = ""

    url: str = ""
    every: Duration = 60.0
    timeout: Duration = 10.0
    method: str = "GET"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: str = ""
    auth: Login | None = None
    expect: list[int] = msgspec.field(default_factory=lambda: [200])
    rpc: dict[str, HttpRequest] = msgspec.field(default_factory=dict)
    shared: HttpRequest | None = None


class HttpSettings(Settings, kw_only=True, forbid_unknown_fields=True):
    """Either `listen` with maps that have a `path`, or maps that have a `url`."""

    map: list[HttpMap] = msgspec.field(default_factory=list)

    # of a listener
    listen: str = ""
    token: str = ""
    token_header: str = ""  # the token's header when it is not "Authorization: Bearer …"
    users: str = ""
    anonymous: bool = False
    insecure_lan: bool = False
    own_device: bool = False  # a login may speak only for its own device
    certificate: str = ""
    private_key: str = ""
    max_payload: Size = 65_536
    max_connections: int = 1_000
    max_rate: float = 100.0  # requests a second of one address; 0: any

    # of a poller
    ca_file: str = ""
    insecure: bool = False
    max_response: Size = 1_048_576

    def __repr__(self) -> str:
        return f"HttpSettings({self.name})"


LISTENER_ONLY = (
    "token", "token_header", "users", "anonymous", "insecure_lan", "own_device", "certificate", "private_key",
    "max_payload", "max_connections", "max_rate",
)  # fmt: skip
POLLER_ONLY = ("ca_file", "insecure", "max_response")
