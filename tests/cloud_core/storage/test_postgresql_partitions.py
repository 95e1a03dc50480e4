"""History on PostgreSQL lies in a partition for each day: made when needed, read alone, dropped whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from cloud_core.storage import partitions
from cloud_core.storage.interface import TimeSeriesQuery
from cloud_core.storage.migrations import NEWEST, current
from cloud_core.storage.partitions import FUTURE_DAYS, PAST_DAYS
from cloud_core.storage.postgresql import PARTITIONS_AT_ONCE
from cloud_core.storage.schema import BUCKET_MS
from cloud_core.storage.store import make_engine
from tests.support.stores import StoreUnderTest, open_store

DAY_MS = 86_400_000
TODAY = 20_000


@pytest.fixture(autouse=True)
def fixed_day(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The day that it is; a test may change it."""
    day = [TODAY]
    monkeypatch.setattr(partitions, "today", lambda: day[0])
    return day


@pytest.fixture
def pg(postgresql: Callable[[], str]) -> Iterator[StoreUnderTest]:
    store = open_store(postgresql())
    yield store
    store.close()


def rows_in(store: StoreUnderTest, table: str) -> int:
    return int(store.read(lambda tx: asked(tx, f"SELECT count(*) FROM {table}"))[0][0])


def asked(tx: Any, sql: str) -> list[Any]:
    tx.cursor.execute(sql)
    found: list[Any] = tx.cursor.fetchall()
    return found


def days(store: StoreUnderTest) -> set[int]:
    return set(store.read(lambda tx: partitions.existing(tx.cursor)))


def values(store: StoreUnderTest, device_id: int) -> list[Any]:
    query = TimeSeriesQuery(("a",), -(2**50), 2**50, limit=1000, descending=False)
    return [value for _, value in store.read(lambda tx: tx.history(device_id, query)).get("a", [])]


def test_a_day_gets_its_partition_with_its_first_row_and_the_next_one_ahead(pg: StoreUnderTest) -> None:
    """Today's and tomorrow's are there from the first sample on, a past day's from its own."""
    device_id = pg.add_device("d", pg.add_profile())
    pg.append(device_id, [(TODAY * DAY_MS, {"a": 1}), ((TODAY - 9) * DAY_MS + 5, {"a": 0})])
    assert days(pg) == {TODAY - 9, TODAY, TODAY + 1}
    assert (rows_in(pg, f"telemetry_d{TODAY}"), rows_in(pg, f"telemetry_d{TODAY - 9}")) == (1, 1)
    assert values(pg, device_id) == [0, 1]


@pytest.mark.parametrize("day", [-3, 0, TODAY - PAST_DAYS - 1, TODAY + FUTURE_DAYS + 1, 10**6])
def test_a_clock_that_is_far_off_makes_no_partition(pg: StoreUnderTest, day: int) -> None:
    """Its rows are kept in the default partition, and found."""
    device_id = pg.add_device("d", pg.add_profile())
    pg.append(device_id, [(day * DAY_MS, {"a": 1})])
    assert days(pg) == {TODAY, TODAY + 1}
    assert (rows_in(pg, "telemetry_default"), values(pg, device_id)) == (1, [1])


def test_a_day_that_comes_near_takes_its_rows_out_of_the_default_partition(
    pg: StoreUnderTest, fixed_day: list[int]
) -> None:
    """What a fast clock sent for next week lies in next week's partition when next week has come."""
    device_id = pg.add_device("d", pg.add_profile())
    pg.append(device_id, [((TODAY + 7) * DAY_MS + 1, {"a": 1}), ((TODAY + 90) * DAY_MS, {"a": 3})])
    fixed_day[0] = TODAY + 7
    pg.append(device_id, [((TODAY + 7) * DAY_MS + 2, {"a": 2})])
    assert rows_in(pg, f"telemetry_d{TODAY + 7}") == 2
    assert (rows_in(pg, "telemetry_default"), values(pg, device_id)) == (1, [1, 2, 3])


def test_retention_drops_the_partitions_of_days_that_have_ended(pg: StoreUnderTest) -> None:
    """A day that has not wholly ended by the limit stays, whatever hours of it are older."""
    device_id = pg.add_device("d", pg.add_profile())
    at = [(TODAY - 3, 0), (TODAY - 3, 5), (TODAY - 2, 1), (TODAY - 1, 0)]
    pg.append(device_id, [(day * DAY_MS + hour * BUCKET_MS, {"a": n}) for n, (day, hour) in enumerate(at)])
    limit_ms = (TODAY - 2) * DAY_MS + 4 * BUCKET_MS
    assert pg.run(lambda tx: tx.drop_buckets(limit_ms)) == 2
    assert days(pg) == {TODAY - 2, TODAY - 1, TODAY, TODAY + 1}
    assert values(pg, device_id) == [2, 3]
    assert pg.run(lambda tx: tx.drop_buckets(limit_ms)) == 0


def test_a_late_sample_of_a_dropped_day_is_kept_and_dropped_again(pg: StoreUnderTest) -> None:
    """It opens its bucket anew."""
    device_id = pg.add_device("d", pg.add_profile())
    pg.append(device_id, [((TODAY - 3) * DAY_MS, {"a": 1})])
    assert pg.run(lambda tx: tx.drop_buckets((TODAY - 1) * DAY_MS)) == 1
    pg.append(device_id, [((TODAY - 3) * DAY_MS, {"a": 2})])
    assert values(pg, device_id) == [2]
    assert pg.run(lambda tx: tx.drop_buckets((TODAY - 1) * DAY_MS)) == 1
    assert values(pg, device_id) == []


