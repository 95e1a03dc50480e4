"""Imports of devices on a real store, without a reactor."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from cloud_core.core.bulk import imports
from cloud_core.core.bulk.imports import ImportOptions, ImportsApi
from cloud_core.core.bulk.reading import Format
from cloud_core.storage.interface.batches import Batch, BatchRow, BatchState
from tests.support.api import ApiUnderTest
from tests.support.rest import ADMINISTRATOR
from tests.support.stores import TENANT, StoreUnderTest

AT_WORK = (BatchState.APPLYING, BatchState.UNDOING, BatchState.DISCARDED)


class ImportsUnderTest:
    """`ImportsApi`, whose coroutines are run to their end."""

    def __init__(self, store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(imports, "deferToThread", lambda work, *args: succeed(work(*args)))
        self.store = store
        self.api = ApiUnderTest(store)
        self.imports = ImportsApi(store=store.store, api=self.api.api)

    def restart(self) -> None:
        """Another core on the same database; the one before does nothing any more."""
        self.imports.stop()
        self.api = ApiUnderTest(self.store)
        self.imports = ImportsApi(store=self.store.store, api=self.api.api)
        self.imports.start()

    def ran(self, coroutine: Any) -> Any:
        answers: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(answers.append)
        self.store.reactor.run_until(lambda: answers)
        if isinstance(answers[0], Failure):
            answers[0].raiseException()
        return answers[0]

    def sent(self, content: str | bytes, *, kind: str = "csv", **options: Any) -> Batch:
        """As it stands when the file was received and planned."""
        data = content.encode() if isinstance(content, str) else content
        given = ImportOptions(format=Format(kind=kind), **options)
        batch: Batch = self.ran(self.imports.receive(ADMINISTRATOR, io.BytesIO(data), given))
        return batch

    def done(self, batch: Batch) -> Batch:
        """As it stands when nothing is left to do."""
        self.imports.worker.wake()
        self.until(lambda: self.stored(batch).state not in AT_WORK)
        return self.stored(batch)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Lets the worker go on; what is asked for may look into the store."""
        while not is_so():
            self.store.run(lambda tx: None)

    def stored(self, batch: Batch) -> Batch:
        found: Batch = self.store.read(lambda tx: tx.batch(TENANT, batch.uuid))
        return found

    def imported(self, content: str | bytes, **options: Any) -> Batch:
        return self.done(self.sent(content, **options))

    def rows(self, batch: Batch) -> list[BatchRow]:
        found: list[BatchRow] = self.store.read(lambda tx: tx.batch_rows(batch.id, after=0, limit=10_000))
        return found

    def statuses(self, batch: Batch) -> list[str]:
        return [row.status for row in self.rows(batch)]

    def undone(self, batch: Batch) -> Batch:
        return self.done(self.ran(self.imports.undo(ADMINISTRATOR, batch.uuid)))

    def device(self, name: str) -> Any:
        return self.store.read(lambda tx: tx.device_by_name(TENANT, name))

    def credentials(self, name: str) -> Any:
        number = self.device(name).id
        return self.store.read(lambda tx: tx.credentials(number))

    def device_count(self) -> int:
        return int(self.store.read(lambda tx: tx.device_count(TENANT)))
