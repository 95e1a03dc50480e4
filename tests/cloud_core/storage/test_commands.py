"""Persistent commands and server methods, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from cloud_core.model import Page, PersistentCommand, RpcStatus, ServerMethod
from shared.errors import InvalidArgument, Unavailable
from shared.json_bodies import decode_json
from shared.lenient_json import NumberText
from tests.support.stores import TENANT, StoreUnderTest

OPEN = (RpcStatus.QUEUED, RpcStatus.SENT, RpcStatus.DELIVERED)


def command(device_id: int, method: str = "m", **members: Any) -> PersistentCommand:
    values = {
        "id": 0, "uuid": uuid4(), "tenant_id": TENANT, "device_id": device_id, "created_ms": 1_000,
        "expires_ms": 2_000, "is_oneway": False, "method": method, "params": None,
    }  # fmt: skip
    return PersistentCommand(**(values | members))


def insert(store: StoreUnderTest, one: PersistentCommand) -> int:
    number = store.run(lambda tx: tx.insert_command(one))
    assert isinstance(number, int)
    return number


def with_device(store: StoreUnderTest, name: str = "d") -> int:
    return store.add_device(name, store.add_profile(f"profile-{name}"))


def test_a_command_comes_back_as_given(store: StoreUnderTest) -> None:
    """By its id, its row and its device; numbers as they were written, whatever text there is."""
    device_id = with_device(store)
    params = decode_json(
        b'{"big":123456789012345678901234567890,"exact":1E+400,"text":"\\u0000 \xc3\xa9","list":[1.50]}'
    )
    given = command(device_id, "set", params=params, additional_info={"by": "me"}, retries_left=3, is_oneway=True)
    number = insert(store, given)
    stored = store.read(lambda tx: tx.command(TENANT, given.uuid))
    device = store.read(lambda tx: tx.device_by_id(device_id))
    assert stored == PersistentCommand(
        id=number, uuid=given.uuid, tenant_id=TENANT, device_id=device_id, device_uuid=device.uuid, created_ms=1_000,
        expires_ms=2_000, is_oneway=True, method="set", params=params, retries_left=3, additional_info={"by": "me"},
    )  # fmt: skip
    assert stored.params["exact"] == NumberText("1E+400")
    assert store.read(lambda tx: tx.command_by_id(number)) == stored
    assert store.read(lambda tx: tx.command(TENANT + 1, given.uuid)) is None
    assert store.read(lambda tx: tx.command(TENANT, uuid4())) is None
    assert store.read(lambda tx: tx.command_by_id(number + 1)) is None


def test_an_id_is_given_once(store: StoreUnderTest) -> None:
    """And the refusal leaves the rest of the batch alone."""
    device_id = with_device(store)
    given = command(device_id)
    insert(store, given)
    with pytest.raises(InvalidArgument):
        insert(store, command(device_id, uuid=given.uuid))
    assert store.read(lambda tx: tx.open_command_count(device_id)) == 1


def test_the_state_of_a_command_changes_with_its_response(store: StoreUnderTest) -> None:
    """A response of null is none."""
    number = insert(store, command(with_device(store)))
    for response in ({"a": [1, None, "x"]}, None, False, "text"):
        store.run(
            lambda tx, value=response: tx.update_command(
                number, status=RpcStatus.SUCCESSFUL, retries_left=1, response=value
            )
        )
        stored = store.read(lambda tx: tx.command_by_id(number))
        assert (stored.status, stored.retries_left, stored.response) == (RpcStatus.SUCCESSFUL, 1, response)


def test_open_commands_come_oldest_first(store: StoreUnderTest) -> None:
    """Those that are delivered are open and not undelivered; those that have ended are neither."""
    mine, other = with_device(store, "a"), with_device(store, "b")
    numbers = {status: insert(store, command(mine, status.value, status=status)) for status in RpcStatus}
    newest = insert(store, command(mine, "newest"))
    foreign = insert(store, command(other))
    ids = lambda rows: [one.id for one in rows]  # noqa: E731
    opened = store.read(lambda tx: tx.open_commands(mine))
    assert ids(opened) == [*(numbers[one] for one in OPEN), newest]
    assert ids(store.read(lambda tx: tx.open_commands(mine, 2))) == ids(opened)[:2]
    undelivered = store.read(lambda tx: tx.undelivered_commands(mine))
    assert ids(undelivered) == [numbers[RpcStatus.QUEUED], numbers[RpcStatus.SENT], newest]
    assert ids(store.read(lambda tx: tx.undelivered_commands(mine, 1))) == ids(undelivered)[:1]
    assert store.read(lambda tx: tx.open_command_count(mine)) == 4
    assert sorted(store.read(lambda tx: tx.devices_with_open_commands())) == [mine, other]
    store.run(lambda tx: tx.delete_command(foreign))
    assert store.read(lambda tx: tx.devices_with_open_commands()) == [mine]


def test_open_commands_expire_when_their_time_is_over(store: StoreUnderTest) -> None:
    """The devices are named once each; ended commands stay what they are."""
    mine, other = with_device(store, "a"), with_device(store, "b")
    over = [insert(store, command(mine, status=status)) for status in OPEN]
    ended = insert(store, command(mine, status=RpcStatus.SUCCESSFUL))
    later = insert(store, command(other, expires_ms=2_001))
    assert store.run(lambda tx: tx.expire_commands(2_000)) == [mine]
    states = [store.read(lambda tx, one=one: tx.command_by_id(one)).status for one in (*over, ended, later)]
    assert states == [RpcStatus.EXPIRED] * 3 + [RpcStatus.SUCCESSFUL, RpcStatus.QUEUED]
    assert store.run(lambda tx: tx.expire_commands(2_000)) == []


def test_trimming_removes_old_commands_that_have_ended(store: StoreUnderTest) -> None:
    device_id = with_device(store)
    for status in RpcStatus:
        insert(store, command(device_id, status=status))
        insert(store, command(device_id, status=status, created_ms=5_000))
    assert store.run(lambda tx: tx.trim_commands(before_ms=5_000)) == len(RpcStatus) - len(OPEN)
    _, total = store.read(lambda tx: tx.commands(TENANT, device_id, Page(10, 0), None))
    assert total == len(RpcStatus) + len(OPEN)


def test_commands_are_listed_by_page_and_state(store: StoreUnderTest) -> None:
    """Of one device; sorted and searched as asked."""
    mine, other = with_device(store, "a"), with_device(store, "b")
    for number in range(5):
        status = RpcStatus.SENT if number % 2 else RpcStatus.QUEUED
        insert(store, command(mine, f"m{number}", created_ms=number, status=status))
    insert(store, command(other, "foreign"))

    def listed(page: Page, status: RpcStatus | None = None) -> tuple[list[str], int]:
        rows, total = store.read(lambda tx: tx.commands(TENANT, mine, page, status))
        return [one.method for one in rows], total

    assert listed(Page(2, 1)) == (["m2", "m3"], 5)
    assert listed(Page(9, 0, descending=True), RpcStatus.SENT) == (["m3", "m1"], 2)
    assert listed(Page(9, 0, text_search="M4")) == (["m4"], 1)
    with pytest.raises(InvalidArgument):
        listed(Page(9, 0, sort_property="secret"))


def test_commands_go_with_their_device(store: StoreUnderTest) -> None:
    device_id = with_device(store)
    number = insert(store, command(device_id))
    store.run(lambda tx: tx.delete_device(device_id))
    assert store.read(lambda tx: tx.command_by_id(number)) is None


def test_a_server_method_comes_back_with_its_secret(store: StoreUnderTest) -> None:
    """Put again it is replaced; tenants see their own."""
    first = ServerMethod(tenant_id=TENANT, method="b", url="https://x/1", secret="s1", timeout_ms=500)
    second = ServerMethod(tenant_id=TENANT, method="b", url="https://x/2", secret="s2", timeout_ms=700)
    other = ServerMethod(tenant_id=TENANT, method="a", url="https://x/3", secret="")
    for one in (first, second, other):
        store.run(lambda tx, one=one: tx.put_server_method(one))
    assert store.read(lambda tx: tx.server_method(TENANT, "b")) == second
    assert store.read(lambda tx: tx.server_methods(TENANT)) == [other, second]
    assert store.read(lambda tx: tx.server_method(TENANT + 1, "b")) is None
    assert store.run(lambda tx: tx.delete_server_method(TENANT, "b")) is True
    assert store.run(lambda tx: tx.delete_server_method(TENANT, "b")) is False
    assert store.read(lambda tx: tx.server_methods(TENANT)) == [other]


def test_the_secret_of_a_webhook_is_not_readable_in_the_database_files(
    sqlite_store: StoreUnderTest, tmp_path: Any
) -> None:
    """As any other secret."""
    method = ServerMethod(tenant_id=TENANT, method="m", url="https://x/", secret="CANARY-secret")
    sqlite_store.run(lambda tx: tx.put_server_method(method))
    content = b"".join(file.read_bytes() for file in tmp_path.glob("muster.db*"))
    assert b"https://x/" in content and b"CANARY" not in content


def test_a_command_for_no_device_is_not_stored(store: StoreUnderTest) -> None:
    """The constraint decides, should a device be deleted at that moment."""
    with pytest.raises(Unavailable):
        insert(store, command(999, uuid=UUID(int=5)))
    assert store.read(lambda tx: tx.command(TENANT, UUID(int=5))) is None
