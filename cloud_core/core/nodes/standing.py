"""Sessions that may be over without anybody having said so: looked at one by one, by what the database says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger

from cloud_core.core.downlinks import Downlinks, Ending, Identified
from cloud_core.model import Identity, Role, Scope
from cloud_core.storage.interface import ReadTx, Store
from shared.errors import PlatformError
from shared.messages import AttributesChange, Value

log = Logger()
AT_ONCE = 200  # devices of a look
TRIES = 3  # a connection of before the database went away fails the first look behind it
SLACK_MS = 60_000  # clocks of nodes differ

Copy = tuple[int, Identity | None]  # device number, and what its session has copied of it
Verdict = tuple[int, Ending | None, dict[str, Value]]  # device number, why it is over, shared attributes written since


class Standing:
    """`end`: `DeviceApi.device_changed`."""

    def __init__(self, *, store: Store, downlinks: Downlinks, end: Callable[[int, Ending], None]) -> None:
        self._store = store
        self._downlinks = downlinks
        self._end = end

    def check(self, since_ms: int) -> None:
        """Ends sessions of devices whose credentials were replaced or revoked since then, or first used; of devices
        that are gone or not what the session takes them for. The others hear of shared attributes written since."""
        self._go_on(self._downlinks.devices(), since_ms - SLACK_MS)

    def _go_on(self, device_ids: Sequence[int], since_ms: int, tries: int = TRIES) -> None:
        if not device_ids:
            return
        now, later = device_ids[:AT_ONCE], device_ids[AT_ONCE:]
        copies = [(device_id, self._copy(device_id)) for device_id in now]

        def looked(outcome: list[Verdict] | PlatformError) -> None:
            if isinstance(outcome, PlatformError) and tries > 1:
                self._go_on(device_ids, since_ms, tries - 1)
                return
            if isinstance(outcome, PlatformError):
                log.error("Sessions could not be looked at, and end: {error}", error=str(outcome))
                outcome = [(device_id, Ending.CREDENTIALS_CHANGED, {}) for device_id in now]
            for device_id, why, values in outcome:
                if why is not None:
                    self._end(device_id, why)
                elif values:
                    self._downlinks.attributes_changed(device_id, AttributesChange(values=values))
            self._go_on(later, since_ms)

        self._store.survey(verdicts, (copies, since_ms), looked)

    def _copy(self, device_id: int) -> Identity | None:
        copies = (one.identity for one in self._downlinks.of(device_id) if isinstance(one, Identified))
        return next(copies, None)


def verdicts(tx: ReadTx, copies: Sequence[Copy], since_ms: int) -> list[Verdict]:
    return [_verdict(tx, device_id, copy, since_ms) for device_id, copy in copies]


def _verdict(tx: ReadTx, device_id: int, copy: Identity | None, since_ms: int) -> Verdict:
    device, stored = tx.device_by_id(device_id), tx.credentials(device_id)
    if device is None:
        return device_id, Ending.DEVICE_DELETED, {}
    # Whoever replaces credentials makes them unconfirmed; the first login with them says when that was.
    is_proven = stored is not None and stored.confirmed_ms is not None and stored.confirmed_ms < since_ms
    revoked = (one.revoked_ms for one in tx.certificates_of_device(device_id) if one.revoked_ms is not None)
    if not is_proven or any(revoked_ms >= since_ms for revoked_ms in revoked):
        return device_id, Ending.CREDENTIALS_CHANGED, {}
    role = Role.GATEWAY if device.is_gateway else Role.DEVICE
    if copy is not None and (copy.device_name, copy.profile_id, copy.role) != (device.name, device.profile_id, role):
        return device_id, Ending.DEVICE_CHANGED, {}
    entries = tx.attributes(device_id, Scope.SHARED)
    return device_id, None, {entry.key: entry.value for entry in entries if entry.updated_ms >= since_ms}
