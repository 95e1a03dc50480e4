"""Where the slaves are: `tcp://10.0.0.20:502`, `rtu+tcp://…`, `serial:///dev/ttyUSB0?baud=19200&parity=E&stop=1`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from edge_gateway.mapping.problems import did_you_mean

DEFAULT_PORT: Final = 502
_SCHEMES: Final = ("tcp", "rtu+tcp", "serial")
_EXAMPLES: Final = (
    'write "tcp://10.0.0.20:502", "rtu+tcp://10.0.0.20:4001" for a serial server that passes RTU through, or '
    '"serial:///dev/ttyUSB0?baud=19200&parity=E&stop=1"'
)
_BAUD_MIN, _BAUD_MAX = 300, 4_000_000
_ALLOWED: Final = {"parity": ("N", "E", "O"), "stop": ("1", "2"), "bits": ("7", "8")}


@dataclass(frozen=True, slots=True)
class Link:
    """`host` is the path of the port for `serial`."""

    scheme: str
    host: str
    port: int = 0
    baud: int = 19_200
    parity: str = "E"
    stop: int = 1
    bits: int = 8

    @property
    def is_serial(self) -> bool:
        return self.scheme == "serial"

    @property
    def is_rtu(self) -> bool:
        return self.scheme != "tcp"

    def __str__(self) -> str:
        if self.is_serial:
            return f"{self.host} ({self.baud} baud, {self.bits}{self.parity}{self.stop})"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_link(text: str) -> Link:
    """Raises: ValueError whose text says how to write it."""
    parts = urlsplit(text.strip())
    if parts.scheme not in _SCHEMES or "://" not in text:
        guess = did_you_mean(parts.scheme, _SCHEMES) if parts.scheme else ""
        raise ValueError(f"'{text}' leads to no slave{guess if 'did you' in guess else ''}; {_EXAMPLES}")
    if parts.scheme == "serial":
        return _serial(text, parts.netloc + parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)))
    if parts.path.strip("/") or parts.query or parts.username or not parts.hostname:
        raise ValueError(f"'{text}' is more, or less, than a host and a port; {_EXAMPLES}")
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise ValueError(f"'{text}' has no port from 1 to 65535; {_EXAMPLES}") from None
    return Link(parts.scheme, parts.hostname, port)


def _serial(text: str, path: str, options: dict[str, str]) -> Link:
    if not path.strip("/"):
        raise ValueError(f"'{text}' names no port; {_EXAMPLES}")
    for name in options:
        if name not in ("baud", *_ALLOWED):
            raise ValueError(f"unknown option '{name}' in '{text}'{did_you_mean(name, ('baud', *_ALLOWED))}")
    baud = options.get("baud", "19200")
    if not baud.isdecimal() or not _BAUD_MIN <= int(baud) <= _BAUD_MAX:
        raise ValueError(f"baud = {baud} in '{text}' is no speed; common are 9600, 19200 and 115200")
    given = {"parity": options.get("parity", "E").upper(), "stop": options.get("stop", "1")}
    given["bits"] = options.get("bits", "8")
    for name, allowed in _ALLOWED.items():
        if given[name] not in allowed:
            raise ValueError(f"{name} = {given[name]} in '{text}' is none of {', '.join(allowed)}")
    return Link("serial", path, 0, int(baud), given["parity"], int(given["stop"]), int(given["bits"]))
