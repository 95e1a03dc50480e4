"""What the store promises of customers, claim offers and packages, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from cloud_core.model import Package, Page, User
from cloud_core.storage.interface.packages import BLOCK_BYTES, Rollout
from shared.errors import VersionConflict
from shared.messages import PackageKind
from tests.support.stores import TENANT, StoreUnderTest

FIRMWARE, SOFTWARE = PackageKind.FIRMWARE, PackageKind.SOFTWARE


def add_customer(store: StoreUnderTest, title: str, **document: Any) -> int:
    return int(
        store.run(
            lambda tx: tx.insert_customer(
                uuid=uuid4(), tenant_id=TENANT, title=title, document=document, created_ms=5
            )
        )
    )  # fmt: skip


def add_package(store: StoreUnderTest, profile_id: int, title: str = "fw", **members: Any) -> int:
    given = {"kind": FIRMWARE, "version": "1.0"} | members
    package = Package(
        id=0, uuid=uuid4(), tenant_id=TENANT, profile_id=profile_id, profile_uuid=uuid4(), title=title,
        created_ms=7, **given,
    )  # fmt: skip
    return int(store.run(lambda tx: tx.insert_package(package)))


def assigned(store: StoreUnderTest, device_id: int, kind: PackageKind = FIRMWARE) -> int | None:
    found = store.read(lambda tx: tx.assigned_package(device_id, kind))
    return None if found is None else found.id


# -- customers ------------------------------------------------------------------------------------


def test_a_customer_comes_back_as_given(store: StoreUnderTest) -> None:
    """By number, by uuid within its tenant, by title; with the members that have no meaning here."""
    number = add_customer(store, "ACME", city="Ulm")
    found = store.read(lambda tx: tx.customer_by_id(number))
    assert (found.title, found.document, found.created_ms, found.version) == ("ACME", {"city": "Ulm"}, 5, 1)
    assert store.read(lambda tx: tx.customer(TENANT, found.uuid)) == found
    assert store.read(lambda tx: tx.customer(TENANT + 1, found.uuid)) is None
    assert store.read(lambda tx: tx.customer_by_title(TENANT, "ACME")) == found


def test_a_customer_changes_only_from_the_version_that_was_read(store: StoreUnderTest) -> None:
    number = add_customer(store, "ACME")
    read = store.read(lambda tx: tx.customer_by_id(number))
    store.run(lambda tx: tx.update_customer(replace(read, title="Acme", document={"a": 1})))
    now = store.read(lambda tx: tx.customer_by_id(number))
    assert (now.title, now.document, now.version) == ("Acme", {"a": 1}, 2)
    with pytest.raises(VersionConflict):
        store.run(lambda tx: tx.update_customer(read))


def test_customers_are_searched_sorted_and_paged(store: StoreUnderTest) -> None:
    for title in ("beta", "Alpha", "gamma"):
        add_customer(store, title)
    rows, total = store.read(lambda tx: tx.customers(TENANT, Page(size=1, text_search="A", sort_property="title")))
    assert ([one.title for one in rows], total) == (["Alpha"], 3)


def test_a_device_belongs_to_a_customer_until_that_is_deleted(store: StoreUnderTest) -> None:
    """The device stays, its version grows with each change; the customer's users go."""
    device_id = store.add_device("d", store.add_profile())
    number = add_customer(store, "ACME")
    user = User(
        id=0, uuid=uuid4(), tenant_id=TENANT, username="u@x", password_hash="h", authority="CUSTOMER_USER",
        created_ms=1, customer_id=number,
    )  # fmt: skip
    store.run(lambda tx: tx.insert_user(user))
    store.run(lambda tx: tx.assign_device(device_id, number))
    device = store.read(lambda tx: tx.device_by_id(device_id))
    customer = store.read(lambda tx: tx.customer_by_id(number))
    assert (device.customer_id, device.customer_uuid, device.version) == (number, customer.uuid, 2)
    assert store.read(lambda tx: tx.devices(TENANT, Page(), customer_id=number)) == ([device], 1)
    store.run(lambda tx: tx.delete_customer(number))
    device = store.read(lambda tx: tx.device_by_id(device_id))
    assert (device.customer_id, device.customer_uuid, device.version) == (None, None, 3)
    assert store.read(lambda tx: tx.user_by_name("u@x")) is None
    assert store.read(lambda tx: tx.devices(TENANT, Page(), customer_id=number)) == ([], 0)


