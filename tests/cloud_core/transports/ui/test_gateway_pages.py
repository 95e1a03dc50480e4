"""Gateways: the list, one of them, and what it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from cloud_core.core.gateway_metrics import METRICS_KEY
from cloud_core.model import Device, DevicePresence, Identity, Role, Scope, SubDevice, UserRole
from cloud_core.transports.http.ui.gateway_pages import connectors_of, size_text, told_of
from shared.messages import JsonValue
from tests.support.device_pages import HOSTILE, Fleet
from tests.support.stores import StoreUnderTest
from tests.support.ui import somebody


@pytest.fixture
def fleet(sqlite_store: StoreUnderTest) -> Iterator[Fleet]:
    fleet = Fleet(sqlite_store)
    fleet.run_timers()
    yield fleet
    fleet.browser.close()


@pytest.fixture
def gateway(fleet: Fleet) -> Device:
    return fleet.add("GW-1", additionalInfo={"gateway": True})


def put_behind(fleet: Fleet, gateway: Device, name: str) -> Device:
    device = fleet.add(name)
    place = SubDevice(device_id=device.id, gateway_id=gateway.id, connected_ms=1)
    fleet.store.run(lambda tx: tx.put_sub_device(place))
    return device


def test_the_list_tells_link_spool_and_health(fleet: Fleet, gateway: Device) -> None:
    """Of each gateway, and of nothing else."""
    put_behind(fleet, gateway, "PLC-1")
    fleet.add("GW-2", additionalInfo={"gateway": True})
    fleet.store.run(lambda tx: tx.put_presence([DevicePresence(device_id=gateway.id, last_connect_ms=5)]))
    fleet.store.append(gateway.id, [(1, {"recordsWaiting": 219, "connectorsDegraded": 1, "recordsDropped": "x"})])
    shown = fleet.browser.open("/ui/gateways")
    assert shown.status == 200 and "PLC-1" not in shown.words
    for said in ("GW-1", "connected", "219", "0 failed, 1 degraded", "GW-2", "away", "reports nothing"):
        assert said in shown.words
    assert shown.text.index("GW-1") < shown.text.index("GW-2")
    assert "GW-2" not in fleet.browser.open("/ui/gateways?q=1&sort=nonsense").words
    assert "Show all gateways" in fleet.browser.open("/ui/gateways?q=zzz").words


def test_a_gateway_shows_what_is_behind_it(fleet: Fleet, gateway: Device) -> None:
    """In pages, with search and order; and what it has told of itself."""
    for number in range(30):
        put_behind(fleet, gateway, f"PLC-{number:02d}")
    told = {"recordsWaiting": 7, "freeDiskBytes": 51_234_567_890, "recordsDropped": 2, "other": 1}
    metrics = JsonValue('{"modbus": {"avgGwLatency": 12}}')
    fleet.store.append(gateway.id, [(1, {**told, METRICS_KEY: metrics})])
    fleet.store.run(lambda tx: tx.put_attributes(gateway.id, Scope.SHARED, {"interval": 60}, now_ms=1))
    fleet.store.run(lambda tx: tx.put_attributes(gateway.id, Scope.CLIENT, {"version": "1.3"}, now_ms=1))
    url = f"/ui/gateways/{gateway.uuid}"
    words = fleet.browser.open(url).words
    for said in ("30 devices", "PLC-00", "PLC-24", "51.2 GB", "look at it", "modbus", "interval", "version"):
        assert said in words
    assert "PLC-25" not in words and "PLC-29" in fleet.browser.open(f"{url}?page=2").words
    found = fleet.browser.open(f"{url}?q=plc-07").words
    assert "PLC-07" in found and "PLC-08" not in found


def test_a_gateway_behind_a_gateway_leads_up_and_down(fleet: Fleet, gateway: Device) -> None:
    """The tree can be walked both ways."""
    below = fleet.add("GW-below", additionalInfo={"gateway": True})
    fleet.store.run(lambda tx: tx.put_sub_device(SubDevice(device_id=below.id, gateway_id=gateway.id, connected_ms=1)))
    assert f"/ui/gateways/{below.uuid}" in fleet.browser.open(f"/ui/gateways/{gateway.uuid}").text
    assert f"/ui/gateways/{gateway.uuid}" in fleet.browser.open(f"/ui/gateways/{below.uuid}").text


def test_a_device_that_is_no_gateway_is_shown_as_one(fleet: Fleet) -> None:
    """The address leads to its own page; of nothing there is none."""
    device = fleet.add("SN-1")
    assert fleet.browser.open(f"/ui/gateways/{device.uuid}").location == f"/ui/devices/{device.uuid}"
    assert fleet.browser.open(f"/ui/gateways/{uuid4()}").status == 404


def test_last_events_of_this_gateway(fleet: Fleet, gateway: Device) -> None:
    """When its link came and went, and not that of another."""
    other = fleet.add("GW-2", additionalInfo={"gateway": True})
    url = f"/ui/gateways/{gateway.uuid}"
    for device, is_open in ((other, True), (gateway, True), (gateway, False)):
        who = Identity(Role.GATEWAY, device.tenant_id, device.id, device.uuid, device.name)
        fleet.api.events.gateway_session(who, is_open)
    shown = fleet.browser.open(url).text.partition("Last events")[2]
    assert shown.count("link lost") == 1 and shown.count("connected") == 1
    assert shown.index("link lost") < shown.index("connected")


def test_a_gateway_is_asked(fleet: Fleet, gateway: Device) -> None:
    """Its answer stands in the page; one that is away is told; methods of others are none of this page."""
    url = f"/ui/gateways/{gateway.uuid}/call"
    away = fleet.browser.submit(url, {"method": "gateway_ping"})
    assert away.status == 400 and "not connected" in away.words
    downlink = fleet.connect(gateway, {"success": True, "resp": "pong"})
    shown = fleet.browser.submit(url, {"method": "gateway_ping"})
    assert shown.status == 200 and '"resp": "pong"' in shown.words
    assert [one.method for one in downlink.commands] == ["gateway_ping"]
    assert fleet.browser.submit(url, {"method": "gateway_shell"}).status == 400
    assert fleet.browser.submit(f"/ui/gateways/{fleet.add('SN').uuid}/call", {"method": "gateway_ping"}).status == 400


@pytest.mark.parametrize("role", list(UserRole))
def test_who_may_ask_sees_the_buttons(fleet: Fleet, gateway: Device, role: UserRole) -> None:
    """A viewer looks."""
    fleet.browser.log_in_as(somebody(role))
    shown = fleet.browser.open(f"/ui/gateways/{gateway.uuid}")
    is_operator = role is not UserRole.VIEWER
    assert shown.status == 200 and ("Ask the gateway" in shown.words) is is_operator
    done = fleet.browser.submit(f"/ui/gateways/{gateway.uuid}/call", {"method": "gateway_ping"})
    assert done.status == (400 if is_operator else 403)


def test_a_customers_user_has_no_gateways(fleet: Fleet, gateway: Device) -> None:
    """Neither the list nor a single one."""
    fleet.look_as_customer(fleet.customer("mine"))
    for path in ("/ui/gateways", f"/ui/gateways/{gateway.uuid}"):
        assert fleet.browser.open(path).status == 403


def test_no_gateways_yet(fleet: Fleet) -> None:
    """The page says how there come to be some."""
    assert "No gateways yet" in fleet.browser.open("/ui/gateways").words


def test_what_a_gateway_says_is_text(fleet: Fleet, gateway: Device) -> None:
    """Markup in its reports and in names behind it is shown as it is written."""
    number = fleet.store.add_device(HOSTILE, fleet.store.add_profile(HOSTILE))
    fleet.store.run(lambda tx: tx.put_sub_device(SubDevice(device_id=number, gateway_id=gateway.id, connected_ms=1)))
    fleet.store.append(gateway.id, [(1, {METRICS_KEY: JsonValue('{"<script>a": {"avgGwLatency": "<script>a"}}')})])
    fleet.store.run(lambda tx: tx.put_attributes(gateway.id, Scope.CLIENT, {HOSTILE: HOSTILE}, now_ms=1))
    fleet.connect(gateway, {"x": HOSTILE})
    shown = fleet.browser.submit(f"/ui/gateways/{gateway.uuid}/call", {"method": "gateway_stats"})
    assert shown.status == 200 and "<script>a" not in shown.text and HOSTILE in shown.words


@pytest.mark.parametrize("text", ["[]", "1", '{"a": 1}', '{"a": {"b": {}}}', "{"])
def test_a_report_that_is_none_is_left_out(text: str) -> None:
    """Whatever a gateway sends under that name."""
    for name, numbers in connectors_of((1, JsonValue(text))):
        assert name == "a" and set(numbers.values()) == {None}
    assert told_of({"recordsWaiting": (1, True), "devices": (1, "3"), "spoolBytes": (1, 5)})[0].text == "5 B"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (2_411_724, "2.41 MB"), (5e13, "50 TB"), (-2_000, "-2 kB")]
)
def test_sizes_read_well(value: float, text: str) -> None:
    """In the largest unit that it has one of."""
    assert size_text(value) == text
