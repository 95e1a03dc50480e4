"""What the core counts while it works, and everybody's numbers put together when a scraper asks.

Labels are transports, stages, reasons and kinds: closed sets. Names of devices, profiles and sources are never among
them, whatever the number of devices; nor is anything that a peer has sent.

A message costs one addition to a slot, and one for each of its samples. All else is read where it stands already, by
`sources`, and only when asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from cloud_core.measures import Family, Histogram, counter, histogram, rendered
from cloud_core.model import Transport
from shared.errors import PlatformError

DURATION_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SUCCESS = "SUCCESS"

Source = Callable[[], Iterable[Family]]
_Key = tuple[str, ...]


class Taken:
    """Messages of one transport that the core has taken over, and values in telemetry; who counts adds to a slot."""

    __slots__ = ("data_points", "other", "telemetry")

    def __init__(self) -> None:
        self.telemetry = 0
        self.other = 0
        self.data_points = 0


class Metrics:
    """Counters of this process since its start. Called in the reactor thread."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.of_workers: Callable[[], Awaitable[list[Family]]] | None = None  # where several share this machine's ports
        self.taken: Mapping[Transport, Taken] = {one: Taken() for one in Transport}
        self._provisions: dict[_Key, int] = {}
        self._provision_s = {one: Histogram(DURATION_BOUNDS_S) for one in Transport}
        self._logins: dict[_Key, int] = {}
        self._refused: dict[_Key, int] = {}

    # -- events -----------------------------------------------------------------------------------

    def provisioned(self, transport: Transport, stage: str, outcome: str, seconds: float) -> None:
        """One provision attempt is decided. `outcome`: SUCCESS or the reason; `stage`: which check decided."""
        _count(self._provisions, (transport.value, stage, outcome))
        self._provision_s[transport].observe(seconds)

    def login(self, transport: Transport, outcome: object) -> None:
        """Credentials were checked; a `PlatformError` says that they open nothing."""
        said = outcome.reason.value if isinstance(outcome, PlatformError) else SUCCESS
        _count(self._logins, (transport.value, said))

    def refused(self, transport: Transport, reason: str) -> None:
        """A request of a device was not carried out."""
        _count(self._refused, (transport.value, reason))

    # -- for the scraper --------------------------------------------------------------------------

    def families(self) -> list[Family]:
        return [*self._own(), *(family for source in self.sources for family in source())]

    def text(self) -> str:
        """Of this process."""
        return rendered(self.families())

    async def shown(self) -> str:
        """What a scraper sees: this process, or all workers of this machine."""
        return self.text() if self.of_workers is None else rendered(await self.of_workers())

    def _own(self) -> list[Family]:
        attempts = ("transport", "stage", "outcome")
        messages = [
            ({"transport": transport.value, "kind": kind}, getattr(taken, kind))
            for transport, taken in self.taken.items()
            for kind in ("telemetry", "other")
        ]
        points = [({"transport": transport.value}, taken.data_points) for transport, taken in self.taken.items()]
        return [
            counter("provision_attempts_total", "Provision attempts decided.", _labelled(self._provisions, attempts)),
            histogram(
                "provision_seconds",
                "From receipt of a provision request to its durable decision.",
                [({"transport": transport.value}, seen) for transport, seen in self._provision_s.items()],
            ),
            counter(
                "logins_total",
                "Checks of credentials; those of HTTP and CoAP tokens that are remembered do not count again.",
                _labelled(self._logins, ("transport", "outcome")),
            ),
            counter("messages_total", "Messages of devices that were taken over.", messages),
            counter("data_points_total", "Values in telemetry messages of directly connected devices.", points),
            counter(
                "refused_total",
                "Requests of devices that were not carried out.",
                _labelled(self._refused, ("transport", "reason")),
            ),
        ]


def _count(counts: dict[_Key, int], key: _Key) -> None:
    counts[key] = counts.get(key, 0) + 1


def _labelled(counts: Mapping[_Key, int], names: tuple[str, ...]) -> list[tuple[dict[str, str], float]]:
    return [(dict(zip(names, key, strict=True)), value) for key, value in sorted(counts.items())]
