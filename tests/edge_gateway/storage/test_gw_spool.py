"""The spool's promises, on a real file."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_gateway.model import Content, Lane, SubDevice
from edge_gateway.storage.errors import SpoolUnavailable
from edge_gateway.storage.export import SpoolReader
from edge_gateway.storage.file import runs
from edge_gateway.storage.interface import Boot
from tests.support.spools import SpoolUnderTest, a_record

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[SpoolUnderTest]:
    opened = SpoolUnderTest(path)
    yield opened
    opened.close()


def numbers(records: list[Any]) -> list[int]:
    return [record.number for record in records]


def test_a_record_comes_back_as_it_was(spool: SpoolUnderTest) -> None:
    """Every field survives, on disk and over a restart."""
    record = a_record(1, "ö", content=Content.ATTRIBUTES, lane=Lane.HISTORY, ts_ms=0, boot=1, body=b'{"a":"\x00"}')
    assert spool.append(record) is None
    assert spool.history() == [record]
    again = spool.again()
    assert again.history() == [record]
    assert again.spool.backlog == {"ö": 1}
    again.close()


def test_live_records_are_not_read_back_in_the_same_opening(spool: SpoolUnderTest) -> None:
    """They were handed on in memory; after a restart they are history too."""
    spool.append(*(a_record(n, lane=Lane(n % 2)) for n in range(1, 11)))
    assert numbers(spool.history()) == [1, 3, 5, 7, 9]
    assert numbers(spool.history(after=5)) == [7, 9]
    assert spool.history(after=9) == []
    spool.append(a_record(11, lane=Lane.HISTORY))
    assert numbers(spool.history(after=9)) == [11]
    again = spool.again()
    assert numbers(again.history()) == list(range(1, 12))
    again.append(a_record(again.spool.next_number))
    assert again.history(after=11) == []
    again.close()


def test_history_is_read_in_portions(spool: SpoolUnderTest) -> None:
    """The limits hold, and one record comes whatever its size."""
    spool.append(*(a_record(n, lane=Lane.HISTORY, body=b"{%s}" % (b" " * 98)) for n in range(1, 10)))
    assert numbers(spool.history(0, limit_records=3)) == [1, 2, 3]
    assert numbers(spool.history(3, limit_bytes=250)) == [4, 5]
    assert numbers(spool.history(5, limit_bytes=1)) == [6]


def test_what_is_forgotten_is_gone_and_its_number_never_comes_again(spool: SpoolUnderTest) -> None:
    """Also when nothing is left, after an orderly end and after a crash."""
    spool.append(*(a_record(n, lane=Lane.HISTORY) for n in range(1, 6)))
    spool.forget([2, 4, 99])
    assert numbers(spool.history()) == [1, 3, 5]
    spool.forget([5, 1, 3])
    assert spool.spool.levels().records == 0
    again = spool.again()
    assert (again.spool.next_number, again.spool.backlog) == (6, {})
    again.append(a_record(6))
    again.forget([6])
    again.abandon()
    crashed = SpoolUnderTest(again.path)
    assert crashed.spool.next_number > 6
    crashed.close()


def test_a_record_can_be_forgotten_in_the_batch_that_stores_it(spool: SpoolUnderTest) -> None:
    """The order of the calls holds within a transaction."""
    spool.spool.append([a_record(1, lane=Lane.HISTORY)], lambda refusal: None)
    spool.spool.forget([1])
    assert spool.history() == []
    assert spool.spool.levels().records == 0


def test_answers_come_in_the_order_of_the_calls(path: Path) -> None:
    """One hop to the reactor carries many of them."""
    spool = SpoolUnderTest(path, commit_ms=20)
    answered: list[int] = []
    for n in range(1, 1200):
        spool.spool.append([a_record(n)], lambda refusal, n=n: answered.append(n))  # type: ignore[misc]
    hops = 0
    while len(answered) < 1199:
        call, args = spool.reactor.calls.get(timeout=20)
        call(*args)
        hops += 1
    assert answered == list(range(1, 1200))
    assert hops < 20
    spool.close()


def test_a_failing_callback_does_not_take_the_others_along(spool: SpoolUnderTest) -> None:
    """It is logged."""
    answers: list[Any] = []

    def fail(refusal: Any) -> None:
        raise ValueError("a bug of the caller")

    spool.spool.append([a_record(1)], fail)
    spool.spool.append([a_record(2)], answers.append)
    spool.reactor.run_until(lambda: answers)
    assert answers == [None]


def test_what_no_database_takes_is_refused_alone(spool: SpoolUnderTest) -> None:
    """A name that is no text, or a number used twice, costs the others of its batch nothing."""
    answers: list[Any] = []
    for record in (a_record(1), a_record(2, "\ud800"), a_record(3), a_record(3), a_record(4, ts_ms=2**70)):
        spool.spool.append([record], answers.append)
    spool.reactor.run_until(lambda: len(answers) == 5)
    assert [answer is None for answer in answers] == [True, False, True, False, False]
    assert answers[1].retry_after_s is None
    assert spool.spool.levels().records == 2


def test_sub_devices_are_remembered(spool: SpoolUnderTest) -> None:
    """The last word about a name counts."""
    spool.spool.remember([SubDevice("a", "a", "boiler", "hall"), SubDevice("b", "b", "", "hall")])
    spool.spool.remember([SubDevice("a", "renamed", "boiler", "hall", 5, True)])
    again = spool.again()
    known = {device.name: device for device in again.spool.sub_devices()}
    assert known == {"a": SubDevice("a", "renamed", "boiler", "hall", 5, True), "b": SubDevice("b", "b", "", "hall")}
    again.close()


def test_starts_of_the_machine_are_numbered(spool: SpoolUnderTest) -> None:
    """A restart of the program is none; what records refer to is kept, the rest goes."""
    assert spool.spool.boots == {1: Boot(number=1, known_ms=0)}
    spool.spool.remember_boot(Boot(number=1, known_ms=1_000))
    same = spool.again()
    assert same.spool.boots == {1: Boot(number=1, known_ms=1_000)}
    same.append(a_record(same.spool.next_number))
    second = same.again(machine_start="two")
    assert second.spool.boots == {1: Boot(number=1, known_ms=1_000, last_ms=1), 2: Boot(number=2, known_ms=0)}
    assert second.spool.present_boot == Boot(number=2, known_ms=0)
    third = second.again(machine_start="three")
    assert set(third.spool.boots) == {1, 2, 3}  # the newest known one stays, since it may have been the present one
    assert third.spool.present_boot.number == 3
    third.close()


def test_only_one_process_has_a_spool(spool: SpoolUnderTest) -> None:
    """The second is told what to do."""
    other = SpoolUnderTest(spool.path, is_opened=False)
    with pytest.raises(SpoolUnavailable, match="in use by another edge-gateway"):
        other.spool.open()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """One sentence with the fix."""
    (tmp_path / "file").write_text("")
    spool = SpoolUnderTest(tmp_path / "spool.db", is_opened=False)
    spool.spool._path = tmp_path / "file" / "spool.db"
    with pytest.raises(SpoolUnavailable, match=r"make the folder .* writable"):
        spool.spool.open()


def test_a_newer_programs_file_is_left_alone(spool: SpoolUnderTest) -> None:
    """It is neither opened nor set aside."""
    spool.close()
    connection = sqlite3.connect(spool.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    other = SpoolUnderTest(spool.path, is_opened=False)
    with pytest.raises(SpoolUnavailable, match="newer edge-gateway"):
        other.spool.open()


def test_a_queue_that_is_full_refuses(spool: SpoolUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a time to come back, and without storing anything."""
    monkeypatch.setattr("edge_gateway.storage.spool.MAX_QUEUED_UNITS", 0)
    refusal = spool.append(a_record(1))
    assert refusal is not None and refusal.retry_after_s is not None
    assert spool.spool.levels().records == 0


