"""Two stores on one database: the constraints decide, and the loser hears why."""

from __future__ import annotations

import threading
from typing import Any

from shared.errors import DeviceAlreadyExists
from shared.messages import ProvisionResponse
from tests.support.api import ApiUnderTest
from tests.support.stores import StoreUnderTest, open_store


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
