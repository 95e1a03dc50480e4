"""`ManifestsApi`: the credentials of an import's devices as a file that is shown once, and what else is shown once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from uuid import UUID

from twisted.logger import Logger

from cloud_core.core.asking import Asking
from cloud_core.core.bulk import manifest
from cloud_core.core.bulk.manifest import CSV, LAST_ROW, MANIFEST, NDJSON, ManifestState
from cloud_core.core.people.audit import Audit, Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.entropy import random_bytes
from cloud_core.storage.interface import ReadTx, Store
from cloud_core.storage.interface.batches import Batch
from cloud_core.storage.interface.manifests import ManifestClaim
from shared.errors import InvalidArgument, PlatformError

log = Logger()
ROWS_AT_ONCE = 250
HOLD_EVERY_MS = 10_000


class OneTime(Asking):
    """Secrets on their way to somebody. Piece by piece `pieces`; behind the last but one `take`, then the last.

    Whoever sends them calls `give_back` when the connection is lost before the last piece was handed to it.
    """

    def __init__(
        self, store: Store, audit: Audit, operator: Operator, claim: ManifestClaim, batch: Batch,
        source: AsyncIterator[bytes], now_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        super().__init__(store, audit)
        self.batch = batch
        self._operator = operator
        self._claim = claim
        self._source = source
        self._now_ms = now_ms
        self._held_ms = claim.held_ms
        self.last = b""  # complete when `pieces` has ended

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """All but the last one, which stays in `last`. Raises: InvalidArgument where it was overtaken."""
        async for piece in self._source:
            if self.last:
                yield self.last
            self.last = piece
            if self._now_ms() - self._held_ms >= HOLD_EVERY_MS:
                self._held_ms = self._now_ms()
                await self._decide(manifest.hold, self._claim.batch_id, self._claim.ticket, self._held_ms)

    async def take(self) -> None:
        """Puts on record that it was received; nothing is shown again. Raises: InvalidArgument, Unavailable."""
        what = f"the credentials of {manifest.device_count(self.batch)} devices, as {self._claim.content}"
        deed = Deed("MANIFEST_TAKEN", "IMPORT", lambda _: _subject(self.batch, what))
        args = (self._claim.batch_id, self._claim.ticket, self._now_ms())
        await self._decide_by(self._operator, deed, manifest.take, *args)
        log.info(
            "{who} took the {what} of import {uuid}", who=self._claim.holder, what=self._claim.content,
            uuid=str(self.batch.uuid),
        )  # fmt: skip

    def give_back(self) -> None:
        """It was not received, so that it can be asked for again."""

        def given(outcome: ManifestClaim | PlatformError | None) -> None:
            if isinstance(outcome, PlatformError):  # then it lapses by itself, unless it counts as taken already
                log.warn("A broken download was not given back: {error}", error=str(outcome))

        def subject(claim: ManifestClaim | None) -> Subject | None:
            if claim is None or claim.taken_ms is None:  # nothing of it is on record
                return None
            return _subject(self.batch, "the connection was lost before the end; nobody has them")

        deed = Deed("MANIFEST_GIVEN_BACK", "IMPORT", subject)
        args = (self._claim.batch_id, self._claim.ticket)
        self._audit.submit(self._operator, deed, manifest.give_back, args, given)


class ManifestsApi(Asking):
    """Shows secrets of imports once, and says who has them."""

    def __init__(self, *, store: Store, audit: Audit, now_ms: Callable[[], int]) -> None:
        super().__init__(store, audit)
        self._now_ms = now_ms

    async def state(self, operator: Operator, uuid: UUID) -> ManifestState:
        """Raises: NotFound."""
        return await self._read(manifest.state_of, operator.tenant_id, uuid)

    async def open(self, operator: Operator, uuid: UUID, kind: str) -> OneTime:
        """Begins to receive the manifest, as `csv` or `ndjson`.

        Raises: NotFound; InvalidArgument where it was taken, which says by whom; Unavailable while it is received.
        """
        if kind not in (CSV, NDJSON):
            raise InvalidArgument("The format must be csv or ndjson")
        batch, claim = await self.claim(operator, uuid, MANIFEST)
        return self.one_time(operator, claim, batch, self._pieces(batch, kind))

    async def claim(self, operator: Operator, uuid: UUID, content: str) -> tuple[Batch, ManifestClaim]:
        """The right to be shown the secrets, for one download. Raises: as `open`."""
        return await self._decide(
            manifest.claim, operator.tenant_id, uuid, operator.username, content, random_bytes(16), self._now_ms()
        )

    def one_time(
        self, operator: Operator, claim: ManifestClaim, batch: Batch, source: AsyncIterator[bytes]
    ) -> OneTime:  # fmt: skip
        """For secrets in another form, too."""
        return OneTime(self._store, self._audit, operator, claim, batch, source, self._now_ms)

    async def release(self, operator: Operator, uuid: UUID) -> ManifestState:
        """Lets it be taken once more. Raises: NotFound."""
        deed = Deed("MANIFEST_RELEASED", "IMPORT", _of_release)
        before: ManifestState = await self._decide_by(operator, deed, manifest.release, operator.tenant_id, uuid)
        if before.is_taken:
            log.info("{who} released the manifest of import {uuid}", who=operator.username, uuid=str(uuid))
        return before.released

    async def _pieces(self, batch: Batch, kind: str) -> AsyncIterator[bytes]:
        ready = manifest.head(kind)
        after: int | None = 0
        while after is not None:
            lines, after = await self._read(_lines, batch.id, after, kind)
            if ready or lines:
                yield ready + lines
            ready = b""


def _subject(batch: Batch, detail: str) -> Subject:
    return Subject(batch.uuid, str(batch.options.get("file", "")), detail)


def _of_release(before: ManifestState) -> Subject | None:
    if before.claim is None or not before.is_taken:
        return None
    return _subject(before.batch, f"{before.claim.holder} had taken it, as {before.claim.content}")


def _lines(tx: ReadTx, batch_id: int, after: int, kind: str) -> tuple[bytes, int | None]:
    """The next lines, and the row behind which it goes on; None at the end."""
    rows = tx.batch_devices(batch_id, after=after, up_to=LAST_ROW, limit=ROWS_AT_ONCE, with_credentials=True)
    return manifest.lines_of(rows, kind), rows[-1].number if len(rows) == ROWS_AT_ONCE else None