# -- claim offers ---------------------------------------------------------------------------------


def test_a_claim_offer_is_replaced_deleted_and_trimmed(store: StoreUnderTest) -> None:
    profile_id = store.add_profile()
    first, second = store.add_device("a", profile_id), store.add_device("b", profile_id)
    for device_id, secret_hash, expires_ms in ((first, b"1" * 16, 10), (first, b"2" * 16, 20), (second, b"3" * 16, 9)):
        store.run(
            lambda tx, d=device_id, s=secret_hash, e=expires_ms: tx.put_claim_offer(d, secret_hash=s, expires_ms=e)
        )
    assert store.read(lambda tx: tx.claim_offer(first)) == (b"2" * 16, 20)
    store.run(lambda tx: tx.trim_claim_offers(20))
    assert store.read(lambda tx: tx.claim_offer(second)) is None
    store.run(lambda tx: tx.delete_claim_offer(first))
    assert store.read(lambda tx: tx.claim_offer(first)) is None


# -- packages -------------------------------------------------------------------------------------


def test_a_package_comes_back_as_given(store: StoreUnderTest) -> None:
    number = add_package(store, store.add_profile(), tag="t", url="http://h/f", document={"additionalInfo": {"a": 1}})
    found = store.read(lambda tx: tx.package_by_id(number))
    assert (found.kind, found.title, found.version, found.tag, found.url) == (FIRMWARE, "fw", "1.0", "t", "http://h/f")
    assert (found.document, found.created_ms, found.has_data) == ({"additionalInfo": {"a": 1}}, 7, False)
    assert store.read(lambda tx: tx.package(TENANT, found.uuid)) == found
    assert store.read(lambda tx: tx.package(TENANT + 1, found.uuid)) is None
    assert store.read(lambda tx: tx.package_by_name(TENANT, "fw", "1.0")) == found
    store.run(lambda tx: tx.update_package(replace(found, size_bytes=2**33, has_data=True, checksum="c")))
    found = store.read(lambda tx: tx.package_by_id(number))
    assert (found.size_bytes, found.has_data, found.checksum) == (2**33, True, "c")


def test_packages_are_listed_by_kind_profile_and_use(store: StoreUnderTest) -> None:
    one, other = store.add_profile("one"), store.add_profile("other")
    empty = add_package(store, one)
    linked = add_package(store, one, "linked", url="http://h/f")
    stored = add_package(store, other, "stored", kind=SOFTWARE, has_data=True)

    def listed(**members: Any) -> list[int]:
        rows, total = store.read(lambda tx: tx.packages(TENANT, Page(), **members))
        assert total == len(rows)
        return [one.id for one in rows]

    assert listed() == [empty, linked, stored]
    assert listed(kind=SOFTWARE) == [stored]
    assert listed(profile_id=one) == [empty, linked]
    assert listed(profile_id=one, is_usable=True) == [linked]


@pytest.mark.parametrize(
    ("start", "count"),
    [(0, 10), (BLOCK_BYTES - 5, 10), (0, 3 * BLOCK_BYTES), (2 * BLOCK_BYTES + 90, 50), (2 * BLOCK_BYTES + 100, 10),
     (5 * BLOCK_BYTES, 10), (7, 0)],
)  # fmt: skip
def test_any_part_of_a_package_can_be_read(store: StoreUnderTest, start: int, count: int) -> None:
    """Across block boundaries, short at the end, empty behind it."""
    number = add_package(store, store.add_profile())
    data = bytes(place % 251 for place in range(2 * BLOCK_BYTES + 100))
    for block in range(3):
        part = data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        store.run(lambda tx, n=block, d=part: tx.put_package_block(number, n, d))
    assert store.read(lambda tx: tx.package_data(number, start, count)) == data[start : start + count]


