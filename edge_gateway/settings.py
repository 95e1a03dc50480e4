"""The sections of the configuration that do not belong to a connector; values only.

`config.py` reads them from TOML and environment. Sizes and times are written with their units there ("2 GiB", "30 d").
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections."""

    def __repr__(self) -> str:  # sections hold secrets
        return f"{type(self).__name__}(…)"


Size = Annotated[int, msgspec.Meta(extra={"unit": "bytes"})]
"""Bytes; the configuration says it as "2 GiB" or as a number. For the settings of connectors too."""

Duration = Annotated[float, msgspec.Meta(extra={"unit": "seconds"})]
"""Seconds; the configuration says it as "800 ms" or as a number. For the settings of connectors too."""


class Provision(Section, frozen=True, kw_only=True):
    """How the gateway gets its own credentials at first start."""

    key: str
    secret: str
    name: str = "gw-{serial}"  # {serial}: of the machine, else made once and kept; {hostname}
    credentials: Literal["ACCESS_TOKEN", "MQTT_BASIC", "X509_CERTIFICATE"] = "ACCESS_TOKEN"
    again: Literal["never", "when-refused"] = "never"  # whether refused credentials are replaced by new ones


class Core(Section, frozen=True, kw_only=True):
    """Where the core is, and who we are there: `token`, or `username` and the rest, or `provision`."""

    url: str = "mqtt://127.0.0.1:1883"  # mqtts:// for TLS
    insecure: bool = False  # allows mqtt:// to another machine, and TLS without verification
    ca_file: str = ""
    certificate: str = ""
    private_key: str = ""
    token: str = ""
    client_id: str = ""
    username: str = ""
    password: str = ""
    provision: Provision | None = None
    version: Literal["auto", "5", "3.1.1"] = "auto"
    keep_alive: Duration = 30.0
    answer_timeout: Duration = 15.0  # without a PUBACK for so long the connection is taken for dead
    backoff_min: Duration = 1.0
    backoff_max: Duration = 60.0
    window: int = 20  # publishes that may wait for their PUBACK


class Store(Section, frozen=True, kw_only=True):
    """The spool."""

    path: str = ""  # empty: spool.db in the data directory
    max_size: Size = 2 * 1024**3
    max_age: Duration = 30 * 86_400.0
    keep_free: Size = 50 * 1024**2  # of the disk
    when_full: Literal["drop-oldest", "refuse"] = "drop-oldest"
    order: Literal["device", "live-first"] = "device"
    live_share: float = 0.5  # of the link for new readings while a backlog drains
    commit_ms: int = 5  # how long a batch may gather; at most 20


class Devices(Section, frozen=True, kw_only=True):
    """Which sub-devices may come in. Names are regular expressions that must match as a whole."""

    allow: list[str] = []  # empty: everybody
    deny: list[str] = []
    max_devices: int = 20_000
    default_type: str = "default"
    inactivity: Duration = 0.0  # without a word for so long a device is disconnected at the core; 0: never
    report: str = ""  # report strategy of keys for which nobody says another


class Local(Section, frozen=True, kw_only=True):
    """The local page and the commands' door."""

    port: int = 8090  # 0 picks a free one
    bind: str = "127.0.0.1"
    enabled: bool = True


class Statistics(Section, frozen=True, kw_only=True):
    """The gateway's own telemetry."""

    every: Duration = 60.0  # 0: none


class Log(Section, frozen=True, kw_only=True):
    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warn", "error"] = "info"
