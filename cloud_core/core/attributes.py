"""Attributes of devices: what they post and ask for, and the news of shared ones that reach them.

Source: wire-contract.md sections 2.8, 7.2 and 6.6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cloud_core.core.downlinks import Downlinks
from cloud_core.core.people.audit import Audit, Deed, Subject, Who
from cloud_core.core.people.permissions import may
from cloud_core.core.presence import Presence
from cloud_core.model import INACTIVITY_TIMEOUT, PRESENCE_KEYS, Device, Identity, Scope, inactivity_timeout_ms
from cloud_core.storage.interface import Done, ReadTx, Store, Tx
from shared.errors import InvalidArgument, NotAuthorized, PlatformError
from shared.messages import Attributes, AttributesAnswer, AttributesChange, AttributesRequest, Value
from shared.operations import Operation

BATCH = 500  # devices of one commit


class AttributesApi:
    """What devices and operators can do with attributes. Answers through `done`, as `DeviceApi` does."""

    def __init__(
        self, *, store: Store, downlinks: Downlinks, presence: Presence, now_ms: Callable[[], int],
        audit: Audit | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._audit = audit or Audit(store)
        self._downlinks = downlinks
        self._presence = presence
        self._now_ms = now_ms

    # -- devices ----------------------------------------------------------------------------------

    def post(self, identity: Identity, values: Attributes, done: Done[None]) -> None:
        """Stores client-scope attributes of the device itself; `done(None)` once they are on disk."""
        if not may(identity.role, Operation.POST_ATTRIBUTES):
            done(NotAuthorized())
        elif values:
            self._store.submit(_put, (identity.device_id, Scope.CLIENT, values, self._now_ms()), done)
        else:
            done(None)

    def request(self, identity: Identity, request: AttributesRequest, done: Done[AttributesAnswer]) -> None:
        """Client-scope and shared attributes of the device itself."""
        if may(identity.role, Operation.REQUEST_ATTRIBUTES):
            self.read(identity.device_id, request, done)
        else:
            done(NotAuthorized())

    def read(self, device_id: int, request: AttributesRequest, done: Done[AttributesAnswer]) -> None:
        """As `request`, for a device that somebody else speaks for."""
        self._store.read(_answer, (device_id, request), done)

    # -- operators --------------------------------------------------------------------------------

    def put(
        self, device_id: int, scope: Scope, values: Attributes, done: Done[None], *, by: Who | None = None,
        device: Device | None = None,
    ) -> None:  # fmt: skip
        """Writes attributes; the device hears of shared ones once they are on disk. InvalidArgument.

        `by` and `device`: for the audit.
        """

        def stored(outcome: PlatformError | None) -> None:
            if outcome is None:
                self._announce(device_id, scope, values)
            done(outcome)

        deed = _deed("UPDATED", device, scope, values)
        self._audit.submit(by, deed, _put, (device_id, scope, values, self._now_ms()), stored)

    def _announce(self, device_id: int, scope: Scope, values: Attributes) -> None:
        """Tells whom it concerns what is on disk now."""
        if scope is Scope.SHARED and values:
            self._downlinks.attributes_changed(device_id, AttributesChange(values=values))
        elif scope is Scope.SERVER and INACTIVITY_TIMEOUT in values:
            self._presence.timeout_changed(device_id, inactivity_timeout_ms(values[INACTIVITY_TIMEOUT]))

    def put_all(
        self, device_ids: Sequence[int], scope: Scope, values: Attributes, done: Done[None], *, by: Who | None = None
    ) -> None:
        """As `put` for many devices, some hundred in a commit so that nobody waits long; each hears after its own.

        A refusal ends it; what was written before stays. A device that is deleted meanwhile is left out.
        """
        batches = iter([device_ids[at : at + BATCH] for at in range(0, len(device_ids), BATCH)])

        def go_on(outcome: PlatformError | None, written: Sequence[int] = ()) -> None:
            if isinstance(outcome, PlatformError):
                done(outcome)
                return
            for device_id in written:
                self._announce(device_id, scope, values)
            batch = next(batches, None)
            if batch is None:
                done(None)
                return
            args = (batch, scope, values, self._now_ms())
            deed = _deed("UPDATED", None, scope, values, name=f"{len(batch)} devices")
            self._audit.submit(by, deed, _put_all, args, lambda answer: go_on(answer, batch))

        go_on(None)

    def delete(
        self, device_id: int, scope: Scope, keys: Sequence[str], done: Done[None], *, by: Who | None = None,
        device: Device | None = None,
    ) -> None:  # fmt: skip
        """Deletes attributes; the device hears which shared ones there were. InvalidArgument."""

        def deleted(outcome: tuple[str, ...] | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                done(outcome)
                return
            if scope is Scope.SHARED and outcome:
                self._downlinks.attributes_changed(device_id, AttributesChange(deleted=outcome))
            elif scope is Scope.SERVER and INACTIVITY_TIMEOUT in outcome:
                self._presence.timeout_changed(device_id, None)
            done(None)

        deed = _deed("DELETED", device, scope, keys)
        self._audit.submit(by, deed, _delete, (device_id, scope, tuple(keys)), deleted)

    def announce(self, device_id: int, scope: Scope, values: Attributes) -> None:
        """As after `put`, for what another decision has written."""
        self._announce(device_id, scope, values)

    def changed(self, device_id: int, news: Iterable[AttributesChange]) -> None:
        """The device hears what another decision has written to its shared attributes."""
        for change in news:
            self._downlinks.attributes_changed(device_id, change)


def _deed(action: str, device: Device | None, scope: Scope, keys: Iterable[str], *, name: str = "") -> Deed:
    """The keys alone: values may be secrets."""
    detail = f"{scope.name} {', '.join(keys)}"
    subject = Subject(device.uuid, device.name, detail) if device is not None else Subject(None, name, detail)
    return Deed(action, "ATTRIBUTES", lambda _: subject)


def check_writable(scope: Scope, keys: Iterable[str]) -> None:
    """Presence belongs to the server. Raises: InvalidArgument."""
    read_only = sorted(PRESENCE_KEYS.intersection(keys)) if scope is Scope.SERVER else []
    if read_only:
        raise InvalidArgument(f"The server keeps {', '.join(read_only)} itself; leave it out of the request")


def _put_all(tx: Tx, device_ids: Sequence[int], scope: Scope, values: Attributes, now_ms: int) -> None:
    for device_id in device_ids:
        if tx.device_by_id(device_id) is None:
            continue  # deleted since the call began, or between two of its batches
        tx.put_attributes(device_id, scope, values, now_ms=now_ms)


def _put(tx: Tx, device_id: int, scope: Scope, values: Attributes, now_ms: int) -> None:
    check_writable(scope, values)
    tx.put_attributes(device_id, scope, values, now_ms=now_ms)


def _delete(tx: Tx, device_id: int, scope: Scope, keys: tuple[str, ...]) -> tuple[str, ...]:
    check_writable(scope, keys)
    there = tuple(entry.key for entry in tx.attributes(device_id, scope, keys))
    tx.delete_attributes(device_id, scope, there)
    return there


def _answer(tx: ReadTx, device_id: int, request: AttributesRequest) -> AttributesAnswer:
    is_all = request.client_keys is None and request.shared_keys is None
    return AttributesAnswer(
        client=_values(tx, device_id, Scope.CLIENT, request.client_keys, is_all=is_all),
        shared=_values(tx, device_id, Scope.SHARED, request.shared_keys, is_all=is_all),
    )


def _values(
    tx: ReadTx, device_id: int, scope: Scope, keys: tuple[str, ...] | None, *, is_all: bool
) -> dict[str, Value]:
    if keys is None and not is_all:
        return {}
    return {entry.key: entry.value for entry in tx.attributes(device_id, scope, keys)}
