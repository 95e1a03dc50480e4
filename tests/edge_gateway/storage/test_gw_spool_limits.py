"""When the spool, or the disk, is full."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_gateway.model import Content, Lane, Refusal
from edge_gateway.settings import Store
from edge_gateway.storage.interface import Boot
from edge_gateway.storage.limits import Limits, in_units, latest_acceptance_ms
from tests.support.spools import SpoolUnderTest, a_record

MIB = 1024**2
BIG = b'{"text":"%s"}' % (b"x" * 980)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def fill(spool: SpoolUnderTest, first: int, count: int, **other: Any) -> list[Refusal | None]:
    return [
        spool.append(*(a_record(n, f"d{n % 3}", body=BIG, lane=Lane.HISTORY, **other) for n in range(at, at + 20)))
        for at in range(first, first + count, 20)
    ]


def test_a_full_spool_drops_the_oldest(path: Path) -> None:
    """The size holds, the newest stay, what goes is told and counted, and numbers add up."""
    spool = SpoolUnderTest(path, max_size=MIB)
    assert set(fill(spool, 1, 3000)) == {None}
    levels = spool.spool.levels()
    gone = [number for numbers, _ in spool.dropped for number in numbers]
    left = [record.number for record in spool.history()]
    assert gone == list(range(1, left[0]))
    assert left == list(range(left[0], 3001))
    assert levels.dropped == {"size": len(gone)}
    assert sum(sum(devices.values()) for _, devices in spool.dropped) == len(gone)
    assert (levels.records, levels.used_bytes <= levels.max_bytes < MIB) == (len(left), True)
    assert path.stat().st_size + path.with_name("spool.db-wal").stat().st_size < 1.3 * MIB
    assert len(left) > 500
    again = spool.again(max_size=MIB)
    assert again.spool.levels().dropped == {"size": len(gone)}
    again.close()


def test_attributes_outlive_telemetry(path: Path) -> None:
    """They are dropped only when there is nothing else."""
    spool = SpoolUnderTest(path, max_size=MIB)
    fill(spool, 1, 200, content=Content.ATTRIBUTES)
    fill(spool, 201, 2000)
    assert [record.number for record in spool.history()][:200] == list(range(1, 201))
    assert set(fill(spool, 3001, 2000, content=Content.ATTRIBUTES)) == {None}
    assert all(record.content is Content.ATTRIBUTES for record in spool.history())
    spool.close()


def test_a_full_spool_refuses_by_policy(path: Path) -> None:
    """With the fix and a time to come back; forgetting makes room again; nothing is dropped."""
    spool = SpoolUnderTest(path, max_size=MIB, when_full="refuse")
    answers = fill(spool, 1, 2000)
    accepted = answers.count(None)
    refusal = answers[-1]
    assert refusal is not None and refusal.retry_after_s and "max_size" in refusal.reason
    assert answers == [None] * accepted + [refusal] * (len(answers) - accepted)
    assert len(spool.history()) == accepted * 20
    spool.forget(range(1, 200))
    assert spool.append(a_record(5000, body=BIG)) is None
    assert spool.dropped == []
    spool.close()


def test_a_smaller_size_than_before_is_reached_step_by_step(path: Path) -> None:
    """While new records are still taken."""
    spool = SpoolUnderTest(path, max_size=64 * MIB)
    fill(spool, 1, 4000)
    small = spool.again(max_size=MIB)
    assert set(fill(small, 10_001, 200)) == {None}
    assert small.spool.levels().used_bytes <= MIB
    assert [record.number for record in small.history()][-1] == 10_200
    small.close()


def test_old_records_go_by_age(path: Path) -> None:
    """Whatever the policy for a full spool; the known time of the start counts, not the records' own time."""
    spool = SpoolUnderTest(path, max_age=3600, when_full="refuse")
    spool.append(*(a_record(n, elapsed_ms=n * 1000, ts_ms=1) for n in range(1, 11)))
    spool.now_s = 4000.0
    spool.append(a_record(11, elapsed_ms=4_000_000))
    assert spool.dropped == []  # the time is not known yet
    spool.spool.remember_boot(Boot(number=1, known_ms=1_700_000_000_000))
    spool.history()
    spool.now_s = 4002.0
    spool.append(a_record(12, elapsed_ms=4_002_000))
    assert spool.dropped == [(list(range(1, 11)), {"d": 10})]
    assert spool.spool.levels().dropped == {"age": 10}
    assert spool.spool.levels().oldest_ms == 1_700_004_000_000
    spool.close()


def test_without_a_time_of_its_own_a_record_is_not_younger_than_a_later_start() -> None:
    """So that it ages at all."""
    boots = {1: Boot(number=1, known_ms=0), 2: Boot(number=2, known_ms=5_000), 3: Boot(number=3, known_ms=9_000)}
    assert latest_acceptance_ms(boots, 1, 77) == 5_000
    assert latest_acceptance_ms(boots, 3, 77) == 9_077
    assert latest_acceptance_ms({1: boots[1]}, 1, 77) is None


