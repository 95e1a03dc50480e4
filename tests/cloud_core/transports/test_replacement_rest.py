"""A device that comes in anew: reset of provisioning, and another unit in its place; lists of gateways and attempts."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.core import sub_devices
from cloud_core.model import (
    PROVISION_STATE,
    Device,
    DevicePresence,
    ProvisionStrategy,
    Reprovisioning,
    Scope,
    SubDevice,
)
from shared.certificates import fingerprint
from shared.credentials import AccessToken
from shared.errors import PlatformError
from tests.support.pki import Pki
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import TENANT, StoreUnderTest


@pytest.fixture
def rest(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Rest:
    without_threads(monkeypatch)
    return Rest(store)


@pytest.fixture
def quick(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Rest:
    """Where the database makes no difference."""
    without_threads(monkeypatch)
    return Rest(sqlite_store)


def made(rest: Rest, name: str, token: str, **members: Any) -> str:
    return id_of(rest.made(f"/api/device?accessToken={token}", {"name": name, "type": "sensor", **members}))


def stored(rest: Rest, name: str) -> Device | None:
    found: Device | None = rest.api.store.read(lambda tx: tx.device_by_name(TENANT, name))
    return found


def swapped(rest: Rest, old: str, new: str, query: str = "") -> tuple[int, Any]:
    return rest.call("POST", f"/api/device/{old}/replace{query}", {"by": {"entityType": "DEVICE", "id": new}})


def name_behind(rest: Rest, token: str) -> str | None:
    """Whom the token opens."""
    outcome = rest.api.log_in(username=token)
    return None if isinstance(outcome, PlatformError) else outcome.device_name


def test_a_new_unit_takes_the_place_of_the_old_device(rest: Rest) -> None:
    """Id, name, attributes, history and relations stay; the new unit's token opens them and the old one's nothing."""
    old, new = made(rest, "pump", "old-token", label="hall 3"), made(rest, "SN-77", "new-token")
    plant = made(rest, "plant", "plant-token")
    data = "/api/plugins/telemetry/DEVICE"
    rest.call("POST", f"{data}/{old}/SERVER_SCOPE", {"site": "north"})
    rest.call("POST", f"{data}/{old}/timeseries/ANY", {"ts": 1_000, "values": {"t": 1}})
    rest.call("POST", f"{data}/{new}/timeseries/ANY", {"ts": 2_000, "values": {"t": 2}})
    rest.call("POST", f"{data}/{new}/timeseries/ANY", {"ts": 1_000, "values": {"u": 5}})
    for one, kind in ((old, "Contains"), (new, "Contains"), (new, "Feeds")):
        ends = {"from": {"entityType": "DEVICE", "id": plant}, "to": {"entityType": "DEVICE", "id": one}}
        assert rest.call("POST", "/api/relation", ends | {"type": kind})[0] == 200
    number = stored(rest, "SN-77")
    assert number is not None
    rest.api.store.run(lambda tx: tx.put_attributes(number.id, Scope.CLIENT, {"firmware": "2.0"}, now_ms=1))

    assert (name_behind(rest, "old-token"), name_behind(rest, "new-token")) == ("pump", "SN-77")
    status, answer = swapped(rest, old, new)
    assert (status, id_of(answer["device"]), answer["rowsTakenOver"]) == (200, old, 2)
    assert answer["clientAttributes"] == ["firmware"]

    assert (name_behind(rest, "old-token"), name_behind(rest, "new-token")) == (None, "pump")
    assert stored(rest, "SN-77") is None
    kept = rest.call("GET", f"/api/device/{old}")[1]
    assert (kept["name"], kept["label"]) == ("pump", "hall 3")
    values = {one["key"]: one["value"] for one in rest.call("GET", f"{data}/{old}/values/attributes")[1]}
    assert values.items() >= {"site": "north", "firmware": "2.0"}.items()
    history = rest.call("GET", f"{data}/{old}/values/timeseries?keys=t,u&startTs=0&endTs=9000")[1]
    assert [(one["ts"], one["value"]) for one in history["t"]] == [(2_000, "2"), (1_000, "1")]
    assert [(one["ts"], one["value"]) for one in history["u"]] == [(1_000, "5")]
    newest = rest.call("GET", f"{data}/{old}/values/timeseries?keys=t")[1]["t"]
    assert newest == [{"ts": 2_000, "value": "2"}]
    related = rest.call("GET", f"/api/relations?fromId={plant}&fromType=DEVICE")[1]
    assert sorted((one["to"]["id"], one["type"]) for one in related) == [(old, "Contains"), (old, "Feeds")]


def test_a_units_certificate_opens_the_device_it_replaces(quick: Rest) -> None:
    """What is known of the certificate goes along; the old unit's is none any more."""
    pki = Pki()

    def with_certificate(name: str) -> tuple[str, bytes]:
        one = pki.root(name)
        body = {"credentialsType": "X509_CERTIFICATE", "credentialsValue": one.pem}
        made = quick.made("/api/device-with-credentials", {"device": {"name": name, "type": "s"}, "credentials": body})
        return id_of(made), fingerprint(one.der)

    (old, former), (new, brought) = with_certificate("pump"), with_certificate("SN-77")
    assert swapped(quick, old, new)[0] == 200
    device = stored(quick, "pump")
    assert device is not None
    known = quick.api.store.read(lambda tx: tx.certificate(brought))
    assert (known.device_id, known.until_ms) == (device.id, None)
    assert quick.api.store.read(lambda tx: tx.certificate(former)).until_ms == 0
    kept = quick.call("GET", f"/api/device/{old}/credentials")[1]
    assert kept["credentialsType"] == "X509_CERTIFICATE"


