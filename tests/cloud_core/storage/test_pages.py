"""Pages of attempts, gateways, certificates and a customer's devices: the same whichever way they are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from cloud_core.model import Attempt, DeviceFilter, Page, Peer, Transport
from cloud_core.storage import attempts, certificates, connected, device_lists, one_pass
from cloud_core.storage.interface import NewDevice
from cloud_core.storage.interface.attempts import AttemptFilter
from cloud_core.storage.store import make_engine
from tests.support.pki import Pki
from tests.support.stores import TENANT, StoreUnderTest, open_store

COUNT = 9
WAYS = ["sorted here", "by the database", "from the end", "in one pass"]


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the numbers of a page are found; each must give the same page."""
    name: str = request.param
    if name != "sorted here":
        for module, few in ((attempts, "FEW_OF_TABLE"), (certificates, "FEW_OF_TABLE"), (certificates, "FEW_MATCHES")):
            monkeypatch.setattr(module, few, 0)
        given = connected.Connected._page.__kwdefaults__
        monkeypatch.setattr(connected.Connected._page, "__kwdefaults__", given | {"few": 0})
    if name == "from the end":
        monkeypatch.setattr(connected, "DEEP", 1)
        monkeypatch.setattr(device_lists, "DEEP", 1)
    if name == "in one pass":
        for module, setting, value in (
            (connected, "FEW_OF_TABLE", 0),
            (one_pass, "SAMPLED", 3),
            (one_pass, "ENOUGH", 1),
        ):
            monkeypatch.setattr(module, setting, value)
    return name