def test_a_short_disk_keeps_the_file_from_growing() -> None:
    """`keep_free` is for everybody else on the machine."""
    limits = Limits(Store(max_size=100 * MIB, keep_free=50 * MIB))
    assert limits.allowance(1000, 60 * MIB, 0.0).reason == "size"
    short = limits.allowance(1000, 40 * MIB, 0.0)
    assert (short.reason, short.bytes) == ("disk", 1000 * 4096)
    assert "keep_free" in limits.refusal(short, 40 * MIB).reason
    limits.stop_growth(0.0)
    assert limits.allowance(1000, 60 * MIB, 5.0).reason == "disk"
    assert limits.allowance(1000, 60 * MIB, 11.0).reason == "size"


def test_a_short_disk_refuses_when_there_is_nothing_to_drop(path: Path) -> None:
    """Nothing is acknowledged that is not stored."""
    spool = SpoolUnderTest(path, keep_free=1 << 60)
    refusal = spool.append(*(a_record(n, body=BIG) for n in range(1, 100)))
    assert refusal is not None and refusal.retry_after_s and "keep_free" in refusal.reason
    spool.close()


def pragma(spool: SpoolUnderTest, text: str) -> int:
    """On the spool's own connection; `max_page_count` is SQLite's simulation of a full disk."""
    return int(spool.spool._writer._file._connection.execute(f"PRAGMA {text}").fetchone()[0])


@pytest.mark.parametrize("when_full", ["refuse", "drop-oldest"])
def test_a_full_disk_loses_nothing_acknowledged(path: Path, when_full: str) -> None:
    """Refused or made room for; forgetting goes on; and the spool recovers when there is space."""
    spool = SpoolUnderTest(path, when_full=when_full)
    fill(spool, 1, 400)
    pragma(spool, f"max_page_count = {pragma(spool, 'page_count') + 10}")
    answers = fill(spool, 401, 600)
    stored = {record.number for record in spool.history()}
    gone = {number for numbers, _ in spool.dropped for number in numbers}
    for index, answer in enumerate(answers):
        part = set(range(401 + index * 20, 421 + index * 20))
        assert part <= stored | gone if answer is None else not part & stored
    if when_full == "refuse":
        assert answers[-1] is not None and answers[-1].retry_after_s
        assert gone == set()
    else:
        assert set(answers) == {None}
        assert set(spool.spool.levels().dropped) == {"disk"}
    spool.forget(sorted(stored)[:100])
    assert len(spool.history()) == len(stored) - 100
    pragma(spool, "max_page_count = 1000000")
    spool.now_s += 20
    assert set(fill(spool, 5001, 400)) == {None}
    spool.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a tiny disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(disk: Path) -> Path:
    """Takes all that is left of the disk, as another program may."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return filler


def test_a_disk_that_is_really_full(tiny_disk: Path) -> None:
    """Others have filled it: what was acknowledged stays, forgetting works, and storing too once there is room."""
    spool = SpoolUnderTest(tiny_disk / "spool.db", when_full="refuse", keep_free=MIB, max_size=8 * MIB)
    answers = fill(spool, 1, 3000)
    assert None in answers and answers[-1] is not None
    filler = fill_up(tiny_disk)
    answers += fill(spool, 3001, 100)
    accepted = [20 * index + n for index, answer in enumerate(answers) if answer is None for n in range(1, 21)]
    assert [record.number for record in spool.history()] == accepted
    spool.forget(accepted)
    assert spool.spool.levels().records == 0
    filler.unlink()
    spool.now_s += 20
    assert fill(spool, 10_001, 20) == [None]
    again = spool.again(when_full="refuse")
    assert [record.number for record in again.history()] == list(range(10_001, 10_021))
    again.close()


def test_a_disk_that_is_full_to_the_last_byte(tiny_disk: Path) -> None:
    """With nothing kept free forgetting has to wait for room, and is done then."""
    spool = SpoolUnderTest(tiny_disk / "spool.db", when_full="refuse", max_size=8 * MIB)
    filler = tiny_disk / "other"
    filler.write_bytes(b"x" * MIB)
    answers = fill(spool, 1, 3000)
    fill_up(tiny_disk)
    accepted = [20 * index + n for index, answer in enumerate(answers) if answer is None for n in range(1, 21)]
    assert [record.number for record in spool.history()] == accepted
    spool.spool.forget(accepted[:-1])
    spool.history(limit_records=1)
    filler.unlink()
    (tiny_disk / "filler").unlink()
    spool.now_s += 20
    spool.forget([accepted[-1]])
    assert spool.spool.levels().records == 0
    spool.close()


def test_sizes_are_shown_as_they_are_written_in_the_settings() -> None:
    """Short and with their unit."""
    assert [in_units(size) for size in (512, 50 * MIB, 2 * 1024 * MIB)] == ["512 bytes", "50 MiB", "2 GiB"]