def test_a_spool_can_be_read_while_it_is_written(spool: SpoolUnderTest) -> None:
    """Records, devices and levels, without stopping the agent."""
    spool.append(*(a_record(n, f"d{n % 2}") for n in range(1, 2502)))
    spool.spool.remember([SubDevice("d0", "d0", "t", "c")])
    spool.history()
    with SpoolReader(spool.path) as reader:
        found = reader.records()
        assert next(found).number == 1
        assert spool.append(a_record(2502, "d0")) is None
        assert sum(1 for _ in found) == 2501
        assert reader.overview().devices == {"d0": 1251, "d1": 1251}
        assert reader.sub_devices() == [SubDevice("d0", "d0", "t", "c")]


def test_a_spool_of_a_stopped_agent_can_be_read(spool: SpoolUnderTest) -> None:
    """And a missing one is named."""
    spool.append(a_record(1))
    spool.close()
    with SpoolReader(spool.path) as reader:
        assert [record.number for record in reader.records()] == [1]
    with pytest.raises(SpoolUnavailable, match="There is no spool"), SpoolReader(spool.path.with_name("other.db")):
        pass


def test_numbers_become_ranges() -> None:
    """Whatever their order."""
    assert runs([]) == []
    assert runs([5, 1, 2, 3, 3, 9]) == [(1, 3), (5, 5), (9, 9)]


CHILD = """
import sys
from pathlib import Path
from tests.support.spools import SpoolUnderTest, a_record
from edge_gateway.model import SubDevice
spool = SpoolUnderTest(Path(sys.argv[1]), commit_ms=1)
number = spool.spool.next_number
while True:
    answers = []
    spool.spool.remember([SubDevice(f"s{number}", "", "", "")])
    for n in range(number, number + 20):
        spool.spool.append([a_record(n)], lambda refusal, n=n: answers.append(n) or print(n, flush=True))
    print("forgotten", number - 15, flush=True)
    spool.spool.forget([number - 15])
    number += 20
    spool.reactor.run_until(lambda: len(answers) == 20)
"""


def test_nothing_acknowledged_is_lost_by_kill(path: Path) -> None:
    """SIGKILL at random moments, many times: each acknowledged record is there, in order, with the device before it."""
    chance = random.Random(7)
    acknowledged: list[int] = []
    forgotten: set[int] = set()
    for _ in range(15):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(chance.randint(1, 400))]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
        child.wait()
        words = [line.split() for line in lines if line.endswith("\n")]
        acknowledged += [int(word[0]) for word in words if len(word) == 1]
        forgotten |= {int(word[1]) for word in words if len(word) == 2}
    spool = SpoolUnderTest(path)
    stored = numbers(spool.history())
    assert stored == sorted(stored)
    assert set(acknowledged) - set(stored) <= forgotten
    assert len(acknowledged) == len(set(acknowledged))
    assert len(spool.spool.sub_devices()) * 20 >= len(stored) - 15 * 20
    assert spool.spool.levels().dropped == {}
    spool.close()
