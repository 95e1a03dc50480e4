"""Who is let in: logins that have ended before their tokens do, and API keys, both held in memory.

A call costs look-ups in dictionaries alone. The database has all of it; every node reads what is new there every
few seconds (`poll`), and what happens on a node itself counts there at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from twisted.logger import Logger

from cloud_core.core.asking import Asking
from cloud_core.core.people.logins import REFRESH_S, Operator
from cloud_core.core.people.permissions import TENANT_ADMIN
from cloud_core.model import ApiKey, EndedLogin
from cloud_core.storage.interface import ReadTx, Store, Tx
from shared.errors import NotAuthenticated, PlatformError

log = Logger()
POLL_S = 2.0
FOREVER = 2**62  # a generation that no login has
USE_WRITTEN_EVERY_MS = 60_000
OVERLAP = 1_000  # numbers that are read again: transactions may become visible in another order than they were numbered
ENDED = "The login has ended; log in again"


@dataclass(slots=True)
class KeyInUse:
    """A key and whom it stands for."""

    key: ApiKey
    operator: Operator
    written_ms: int  # when its last use was written


class Access(Asking):
    """Refuses what has ended; knows the API keys."""

    def __init__(self, *, store: Store, now_ms: Callable[[], int]) -> None:
        super().__init__(store)
        self._now_ms = now_ms
        self._ended: dict[UUID, EndedLogin] = {}
        self._keys: dict[bytes, KeyInUse] = {}  # by keyed hash
        self._hashes: dict[UUID, bytes] = {}
        self._last_ended = self._last_key = 0
        self._is_polling = self._is_due = False

    async def start(self) -> None:
        """Reads all there is, before the first call is answered."""
        self._take(await self._read(news, 0, 0))

    def poll(self) -> None:
        """Reads what other nodes have ended or made; called every `POLL_S` seconds, and when a node tells of some."""
        if self._is_polling:
            self._is_due = True
            return
        self._is_polling, self._is_due = True, False
        after = (max(0, self._last_ended - OVERLAP), max(0, self._last_key - OVERLAP))
        self._store.survey(news, after, self._polled)

    def _polled(self, outcome: News | PlatformError) -> None:
        self._is_polling = False
        if isinstance(outcome, PlatformError):
            log.error("Could not read which logins have ended: {error}", error=str(outcome))
            return
        self._take(outcome)
        if self._is_due:
            self.poll()

    def _take(self, news: News) -> None:
        for key, key_hash, tenant in news.keys:
            self._last_key = max(self._last_key, key.id)
            self.add_key(key, key_hash, tenant)
        for ended in news.ended:
            self._last_ended = max(self._last_ended, ended.id)
            self.end(ended)

    def maintain(self) -> None:
        """Forgets what no token outlives any more; called every minute."""
        now_ms = self._now_ms()
        self._ended = {subject: one for subject, one in self._ended.items() if one.until_ms >= now_ms}
        self._store.submit(trim, (now_ms,), _kept)

    # -- logins -----------------------------------------------------------------------------------

    def end(self, *logins: EndedLogin) -> None:
        """From now on these are refused here; whoever calls this has written them."""
        for one in logins:
            known = self._ended.get(one.subject)
            if known is None or known.generation <= one.generation:
                self._ended[one.subject] = one
            key_hash = self._hashes.pop(one.subject, None)
            if key_hash is not None:
                self._keys.pop(key_hash, None)

    def check(self, operator: Operator) -> None:
        """Raises: NotAuthenticated for a login that has ended."""
        if operator.session is not None and operator.session in self._ended:
            raise NotAuthenticated(ENDED)
        ended = self._ended.get(operator.user_uuid)
        if ended is not None and operator.generation < ended.generation:
            raise NotAuthenticated(ENDED)

    def form_token(self, operator: Operator) -> str:
        """What the forms on this login's pages carry; nobody else can make it."""
        return self._store.digest("form", str(operator.session or operator.user_uuid)).hex()[:32]

    # -- API keys ---------------------------------------------------------------------------------

    def hash_of(self, key: str) -> bytes:
        return self._store.digest("API key", key)

    def add_key(self, key: ApiKey, key_hash: bytes, tenant: UUID) -> None:
        """A key that stands in the database."""
        if key_hash in self._keys or key.uuid in self._ended:
            return
        operator = Operator(f"API key {key.name}", TENANT_ADMIN, key.tenant_id, tenant, key.uuid, role=key.role)
        self._keys[key_hash] = KeyInUse(key, operator, key.used_ms or 0)
        self._hashes[key.uuid] = key_hash

    def operator_of_key(self, key: str) -> Operator:
        """Whom this key stands for; its use is written down, at most once a minute. Raises: NotAuthenticated."""
        known = self._keys.get(self.hash_of(key))
        if known is None:
            raise NotAuthenticated("Authentication failed")
        now_ms = self._now_ms()
        if known.key.ends_ms is not None and now_ms >= known.key.ends_ms:
            raise NotAuthenticated("The API key has ended")
        if now_ms - known.written_ms >= USE_WRITTEN_EVERY_MS:
            known.written_ms = now_ms
            self._store.submit(mark_used, (known.key.id, now_ms), _kept)
        return known.operator


@dataclass(frozen=True, slots=True)
class News:
    """What has ended, and the keys with their keyed hashes and their tenants' uuids."""

    ended: list[EndedLogin]
    keys: list[tuple[ApiKey, bytes, UUID]]


def news(tx: ReadTx, ended_after: int, keys_after: int) -> News:
    return News(tx.ended_logins(ended_after), tx.keys_in_use(keys_after))


def end_login(tx: Tx, subject: UUID, now_ms: int, generation: int = FOREVER) -> EndedLogin:
    """Ends all tokens of a session, user or key, or those of a user's smaller generations."""
    ended = EndedLogin(subject, generation, now_ms + REFRESH_S * 1000)
    tx.put_ended_login(ended)
    return ended


def trim(tx: Tx, now_ms: int) -> None:
    tx.trim_ended_logins(now_ms)


def mark_used(tx: Tx, key_id: int, now_ms: int) -> None:
    tx.mark_api_key_used(key_id, used_ms=now_ms)


def _kept(outcome: object) -> None:
    if isinstance(outcome, PlatformError):
        log.error("Could not write what happened to logins and keys: {error}", error=str(outcome))