def test_blocks_are_overwritten_and_trimmed(store: StoreUnderTest) -> None:
    """A second upload leaves nothing of a longer one that failed."""
    number = add_package(store, store.add_profile())
    for block, data in ((0, b"a" * BLOCK_BYTES), (1, b"b"), (0, b"c")):
        store.run(lambda tx, n=block, d=data: tx.put_package_block(number, n, d))
    store.run(lambda tx: tx.trim_package_blocks(number, 1))
    assert store.read(lambda tx: tx.package_data(number, 0, 2 * BLOCK_BYTES)) == b"c"


def test_a_device_has_its_own_package_before_its_profiles(store: StoreUnderTest) -> None:
    """Taking the own one away uncovers the profile's; kinds do not mix."""
    profile_id = store.add_profile()
    own, others = store.add_device("own", profile_id), store.add_device("others", profile_id)
    first, second = add_package(store, profile_id), add_package(store, profile_id, "second")
    assert assigned(store, own) is None
    store.run(lambda tx: tx.assign_package(FIRMWARE, first, profile_id=profile_id))
    store.run(lambda tx: tx.assign_package(FIRMWARE, second, device_id=own))
    assert (assigned(store, own), assigned(store, others), assigned(store, own, SOFTWARE)) == (second, first, None)
    assert store.read(lambda tx: tx.assignment(FIRMWARE, device_id=own)) == second
    assert store.read(lambda tx: tx.assignment(FIRMWARE, profile_id=profile_id)) == first
    assert store.read(lambda tx: tx.devices_with_profile_package(profile_id, FIRMWARE)) == [others]
    assert store.read(lambda tx: tx.devices_with_profile_package(profile_id, SOFTWARE)) == [own, others]
    assert store.read(lambda tx: tx.devices_with_profile_package(profile_id, SOFTWARE, after=own, count=1)) == [others]
    assert store.read(lambda tx: tx.package_users(first)) == 1
    store.run(lambda tx: tx.assign_package(FIRMWARE, None, device_id=own))
    assert (assigned(store, own), store.read(lambda tx: tx.package_users(second))) == (first, 0)


def test_deleting_clears_assignments(store: StoreUnderTest) -> None:
    """A deleted device uses no package any more; a deleted profile takes its packages with it."""
    profile_id = store.add_profile()
    device_id = store.add_device("d", profile_id)
    number = add_package(store, profile_id)
    store.run(lambda tx: tx.put_package_block(number, 0, b"x"))
    store.run(lambda tx: tx.assign_package(FIRMWARE, number, device_id=device_id))
    store.run(lambda tx: tx.assign_package(FIRMWARE, number, profile_id=profile_id))
    store.run(lambda tx: tx.put_package_rollout(Rollout(profile_id, FIRMWARE)))
    store.run(lambda tx: tx.delete_device(device_id))
    assert store.read(lambda tx: tx.package_users(number)) == 1
    store.run(lambda tx: tx.delete_profile(profile_id))
    assert store.read(lambda tx: tx.package_by_id(number)) is None
    assert store.read(lambda tx: tx.package_data(number, 0, 1)) == b""
    assert store.read(lambda tx: tx.package_rollouts()) == []


def test_a_rollout_is_remembered_until_it_is_done(store: StoreUnderTest) -> None:
    for after in (0, 70):
        store.run(lambda tx, a=after: tx.put_package_rollout(Rollout(3, SOFTWARE, a)))
    assert store.read(lambda tx: tx.package_rollouts()) == [Rollout(3, SOFTWARE, 70)]
    store.run(lambda tx: tx.delete_package_rollout(Rollout(3, SOFTWARE)))
    assert store.read(lambda tx: tx.package_rollouts()) == []
