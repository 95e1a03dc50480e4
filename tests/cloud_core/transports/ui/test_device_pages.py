"""One device: facts, telemetry, attributes, commands, credentials, provisioning."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from cloud_core.model import Attempt, Device, Peer, Scope, SubDevice, Transport, UserRole
from cloud_core.transports.http.ui import device_command_pages
from cloud_core.transports.http.ui.device_frame import TABS, device_url
from shared.credentials import AccessToken, MqttBasic, X509Certificate
from shared.messages import JsonValue
from tests.support.device_pages import HOSTILE, Fleet
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Shown, somebody

SECRET = "s3cret-Token-of-mine"


@pytest.fixture
def fleet(sqlite_store: StoreUnderTest) -> Iterator[Fleet]:
    fleet = Fleet(sqlite_store)
    fleet.run_timers()
    yield fleet
    fleet.browser.close()


@pytest.fixture
def device(fleet: Fleet) -> Device:
    return fleet.add("SN-1", token=SECRET, label="roof", additionalInfo={"note": "kept"})


def open_tab(fleet: Fleet, device: Device, tab: str = "") -> Shown:
    return fleet.browser.open(device_url(device.uuid, tab))


def submit(fleet: Fleet, device: Device, where: str, **fields: str) -> Shown:
    return fleet.browser.submit(f"/ui/devices/{device.uuid}/{where}", fields)


def stored_credentials(fleet: Fleet, device: Device) -> Any:
    return fleet.store.read(lambda tx: tx.credentials(device.id))


# -- who sees what ---------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(UserRole))
def test_every_tab_opens_for_whom_it_is(fleet: Fleet, device: Device, role: UserRole) -> None:
    """Others are refused it, and are not shown the way there; no tab has the secret in it."""
    fleet.browser.log_in_as(somebody(role))
    facts = open_tab(fleet, device)
    for tab in TABS:
        is_open = role is not UserRole.VIEWER or tab.name != "credentials"
        shown = open_tab(fleet, device, tab.name)
        assert shown.status == (200 if is_open else 403), tab.name
        assert (f">{tab.title}</a>" in facts.text) is is_open
        assert SECRET not in shown.text
        assert not is_open or 'aria-current="page"' in shown.text


def test_a_viewer_changes_nothing(fleet: Fleet, device: Device) -> None:
    """Neither are there buttons, nor do forms do anything."""
    fleet.browser.log_in_as(somebody(UserRole.VIEWER))
    for tab in ("", "attributes", "commands", "provisioning"):
        assert open_tab(fleet, device, tab).text.count('method="post"') == 2  # of the frame: theme, logout
    for where in (
        "save", "customer", "delete", "attributes", "attributes/delete", "commands", f"commands/{uuid4()}/delete",
        "credentials", "credentials/reveal", "provisioning/reset", "provisioning/replace",
    ):  # fmt: skip
        assert submit(fleet, device, where).status == 403, where
    assert fleet.device(device.uuid) == device


def test_a_customers_user_sees_the_customers_device(fleet: Fleet, device: Device) -> None:
    """Its facts and data, nothing more; a device of somebody else is refused."""
    mine = fleet.customer("mine")
    fleet.look_as_customer(mine)
    assert open_tab(fleet, device).status == 403
    fleet.store.run(lambda tx: tx.assign_device(device.id, mine.id))
    for tab, status in (
        ("", 200), ("telemetry", 200), ("attributes", 200), ("commands", 403), ("credentials", 403),
        ("provisioning", 403),
    ):  # fmt: skip
        shown = open_tab(fleet, device, tab)
        assert shown.status == status and SECRET not in shown.text
    assert "/ui/gateways" not in open_tab(fleet, device).text
    assert submit(fleet, device, "credentials/reveal").status == 403


def test_names_are_text_everywhere(fleet: Fleet) -> None:
    """Markup in a name, a key, a value, a method or a detail is shown as it is written."""
    number = fleet.store.add_device(HOSTILE, fleet.store.add_profile(HOSTILE))
    device = fleet.store.read(lambda tx: tx.device_by_id(number))
    fleet.store.append(number, [(1, {HOSTILE: HOSTILE, "n": 1})])
    fleet.store.run(lambda tx: tx.put_attributes(number, Scope.SHARED, {HOSTILE: HOSTILE}, now_ms=1))
    log_attempt(fleet, HOSTILE, detail=HOSTILE)
    submit(fleet, device, "commands", method=HOSTILE, params=f'"{HOSTILE}"', way="waiting")
    for tab in (*(one.name for one in TABS), "delete"):
        shown = open_tab(fleet, device, tab)
        assert shown.status == 200 and "<script>a" not in shown.text and HOSTILE in shown.words


def test_what_is_not_there_is_told(fleet: Fleet) -> None:
    """A device that is gone, or an address that is none."""
    for path in (f"/ui/devices/{uuid4()}", "/ui/devices/x", f"/ui/devices/{uuid4()}/telemetry", "/ui/devices/x/y"):
        assert fleet.browser.open(path).status == 404


# -- facts -----------------------------------------------------------------------------------------


def test_facts_tell_where_a_device_is(fleet: Fleet, device: Device) -> None:
    """Profile, customer, label, gateway; and what is connected of it by which way."""
    gateway = fleet.add("GW", additionalInfo={"gateway": True})
    place_behind(fleet, gateway, device)
    owner = fleet.customer("Works North")
    fleet.store.run(lambda tx: tx.assign_device(device.id, owner.id))
    assert "Nothing is open now" in open_tab(fleet, device).words
    fleet.connect(device)
    words = open_tab(fleet, device).words
    for said in ("default", "roof", "Works North", "GW", "MQTT 192.0.2.7 commands", "connected"):
        assert said in words
    assert "1 devices" in open_tab(fleet, gateway).words


def place_behind(fleet: Fleet, gateway: Device, device: Device) -> None:
    place = SubDevice(device_id=device.id, gateway_id=gateway.id, connected_ms=1, is_created_by_gateway=True)
    fleet.store.run(lambda tx: tx.put_sub_device(place))


def test_a_device_is_changed(fleet: Fleet, device: Device) -> None:
    """What the form does not have stays; a version that is over is refused."""
    fields = {"name": "SN-2", "label": "cellar", "profile": "default", "version": str(device.version)}
    done = submit(fleet, device, "save", gateway="yes", **fields)
    assert done.location == device_url(device.uuid)
    changed = fleet.device(device.uuid)
    assert changed is not None and (changed.name, changed.label, changed.is_gateway) == ("SN-2", "cellar", True)
    assert changed.document["additionalInfo"] == {"note": "kept", "gateway": True}
    again = submit(fleet, device, "save", **fields | {"label": "typed"})
    assert again.status == 400 and 'value="typed"' in again.text and 'role="alert"' in again.text
    fields["version"] = str(changed.version)
    submit(fleet, device, "save", **fields)
    changed = fleet.device(device.uuid)
    assert changed is not None and not changed.is_gateway
    assert changed.document["additionalInfo"] == {"note": "kept"}


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"version": "x", "name": "a"}, {"version": "9" * 5_000, "name": "a"},
        {"version": "1", "name": ""}, {"version": "1", "name": HOSTILE},
        {"version": "1", "name": "x" * 10_000}, {"version": "1", "name": "other"},
    ],
)  # fmt: skip
def test_a_refused_change_is_shown_again(fleet: Fleet, device: Device, fields: dict[str, str]) -> None:
    """Nothing has changed, and the problem stands above the form."""
    fleet.add("other")
    shown = submit(fleet, device, "save", **fields)
    assert shown.status == 400 and 'role="alert"' in shown.text and "<script>a" not in shown.text
    assert fleet.device(device.uuid) == device


def test_a_device_is_given_and_taken_back(fleet: Fleet, device: Device) -> None:
    """To a customer by a choice; a customer that is none is refused in the form."""
    owner = fleet.customer("Works North")
    assert submit(fleet, device, "customer", customer=str(owner.uuid)).status == 303
    given = fleet.device(device.uuid)
    assert given is not None and given.customer_id == owner.id
    assert submit(fleet, device, "customer").status == 303
    assert submit(fleet, device, "customer").status == 400
    wrong = submit(fleet, device, "customer", customer=str(uuid4()))
    assert wrong.status == 400 and "is not found" in wrong.words


def test_a_device_is_deleted_after_a_question(fleet: Fleet, device: Device) -> None:
    """The question says what goes with it."""
    assert "cannot be undone" in open_tab(fleet, device, "delete").words
    assert fleet.device(device.uuid) is not None
    done = submit(fleet, device, "delete")
    assert done.location == "/ui/devices" and fleet.device(device.uuid) is None
    assert "SN-1 is deleted" in fleet.browser.open("/ui/devices").words


# -- telemetry -------------------------------------------------------------------------------------


def test_telemetry_shows_latest_values_and_a_chart(fleet: Fleet, device: Device) -> None:
    """Of the first key that is a number, or of the one that is asked for; keys of other kinds have none."""
    now_ms = int(time.time() * 1000)
    samples = [(now_ms - at * 60_000, {"b": at, "a": at * 2.5}) for at in range(20)]
    fleet.store.append(device.id, [*samples, (now_ms, {"text": "on", "doc": JsonValue("{}"), "flag": True})])
    shown = open_tab(fleet, device, "telemetry")
    assert shown.text.count("<svg") == 1 and "a, last 1 hour: from 0 to 47.5, last 0" in shown.text
    assert 'data-live-every="5"' in shown.text
    week = open_tab(fleet, device, "telemetry?key=b&range=7d")
    assert "b, last 7 days" in week.text
    text = open_tab(fleet, device, "telemetry?key=text")
    assert "No numbers in the last 1 hour" in text.words
    assert "a, last 1 hour" in open_tab(fleet, device, "telemetry?key=none&range=9y").text


def test_no_telemetry_yet(fleet: Fleet, device: Device) -> None:
    """The page waits for the first of it."""
    assert "No telemetry yet" in open_tab(fleet, device, "telemetry").words


# -- attributes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("21.5", 21.5),
        ("true", True),
        ("on", "on"),
        ('"7"', 7),
        ('"true"', "true"),
        ('{"a": [1]}', JsonValue('{"a":[1]}')),
        ("{x", "{x"),
    ],
)
def test_an_attribute_is_saved_as_it_reads(fleet: Fleet, device: Device, typed: str, stored: Any) -> None:
    """JSON where it is JSON, else text; the form for changing it says the same again."""
    done = submit(fleet, device, "attributes", scope="shared", key="k", value=typed)
    assert done.status == 303
    (entry,) = fleet.store.read(lambda tx: tx.attributes(device.id, Scope.SHARED))
    assert (entry.key, entry.value) == ("k", stored)
    form = open_tab(fleet, device, "attributes?scope=shared&edit=k")
    assert "Change an attribute" in form.words
    assert ("&#34;true&#34;" in form.text) is (stored == "true")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"scope": "client", "key": "k", "value": "1"}, "shared or server"),
        ({"scope": "shared", "value": "1"}, "name"),
        ({"scope": "shared", "key": "k"}, "value"), ({"scope": "server", "key": "active", "value": "true"}, "active"),
        ({"scope": "shared", "key": "k", "value": "null"}, "null"), ({"key": "k", "value": "1"}, "shared or server"),
        ({"scope": "shared", "key": "k" * 300, "value": "1"}, ""),
    ],
)  # fmt: skip
def test_a_refused_attribute_is_shown_again(fleet: Fleet, device: Device, fields: dict[str, str], problem: str) -> None:
    """With the problem, and nothing is stored."""
    shown = submit(fleet, device, "attributes", **fields)
    assert shown.status == 400 and problem in shown.words and 'role="alert"' in shown.text
    assert fleet.store.read(lambda tx: tx.attributes(device.id, Scope.SHARED)) == []


def test_an_attribute_is_deleted(fleet: Fleet, device: Device) -> None:
    """Of the server and shared ones; what the device has told stays its own."""
    for scope in (Scope.SERVER, Scope.CLIENT):
        fleet.store.run(lambda tx, scope=scope: tx.put_attributes(device.id, scope, {"k,1": 1}, now_ms=1))
    assert submit(fleet, device, "attributes/delete", scope="server", key="k,1").status == 303
    assert fleet.store.read(lambda tx: tx.attributes(device.id, Scope.SERVER, ["k,1"])) == []
    assert submit(fleet, device, "attributes/delete", scope="client", key="k,1").status == 400
    assert submit(fleet, device, "attributes/delete", scope="server").status == 400


# -- commands --------------------------------------------------------------------------------------


def test_a_command_is_answered(fleet: Fleet, device: Device) -> None:
    """The answer stands in the page; the parameters reach the device as JSON."""
    downlink = fleet.connect(device, {"ok": True})
    shown = submit(fleet, device, "commands", method="ping", params='{"a": 1}', way="twoway", timeout="5")
    assert shown.status == 200 and '{"ok":true}' in shown.words
    assert (downlink.commands[0].method, downlink.commands[0].params) == ("ping", {"a": 1})
    one_way = submit(fleet, device, "commands", method="ping", way="oneway")
    assert "The device has the command" not in shown.words and one_way.status == 200


def test_a_device_that_is_away_or_silent_is_told(fleet: Fleet, device: Device) -> None:
    """With what can be done about it, and what was typed."""
    away = submit(fleet, device, "commands", method="ping", params="[1]", way="twoway")
    assert away.status == 400 and "not connected" in away.words and "[1]" in away.text
    fleet.connect(device)
    browser = fleet.browser
    token = browser.open("/ui/account").text.partition('name="form_token" value="')[2].partition('"')[0]
    body = f"form_token={token}&method=ping&way=twoway&timeout=5".encode()
    browser.send(
        f"POST /ui/devices/{device.uuid}/commands HTTP/1.1\r\nHost: h\r\n{browser._cookie_header()}"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    browser.settle()
    assert not browser.transport.value()
    browser.clock.advance(6.0)
    assert "Give it more time" in browser._shown().words


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"method": ""}, "name of the method"), ({"method": "a", "params": "{x"}, "not JSON"),
        ({"method": "a" * 300}, "255"), ({"method": "a", "timeout": "0"}, "from 5 to 300"),
        ({"method": "a", "timeout": "9" * 30}, "from 5 to 300"), ({"method": "a", "hours": "x"}, "from 1 to 8760"),
        ({"method": "a", "params": "[" * 5_000}, "JSON"),
    ],
)  # fmt: skip
def test_a_refused_command_is_shown_again(fleet: Fleet, device: Device, fields: dict[str, str], problem: str) -> None:
    """With the problem beside the form."""
    shown = submit(fleet, device, "commands", way="twoway", **fields)
    assert shown.status == 400 and problem in shown.words


def test_a_command_waits_and_is_taken_back(fleet: Fleet, device: Device) -> None:
    """It stands in the list with its state until then; a command of another device is none of this page."""
    fleet.api.now_ms = lambda: int(time.time() * 1000)  # type: ignore[method-assign]
    done = submit(fleet, device, "commands", method="reboot", way="waiting", hours="1")
    assert done.status == 303
    page = open_tab(fleet, device, "commands")
    assert "reboot" in page.words and "queued" in page.words
    where = page.text.partition(f'action="/ui/devices/{device.uuid}/commands/')[2].partition("/delete")[0]
    other = fleet.add("other")
    assert submit(fleet, other, f"commands/{where}/delete").status == 400
    assert submit(fleet, device, f"commands/{where}/delete").status == 303
    assert "reboot" not in open_tab(fleet, device, "commands").words.replace("The command reboot is taken back", "")


def test_what_a_device_answers_is_bounded() -> None:
    """A page does not grow with it."""
    assert len(device_command_pages.shown("x" * 100_000)) <= device_command_pages.MAX_SHOWN_CHARS + 1
    assert device_command_pages.shown(None) == ""


# -- credentials -----------------------------------------------------------------------------------


def test_a_secret_shows_when_it_is_asked_for(fleet: Fleet, device: Device) -> None:
    """By a form of the page alone, and never kept by the browser."""
    assert SECRET not in open_tab(fleet, device, "credentials").text
    assert SECRET not in fleet.browser.open(f"/ui/devices/{device.uuid}/credentials/reveal").text
    foreign = fleet.browser.submit(f"/ui/devices/{device.uuid}/credentials/reveal", token="0" * 32)
    assert foreign.status == 403 and SECRET not in foreign.text
    shown = submit(fleet, device, "credentials/reveal")
    assert SECRET in shown.text and shown.headers["cache-control"] == "no-store"


def replaced(fleet: Fleet, device: Device, **fields: str) -> Shown:
    stored = stored_credentials(fleet, device)
    return submit(fleet, device, "credentials", **{"known": str(stored.uuid), "version": str(stored.version)} | fields)


def test_credentials_of_each_kind_are_put(fleet: Fleet, device: Device) -> None:
    """An access token is made where none is given; the password of the others stays hidden as well."""
    assert replaced(fleet, device, kind="ACCESS_TOKEN").status == 303
    made = stored_credentials(fleet, device).credentials
    assert isinstance(made, AccessToken) and made.token != SECRET and len(made.token) == 20
    assert replaced(fleet, device, kind="ACCESS_TOKEN", token="mine").status == 303
    assert stored_credentials(fleet, device).credentials == AccessToken("mine")
    basic = {"kind": "MQTT_BASIC", "user_name": "meter", "mqtt_password": " p w "}
    assert replaced(fleet, device, **basic).status == 303
    assert stored_credentials(fleet, device).credentials == MqttBasic("", "meter", " p w ")
    page = open_tab(fleet, device, "credentials")
    assert "meter" in page.words and "p w" not in page.words
    assert " p w " in submit(fleet, device, "credentials/reveal").text
    assert replaced(fleet, device, kind="X509_CERTIFICATE", certificate="AA:BB").status == 303
    assert stored_credentials(fleet, device).credentials == X509Certificate("AA:BB")
    assert "Reveal" not in open_tab(fleet, device, "credentials").words


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "ACCESS_TOKEN", "token": "x" * 2_000}, {"kind": "ACCESS_TOKEN", "token": "held"}, {"kind": "NONE"},
        {"kind": "MQTT_BASIC", "mqtt_password": "typed-pass"}, {"kind": "X509_CERTIFICATE"},
        {"kind": "X509_CERTIFICATE", "certificate": "-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----"},
        {"kind": "ACCESS_TOKEN", "token": "fine", "version": "7"},
    ],
)  # fmt: skip
def test_refused_credentials_change_nothing(fleet: Fleet, device: Device, fields: dict[str, str]) -> None:
    """The problem stands in the form, and no secret that was typed."""
    fleet.add("other", token="held")
    shown = replaced(fleet, device, **fields)
    assert shown.status == 400 and 'role="alert"' in shown.text
    assert "typed-pass" not in shown.text and 'value="fine"' not in shown.text
    assert stored_credentials(fleet, device).credentials == AccessToken(SECRET)


# -- provisioning ----------------------------------------------------------------------------------


def log_attempt(fleet: Fleet, name: str, **members: Any) -> None:
    attempt = Attempt(
        ref=f"REF-{name}-{members}"[:40], at_ms=1, peer=Peer(Transport.MQTT, "192.0.2.9"),
        stage="secret", tenant_id=TENANT, device_name=name,
        outcome="INVALID_PROVISION_CREDENTIALS", **members,
    )  # fmt: skip
    fleet.store.run(lambda tx: tx.log_attempt(attempt))


def test_the_history_of_a_name(fleet: Fleet, device: Device) -> None:
    """Its attempts with reference, reason and fix, and nobody else's."""
    log_attempt(fleet, "SN-1", detail="wrong secret")
    log_attempt(fleet, "SN-10", detail="of another")
    words = open_tab(fleet, device, "provisioning").words
    for said in ("INVALID_PROVISION_CREDENTIALS", "wrong secret", "192.0.2.9", "REF-SN-1", "Compare key and secret"):
        assert said in words
    assert "of another" not in words


