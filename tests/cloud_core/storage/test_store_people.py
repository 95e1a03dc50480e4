"""What the store promises of users, ended logins, API keys and tenants, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from cloud_core.model import DEFAULT_TENANT, SYSTEM_TENANT, ApiKey, EndedLogin, Package, Page, User, UserRole
from cloud_core.storage.interface.packages import Rollout
from cloud_core.storage.migrations import NEWEST, current
from cloud_core.storage.store import make_engine
from shared.messages import PackageKind
from tests.support.stores import TENANT, InlineReactor, StoreUnderTest, open_store


def add_user(store: StoreUnderTest, username: str, **members: Any) -> User:
    given = {"authority": "TENANT_ADMIN", "tenant_id": TENANT} | members
    user = User(id=0, uuid=uuid4(), username=username, password_hash="h", created_ms=1, **given)
    store.run(lambda tx: tx.insert_user(user))
    found: User = store.read(lambda tx: tx.user_by_name(username))
    return found


def add_key(store: StoreUnderTest, name: str, tenant_id: int = TENANT) -> ApiKey:
    key = ApiKey(
        id=0, uuid=uuid4(), tenant_id=tenant_id, name=name, role=UserRole.VIEWER, hint="muster_a", created_ms=1,
        created_by="u@x", ends_ms=9,
    )  # fmt: skip
    store.run(lambda tx: tx.insert_api_key(key, uuid4().bytes))
    found: ApiKey = store.read(lambda tx: tx.api_key_by_name(tenant_id, name))
    return found


def add_tenant(store: StoreUnderTest, name: str, **members: Any) -> int:
    uuid = uuid4()
    store.run(lambda tx: tx.insert_tenant(uuid, name, now_ms=1, **members))
    return int(store.read(lambda tx: tx.tenant(uuid)).id)


# -- users ----------------------------------------------------------------------------------------


def test_a_user_comes_back_as_given_and_as_changed(store: StoreUnderTest) -> None:
    made = add_user(store, "u@x", role=UserRole.OPERATOR, document={"firstName": "Ada"})
    assert (made.role, made.generation, made.document) == (UserRole.OPERATOR, 0, {"firstName": "Ada"})
    assert (
        store.read(lambda tx: tx.user(TENANT, made.uuid)) == store.read(lambda tx: tx.user_by_uuid(made.uuid)) == made
    )
    assert store.read(lambda tx: tx.user(TENANT + 1, made.uuid)) is None
    changed = replace(made, username="v@x", password_hash="i", role=UserRole.VIEWER, generation=3, document={})
    store.run(lambda tx: tx.update_user(changed))
    assert store.read(lambda tx: tx.user(TENANT, made.uuid)) == changed
    store.run(lambda tx: tx.delete_user(made.id))
    assert store.read(lambda tx: tx.user_by_name("v@x")) is None


def test_users_are_searched_sorted_and_counted(store: StoreUnderTest) -> None:
    other = add_tenant(store, "other")
    for name, members in (
        ("b@x", {}), ("A@x", {"role": UserRole.VIEWER}), ("c@y", {}), ("d@x", {"tenant_id": other}),
    ):  # fmt: skip
        add_user(store, name, **members)
    rows, total = store.read(lambda tx: tx.users(TENANT, Page(size=5, text_search="@X", sort_property="role")))
    assert ([one.username for one in rows], total) == (["b@x", "A@x"], 2)
    assert store.read(lambda tx: tx.administrator_count(TENANT)) == 2
    assert [one.username for one in store.read(lambda tx: tx.all_users(other))] == ["d@x"]


# -- ended logins ---------------------------------------------------------------------------------


def test_what_has_ended_is_read_from_a_number_on(store: StoreUnderTest) -> None:
    """A subject stands there once, with its last end and a new number."""
    first, second = uuid4(), uuid4()
    for ended in (EndedLogin(first, 1, 10), EndedLogin(second, 1, 20), EndedLogin(first, 2, 30)):
        store.run(lambda tx, ended=ended: tx.put_ended_login(ended))
    rows = store.read(lambda tx: tx.ended_logins(0))
    assert [(one.subject, one.generation, one.until_ms) for one in rows] == [(second, 1, 20), (first, 2, 30)]
    assert store.read(lambda tx: tx.ended_logins(rows[0].id)) == rows[1:]
    store.run(lambda tx: tx.trim_ended_logins(25))
    assert store.read(lambda tx: tx.ended_logins(0)) == rows[1:]


# -- API keys -------------------------------------------------------------------------------------


def test_an_api_key_comes_back_as_given(store: StoreUnderTest) -> None:
    made = add_key(store, "line")
    assert (made.role, made.ends_ms, made.used_ms) == (UserRole.VIEWER, 9, None)
    store.run(lambda tx: tx.mark_api_key_used(made.id, used_ms=7))
    used = replace(made, used_ms=7)
    assert store.read(lambda tx: tx.api_key(TENANT, made.uuid)) == used
    assert store.read(lambda tx: tx.api_keys(TENANT, Page(size=5, text_search="LI"))) == ([used], 1)
    ((key, _, tenant),) = store.read(lambda tx: tx.keys_in_use(0))
    assert (key, tenant) == (used, DEFAULT_TENANT)
    assert store.read(lambda tx: tx.keys_in_use(made.id)) == []
    store.run(lambda tx: tx.delete_api_key(made.id))
    assert store.read(lambda tx: tx.api_key_count(TENANT)) == 0


# -- tenants --------------------------------------------------------------------------------------


def test_tenants_are_listed_without_the_systems_own(store: StoreUnderTest) -> None:
    add_tenant(store, "other", max_devices=4, document={"city": "Ulm"})
    store.run(lambda tx: tx.insert_tenant(SYSTEM_TENANT, "system", now_ms=1))
    rows, total = store.read(lambda tx: tx.tenants(Page(size=5, sort_property="name")))
    assert ([(one.name, one.max_devices, one.document) for one in rows], total) == (
        [("default", 0, {}), ("other", 4, {"city": "Ulm"})], 2,
    )  # fmt: skip
    store.run(lambda tx: tx.update_tenant(replace(rows[1], name="o", max_devices=5)))
    assert store.read(lambda tx: tx.max_devices(rows[1].id)) == 5


def test_a_deleted_tenant_leaves_nothing_and_takes_nothing_of_others(store: StoreUnderTest) -> None:
    """Whatever table says whose its rows are."""
    other = add_tenant(store, "other")
    kept = store.add_device("kept", store.add_profile())
    add_key(store, "kept")
    fill(store, other)
    store.run(lambda tx: tx.delete_tenant(other))
    engine = make_engine(store.url)
    with engine.connect() as connection:
        for table in ("device_profile", "customer", "package", "api_key", "admin_user", "authority", "server_method"):
            left = connection.execute(text(f"SELECT count(*) FROM {table} WHERE tenant_id = {other}")).scalar()
            assert left == 0, table
        for table in ("package_assignment", "package_rollout"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0, table
    engine.dispose()
    assert store.read(lambda tx: tx.device_by_id(kept)).name == "kept"
    assert store.read(lambda tx: tx.api_key_count(TENANT)) == 1


def fill(store: StoreUnderTest, tenant_id: int) -> None:
    """Something in each table that refers to another."""
    profile_id = store.add_profile("theirs")
    store.run(
        lambda tx: tx._cursor.execute(f"UPDATE device_profile SET tenant_id = {tenant_id} WHERE id = {profile_id}")
    )
    store.run(lambda tx: tx.insert_customer(uuid=uuid4(), tenant_id=tenant_id, title="c", document={}, created_ms=1))
    package = Package(
        id=0, uuid=uuid4(), tenant_id=tenant_id, profile_id=profile_id, profile_uuid=uuid4(), title="fw", created_ms=7,
        kind=PackageKind.FIRMWARE, version="1",
    )  # fmt: skip
    number = store.run(lambda tx: tx.insert_package(package))
    store.run(lambda tx: tx.assign_package(PackageKind.FIRMWARE, number, profile_id=profile_id))
    store.run(lambda tx: tx.put_package_rollout(Rollout(profile_id, PackageKind.FIRMWARE)))
    add_user(store, "theirs@x", tenant_id=tenant_id)
    add_key(store, "k", tenant_id)


def test_devices_of_a_tenant_are_found_some_at_a_time(store: StoreUnderTest) -> None:
    profile_id = store.add_profile()
    for name in "abc":
        store.add_device(name, profile_id)
    assert [one.name for one in store.read(lambda tx: tx.some_devices(TENANT, 2))] == ["a", "b"]
    assert store.read(lambda tx: tx.some_devices(TENANT + 1, 2)) == []


# -- older databases ------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'old.db'}"
    new_database: Callable[[], str] = request.getfixturevalue("postgresql")
    return new_database()


def test_users_of_the_step_before_are_administrators(url: str) -> None:
    """What was there stays, with the rights and the limits it had."""
    store = open_store(url)
    add_user(store, "u@x")
    device_id = store.add_device("d", store.add_profile())
    store.append(device_id, [(1, {"k": 1})])
    store.close()
    engine = make_engine(url)
    with engine.begin() as connection:
        for table in ("ended_login", "api_key"):
            connection.execute(text(f"DROP TABLE {table}"))
        for table, columns in (
            ("admin_user", ("role", "generation", "document")),
            ("tenant", ("max_devices", "document")),
        ):
            for column in columns:
                connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0003'"))
    store = StoreUnderTest(url, InlineReactor())
    try:
        assert current(engine) == NEWEST
        user = store.read(lambda tx: tx.user_by_name("u@x"))
        assert (user.role, user.generation, user.document) == (UserRole.ADMINISTRATOR, 0, {})
        assert store.read(lambda tx: tx.max_devices(TENANT)) == 0
        assert store.read(lambda tx: tx.latest(device_id)) == {"k": (1, 1)}
        add_key(store, "new")
    finally:
        store.close()
        engine.dispose()
