"""Pages of devices on both databases: order, search, filters and totals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from cloud_core.model import Attempt, DeviceFilter, DevicePresence, DeviceStage, Page, Peer, Transport
from cloud_core.storage import connected, device_lists
from cloud_core.storage.interface import NewDevice
from shared.credentials import AccessToken
from shared.errors import InvalidArgument
from tests.support.stores import TENANT, StoreUnderTest

FLEET = [("b", "y", 3), ("a", "x", 1), ("d", "", 2), ("c", "X-ray", 2)]  # name, label, created


def fill(store: StoreUnderTest) -> dict[str, int]:
    """Devices of two profiles; name -> number."""
    profiles = {name: store.add_profile(name) for name in ("pump", "Meter")}

    def insert(tx: Any) -> dict[str, int]:
        return {
            name: tx.insert_device(
                NewDevice(
                    uuid=uuid4(), tenant_id=TENANT, profile_id=profiles["pump" if name < "c" else "Meter"],
                    name=name, label=label, created_ms=created_ms,
                )
            )
            for name, label, created_ms in FLEET
        }  # fmt: skip

    numbers: dict[str, int] = store.run(insert)
    return numbers


def listed(store: StoreUnderTest, wanted: DeviceFilter = DeviceFilter(), **page: Any) -> tuple[str, int]:
    devices, total = store.read(lambda tx: tx.devices(TENANT, Page(**page), wanted))
    return "".join(one.name for one in devices), total


@pytest.mark.parametrize("few", [0, 2_000], ids=["many matches", "few matches"])
@pytest.mark.parametrize(
    ("property_", "ascending"),  # devices that do not differ stand by their number
    [("createdTime", "adcb"), ("name", "abcd"), ("label", "dcab"), ("type", "dcba"), ("deviceProfileName", "dcba")],
)
def test_every_order_both_ways_and_page_by_page(
    store: StoreUnderTest, property_: str, ascending: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a search that all match and without one the pages are the same."""
    monkeypatch.setattr(device_lists, "FEW_MATCHES", few)
    fill(store)
    for is_descending in (False, True):
        order = ascending[::-1] if is_descending else ascending
        for text in ("", "m"):
            paged = {"sort_property": property_, "descending": is_descending, "size": 3, "text_search": text}
            pages = [listed(store, page=number, **paged) for number in (0, 1, 2)]
            assert pages == [(order[:3], 4), (order[3:], 4), ("", 4)]


