"""Histories as a whole on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.core import histories
from cloud_core.core.histories import AggregateQuery, Aggregation, Removal
from cloud_core.storage import time_series
from cloud_core.storage.interface import TimeSeriesQuery
from cloud_core.storage.schema import BUCKET_MS
from shared.errors import InvalidArgument
from tests.support.stores import StoreUnderTest


def samples(store: StoreUnderTest, device_id: int, *keys: str) -> list[tuple[int, dict[str, Any]]]:
    return store.read(lambda tx: list(tx.samples(device_id, keys, -(10**12), 10**13)))  # type: ignore[no-any-return]


def remove(store: StoreUnderTest, device_id: int, removal: Removal) -> None:
    rest: int | None = removal.start_ms
    while rest is not None:
        rest = store.run(histories.remove, device_id, removal, rest)


def test_samples_of_some_keys_by_time(store: StoreUnderTest) -> None:
    """Over buckets, without the times that have none of them."""
    device_id = store.add_device("d", store.add_profile())
    store.append(device_id, [(3 * BUCKET_MS, {"a": 3}), (-5, {"a": 1, "b": 2}), (7, {"b": 4})])
    assert samples(store, device_id, "a") == [(-5, {"a": 1}), (3 * BUCKET_MS, {"a": 3})]
    assert samples(store, device_id, "b", "unheard-of") == [(-5, {"b": 2}), (7, {"b": 4})]
    assert samples(store, device_id, "unheard-of") == []


def test_a_removal_takes_what_came_in_the_same_commit(store: StoreUnderTest) -> None:
    """And goes on where its part has ended; nobody else's data is touched."""
    profile = store.add_profile()
    device_id, other = store.add_device("d", profile), store.add_device("e", profile)
    store.append(other, [(1, {"a": 1})])

    def write_and_remove(tx: Any) -> int | None:
        tx.append_samples(device_id, [(n, {"a": n, "b": n}) for n in range(5)])
        rest: int | None = tx.delete_samples(device_id, ["a"], 0, 10, at_most=3)
        return rest

    assert store.run(write_and_remove) == 3
    assert [ts for ts, _ in samples(store, device_id, "a")] == [3, 4]
    remove(store, device_id, Removal(("a",), 0, 10))
    assert samples(store, device_id, "a") == [] and len(samples(store, device_id, "b")) == 5
    assert store.read(lambda tx: tx.latest(device_id)) == {"b": (4, 4)}
    assert samples(store, other, "a") == [(1, {"a": 1})]


def test_a_latest_value_is_rewritten(store: StoreUnderTest) -> None:
    device_id = store.add_device("d", store.add_profile())
    store.append(device_id, [(1, {"a": 1}), (2, {"a": 2}), (3, {"a": 3})])
    remove(store, device_id, Removal(("a",), 2, 4, is_latest_rewritten=True))
    assert store.read(lambda tx: tx.latest(device_id)) == {"a": (1, 1)}


def test_too_many_samples_are_refused(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "MAX_SAMPLES", 2)
    device_id = store.add_device("d", store.add_profile())
    store.append(device_id, [(n, {"a": n}) for n in range(3)])
    query = AggregateQuery(("a",), 0, 10, Aggregation.SUM)
    with pytest.raises(InvalidArgument, match="ask for a shorter one"):
        store.survey(histories.aggregated, device_id, query)


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize("pieces", [(1, 2), (100, 10_000)])
def test_a_history_ends_with_what_was_asked_for(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch, is_descending: bool, pieces: tuple[int, int]
) -> None:
    """However it is read: over buckets, and until the rarest key has as many as were asked for."""
    monkeypatch.setattr(time_series, "LEAST_PIECE", pieces[0])
    monkeypatch.setattr(time_series, "LARGEST_PIECE", pieces[1])
    device_id = store.add_device("d", store.add_profile())
    times = [*range(7), *range(BUCKET_MS, BUCKET_MS + 7)]
    store.append(device_id, [(ts, {"often": ts} if ts % 5 else {"often": ts, "rarely": ts}) for ts in times])
    expected = {
        key: [(ts, ts) for ts in (reversed(times) if is_descending else times) if key == "often" or ts % 5 == 0][:3]
        for key in ("often", "rarely")
    }
    asked = TimeSeriesQuery(("often", "rarely"), 0, 2 * BUCKET_MS, limit=3, descending=is_descending)
    assert store.read(lambda tx: tx.history(device_id, asked)) == expected
