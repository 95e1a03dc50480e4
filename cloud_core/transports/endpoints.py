"""Where devices reach the core, for pages that tell them: filled in as the ports are opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

HTTP, HTTPS, MQTT, MQTTS, COAP, COAPS = "http", "https", "mqtt", "mqtts", "coap", "coaps"


class Listening(NamedTuple):
    """An open port, and the address that it is bound to."""

    bind: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ip_address(self.bind).is_loopback
        except ValueError:
            return self.bind == "localhost"


@dataclass(slots=True)
class Endpoints:
    """By scheme; what is not open is missing. `public_url`: where others reach the HTTP port, if anybody said so."""

    public_url: str = ""
    ports: dict[str, Listening] = field(default_factory=dict)

    def opened(self, scheme: str, bind: str, port: int) -> None:
        self.ports[scheme] = Listening(bind, port)

    def port(self, scheme: str) -> int | None:
        found = self.ports.get(scheme)
        return None if found is None else found.port
