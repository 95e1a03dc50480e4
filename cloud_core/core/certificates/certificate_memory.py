"""Certificates that have just been decided about: the hot path of peers that come again."""

from __future__ import annotations

from collections import OrderedDict

from cloud_core.core.authentication import MAX_CACHED_LOGINS
from cloud_core.model import Identity
from shared.errors import PlatformError

REFUSED_MS = 5_000
MAX_REFUSED = 1_000


class CertificateMemory:
    """Identities by certificate, within its validity; forgets the oldest first, and a device's when it changes."""

    def __init__(self, max_entries: int = MAX_CACHED_LOGINS) -> None:
        self._max_entries = max_entries
        self._known: OrderedDict[bytes, tuple[Identity, int, int]] = OrderedDict()  # SHA-256 of the DER -> (…, ms, ms)
        self._of_device: dict[int, set[bytes]] = {}

    def get(self, fingerprint: bytes, now_ms: int) -> Identity | None:
        known = self._known.get(fingerprint)
        if known is None or not known[1] <= now_ms < known[2]:
            return None
        return known[0]

    def put(self, fingerprint: bytes, identity: Identity, from_ms: int, until_ms: int) -> None:
        self._drop(fingerprint)  # it may have been another device's, once
        self._known[fingerprint] = (identity, from_ms, until_ms)
        self._of_device.setdefault(identity.device_id, set()).add(fingerprint)
        if len(self._known) > self._max_entries:
            self._drop(next(iter(self._known)))

    def _drop(self, fingerprint: bytes) -> None:
        known = self._known.pop(fingerprint, None)
        if known is None:
            return
        device_id = known[0].device_id
        others = self._of_device[device_id]
        others.discard(fingerprint)
        if not others:
            del self._of_device[device_id]

    def forget(self, device_id: int) -> None:
        for fingerprint in self._of_device.pop(device_id, ()):
            del self._known[fingerprint]

    def clear(self) -> None:
        self._known.clear()
        self._of_device.clear()


class RecentRefusals:
    """What was refused a moment ago, by fingerprint of the certificate and source.

    A device that asks again with every packet gets the same answer with the same reference: it is one attempt.
    """

    def __init__(self) -> None:
        self._refused: OrderedDict[tuple[bytes, str], tuple[PlatformError, int]] = OrderedDict()

    def get(self, key: tuple[bytes, str], now_ms: int) -> PlatformError | None:
        error, at_ms = self._refused.get(key, (None, 0))
        return error if at_ms <= now_ms < at_ms + REFUSED_MS else None

    def put(self, key: tuple[bytes, str], error: PlatformError, now_ms: int) -> None:
        error.__traceback__ = error.__context__ = error.__cause__ = None  # they hold the chain that was looked at
        self._refused[key] = (error, now_ms)
        self._refused.move_to_end(key)
        if len(self._refused) > MAX_REFUSED:
            self._refused.popitem(last=False)

    def clear(self) -> None:
        self._refused.clear()
