"""Attributes that another node has written, read anew for devices that are connected here.

A change names keys alone. What is passed on is what stands in the database when it is passed on, so that two nodes
that write at the same time cannot leave a device with the older value: a value that is overtaken while it is being
read is read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from twisted.logger import Logger

from cloud_core.core.downlinks import Downlinks
from cloud_core.core.presence import Presence
from cloud_core.model import INACTIVITY_TIMEOUT, Scope, inactivity_timeout_ms
from cloud_core.storage.interface import ReadTx, Store
from shared.errors import PlatformError
from shared.messages import AttributesChange, Value

log = Logger()
MAX_KEPT = 10_000
RETRY_S = 1.0


class Rereading:
    """`call_later`: as the reactor's."""

    def __init__(
        self, *, store: Store, downlinks: Downlinks, presence: Presence, call_later: Callable[..., object]
    ) -> None:
        self._store = store
        self._downlinks = downlinks
        self._presence = presence
        self._call_later = call_later
        self._wanted: dict[int, set[str]] = {}  # device number -> keys to be read
        self._reading: set[int] = set()
        self._heard: OrderedDict[int, int] = OrderedDict()  # device number -> number of the newest change heard

    def shared(self, device_id: int, keys: Iterable[str], number: int) -> None:
        """Another node has written or deleted these."""
        if self._downlinks.is_open(device_id):
            self._heard[device_id] = max(number, self._heard.pop(device_id, 0))
            if len(self._heard) > MAX_KEPT:
                self._heard.popitem(last=False)
            self._want(device_id, keys)

    def shared_here(self, device_id: int, keys: Iterable[str], number: int) -> None:
        """This node has, and passes it on by itself, maybe behind what is newer or before what is older."""
        if device_id in self._reading or self._heard.get(device_id, 0) > number:
            self._want(device_id, keys)

    def _want(self, device_id: int, keys: Iterable[str]) -> None:
        self._wanted.setdefault(device_id, set()).update(keys)
        if device_id not in self._reading:
            self._reading.add(device_id)
            self._read(device_id, frozenset())

    def _read(self, device_id: int, again: frozenset[str]) -> None:
        keys = again.union(self._wanted.pop(device_id, ()))

        def read(outcome: dict[str, Value] | PlatformError) -> None:
            if not self._downlinks.is_open(device_id):
                self._end(device_id)
            elif isinstance(outcome, PlatformError):  # the store has said so
                self._call_later(RETRY_S, self._read, device_id, keys)
            elif device_id in self._wanted:
                self._read(device_id, keys)
            else:
                self._end(device_id)
                self._announce(device_id, keys, outcome)

        self._store.read(_shared, (device_id, sorted(keys)), read)

    def _end(self, device_id: int) -> None:
        self._reading.discard(device_id)
        self._wanted.pop(device_id, None)

    def _announce(self, device_id: int, keys: Iterable[str], values: dict[str, Value]) -> None:
        gone = tuple(sorted(set(keys) - set(values)))
        if values:
            self._downlinks.attributes_changed(device_id, AttributesChange(values=values))
        if gone:
            self._downlinks.attributes_changed(device_id, AttributesChange(deleted=gone))

    def inactivity(self, device_id: int) -> None:
        """The time-out of a device was written or deleted."""

        def read(outcome: Value | PlatformError | None) -> None:
            if isinstance(outcome, PlatformError):
                self._call_later(RETRY_S, self.inactivity, device_id)
            else:
                self._presence.timeout_changed(device_id, inactivity_timeout_ms(outcome))

        self._store.read(_timeout, (device_id,), read)


def _shared(tx: ReadTx, device_id: int, keys: Sequence[str]) -> dict[str, Value]:
    return {entry.key: entry.value for entry in tx.attributes(device_id, Scope.SHARED, keys)}


def _timeout(tx: ReadTx, device_id: int) -> Value | None:
    return tx.attribute(device_id, Scope.SERVER, INACTIVITY_TIMEOUT)