def everywhere(list_of: Any, expected: list[Any]) -> None:
    """Page by page, both ways, `list_of(**page)` is `expected`, which holds no equals, and knows how many there are."""
    for is_descending in (False, True):
        whole = expected[::-1] if is_descending else expected
        for size in (1, 2, 4, len(expected) + 1):
            for number in range(len(expected) // size + 2):
                found, total = list_of(size=size, page=number, descending=is_descending)
                assert (found, total) == (whole[number * size : (number + 1) * size], len(expected))


def log_some(store: StoreUnderTest) -> None:
    def log(tx: Any) -> None:
        for one in range(COUNT):
            tx.log_attempt(
                Attempt(
                    ref=f"R-{one}", at_ms=one * 1_000, peer=Peer(Transport.MQTT, f"10.0.0.{9 - one}"),
                    outcome="SUCCESS" if one % 3 else "DEVICE_EXISTS", stage="stored", tenant_id=TENANT,
                    device_name=f"d{one * 4 % COUNT}",
                )
            )  # fmt: skip

    store.run(log)


@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize(
    ("column", "text", "wanted", "expected"),
    [
        ("createdTime", "", AttemptFilter(), "012345678"),
        ("source", "", AttemptFilter(), "876543210"),
        ("deviceName", "", AttemptFilter(), "012345678"),
        ("source", "10.0", AttemptFilter(), "876543210"),
        ("deviceName", "d", AttemptFilter(outcomes=("DEVICE_EXISTS",)), "036"),
        ("createdTime", "", AttemptFilter(start_ms=2_000, end_ms=6_000), "2345"),
    ],
)
def test_attempts(
    store: StoreUnderTest, way: str, column: str, text: str, wanted: AttemptFilter, expected: str
) -> None:
    """By every column, filter and search."""
    log_some(store)

    def listed(**page: Any) -> tuple[list[str], int]:
        asked = Page(sort_property=column, text_search=text, **page)
        found, total = store.survey(lambda tx: tx.attempt_page(TENANT, asked, wanted, with_unassigned=True))
        return [one.ref for one in found], total

    order = sorted(expected, key=lambda one: f"d{int(one) * 4 % COUNT}") if column == "deviceName" else list(expected)
    everywhere(listed, [f"R-{one}" for one in order])


def add_fleet(store: StoreUnderTest, *, is_gateway: bool, profile_id: int, prefix: str) -> list[int]:
    def insert(tx: Any) -> list[int]:
        return [
            tx.insert_device(
                NewDevice(
                    uuid=uuid4(), tenant_id=TENANT, profile_id=profile_id, name=f"{prefix}{one * 4 % COUNT}",
                    label=f"x{COUNT - one}", created_ms=one, is_gateway=is_gateway,
                )
            )
            for one in range(COUNT)
        ]  # fmt: skip

    numbers: list[int] = store.run(insert)
    return numbers


@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize(("column", "key"), [("name", lambda d: d.name), ("createdTime", lambda d: d.created_ms)])
@pytest.mark.parametrize("text", ["", "g"])
def test_gateways(store: StoreUnderTest, way: str, column: str, key: Any, text: str) -> None:
    """Nothing else is among them."""
    profile = store.add_profile("p")
    add_fleet(store, is_gateway=True, profile_id=profile, prefix="g")
    add_fleet(store, is_gateway=False, profile_id=profile, prefix="d-g")
    devices = [store.read(lambda tx, one=one: tx.device_by_name(TENANT, f"g{one}")) for one in range(COUNT)]

    def listed(**page: Any) -> tuple[list[str], int]:
        asked = Page(sort_property=column, text_search=text, **page)
        found, total = store.survey(lambda tx: tx.gateway_page(TENANT, asked))
        return [one.device.name for one in found], total

    everywhere(listed, [one.name for one in sorted(devices, key=key)])


@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize("text", ["", "CN=", "owner"])
@pytest.mark.parametrize("column", ["notAfter", "subject"])
def test_certificates(store: StoreUnderTest, way: str, column: str, text: str) -> None:
    """The name of the device that has one is searched, too."""
    root, store_leaf = Pki().root("Factory"), []
    profile = store.add_profile("p")
    for one in range(4):
        der = root.leaf(f"c{one}").der
        number = store.add_device(f"owner{one}", profile)
        store.run(
            lambda tx, der=der, number=number: tx.record_certificate(der, tenant_id=TENANT, device_id=number, now_ms=1)
        )
        store_leaf.append(f"CN=c{one}")

    def listed(**page: Any) -> tuple[list[str], int]:
        asked = Page(sort_property=column, text_search=text, **page)
        found, total = store.survey(lambda tx: tx.certificates(TENANT, asked))
        return [one.subject for one in found], total

    if column == "subject":
        everywhere(listed, store_leaf)
    else:
        found, total = listed(size=10)
        assert (sorted(found), total) == (store_leaf, 4)


@pytest.mark.parametrize("few", [0, 20_000], ids=["most of the fleet", "a small part"])
@pytest.mark.parametrize("text", ["", "d"])
@pytest.mark.parametrize("column", ["createdTime", "name", "label", "type"])
def test_devices_of_a_profile_and_of_a_customer(
    store: StoreUnderTest, few: int, text: str, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by their own index, or in that of the order of the page."""
    monkeypatch.setattr(device_lists, "FEW_OF_FLEET", few)
    mine, others = store.add_profile("mine"), store.add_profile("others")
    numbers = add_fleet(store, is_gateway=False, profile_id=mine, prefix="d")
    add_fleet(store, is_gateway=False, profile_id=others, prefix="e-d")
    store.run(lambda tx: tx.insert_customer(uuid=uuid4(), tenant_id=TENANT, title="c", document={}, created_ms=1))
    customer = store.read(lambda tx: tx.customer_by_title(TENANT, "c")).id
    store.run(lambda tx: [tx.assign_device(one, customer) for one in numbers])
    devices = [store.read(lambda tx, one=one: tx.device_by_id(one)) for one in numbers]
    keys = {"createdTime": "created_ms", "name": "name", "label": "label", "type": "id"}
    expected = [one.name for one in sorted(devices, key=lambda one: getattr(one, keys[column]))]
    for wanted, owner in ((DeviceFilter(profile_name="mine"), None), (DeviceFilter(), customer)):

        def listed(wanted: DeviceFilter = wanted, owner: int | None = owner, **page: Any) -> tuple[list[str], int]:
            asked = Page(sort_property=column, text_search=text, **page)
            found, total = store.survey(lambda tx: tx.devices(TENANT, asked, wanted, customer_id=owner))
            return [one.name for one in found], total

        for size in (2, COUNT):
            assert listed(size=size) == (expected[:size], COUNT)
            assert listed(size=size, page=1) == (expected[size : 2 * size], COUNT)


def test_a_database_of_the_step_before_gets_the_index_of_gateways(tmp_path: Path) -> None:
    """Pages of gateways name it, so that they would fail without it."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    open_store(url).close()
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX device_gateways"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0008'"))
    engine.dispose()
    store = open_store(url)
    try:
        assert store.survey(lambda tx: tx.gateway_page(TENANT, Page())) == ([], 0)
    finally:
        store.close()
