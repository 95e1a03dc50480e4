"""A real store without a reactor: answers are taken from a queue by the test's own thread."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from cloud_core.model import ProvisionConfiguration, ProvisionStrategy
from cloud_core.storage.interface import NewDevice, NewProfile
from cloud_core.storage.store import SqlStore
from cloud_core.storage.vault import Vault
from shared.credentials import AccessToken, Credentials
from shared.errors import PlatformError

WAIT_S = 20.0
KEY = b"k" * 32
TENANT = 1


class InlineReactor:
    """Stands for `reactor.callFromThread`; the test runs the calls."""

    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = queue.Queue()

    def callFromThread(self, f: Callable[..., Any], *args: Any) -> None:
        self.calls.put((f, args))

    def run_until(self, is_done: Callable[[], Any]) -> None:
        while not is_done():
            f, args = self.calls.get(timeout=WAIT_S)
            f(*args)


class StoreUnderTest:
    """`SqlStore` with blocking conveniences."""

    def __init__(self, url: str, reactor: InlineReactor, node: str | None = None) -> None:
        self.url = url
        self.reactor = reactor
        self.store = SqlStore(url=url, vault=Vault(KEY), call_in_reactor=reactor.callFromThread, node=node)
        self.store.open()

    def run(self, work: Callable[..., Any], *args: Any) -> Any:
        """The result of a decision; a refusal is raised."""
        return self.wait(lambda done: self.store.submit(work, args, done))

    def read(self, query: Callable[..., Any], *args: Any) -> Any:
        return self.wait(lambda done: self.store.read(query, args, done))

    def survey(self, query: Callable[..., Any], *args: Any) -> Any:
        return self.wait(lambda done: self.store.survey(query, args, done))

    def append(self, device_id: int, samples: list[Any]) -> None:
        self.wait(lambda done: self.store.append(device_id, samples, done))

    def wait(self, start: Callable[[Callable[[Any], None]], None]) -> Any:
        answers: list[Any] = []
        start(answers.append)
        self.reactor.run_until(lambda: answers)
        if isinstance(answers[0], PlatformError):
            raise answers[0]
        return answers[0]

    def close(self) -> None:
        self.store.close()

    def add_tenant(self, name: str) -> int:
        uuid = uuid4()
        self.run(lambda tx: tx.insert_tenant(uuid, name, now_ms=1))
        return int(self.read(lambda tx: tx.tenant(uuid)).id)

    def add_profile(
        self, name: str = "sensor", document: dict[str, Any] | None = None, *, tenant_id: int = TENANT, **provision: Any
    ) -> int:
        settings: dict[str, Any] = {
            "strategy": ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES, "key": f"{name}-key", "secret": f"{name}-secret",
        }  # fmt: skip
        profile = NewProfile(
            uuid=uuid4(), tenant_id=tenant_id, name=name, created_ms=1, document=document or {},
            provision=ProvisionConfiguration(**(settings | provision)),
        )  # fmt: skip
        return int(self.run(lambda tx: tx.insert_profile(profile)))

    def add_device(self, name: str, profile_id: int, credentials: Credentials | None = None) -> int:
        def insert(tx: Any) -> int:
            device = NewDevice(uuid=uuid4(), tenant_id=TENANT, profile_id=profile_id, name=name, created_ms=1)
            device_id = int(tx.insert_device(device))
            tx.put_credentials(device_id, credentials or AccessToken(f"token-{name}"), now_ms=1)
            return device_id

        return int(self.run(insert))


def forget_certificates(tx: Any) -> None:
    """As a database is that comes from the step before: the credentials of devices alone are there."""
    tx.connection.cursor().execute("DELETE FROM certificate")
    tx.writes += 1


def open_store(url: str, node: str | None = None) -> StoreUnderTest:
    return StoreUnderTest(url, InlineReactor(), node)
