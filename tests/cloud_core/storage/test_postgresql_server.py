"""A PostgreSQL server that goes away, hangs, changes its role or weakens its commits."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from cloud_core.model import Page
from cloud_core.storage import postgresql_server
from cloud_core.storage.migrations import NEWEST, current
from cloud_core.storage.store import make_engine
from shared.errors import DeviceAlreadyExists, Unavailable
from tests.conftest import REQUIRE_ALL
from tests.support.postgresql import PrivatePostgresql, postgresql_programs
from tests.support.proxies import CuttingProxy
from tests.support.stores import TENANT, StoreUnderTest, open_store

SOON_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgresql]:
    """One that listens on the loopback, too."""
    programs = postgresql_programs()
    if programs is None:
        message = "PostgreSQL's server programs are not installed (Debian package postgresql)"
        pytest.fail(message) if REQUIRE_ALL else pytest.skip(message)
    running = PrivatePostgresql(programs, port=free_port())
    yield running
    running.stop()


@pytest.fixture
def proxy(server: PrivatePostgresql) -> Iterator[CuttingProxy]:
    between = CuttingProxy(server.port).start()
    yield between
    between.is_deaf = between.is_frozen = False
    between.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def name_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def through(proxy: CuttingProxy, url: str) -> str:
    """The same database by way of the proxy."""
    return f"postgresql+psycopg://muster@127.0.0.1:{proxy.port}/{name_of(url)}"


def eventually(act: Callable[[], Any]) -> Any:
    """Its result, once it is refused as UNAVAILABLE no more."""
    deadline_s = time.monotonic() + SOON_S
    while True:
        try:
            return act()
        except Unavailable:
            assert time.monotonic() < deadline_s, "the database is there, and the store is not"
            time.sleep(0.05)


@pytest.fixture
def proxied(server: PrivatePostgresql, proxy: CuttingProxy) -> Iterator[StoreUnderTest]:
    store = open_store(through(proxy, server.new_database()))
    yield store
    proxy.is_deaf = proxy.is_frozen = proxy.is_refusing = False
    store.close()


def test_lost_connections_are_opened_again(proxied: StoreUnderTest, proxy: CuttingProxy) -> None:
    """Of writer and look-ups; nothing is answered as done that is not."""
    profile_id = proxied.add_profile()
    proxy.cut()
    assert eventually(lambda: proxied.add_device("one", profile_id)) > 0
    proxy.cut()
    assert eventually(lambda: proxied.read(lambda tx: tx.logins(["token-one"])))[0] is not None


def test_while_the_server_cannot_be_reached_answers_come_at_once(proxied: StoreUnderTest, proxy: CuttingProxy) -> None:
    """UNAVAILABLE to everybody who waits, by few attempts to connect; then everything works again."""
    profile_id = proxied.add_profile()
    proxy.is_refusing = True
    proxy.cut()
    attempts = proxy.connections
    refused = 0
    for number in range(40):
        for act in (lambda n=number: proxied.add_device(f"d{n}", profile_id), lambda: proxied.read(lambda tx: 1)):
            try:
                act()
            except Unavailable:
                refused += 1
    assert refused == 80 and proxy.connections - attempts < 30
    proxy.is_refusing = False
    assert eventually(lambda: proxied.add_device("d", profile_id)) > 0
    assert eventually(lambda: proxied.read(lambda tx: tx.devices(TENANT, Page(0, 1))))[1] == 1


def test_a_commit_whose_outcome_is_unknown_is_no_success(proxied: StoreUnderTest, proxy: CuttingProxy) -> None:
    """UNAVAILABLE though it was committed; whoever asks again is judged by what is there."""
    profile_id = proxied.add_profile()

    def insert_and_go_deaf(tx: Any) -> int:
        number = new_device(tx, profile_id)
        proxy.is_deaf = True  # COMMIT gets through, its answer does not
        threading.Timer(0.5, proxy.cut).start()
        return number

    with pytest.raises(Unavailable):
        proxied.run(insert_and_go_deaf)
    proxy.is_deaf = False
    assert eventually(lambda: proxied.read(lambda tx: tx.device_by_name(TENANT, "twice"))) is not None

    def again(tx: Any) -> None:
        if tx.device_by_name(TENANT, "twice") is not None:
            raise DeviceAlreadyExists

    with pytest.raises(DeviceAlreadyExists):
        eventually(lambda: proxied.run(again))
    assert proxied.store._writer.replays == 0


def new_device(tx: Any, profile_id: int) -> int:
    from uuid import uuid4

    from cloud_core.storage.interface import NewDevice

    device = NewDevice(uuid=uuid4(), tenant_id=TENANT, profile_id=profile_id, name="twice", created_ms=1)
    return int(tx.insert_device(device))


def test_a_server_that_hangs_does_not_hang_the_store(
    server: PrivatePostgresql, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that are open and silent are given up, for decisions and look-ups."""
    monkeypatch.setattr(postgresql_server, "HUNG_S", 0.5)
    monkeypatch.setattr(postgresql_server, "WATCHED_EVERY_S", 0.1)
    store = open_store(through(proxy, server.new_database()))
    profile_id = store.add_profile()
    store.read(lambda tx: tx.logins(["x"]))
    proxy.is_deaf = True
    with pytest.raises(Unavailable):
        store.add_device("d", profile_id)
    with pytest.raises(Unavailable):
        store.read(lambda tx: tx.logins(["x"]))
    proxy.cut()
    proxy.is_deaf = False
    assert eventually(lambda: store.read(lambda tx: tx.logins(["x"]))) == [None]
    assert eventually(lambda: store.add_device("e", profile_id)) > 0
    store.close()