@pytest.mark.parametrize("few", [0, 2_000], ids=["many matches", "few matches"])
def test_text_is_found_in_name_label_and_type(store: StoreUnderTest, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the case; what means something to LIKE is looked for as it is."""
    monkeypatch.setattr(device_lists, "FEW_MATCHES", few)
    fill(store)
    search = {"sort_property": "name"}
    assert listed(store, text_search="x", **search) == ("ac", 2)
    assert listed(store, text_search="RAY", **search) == ("c", 1)
    assert listed(store, text_search="meter", **search) == ("cd", 2)
    assert listed(store, text_search="m", descending=True, size=3, page=1, **search) == ("a", 4)
    assert listed(store, text_search="m", size=3, sort_property="label") == ("dca", 4)
    assert listed(store, text_search="m", size=3, sort_property="type", page=1)[1] == 4
    for text in ("%", "_", "/", "a%"):
        assert listed(store, text_search=text, **search) == ("", 0)


def test_a_deep_page_of_many_matches_is_read_from_the_nearer_end(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is the same page."""
    monkeypatch.setattr(device_lists, "FEW_MATCHES", 0)
    monkeypatch.setattr(device_lists, "DEEP", 1)
    monkeypatch.setattr(device_lists, "FAR", 1)
    fill(store)
    for property_, order in (("name", "abcd"), ("label", "dcab"), ("createdTime", "adcb"), ("type", "dcba")):
        for is_descending in (False, True):
            paged = {"sort_property": property_, "descending": is_descending, "text_search": "m"}
            expected = order[::-1] if is_descending else order
            for size in (1, 2, 3):
                for page in range(5):
                    part = expected[page * size :][:size]
                    assert listed(store, size=size, page=page, **paged) == (part, 4), (property_, size, page)


def test_filters(store: StoreUnderTest) -> None:
    numbers = fill(store)
    seen = [DevicePresence(device_id=numbers["a"], is_active=True), DevicePresence(device_id=numbers["b"])]
    store.run(lambda tx: tx.put_presence(seen))
    profiles = {name: uuid for uuid, name in store.read(lambda tx: tx.profile_names(TENANT))}
    assert listed(store, DeviceFilter(profile_name="pump"), sort_property="name") == ("ab", 2)
    assert listed(store, DeviceFilter(profile_uuid=profiles["Meter"]), sort_property="name") == ("cd", 2)
    assert listed(store, DeviceFilter(profile_uuid=profiles["Meter"], profile_name="pump")) == ("", 0)
    assert listed(store, DeviceFilter(is_active=True)) == ("a", 1)
    assert listed(store, DeviceFilter(is_active=False), sort_property="name") == ("bcd", 3)
    assert listed(store, DeviceFilter(is_active=False, profile_name="pump"), text_search="b") == ("b", 1)
    assert listed(store, DeviceFilter(profile_name="none")) == ("", 0)


@pytest.mark.parametrize("few", [1, 1_000], ids=["as a set", "one by one"])
@pytest.mark.parametrize("has_other_tenant", [False, True])
@pytest.mark.parametrize("heard", ["abcd", "abd"], ids=["all heard of", "some"])
def test_active_ones_and_the_others(
    store: StoreUnderTest, few: int, has_other_tenant: bool, heard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they are found: in each order, with the number of all, and no device of another tenant."""
    monkeypatch.setattr(device_lists, "FEW_SEEN", few)
    numbers = fill(store)
    if has_other_tenant:
        tenant = store.add_tenant("other")
        profile = store.add_profile("p", tenant_id=tenant)
        other = NewDevice(uuid=uuid4(), tenant_id=tenant, profile_id=profile, name="o", created_ms=1)
        numbers["o"] = store.run(lambda tx: tx.insert_device(other))
        heard += "o"
    store.run(
        lambda tx: tx.put_presence([DevicePresence(device_id=numbers[one], is_active=one in "ado") for one in heard])
    )
    for order, whole in (("name", "abcd"), ("label", "dcab"), ("createdTime", "adcb"), ("type", "dcba")):
        for is_active, names in ((True, "ad"), (False, "bc")):
            expected = "".join(one for one in whole if one in names)
            for text in ("", "m"):
                paged = {"sort_property": order, "text_search": text, "size": 1}
                pages = [listed(store, DeviceFilter(is_active=is_active), page=one, **paged) for one in (0, 1, 2)]
                assert pages == [(expected[0], 2), (expected[1], 2), ("", 2)]


def test_a_tenant_without_profiles_has_an_empty_list(store: StoreUnderTest) -> None:
    assert listed(store) == ("", 0)
    assert listed(store, sort_property="type", text_search="x") == ("", 0)


def test_an_unknown_property_is_refused(store: StoreUnderTest) -> None:
    with pytest.raises(InvalidArgument, match="Unknown sort property 'uuid'"):
        listed(store, sort_property="uuid")


def test_a_total_that_was_dear_is_counted_again_only_later(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it is shown as it was; the last page corrects it, and a cheap one is always counted."""
    fill(store)
    assert listed(store, size=2) == ("ad", 4)
    monkeypatch.setattr(connected, "DEAR_TOTAL_S", 0.0)
    assert listed(store, size=2)[1] == 4
    store.add_device("e", store.add_profile("other"))
    assert listed(store, size=2)[1] == 4
    assert listed(store, size=2, page=2)[1] == 5
    monkeypatch.setattr(connected.time, "monotonic", lambda: 1e12)
    assert listed(store, size=2)[1] == 5


def test_devices_by_how_far_they_have_come(store: StoreUnderTest) -> None:
    """Each is in exactly one of the three lists, and says the same beside the others."""
    numbers = fill(store)

    def live(tx: Any) -> None:
        for name, number in numbers.items():
            tx.put_credentials(number, AccessToken(f"t-{name}"), now_ms=1, issued_ms=2 if name in "bc" else None)
        for name in "cd":
            tx.mark_confirmed(numbers[name], now_ms=3)

    store.run(live)
    for stage, names in ((DeviceStage.CREATED, "a"), (DeviceStage.ISSUED, "b"), (DeviceStage.CONFIRMED, "cd")):
        wanted = DeviceFilter(stage=stage)
        assert listed(store, wanted, sort_property="name") == (names, len(names))
        after = store.read(lambda tx, wanted=wanted: tx.devices_after(TENANT, "", 9, "", wanted))
        assert "".join(one.name for one in after) == names
        assert store.read(lambda tx, after=after: tx.device_stages(after)) == [stage] * len(names)


def test_devices_that_are_gateways_or_not(store: StoreUnderTest) -> None:
    """By the mark that the device itself has."""
    numbers = fill(store)
    gateway = store.read(lambda tx: tx.device_by_id(numbers["c"]))
    store.run(lambda tx: tx.update_device(replace(gateway, is_gateway=True)))
    assert listed(store, DeviceFilter(is_gateway=True)) == ("c", 1)
    assert listed(store, DeviceFilter(is_gateway=False), sort_property="name") == ("abd", 3)


def test_the_next_devices_by_name(store: StoreUnderTest) -> None:
    """Part by part to the end, narrowed as a page is."""
    numbers = fill(store)
    store.run(lambda tx: tx.put_presence([DevicePresence(device_id=numbers["b"], is_active=True)]))

    def after(name: str, limit: int = 9, text: str = "", **wanted: Any) -> str:
        rows = store.read(lambda tx: tx.devices_after(TENANT, name, limit, text, DeviceFilter(**wanted)))
        return "".join(one.name for one in rows)

    assert (after("", 3), after("c", 3), after("d", 3)) == ("abc", "d", "")
    assert after("", text="x") == "ac" and after("", profile_name="pump") == "ab"
    assert after("", profile_name="none") == "" and after("", is_active=True) == "b"
    assert after("", is_active=False) == "acd"


def test_attempts_of_a_name(store: StoreUnderTest) -> None:
    """The newest first, of this tenant and of no other name."""

    def log(tx: Any) -> None:
        for number, name in enumerate(("a", "b", "a", "a")):
            peer = Peer(Transport.HTTP, "192.0.2.1")
            tenant_id = TENANT if number < 3 else None
            tx.log_attempt(
                Attempt(
                    ref=f"R{number}", at_ms=number, peer=peer, outcome="SUCCESS", stage="stored", device_name=name,
                    tenant_id=tenant_id,
                )
            )  # fmt: skip

    store.run(log)
    assert [one.ref for one in store.read(lambda tx: tx.attempts_of(TENANT, "a", 9))] == ["R2", "R0"]
    assert [one.ref for one in store.read(lambda tx: tx.attempts_of(TENANT, "a", 1))] == ["R2"]
