"""Two stores on one database: the constraints decide, and the loser hears why."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from cloud_core.core.claiming import CLAIMING_DATA, ClaimOutcome
from cloud_core.model import ProvisionStrategy, Scope
from shared.errors import AlreadyProvisioned, DeviceAlreadyExists
from shared.messages import ProvisionResponse
from tests.support.api import ApiUnderTest
from tests.support.stores import TENANT, StoreUnderTest, open_store


def test_nodes_that_race_for_a_name_make_one_device(store: StoreUnderTest) -> None:
    """Whoever comes second is told DEVICE_EXISTS, never that the service is busy."""
    store.add_profile()
    other = open_store(store.url)
    nodes = [ApiUnderTest(store), ApiUnderTest(other)]
    outcomes: list[list[Any]] = [[], []]
    barrier = threading.Barrier(2)

    def race(number: int) -> None:
        for attempt in range(60):
            barrier.wait(20)
            outcomes[number].append(nodes[number].provision(device_name=f"sn-{attempt}"))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    other.close()
    for pair in zip(*outcomes, strict=True):
        kinds = sorted(type(outcome).__name__ for outcome in pair)
        assert kinds == [DeviceAlreadyExists.__name__, ProvisionResponse.__name__], pair


ROUNDS = 60


class Racing:
    """Two nodes on one PostgreSQL; what a round does happens on both at the same moment."""

    def __init__(self, url: str) -> None:
        self.stores = [open_store(url, name) for name in "ab"]
        self.nodes = [ApiUnderTest(store) for store in self.stores]

    def close(self) -> None:
        for store in self.stores:
            store.close()

    def race(self, ask: Callable[[ApiUnderTest, int, int], Any]) -> list[tuple[Any, Any]]:
        """Pairs of outcomes of `ask(node, its number, round)`."""
        outcomes: list[list[Any]] = [[], []]
        barrier = threading.Barrier(2)

        def run(number: int) -> None:
            for one in range(ROUNDS):
                barrier.wait(20)
                outcomes[number].append(ask(self.nodes[number], number, one))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return list(zip(*outcomes, strict=True))


@pytest.fixture
def racing(postgresql: Callable[[], str]) -> Iterator[Racing]:
    made = Racing(postgresql())
    yield made
    made.close()


def test_a_device_that_waits_for_its_provisioning_is_provisioned_once(racing: Racing) -> None:
    """Whoever comes second is refused: what the first was told stays true."""
    store = racing.stores[0]
    profile_id = store.add_profile(
        strategy=ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES, accept_device_credentials=True
    )
    numbers = [store.add_device(f"sn-{one}", profile_id) for one in range(ROUNDS)]
    pairs = racing.race(lambda node, number, one: node.provision(device_name=f"sn-{one}", token=f"tok-{number}-{one}"))
    for device_id, pair in zip(numbers, pairs, strict=True):
        assert sorted(isinstance(outcome, AlreadyProvisioned) for outcome in pair) == [False, True]
        told = next(outcome.credentials for outcome in pair if isinstance(outcome, ProvisionResponse))
        stored = store.read(lambda tx, device_id=device_id: tx.credentials(device_id))
        assert stored.credentials == told


def test_a_device_has_one_owner(racing: Racing) -> None:
    """Of two who claim it at the same moment one is told that it is claimed already."""
    store = racing.stores[0]
    profile_id = store.add_profile()
    customers = [
        store.run(
            lambda tx, title=title: tx.insert_customer(
                uuid=uuid4(), tenant_id=TENANT, title=title, document={}, created_ms=1
            )
        )
        for title in ("ACME", "Other")
    ]
    offer = {CLAIMING_DATA: json.dumps({"secretKey": "s", "expirationTime": 10**15})}
    for one in range(ROUNDS):
        device_id = store.add_device(f"sn-{one}", profile_id)
        store.run(lambda tx, device_id=device_id: tx.put_attributes(device_id, Scope.SERVER, offer, now_ms=1))

    def claim(node: ApiUnderTest, number: int, one: int) -> Any:
        return node.outcome(
            lambda done: node.api.claims.claim(TENANT, customers[number], f"sn-{one}", "s", done)
        )  # fmt: skip

    for pair in racing.race(claim):
        assert sorted(outcome for outcome, _ in pair) == [ClaimOutcome.CLAIMED, ClaimOutcome.SUCCESS]
