"""Which of a profile's secrets devices show: counted in memory, added to what is stored every few seconds.

What a crash loses is a few seconds of counting.
"""

from __future__ import annotations

from twisted.logger import Logger

from cloud_core.model import SecretUse
from cloud_core.storage.interface import Store, Tx
from shared.errors import PlatformError

log = Logger()
MAX_COUNTED = 10_000  # secrets of profiles between two flushes

Place = tuple[int, bytes]  # profile number, tag of the secret


def tag_of(store: Store, secret: str) -> bytes:
    """A keyed hash: the secret cannot be told from it."""
    return store.digest("provision secret", secret)


class Adoption:
    """Counts attempts that showed a right secret."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uses: dict[Place, SecretUse] = {}
        self._is_writing = False

    def used(self, profile_id: int, secret: str, now_ms: int) -> None:
        """A device showed this secret of the profile, and it was right."""
        self._add((profile_id, tag_of(self._store, secret)), SecretUse(1, now_ms))

    def _add(self, place: Place, use: SecretUse) -> None:
        known = self._uses.get(place)
        if known is not None:
            use = SecretUse(known.attempts + use.attempts, max(known.last_ms, use.last_ms))
        elif len(self._uses) >= MAX_COUNTED:
            return
        self._uses[place] = use

    def flush(self) -> None:
        """Called every few seconds, and when the core stops."""
        if self._is_writing or not self._uses:
            return
        taken, self._uses = self._uses, {}
        self._is_writing = True

        def written(outcome: PlatformError | None) -> None:
            self._is_writing = False
            if outcome is not None:
                log.warn("The use of provision secrets is written later: {error}", error=str(outcome))
                for place, use in taken.items():
                    self._add(place, use)

        rows = [(profile_id, tag, use) for (profile_id, tag), use in taken.items()]
        self._store.submit(_put, (rows,), written)


def _put(tx: Tx, rows: list[tuple[int, bytes, SecretUse]]) -> None:
    tx.add_secret_uses(rows)
