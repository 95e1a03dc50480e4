"""A database of an earlier step becomes what a fresh one is, and keeps its data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, inspect, text

from cloud_core.core.keys import provision_keys
from cloud_core.core.people import audit
from cloud_core.core.people.audit import Somebody
from cloud_core.model import Attempt, KeyRules, Page, Peer, Transport, User
from cloud_core.storage import schema, searches
from cloud_core.storage.interface.attempts import AttemptFilter
from cloud_core.storage.migrations import NEWEST, current
from cloud_core.storage.store import make_engine
from tests.support.pki import Pki
from tests.support.stores import TENANT, open_store

USER = UUID(int=4)
ADDED = ("pending_request", "provision_key", "secret_use", "audit_head", "audit", "change", "lease")  # since step 0008


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    if request.param == "postgresql":
        new_database: Callable[[], str] = request.getfixturevalue("postgresql")
        return new_database
    names = iter(("one.db", "other.db"))
    return lambda: f"sqlite:///{tmp_path / next(names)}"


def without_searches(connection: Connection) -> None:
    """As it was before step 0013."""
    for one in (searches.ATTEMPTS, searches.CERTIFICATES):
        connection.execute(text(f"DROP INDEX IF EXISTS {one.name}"))
    connection.execute(text("ALTER TABLE certificate DROP COLUMN device_name"))


def shape(engine: Engine) -> dict[str, Any]:
    """Columns, indexes and constraints of every table, and as text the indexes that have an expression."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Skipped unsupported reflection of expression-based index")
        return {"expressions": expressions(engine)} | tables(engine)


def expressions(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        written = text("SELECT sql FROM sqlite_master WHERE sql LIKE '%||%' ORDER BY sql")
        return list(connection.execute(written).scalars()) if engine.dialect.name == "sqlite" else []


def tables(engine: Engine) -> dict[str, Any]:
    found = inspect(engine)
    return {
        table: (
            [(one["name"], str(one["type"]), one["nullable"]) for one in found.get_columns(table)],
            sorted((str(one["name"]), one["column_names"], bool(one["unique"])) for one in found.get_indexes(table)),
            sorted(sorted(one["column_names"]) for one in found.get_unique_constraints(table)),
            sorted((one["constrained_columns"], one["referred_table"]) for one in found.get_foreign_keys(table)),
        )
        for table in found.get_table_names()
    }


def test_a_database_of_step_7_gets_audit_keys_and_approvals(new_url: Callable[[], str]) -> None:
    """It has the tables of a fresh one afterwards, its data, and a chain that begins with the first entry."""
    url, fresh_url = new_url(), new_url()
    store = open_store(url)
    user = User(id=0, uuid=USER, tenant_id=TENANT, username="u@x", password_hash="h", authority="TENANT_ADMIN",
                created_ms=1)  # fmt: skip
    store.run(lambda tx: tx.insert_user(user))
    device_id = store.add_device("d", store.add_profile())
    store.append(device_id, [(1, {"k": 1})])
    store.close()
    engine = make_engine(url)
    with engine.begin() as connection:
        for index in (schema.device_gateways, schema.attempt_by_name, schema.credentials_unconfirmed):
            index.drop(connection)  # by step 0009
        without_searches(connection)
        for table in ADDED:
            connection.execute(text(f"DROP TABLE {table}"))
        for column in ("sent_ms", "sent_by"):
            connection.execute(text(f"ALTER TABLE command DROP COLUMN {column}"))  # by step 0011
        connection.execute(text("UPDATE alembic_version SET version_num = '0007'"))
    store, fresh = open_store(url), open_store(fresh_url)
    fresh_engine = make_engine(fresh_url)
    try:
        assert current(engine) == current(fresh_engine) == NEWEST
        assert set(schema.metadata.tables) <= set(shape(fresh_engine))
        assert shape(engine) == shape(fresh_engine)
        assert store.read(lambda tx: tx.user_by_name("u@x")).uuid == USER
        assert store.read(lambda tx: tx.latest(device_id)) == {"k": (1, 1)}
        profile = store.read(lambda tx: tx.profile_by_key("sensor-key"))
        made = store.run(provision_keys.add, TENANT, profile.uuid, "k", "", "", KeyRules(), 1)
        assert store.read(lambda tx: tx.provision_key(made.key))[1].id == profile.id
        store.run(audit.record, Somebody("u@x", TENANT), "MADE", "THING", None, "one")
        verdict = store.survey(audit.verify, TENANT, None)
        assert (verdict.fault, verdict.last_number) == ("", 1)
    finally:
        for one in (store, fresh):
            one.close()
        for each in (engine, fresh_engine):
            each.dispose()


def test_a_database_of_step_12_can_be_searched(new_url: Callable[[], str]) -> None:
    """By what is in it already: certificates by the names of their devices, and the log."""
    url, fresh_url = new_url(), new_url()
    store, root = open_store(url), Pki().root("Factory")
    open_store(fresh_url).close()
    owner = store.add_device("owner", store.add_profile())

    def write(tx: Any) -> None:
        for name, device_id in (("SN-1", owner), ("SN-2", None)):
            tx.record_certificate(root.leaf(name).der, tenant_id=TENANT, device_id=device_id, now_ms=1)
        peer = Peer(Transport.MQTT, "192.0.2.1")
        tx.log_attempt(Attempt(ref="R-1", at_ms=1, peer=peer, outcome="SUCCESS", stage="stored", tenant_id=TENANT))

    store.run(write)
    store.close()
    engine, fresh_engine = make_engine(url), make_engine(fresh_url)
    with engine.begin() as connection:
        without_searches(connection)
        connection.execute(text("UPDATE alembic_version SET version_num = '0012'"))
    store = open_store(url)
    try:
        assert current(engine) == NEWEST
        assert shape(engine) == shape(fresh_engine)

        def subjects(searched: str) -> list[str]:
            page = Page(sort_property="subject", text_search=searched)
            return [one.subject for one in store.survey(lambda tx: tx.certificates(TENANT, page))[0]]

        assert (subjects("owner"), subjects("sn-"), subjects("x")) == (["CN=SN-1"], ["CN=SN-1", "CN=SN-2"], [])
        page = Page(text_search="192.0")
        found, total = store.survey(lambda tx: tx.attempt_page(TENANT, page, AttemptFilter(), with_unassigned=False))
        assert ([one.ref for one in found], total) == (["R-1"], 1)
    finally:
        store.close()
        for each in (engine, fresh_engine):
            each.dispose()