def test_a_server_that_has_become_read_only_is_left(server: PrivatePostgresql) -> None:
    """As after a fail-over: the next connection looks for one that takes writes."""
    store = open_store(server.new_database())
    profile_id = store.add_profile()
    store.run(lambda tx: tx.cursor.send("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    with pytest.raises(Unavailable):
        store.add_device("d", profile_id)
    assert eventually(lambda: store.add_device("d", profile_id)) > 0
    store.close()


def test_a_server_that_takes_no_writes_is_passed_over(server: PrivatePostgresql) -> None:
    """Of several hosts the one that does is used, whatever their order; one that is down is skipped."""
    url = server.new_database()
    several = f"postgresql+psycopg://muster@127.0.0.1:{free_port()},127.0.0.1:{server.port}/{name_of(url)}"
    store = open_store(several)
    assert store.add_profile() > 0
    store.close()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name_of(url)} SET default_transaction_read_only = on")
    with pytest.raises(psycopg.OperationalError, match="read-only"):
        postgresql_server.connect(make_engine(several))


def test_a_crash_of_the_server_loses_nothing_acknowledged(server: PrivatePostgresql) -> None:
    """And the store goes on when it is back."""
    store = open_store(server.new_database())
    profile_id = store.add_profile()
    numbers = [store.add_device(f"d{number}", profile_id) for number in range(5)]
    store.append(numbers[0], [(1, {"a": 1})])
    server.halt()
    with pytest.raises(Unavailable):
        store.add_device("meanwhile", profile_id)
    server.start()
    assert eventually(lambda: store.add_device("after", profile_id)) > max(numbers)
    assert eventually(lambda: store.read(lambda tx: tx.latest(numbers[0]))) == {"a": (1, 1)}
    assert store.read(lambda tx: tx.devices(TENANT, Page(0, 1)))[1] == 6
    store.close()


@pytest.mark.parametrize(
    ("given", "kept"), [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")]
)
def test_no_setting_of_the_database_weakens_a_commit(server: PrivatePostgresql, given: str, kept: str) -> None:
    """Acknowledged means durable, whatever the database's default is; a stronger one is kept."""
    url = server.new_database()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name_of(url)} SET synchronous_commit = {given}")
    store = open_store(url)

    def settings(tx: Any) -> Any:
        names = ("synchronous_commit", "statement_timeout", "idle_in_transaction_session_timeout")
        tx.cursor.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
        return tx.cursor.fetchone()

    assert store.run(settings) == store.read(settings) == store.survey(settings) == (kept, "1min", "20s")
    store.close()


def test_no_transaction_stays_open_between_units(server: PrivatePostgresql) -> None:
    """Neither after decisions, refusals and failures, nor after look-ups."""
    store = open_store(server.new_database())
    profile_id = store.add_profile()
    store.add_device("d", profile_id)

    def refused(tx: Any) -> None:
        raise DeviceAlreadyExists

    def broken(tx: Any) -> None:
        raise ValueError("as a fault of ours would")

    for act in (lambda: store.run(refused), lambda: store.run(broken), lambda: store.read(broken),
                lambda: store.survey(refused)):  # fmt: skip
        with pytest.raises((DeviceAlreadyExists, Unavailable)):
            act()
    assert store.read(lambda tx: tx.logins(["token-d"]))[0] is not None
    with psycopg.connect(store.url.replace("+psycopg", ""), autocommit=True) as connection:
        states = connection.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    assert {state for (state,) in states} == {"idle"}
    store.close()


def test_nodes_that_start_together_on_an_empty_database_find_one_schema(server: PrivatePostgresql) -> None:
    """One makes it, the others wait and go on."""
    url = server.new_database()
    start, opened, failures = threading.Barrier(3), [], []  # type: ignore[var-annotated]

    def begin() -> None:
        start.wait(10)
        try:
            opened.append(open_store(url))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not failures and len(opened) == 3
    engine = make_engine(url)
    assert current(engine) == NEWEST
    engine.dispose()
    profile_id = opened[0].add_profile()
    numbers = {node.add_device(f"d{place}", profile_id) for place, node in enumerate(opened)}
    assert len(numbers) == 3
    for node in opened:
        node.close()


def test_a_database_of_a_newer_program_is_refused(server: PrivatePostgresql) -> None:
    """By a sentence that says the fix."""
    url = server.new_database()
    open_store(url).close()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RuntimeError, match="step 9999, newer than this program"):
        open_store(url)