def test_provisioning_is_reset(fleet: Fleet) -> None:
    """The mark goes; with new credentials the old ones end."""
    profile = fleet.store.add_profile("pre", strategy="CHECK_PRE_PROVISIONED_DEVICES")
    number = fleet.store.add_device("SN-7", profile)
    device = fleet.store.read(lambda tx: tx.device_by_id(number))
    fleet.store.run(lambda tx: tx.put_attributes(number, Scope.SERVER, {"provisionState": "provisioned"}, now_ms=1))
    before = stored_credentials(fleet, device).credentials
    assert "provisioned" in open_tab(fleet, device, "provisioning").words
    done = submit(fleet, device, "provisioning/reset", new_credentials="yes")
    assert done.location == device_url(device.uuid, "provisioning")
    assert "may provision once more" in open_tab(fleet, device, "provisioning").words
    assert stored_credentials(fleet, device).credentials != before
    assert fleet.store.read(lambda tx: tx.attribute(number, Scope.SERVER, "provisionState")) is None


def test_another_unit_takes_the_place(fleet: Fleet, device: Device) -> None:
    """First it is told what would happen; then the unit is the device."""
    unit = fleet.add("SN-new", token="of-the-unit")
    plan = submit(fleet, device, "provisioning/replace", unit="SN-new")
    assert plan.status == 200 and "The unit SN-new becomes SN-1" in plan.words
    assert fleet.device(unit.uuid) is not None
    done = submit(fleet, device, "provisioning/replace", unit="SN-new", go="yes")
    assert done.status == 303 and fleet.device(unit.uuid) is None
    assert stored_credentials(fleet, device).credentials == AccessToken("of-the-unit")


