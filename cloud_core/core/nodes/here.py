"""What a change that another node has made means here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.logger import Logger

from cloud_core.core.downlinks import Ending
from cloud_core.core.nodes.rereading import Rereading
from cloud_core.core.nodes.standing import Standing
from cloud_core.model import Change, ChangeKind
from cloud_core.storage.interface import Store

if TYPE_CHECKING:
    from cloud_core.core.api import DeviceApi

log = Logger()
Callback = Callable[[], None]
_KNOWN = frozenset(ChangeKind)


class Here:
    """Forgets, ends and passes on what the change concerns, as the node that made it has done with its own."""

    def __init__(self, api: DeviceApi, *, store: Store, call_later: Callable[..., object]) -> None:
        self._api = api
        self._rereading = Rereading(store=store, downlinks=api.downlinks, presence=api.presence, call_later=call_later)
        self._standing = Standing(store=store, downlinks=api.downlinks, end=api.device_changed)
        self._on_logins: list[Callback] = []
        self._on_revoked: list[Callback] = []
        self._endings = {
            ChangeKind.CREDENTIALS: Ending.CREDENTIALS_CHANGED,
            ChangeKind.DEVICE: Ending.DEVICE_CHANGED,
            ChangeKind.DELETED: Ending.DEVICE_DELETED,
        }

    def on_logins(self, callback: Callback) -> None:
        """`callback` when logins of people have ended, or there is a new API key."""
        self._on_logins.append(callback)

    def on_revoked(self, callback: Callback) -> None:
        """`callback` when a certificate was revoked."""
        self._on_revoked.append(callback)

    def apply(self, change: Change) -> None:
        """Once for each change of another node."""
        device_id = change.device_id
        match change.kind:
            case ChangeKind.PROFILE:
                self._api.profile_changed()
                self._api.packages.roll_out()  # by whoever has the lease, which the node of the change may not
            case ChangeKind.LOGINS:
                _call(self._on_logins)
            case ChangeKind.CREDENTIALS if device_id is None:
                _call(self._on_revoked)
            case _ if device_id is not None and change.kind in _KNOWN:
                self._apply_to_device(change, device_id)
            case _:
                log.warn("A newer program has changed something (kind {kind}): forgetting logins", kind=change.kind)
                self._api.profile_changed()

    def _apply_to_device(self, change: Change, device_id: int) -> None:
        match change.kind:
            case ChangeKind.CREDENTIALS | ChangeKind.DEVICE | ChangeKind.DELETED:
                self._api.device_changed(device_id, self._endings[ChangeKind(change.kind)])
                if change.kind == ChangeKind.CREDENTIALS and change.body is True:
                    _call(self._on_revoked)
            case ChangeKind.LOGIN | ChangeKind.NEW_CREDENTIALS:
                self._api.forget_logins(device_id)
            case ChangeKind.SHARED:
                self._rereading.shared(device_id, change.body, change.number)
            case ChangeKind.INACTIVITY:
                self._rereading.inactivity(device_id)
            case ChangeKind.COMMAND:
                self._api.rpc.command_waits(device_id)

    def own(self, change: Change) -> None:
        """Of a change that was made here."""
        if change.kind == ChangeKind.SHARED and change.device_id is not None:
            self._rereading.shared_here(change.device_id, change.body, change.number)

    def forget(self, since_ms: int) -> None:
        """Changes since then may have been missed: all that is remembered is read anew, and sessions are looked at."""
        log.warn("What has been changed lately is not known for sure: all that is remembered is read anew")
        self._api.profile_changed()
        self._api.presence.read_timeouts()
        self._api.rpc.read_waiting()
        self._api.packages.roll_out()
        _call(self._on_logins)
        _call(self._on_revoked)
        self._standing.check(since_ms)


def _call(callbacks: list[Callback]) -> None:
    for callback in callbacks:
        callback()
