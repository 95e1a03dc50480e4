"""What a connector is and what it may ask of the gateway. The documented plug-in interface: third parties build on it.

A connector speaks one south-bound protocol for one table of the configuration. It runs as one asyncio task inside the
gateway's event loop and must never block it: a library that blocks belongs into a thread of the connector's own, or
into a plug-in process. Twisted's Deferreds are awaited by `deferred.asFuture(asyncio.get_running_loop())`.

The life of a connector is one call of `run`. It opens what it needs, calls `site.health(HEALTHY)` when it works, and
runs until it is cancelled; then it closes everything and lets CancelledError pass. An exception that leaves `run` is
a failure: the supervisor shows it in `edge-gateway status`, waits (1 s, doubling to 60 s) and builds a new connector.
Trouble with a part, such as one silent slave, is no failure: report it by `site.health(DEGRADED, reason)` and go on
with the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from edge_gateway.model import Call, Health, Json, Problem, Reading, Refusal

Done = Callable[[Refusal | None], None]
"""Called exactly once, in the loop's thread: None when everything is on disk, so that the source may be told so."""


class Site(Protocol):
    """What the gateway offers to one connector."""

    @property
    def name(self) -> str:
        """The connector's name in the configuration."""

    @property
    def wants_raw(self) -> bool:
        """Whether readings should carry `raw`; may change at any time."""

    def accept(self, readings: Sequence[Reading], done: Done | None = None) -> None:
        """Takes readings over. Acknowledge them to the source in `done` and not before.

        Readings of one device keep their order. All of one call become durable together or are refused together.
        A source that cannot be told (it is polled) passes no `done`; what is refused then is counted.
        """

    def reject(self, source: str, payload: bytes, why: str) -> None:
        """A message that yields no reading: counted, and shown with its source and the beginning of `payload`.

        Acknowledge such a message to its source all the same, or it will be sent again for ever.
        """

    def seen(self, device: str, type: str = "") -> None:
        """The device is there without having said anything yet: it is registered and can be called."""

    def gone(self, device: str) -> None:
        """The device has left; the core is told unless it comes back soon."""

    def health(self, health: Health, reason: str = "") -> None:
        """How the connector is, in words that name the fix. Repeating the same costs nothing."""

    @property
    def is_congested(self) -> bool:
        """The gateway cannot take more for now: stop reading until `when_room` calls back."""

    def when_room(self, callback: Callable[[], None]) -> None:
        """Calls back once when there is room again."""


class Connector(Protocol):
    """A running source. Its constructor stores what it is given; it opens nothing."""

    async def run(self) -> None:
        """Works until it is cancelled; see the module."""

    async def call(self, call: Call) -> Json:
        """Carries out a command; the answer for the caller. Calls of one device come one after the other.

        Raises: CallFailed, also for a method that the configuration does not know (name those it knows).
        """

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """Shared attributes of the device were changed by the core; write what the configuration maps.

        Raises: CallFailed when a write did not succeed; keys without a mapping are ignored.
        """


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of the settings of each kind: one `[[kind]]` table of the configuration."""

    name: str
    enabled: bool = True

    def __repr__(self) -> str:  # settings hold secrets
        return f"{type(self).__name__}({self.name!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorKind:
    """How the gateway finds a protocol. `name` is its table: `modbus` for `[[modbus]]`."""

    name: str
    settings: type[Settings]
    build: Callable[[Any, Site], Connector]  # (settings, site); Any: the settings' own class
    check: Callable[[Any], list[Problem]]  # what types cannot say: compiles the mapping; no I/O