@pytest.mark.parametrize("unit", ["", "nobody", "SN-1", HOSTILE, "x" * 5_000])
def test_a_unit_that_cannot_take_the_place(fleet: Fleet, device: Device, unit: str) -> None:
    """Is told beside the form."""
    shown = submit(fleet, device, "provisioning/replace", unit=unit)
    assert shown.status == 400 and 'role="alert"' in shown.text and "<script>a" not in shown.text


def test_pages_stay_light_however_much_a_device_has(fleet: Fleet, device: Device) -> None:
    """What is not shown is counted, and a search finds it."""
    many = {f"key-{number:04d}": "v" * 5_000 for number in range(600)}
    fleet.store.append(device.id, [(1, dict.fromkeys(many, "v" * 500))])
    for scope in Scope:
        fleet.store.run(lambda tx, scope=scope: tx.put_attributes(device.id, scope, many, now_ms=1))
    for tab in ("telemetry", "attributes"):
        shown = open_tab(fleet, device, tab)
        assert len(shown.text) < 80_000 and "search for them" in shown.words and "key-0599" not in shown.words
        assert "key-0599" in open_tab(fleet, device, f"{tab}?q=0599").words
        assert "like this" in open_tab(fleet, device, f"{tab}?q=zzz").words


@pytest.mark.parametrize(
    ("form", "page"),
    [
        ("save", ""), ("customer", ""), ("attributes/delete", "attributes"), ("commands/x/delete", "commands"),
        ("credentials/reveal", "credentials"), ("provisioning/reset", "provisioning"),
        ("provisioning/replace", "provisioning"),
    ],
)  # fmt: skip
def test_a_page_that_a_form_has_shown_can_be_loaded_again(fleet: Fleet, device: Device, form: str, page: str) -> None:
    """It leads to the page that the form stands on; for nobody without a login."""
    assert open_tab(fleet, device, form).location == device_url(device.uuid, page)
    fleet.browser.cookies = {}
    assert open_tab(fleet, device, form).location.startswith("/ui/login")