def test_a_plan_of_a_swap_changes_nothing(quick: Rest) -> None:
    """With plan=true the same answer comes, and both devices are as before."""
    old, new = made(quick, "pump", "old-token"), made(quick, "SN-77", "new-token")
    status, answer = swapped(quick, old, new, "?plan=true")
    assert (status, answer["unit"]["name"]) == (200, "SN-77")
    assert (name_behind(quick, "old-token"), name_behind(quick, "new-token")) == ("pump", "SN-77")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"type": "other"}, "give both the same first"),
        ({"additionalInfo": {"gateway": True}}, "is a gateway and"),
    ],
)
def test_units_that_differ_are_not_swapped(quick: Rest, members: dict[str, Any], words: str) -> None:
    """Another profile or a gateway: refused before anything is written."""
    old, new = made(quick, "pump", "old-token"), made(quick, "SN-77", "new-token", **members)
    status, answer = swapped(quick, old, new)
    assert (status, words in answer["message"]) == (400, True)
    assert (name_behind(quick, "old-token"), name_behind(quick, "new-token")) == ("pump", "SN-77")


def test_a_swap_needs_two_devices_that_exist(quick: Rest) -> None:
    """Itself is 400, an unknown unit 404, none 400."""
    old = made(quick, "pump", "old-token")
    assert swapped(quick, old, old)[0] == 400
    assert swapped(quick, old, "784f394c-42b6-435a-983c-b7beff2784f9")[0] == 404
    assert quick.call("POST", f"/api/device/{old}/replace", {})[0] == 400


