"""A damaged file never keeps the spool from opening."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_gateway.model import Lane, SubDevice
from edge_gateway.storage.opening import damaged_files
from tests.support.spools import SpoolUnderTest, a_record

COUNT = 20_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A spool with some thousand records and a device, closed in order."""
    spool = SpoolUnderTest(tmp_path / "spool.db")
    spool.spool.remember([SubDevice("a", "a", "boiler", "hall")])
    spool.append(*(a_record(n, lane=Lane.HISTORY) for n in range(1, COUNT + 1)))
    spool.close()
    return spool.path


def overwrite(path: Path, at: int, count: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(random.Random(3).randbytes(count))


def mark_unclean(path: Path) -> None:
    """As after a power cut: there is a log."""
    path.with_name(path.name + "-wal").write_bytes(b"\0" * 100)


DAMAGES: dict[str, tuple[Callable[[Path], None], int]] = {
    "the header is gone": (lambda path: overwrite(path, 0, 100), 0),
    "the first page is gone": (lambda path: overwrite(path, 0, 4096), 0),
    "the first pages are gone, the tree's root with them": (lambda path: overwrite(path, 0, 4 * 4096), 0),
    "one page in the middle is gone": (
        lambda path: overwrite(path, path.stat().st_size // 2 // 4096 * 4096, 4096),
        110,
    ),
    "the tail is overwritten": (lambda path: overwrite(path, path.stat().st_size - 20_000, 20_000), 500),
    "the file was cut off": (lambda path: path.open("r+b").truncate(path.stat().st_size - 50_000) and None, 1500),  # type: ignore[func-returns-value]
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_can_be_read_of_a_damaged_file_is_saved(path: Path, damage: str) -> None:
    """The rest is counted, the file is set aside, and the numbers go on."""
    spoil, most_lost = DAMAGES[damage]
    mark_unclean(path)
    spoil(path)
    spool = SpoolUnderTest(path)
    found = [record.number for record in spool.history()]
    lost = COUNT - len(found)
    assert found == sorted(set(found))
    assert 0 <= lost <= most_lost
    counted = spool.spool.levels().dropped.get("damaged", 0)
    assert lost <= counted <= lost + 1_000
    assert spool.spool.next_number > COUNT
    assert [name for _, file in damaged_files(path) for name in [file.name]] == ["spool.db.damaged-1"]
    assert len(spool.spool.sub_devices()) == (0 if "first pages" in damage else 1)
    assert spool.append(a_record(spool.spool.next_number)) is None
    again = spool.again()
    assert len(damaged_files(path)) == 1
    assert again.spool.levels().records == len(found) + 1
    again.close()


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 100_000, b"SQLite format 3\0" + b"\xff" * 8192])
def test_a_file_that_is_no_spool_does_not_stop_the_opening(tmp_path: Path, content: bytes) -> None:
    """Whatever it is."""
    path = tmp_path / "spool.db"
    path.write_bytes(content)
    spool = SpoolUnderTest(path)
    assert spool.append(a_record(spool.spool.next_number)) is None
    spool.close()


def test_garbage_behind_the_logs_end_costs_nothing(tmp_path: Path) -> None:
    """A torn write of a power cut."""
    spool = SpoolUnderTest(tmp_path / "spool.db")
    spool.append(*(a_record(n) for n in range(1, 100)))
    spool.abandon()
    with spool.path.with_name("spool.db-wal").open("ab") as log:
        log.write(random.Random(1).randbytes(10_000))
    again = SpoolUnderTest(spool.path)
    assert len(again.history()) == 99
    assert again.spool.levels().dropped == {}
    again.close()


def test_only_three_damaged_files_are_kept(path: Path) -> None:
    """The newest ones."""
    for _ in range(5):
        mark_unclean(path)
        overwrite(path, 0, 4096)
        SpoolUnderTest(path).close()
    assert [number for number, _ in damaged_files(path)] == [3, 4, 5]


def test_damage_that_shows_while_the_spool_is_in_use_is_repaired(path: Path) -> None:
    """What waits for an answer gets it."""
    overwrite(path, path.stat().st_size // 2 // 4096 * 4096, 4096)  # closed in order, so nobody looked
    spool = SpoolUnderTest(path)
    found = spool.history()
    assert COUNT - 110 <= len(found) < COUNT
    assert spool.spool.levels().dropped["damaged"] >= COUNT - len(found)
    assert spool.append(a_record(spool.spool.next_number)) is None
    assert len(damaged_files(path)) == 1
    spool.close()
