"""`RpcApi` for one device, on a real store and a clock of the test's own."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.internet.task import Clock

from cloud_core.core.api import Options
from cloud_core.core.rpc.commands import RpcOptions, ServerRpc
from shared.errors import (
    PlatformError,
)
from tests.support.api import ApiUnderTest
from tests.support.downlinks import RecordingDownlink
from tests.support.stores import TENANT, StoreUnderTest


class RpcUnderTest:
    """A core with one device; `restart` builds another on the same store."""

    def __init__(self, store: StoreUnderTest, **options: Any) -> None:
        self.store = store
        self.options = options
        self.now_s = 1_700_000_000.0
        self.device_id = store.add_device("dev", store.add_profile())
        self.restart()

    def restart(self) -> None:
        self.clock = Clock()
        options = Options(rpc=RpcOptions(**self.options))
        self.under_test = ApiUnderTest(self.store, call_later=self.clock.callLater, options=options)
        self.under_test.now_s = self.now_s
        self.api = self.under_test.api
        self.rpc = self.api.rpc

    def settle(self) -> None:
        """Runs what the store has answered, and what follows from it."""
        for _ in range(12):
            self.store.run(lambda tx: None)
            self.store.read(lambda tx: None)
            self.clock.advance(0)

    def pass_time(self, seconds: float) -> None:
        self.now_s = self.under_test.now_s = self.now_s + seconds
        self.clock.advance(seconds)
        self.settle()

    def downlink(self, **members: Any) -> RecordingDownlink:
        return RecordingDownlink(self.api.downlinks, self.device_id, **members).open()

    def command(self, method: str = "m", **members: Any) -> ServerRpc:
        expires_ms = int(self.now_s * 1000) + members.pop("in_ms", 20_000)
        return ServerRpc(**({"method": method, "params": None, "is_oneway": True, "expires_ms": expires_ms} | members))

    def send(self, method: str = "m", **members: Any) -> list[Any]:
        """The outcomes so far: none while the command waits."""
        outcomes: list[Any] = []
        self.rpc.send(TENANT, self.device_id, self.command(method, **members), outcomes.append)
        self.settle()
        return outcomes

    def queue(self, *methods: str, **members: Any) -> list[UUID]:
        members = {"is_persistent": True, "in_ms": 3_600_000} | members
        return [self.send(method, **members)[0] for method in methods]

    def reply(self, number: int, value: Any) -> Any:
        outcomes: list[Any] = []
        self.rpc.reply_of(self.device_id, number, value, outcomes.append)
        self.settle()
        assert len(outcomes) == 1
        return outcomes[0]

    def stored(self, uuid: UUID) -> Any:
        found = self.under_test.outcome(lambda done: self.rpc.find(TENANT, uuid, done))
        if isinstance(found, PlatformError):
            raise found
        return found

    def states(self, uuids: list[UUID]) -> list[str]:
        return [self.stored(uuid).status.value for uuid in uuids]