def test_retention_waits_for_nobody_for_long(pg: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody reads the table it gives up, harms no neighbour in the batch, and succeeds the next time."""
    monkeypatch.setattr(partitions, "DROP_WAITS_MS", 50)
    device_id = pg.add_device("d", pg.add_profile())
    pg.append(device_id, [((TODAY - 3) * DAY_MS, {"a": 1})])
    engine = make_engine(pg.url)
    with engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM telemetry"))
        assert pg.run(lambda tx: tx.drop_buckets((TODAY - 1) * DAY_MS)) == 0
    engine.dispose()
    assert values(pg, device_id) == [1]
    assert pg.run(lambda tx: tx.drop_buckets((TODAY - 1) * DAY_MS)) == 1


def test_a_query_touches_the_partitions_of_its_buckets_alone(pg: StoreUnderTest) -> None:
    """However many days there are."""
    device_id = pg.add_device("d", pg.add_profile())
    pg.append(device_id, [((TODAY - back) * DAY_MS, {"a": back}) for back in range(30)])
    bucket = TODAY * DAY_MS // BUCKET_MS

    def plan(tx: Any) -> str:
        values = tx._s.documents.values({"b_bucket": bucket, "b_device_id": device_id, "start": 0, "end": 2**50})
        tx.cursor.execute("EXPLAIN " + tx._s.documents.sql, values)
        return "\n".join(row[0] for row in tx.cursor.fetchall())

    shown = pg.read(plan)
    assert f"telemetry_d{TODAY}" in shown
    assert f"telemetry_d{TODAY - 1}" not in shown and "telemetry_default" not in shown


@pytest.fixture(params=["sqlite", "postgresql"])
def two_nodes(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[tuple[StoreUnderTest, StoreUnderTest]]:
    url = f"sqlite:///{tmp_path / 'muster.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    first, second = open_store(url), open_store(url)
    yield first, second
    first.close()
    second.close()


def test_a_late_sample_is_seen_though_another_node_has_dropped_its_bucket(
    two_nodes: tuple[StoreUnderTest, StoreUnderTest],
) -> None:
    """No node remembers buckets that another may have dropped."""
    one, other = two_nodes
    device_id = one.add_device("d", one.add_profile())
    for day in (TODAY - 3, 5):
        one.append(device_id, [(day * DAY_MS, {"a": 1})])
        assert other.run(lambda tx: tx.drop_buckets((TODAY - 1) * DAY_MS)) == 1
        one.append(device_id, [(day * DAY_MS + 1, {"a": 2})])
        assert values(other, device_id) == [2]
        assert other.run(lambda tx: tx.drop_buckets((TODAY - 1) * DAY_MS)) == 1


def test_nodes_that_write_a_new_day_at_once_make_one_partition(postgresql: Callable[[], str]) -> None:
    """And none of their samples is lost."""
    url = postgresql()
    nodes = [open_store(url) for _ in range(3)]
    device_id = nodes[0].add_device("d", nodes[0].add_profile())
    start = threading.Barrier(3)

    def write(number: int) -> None:
        start.wait(10)
        for back in range(20):
            nodes[number].append(device_id, [((TODAY - back) * DAY_MS + number, {"a": number})])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(values(nodes[0], device_id)) == 60
    assert rows_in(nodes[0], "telemetry_default") == 0
    for node in nodes:
        node.close()


def test_a_plain_table_becomes_partitions_with_all_its_rows(postgresql: Callable[[], str]) -> None:
    """A database of before partitions keeps its history, near days in partitions, the rest in the default one."""
    url = postgresql()
    store = open_store(url)
    device_id = store.add_device("d", store.add_profile())
    at = [5, (TODAY - 2) * DAY_MS, TODAY * DAY_MS + 1]
    store.append(device_id, [(ts, {"a": ts}) for ts in at])
    store.close()
    engine = make_engine(url)
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE plain (bucket bigint NOT NULL, device_id bigint NOT NULL, ts bigint NOT NULL,"
            " document bytea NOT NULL)",
            "INSERT INTO plain SELECT * FROM telemetry",
            "DROP TABLE telemetry",
            "ALTER TABLE plain RENAME TO telemetry",
            "ALTER TABLE telemetry ADD CONSTRAINT telemetry_pkey PRIMARY KEY (bucket, device_id, ts)",
            "UPDATE alembic_version SET version_num = '0010'",
        ):
            connection.execute(text(statement))
    store = open_store(url)
    try:
        assert current(engine) == NEWEST
        assert values(store, device_id) == at
        assert days(store) == {TODAY - 2, TODAY, TODAY + 1}
        assert rows_in(store, "telemetry_default") == 1
        store.append(device_id, [(TODAY * DAY_MS + 1, {"b": 1})])  # merges with the row of before
        assert rows_in(store, f"telemetry_d{TODAY}") == 1
    finally:
        store.close()
        engine.dispose()


def test_a_long_backlog_does_not_make_hundreds_of_partitions_in_one_commit(pg: StoreUnderTest) -> None:
    """The newest days first; the rest is found where it is, and moves when its day is written again."""
    device_id = pg.add_device("d", pg.add_profile())
    pg.append(device_id, [((TODAY - back) * DAY_MS, {"a": back}) for back in range(100)])
    assert len(days(pg)) == PARTITIONS_AT_ONCE
    assert len(values(pg, device_id)) == 100
    pg.append(device_id, [((TODAY - 99) * DAY_MS + 1, {"a": -1})])
    assert rows_in(pg, f"telemetry_d{TODAY - 99}") == 2
    assert len(values(pg, device_id)) == 101
