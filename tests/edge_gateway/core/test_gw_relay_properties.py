"""Whatever the core does, nothing is lost and every device's order holds."""

from __future__ import annotations

import random

import msgspec
import pytest

from edge_gateway.model import Content
from edge_gateway.settings import Core, Store
from tests.support.gateway_fakes import Flow

WINDOW = 4
POISON = "poison"


class Core5:
    """A core that keeps what it took, checks announcements, and refuses what is poisoned."""

    def __init__(self) -> None:
        self.taken: dict[str, list[int]] = {}
        self.online: set[str] = set()
        self.early: list[str] = []

    def new_connection(self) -> None:
        self.online.clear()

    def verdict(self, topic: str, payload: bytes) -> int:
        """Stores, and says the code of the PUBACK."""
        document = msgspec.json.decode(payload)
        if topic == "v1/gateway/connect":
            self.online.add(document["device"])
            return 0
        if topic == "v1/gateway/disconnect":
            return 0
        by_device = document if topic.startswith("v1/gateway") else {"": document}
        self.early += [name for name in by_device if name and name not in self.online]
        numbers = {name: list(_numbers(entries)) for name, entries in by_device.items()}
        if POISON in payload.decode():
            return 0x99
        for name, found in numbers.items():
            self.taken.setdefault(name, []).extend(found)
        return 0


def _numbers(entries: object) -> list[int]:
    if isinstance(entries, list):
        return [entry["values"]["n"] for entry in entries]
    assert isinstance(entries, dict)
    return [value for key, value in entries.items() if key.startswith("a")]


def first_times(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


class Life:
    """A random life of a gateway."""

    def __init__(self, seed: int, order: str) -> None:
        self.random = random.Random(seed)
        self.flow = Flow(core=Core(window=WINDOW), store=Store(order=order))  # type: ignore[arg-type]
        self.flow.relay.queues._max_live_records = self.random.choice([5, 50, 5_000])
        self.flow.relay.start()
        self.core = Core5()
        self.accepted: dict[str, list[int]] = {}
        self.poisoned: set[int] = set()
        self.dropped: set[int] = set()
        self.is_connected = False

    def step(self) -> None:
        choice = self.random.random()
        if choice < 0.45:
            self.accept()
        elif choice < 0.8:
            self.answer()
        elif choice < 0.86:
            self.cut() if self.is_connected else self.connect()
        elif choice < 0.92:
            self.flow.spool.is_slow = self.random.random() < 0.5
            self.flow.spool.commit()
        elif choice < 0.93:
            self.drop()
        else:
            self.flow.timers.advance(self.random.choice([0, 0.01, 1.0, 3.0]))
        self.check()

    def accept(self) -> None:
        for _ in range(self.random.choice([1, 1, 5, 30])):
            device = self.random.choice(["", "A", "B", "C", 'Ü"d'])
            number = self.flow.spool.next_number
            values: dict[str, object] = {"n": number}
            content = Content.TELEMETRY
            if self.random.random() < 0.2:
                content, values = Content.ATTRIBUTES, {f"a{number}": number}
            if self.random.random() < 0.02:
                values["text"] = POISON
                self.poisoned.add(number)
            self.flow.accept(device, values, content)
            self.accepted.setdefault(device, []).append(number)

    def answer(self) -> None:
        uplink = self.flow.uplink
        if not self.is_connected or not uplink.waiting:
            return
        at = 0 if self.random.random() < 0.7 else self.random.randrange(len(uplink.waiting))
        topic, payload, _ = uplink.waiting[at]
        code = self.random.choice([0x97, 0x83]) if self.random.random() < 0.1 else self.core.verdict(topic, payload)
        if topic == "v1/gateway/connect" and code == 0x83:
            code = 0x97
        uplink.answer(at, code)

    def connect(self) -> None:
        self.core.new_connection()
        self.flow.connect()
        self.is_connected = True

    def cut(self) -> None:
        """The core may have taken some of what it did not acknowledge any more."""
        for topic, payload, _ in self.flow.uplink.waiting[: self.random.randrange(WINDOW)]:
            self.core.verdict(topic, payload)
        self.flow.relay.ended()
        self.is_connected = False

    def drop(self) -> None:
        oldest = sorted(self.flow.spool.records)[: self.random.randrange(1, 20)]
        self.dropped.update(oldest)
        self.flow.spool.drop(oldest)

    def check(self) -> None:
        assert self.flow.uplink.most_waiting <= WINDOW
        assert self.core.early == []

    def settle(self) -> None:
        """A patient core, and time."""
        self.flow.spool.is_slow = False
        self.flow.spool.commit()
        if not self.is_connected:
            self.connect()
        for _ in range(20_000):
            uplink = self.flow.uplink
            if uplink.waiting:
                topic, payload, _ = uplink.waiting[0]
                uplink.answer(0, self.core.verdict(topic, payload))
            else:
                self.flow.timers.advance(1.0)
                if not self.flow.spool.records and not uplink.waiting:
                    return
        raise AssertionError(f"{len(self.flow.spool.records)} records are stuck: {self.flow.relay.snapshot()}")


@pytest.mark.parametrize("order", ["device", "live-first"])
@pytest.mark.parametrize("seed", range(60))
def test_random_lives_lose_nothing_and_keep_every_devices_order(seed: int, order: str) -> None:
    """Acknowledgements, cuts, refusals, drops and poison in any order: each record is taken, or counted as given up."""
    life = Life(seed, order)
    for _ in range(300):
        life.step()
    life.settle()
    given_up = life.flow.counters.dropped["refused by the core"]
    missing = []
    for device, numbers in life.accepted.items():
        taken = first_times(life.core.taken.get(device, []))
        missing += [number for number in numbers if number not in set(taken)]
        if order == "device":
            assert taken == sorted(taken), device
    unexplained = set(missing) - life.dropped - life.poisoned
    assert len(unexplained) <= given_up
    assert life.flow.relay.queues.live_records == 0
    assert life.flow.relay.queues.live_bytes == 0
    assert life.flow.relay.snapshot()["inFlight"] == 0
