"""The database goes away and comes back: everybody is answered, and the store serves again by itself."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.storage import lanes
from shared.errors import PlatformError, Unavailable
from tests.support.stores import StoreUnderTest


def outcome_of(store: StoreUnderTest, start: Any) -> Any:
    try:
        return store.wait(start)
    except PlatformError as error:
        return error


def lose(store: StoreUnderTest) -> None:
    """All connections break; the lanes are idle."""
    for lane in (store.store._writer, store.store._reader, store.store._surveyor):
        if lane._tx is not None:
            lane._tx.connection.close()


def test_a_store_outlives_its_database(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no connection can be opened decisions and look-ups are refused; afterwards they are served."""
    monkeypatch.setattr(lanes, "REOPEN_EVERY_S", 0.0)
    device_id = store.add_device("d", store.add_profile())
    store.read(lambda tx: None)  # each lane has opened its connection by now
    with monkeypatch.context() as away:
        away.setattr(store.store, "_connect", lambda: (_ for _ in ()).throw(OSError("the database is away")))
        lose(store)
        for _ in range(3):
            assert isinstance(outcome_of(store, lambda done: store.store.submit(lambda tx: 1, (), done)), Unavailable)
            assert isinstance(outcome_of(store, lambda done: store.store.read(lambda tx: 1, (), done)), Unavailable)
    store.append(device_id, [(1000, {"a": 1})])
    assert store.read(lambda tx: tx.latest(device_id)) == {"a": (1000, 1)}


def test_a_database_that_is_away_is_not_asked_for_each_request(
    sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection can take long to fail, and a whole batch waits for it."""
    opened: list[None] = []

    def away() -> Any:
        opened.append(None)
        raise OSError("the database is away")

    sqlite_store.run(lambda tx: 1)  # the lane has opened its connection by now
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_store.store, "_connect", away)
        lose(sqlite_store)
        answers: list[Any] = []
        for _ in range(50):
            sqlite_store.store.submit(lambda tx: 1, (), answers.append)
        sqlite_store.reactor.run_until(lambda: len(answers) == 50)
    assert all(isinstance(one, Unavailable) for one in answers)
    assert len(opened) <= 2


def test_a_checkpoint_that_fails_does_not_stop_the_writer(
    sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed is on disk all the same."""

    def failing(connection: Any) -> None:
        raise OSError("disk I/O error")

    checkpoints = sqlite_store.store._checkpoints
    assert checkpoints is not None
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "committed", failing)
        assert [sqlite_store.run(lambda tx: 1) for _ in range(3)] == [1, 1, 1]
