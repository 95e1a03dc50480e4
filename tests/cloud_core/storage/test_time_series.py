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
    """Read two times at once."""
    found: list[tuple[int, dict[str, Any]]] = []
    start_ms: int | None = -(10**12)
    while start_ms is not None:
        part, start_ms = store.read(lambda tx, at=start_ms: tx.samples(device_id, keys, at, 10**13, at_most=2))
        found += part
    return found


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


def aggregated(store: StoreUnderTest, device_id: int, query: AggregateQuery) -> tuple[dict[str, Any], int]:
    """And in how many parts it was read."""
    folded, from_ms, parts = histories.Folded(query), query.start_ms, 0
    while from_ms is not None:
        part, from_ms = store.survey(histories.fold_part, device_id, query, from_ms)
        folded.join(part)
        parts += 1
    return folded.points(), parts


@pytest.mark.parametrize("at_once", [1, 2, 100])
@pytest.mark.parametrize("aggregation", list(Aggregation))
def test_parts_of_a_history_say_what_the_whole_says(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch, aggregation: Aggregation, at_once: int
) -> None:
    """Numbers, texts and both, in intervals that are cut by the parts; times without the key count as read."""
    device_id = store.add_device("d", store.add_profile())
    values: list[Any] = [4, "b", -2, "", 9, True, 7, "a", 3]
    store.append(device_id, [(n * 500, {"a": value}) for n, value in enumerate(values)] + [(250, {"other": 1})])
    query = AggregateQuery(("a",), 0, 4_400, aggregation, interval_ms=2_000)
    whole = aggregated(store, device_id, query)
    monkeypatch.setattr(histories, "FOLDED_AT_ONCE", at_once)
    found, parts = aggregated(store, device_id, query)
    assert (found, whole[1]) == (whole[0], 1)
    assert parts == (1 if at_once == 100 else len(values) // at_once + 2)
    spoken = {Aggregation.COUNT: (4, 4, 1), Aggregation.SUM: (2, 16, 3), Aggregation.AVG: (1, 8, 3)}
    spoken |= {Aggregation.MIN: (-2, 7, 3), Aggregation.MAX: (4, 9, 3)}
    assert found == {"a": list(zip((1_000, 3_000, 4_200), spoken[aggregation], strict=True))}


def test_too_many_samples_are_refused(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "MAX_SAMPLES", 2)
    device_id = store.add_device("d", store.add_profile())
    store.append(device_id, [(n, {"a": n}) for n in range(3)])
    query = AggregateQuery(("a",), 0, 10, Aggregation.SUM)
    with pytest.raises(InvalidArgument, match="ask for a shorter one"):
        aggregated(store, device_id, query)


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