def test_a_unit_with_a_long_history_is_not_taken_over(quick: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fresh unit; the refusal says what to do."""
    monkeypatch.setattr("cloud_core.core.replacement.MAX_ROWS_TAKEN_OVER", 2)
    old, new = made(quick, "pump", "old-token"), made(quick, "SN-77", "new-token")
    for ts in (1_000, 2_000, 9_000_000):
        path = f"/api/plugins/telemetry/DEVICE/{new}/timeseries/ANY"
        quick.call("POST", path, {"ts": ts, "values": {"t": 1}})
    status, answer = swapped(quick, old, new)
    assert (status, "no fresh unit" in answer["message"]) == (400, True)


def test_a_gateways_sub_devices_go_with_the_swap(rest: Rest) -> None:
    """What is behind the new gateway is behind the old record, and a gateway may go on using a unit's first name."""
    is_gateway = {"additionalInfo": {"gateway": True}}
    old, new = made(rest, "gw", "old-token", **is_gateway), made(rest, "GW-9", "new-token", **is_gateway)
    made(rest, "meter", "meter-token")
    numbers = {name: stored(rest, name).id for name in ("gw", "GW-9", "meter")}  # type: ignore[union-attr]

    def behind(tx: Any) -> None:
        tx.put_sub_device(SubDevice(device_id=numbers["meter"], gateway_id=numbers["GW-9"], connected_ms=1))
        tx.put_alias(numbers["GW-9"], "meter-of-old", numbers["meter"])

    rest.api.store.run(behind)
    assert swapped(rest, old, new)[0] == 200
    assert rest.api.store.read(lambda tx: tx.sub_device(numbers["meter"]).gateway_id) == numbers["gw"]
    assert rest.api.store.read(lambda tx: tx.alias(numbers["gw"], "meter-of-old")) == numbers["meter"]

    meter, unit = stored(rest, "meter"), made(rest, "M-2", "m-token")
    assert meter is not None
    m2 = stored(rest, "M-2").id  # type: ignore[union-attr]
    rest.api.store.run(lambda tx: tx.put_sub_device(SubDevice(device_id=m2, gateway_id=numbers["gw"], connected_ms=2)))
    assert swapped(rest, str(meter.uuid), unit)[0] == 200
    assert rest.api.store.read(lambda tx: tx.alias(numbers["gw"], "M-2")) == meter.id
    assert rest.api.store.read(lambda tx: sub_devices.gateway_of(tx, meter)) == numbers["gw"]


# -- reset ----------------------------------------------------------------------------------------


def reset(rest: Rest, uuid: str, body: Any = None, query: str = "") -> dict[str, Any]:
    status, answer = rest.call("POST", f"/api/device/{uuid}/resetProvisioning{query}", body)
    assert status == 200, answer
    found: dict[str, Any] = answer
    return found


def test_a_device_that_was_made_before_provisions_once_more(rest: Rest) -> None:
    """CHECK_PRE_PROVISIONED_DEVICES: after the reset the same credentials are handed out again."""
    rest.api.store.add_profile(strategy=ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES)
    uuid = made(rest, "SN-1", "the-token")
    first = rest.api.provision(device_name="SN-1")
    assert isinstance(rest.api.provision(device_name="SN-1"), PlatformError)
    assert reset(rest, uuid, query="?plan=true")["wasProvisioned"] is True
    assert isinstance(rest.api.provision(device_name="SN-1"), PlatformError)
    answer = reset(rest, uuid)
    assert (answer["mayProvision"], answer["note"]) == (True, None)
    assert rest.api.provision(device_name="SN-1").credentials == first.credentials == AccessToken("the-token")


def test_a_reset_with_new_credentials_ends_the_old_login(quick: Rest) -> None:
    """A unit that is lost keeps no way in."""
    quick.api.store.add_profile(strategy=ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES)
    uuid = made(quick, "SN-1", "the-token")
    quick.api.provision(device_name="SN-1")
    assert name_behind(quick, "the-token") == "SN-1"
    reset(quick, uuid, {"newCredentials": True})
    assert name_behind(quick, "the-token") is None
    assert quick.api.provision(device_name="SN-1").credentials != AccessToken("the-token")


def test_a_reset_opens_the_replay_of_a_confirmed_device(quick: Rest) -> None:
    """REPLAY_UNTIL_CONFIRMED: the same request is answered once more, until the next login."""
    quick.api.store.add_profile(reprovisioning=Reprovisioning.REPLAY_UNTIL_CONFIRMED)
    first = quick.api.provision(device_name="SN-1")
    assert quick.api.log_in(username=first.credentials.token).device_name == "SN-1"
    assert isinstance(quick.api.provision(device_name="SN-1"), PlatformError)
    device = stored(quick, "SN-1")
    assert device is not None
    assert reset(quick, str(device.uuid))["mayProvision"] is True
    assert quick.api.provision(device_name="SN-1").credentials == first.credentials
    assert quick.api.log_in(username=first.credentials.token).device_name == "SN-1"
    assert isinstance(quick.api.provision(device_name="SN-1"), PlatformError)


def test_a_reset_says_what_stands_in_the_way(quick: Rest) -> None:
    """A profile that creates devices refuses one that exists; the answer names the ways out."""
    quick.api.store.add_profile()
    quick.api.provision(device_name="SN-1")
    device = stored(quick, "SN-1")
    assert device is not None
    answer = reset(quick, str(device.uuid))
    assert (answer["mayProvision"], "delete this one" in answer["note"]) == (False, True)
    state = quick.api.store.read(lambda tx: tx.attribute(device.id, Scope.SERVER, PROVISION_STATE))
    assert state == "provisioned"


# -- lists ----------------------------------------------------------------------------------------


def test_gateways_are_listed_with_what_is_behind_them(rest: Rest) -> None:
    """Count of sub-devices and of those that speak, link state and last activity; a page of the tree."""
    uuid = made(rest, "gw", "g", additionalInfo={"gateway": True})
    for name in ("m-1", "m-2"):
        made(rest, name, name)
    numbers = {name: stored(rest, name).id for name in ("gw", "m-1", "m-2")}  # type: ignore[union-attr]

    def seen(tx: Any) -> None:
        for name in ("m-1", "m-2"):
            tx.put_sub_device(SubDevice(device_id=numbers[name], gateway_id=numbers["gw"], connected_ms=1))
        tx.put_presence([
            DevicePresence(device_id=numbers["gw"], is_active=True, last_connect_ms=5, last_activity_ms=7),
            DevicePresence(device_id=numbers["m-1"], is_active=True, last_connect_ms=5, last_disconnect_ms=6),
        ])  # fmt: skip

    rest.api.store.run(seen)
    page = rest.call("GET", "/api/gateways?pageSize=10&page=0")[1]
    (row,) = page["data"]
    assert (row["name"], row["subDevices"], row["activeSubDevices"]) == ("gw", 2, 1)
    assert (row["active"], row["connected"], row["lastActivityTime"]) == (True, True, 7)
    behind = rest.call("GET", f"/api/gateway/{uuid}/devices?pageSize=1&page=1&sortProperty=name")[1]
    assert (behind["totalElements"], [one["name"] for one in behind["data"]]) == (2, ["m-2"])
    meter = rest.call("GET", "/api/tenant/devices?deviceName=m-1")[1]
    one = rest.call("GET", f"/api/gateway/{id_of(meter)}")[1]
    assert (one["behind"]["name"], one["connected"], one["subDevices"]) == ("gw", False, 0)


def test_attempts_are_paged_and_filtered_in_the_database(rest: Rest) -> None:
    """By outcome, device, profile, time and text; without pageSize the old bare array comes."""
    rest.api.store.add_profile()
    rest.api.store.add_profile("other")
    for name in ("SN-1", "SN-2", "SN-1"):
        rest.api.provision(device_name=name)
    rest.api.now_s += 100
    rest.api.provision(device_name="X-1", provision_key="other-key", provision_secret="other-secret")
    rest.api.provision(device_name="X-2", provision_secret="wrong")

    def names(query: str) -> list[str]:
        status, page = rest.call("GET", f"/api/provisioning/attempts?pageSize=10&page=0&sortOrder=DESC{query}")
        assert status == 200, page
        return [one["deviceName"] for one in page["data"]]

    assert names("") == ["X-2", "X-1", "SN-1", "SN-2", "SN-1"]
    assert names("&outcome=DEVICE_EXISTS") == ["SN-1"]
    assert names("&outcome=REFUSED") == ["X-2", "SN-1"]
    assert names("&deviceName=SN-1&outcome=SUCCESS") == ["SN-1"]
    assert names("&textSearch=sn-2") == ["SN-2"]
    assert names("&startTs=1700000050000") == ["X-2", "X-1"]
    assert names("&endTs=1700000050000") == ["SN-1", "SN-2", "SN-1"]
    profiles = rest.call("GET", "/api/deviceProfiles?pageSize=10&page=0&textSearch=other")[1]["data"]
    assert names(f"&deviceProfileId={id_of(profiles[0])}") == ["X-1"]
    status, page = rest.call("GET", "/api/provisioning/attempts?pageSize=2&page=1&sortOrder=DESC")
    assert ([one["deviceName"] for one in page["data"]], page["totalElements"]) == (["SN-1", "SN-2"], 5)
    assert len(rest.call("GET", "/api/provisioning/attempts")[1]) == 5
    status, refused = rest.call("GET", "/api/provisioning/attempts?pageSize=2&page=0&outcome=BANANA")
    assert (status, "DEVICE_EXISTS" in refused["message"]) == (400, True)
