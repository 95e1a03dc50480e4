"""The list of devices, its file, and a new device."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterator

import pytest

from cloud_core.core import lists
from cloud_core.core.lists import ListedDevice
from cloud_core.model import DevicePresence, UserRole
from cloud_core.transports.http.ui import devices_pages
from cloud_core.transports.http.ui.devices_pages import csv_line
from shared.errors import Unavailable
from tests.support.device_pages import HOSTILE, Fleet
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Shown, somebody


@pytest.fixture
def fleet(sqlite_store: StoreUnderTest) -> Iterator[Fleet]:
    fleet = Fleet(sqlite_store)
    yield fleet
    fleet.browser.close()


def stored_stages(fleet: Fleet) -> None:
    """Three devices: created, issued, confirmed; the last is an active gateway."""
    fleet.add("one", type="meter", label="cellar")
    two = fleet.add("two", type="pump")
    three = fleet.add("three", type="pump", additionalInfo={"gateway": True})

    def live(tx: object) -> None:
        for device, confirmed in ((two, False), (three, True)):
            stored = tx.credentials(device.id).credentials  # type: ignore[attr-defined]
            tx.put_credentials(device.id, stored, now_ms=2, issued_ms=2)  # type: ignore[attr-defined]
            if confirmed:
                tx.mark_confirmed(device.id, now_ms=3)  # type: ignore[attr-defined]
        tx.put_presence([DevicePresence(device_id=three.id, is_active=True)])  # type: ignore[attr-defined]

    fleet.store.run(live)


def exported(shown: bytes) -> list[list[str]]:
    """The rows of a chunked answer."""
    head, _, rest = shown.partition(b"\r\n\r\n")
    assert b"chunked" in head.lower()
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return list(csv.reader(io.StringIO(body.decode())))
        body, rest = body + rest[:length], rest[length + 2 :]
    raise AssertionError("the file is not whole")


def export(fleet: Fleet, query: str = "") -> list[list[str]]:
    browser = fleet.browser
    browser.ask(f"/ui/devices/export{query}", browser._cookie_header())
    browser.settle()
    data: bytes = browser.transport.value()
    browser.transport.clear()
    return exported(data)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["one", "three", "two"]), ("?q=cell", ["one"]), ("?profile=pump", ["three", "two"]),
        ("?stage=CREATED", ["one"]), ("?stage=issued", ["two"]), ("?stage=CONFIRMED", ["three"]),
        ("?active=yes", ["three"]), ("?active=no", ["one", "two"]), ("?gateway=yes", ["three"]),
        ("?gateway=no&q=two", ["two"]), ("?stage=nonsense&active=7", ["one", "three", "two"]), ("?profile=none", []),
        ("?sort=password&order=up&page=x", ["one", "three", "two"]),
    ],
)  # fmt: skip
def test_the_list_shows_what_is_asked_for(fleet: Fleet, query: str, names: list[str]) -> None:
    """Search and filters narrow the list and its file alike; what cannot be read narrows nothing."""
    stored_stages(fleet)
    shown = fleet.browser.open(f"/ui/devices{query}")
    assert shown.status == 200
    assert sorted(one for one in ("one", "two", "three") if f">{one}</a>" in shown.text) == names
    assert [row[0] for row in export(fleet, query)[1:]] == names


def test_the_order_turns(fleet: Fleet) -> None:
    """A head of a column sorts by it, and then the other way."""
    stored_stages(fleet)

    def order(shown: Shown) -> list[int]:
        return [shown.text.index(f">{name}</a>") for name in ("one", "three", "two")]

    up = order(fleet.browser.open("/ui/devices?sort=name&order=ASC"))
    down = order(fleet.browser.open("/ui/devices?sort=name&order=DESC"))
    assert up == sorted(up) and down == sorted(down, reverse=True)


def test_the_file_has_no_secret_and_no_formula(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read part by part; cells that a spreadsheet would carry out are text."""
    monkeypatch.setattr(lists, "ROWS_AT_ONCE", 2)
    for name in ("=cmd()", "@x", "plain", "z"):
        fleet.add(name, label="-1+1", token=f"secret-{name[-1]}")
    rows = export(fleet)
    assert [row[0] for row in rows] == ["name", "'=cmd()", "'@x", "plain", "z"]
    assert {row[2] for row in rows[1:]} == {"'-1+1"}
    assert "secret" not in str(rows)


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1"])
def test_a_formula_stands_behind_an_apostrophe(text: str) -> None:
    """Whatever sign a spreadsheet would begin one with."""
    assert next(csv.reader(io.StringIO(csv_line([text, "a"]).decode(), newline=""))) == [f"'{text}", "a"]


def test_a_browser_that_leaves_ends_the_file(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it takes nothing, nothing is read; when it goes, the rest is not read at all."""
    monkeypatch.setattr(lists, "ROWS_AT_ONCE", 1)
    read: list[str] = []
    known = lists.devices_after

    def counted(tx: object, *args: object) -> object:
        read.append(str(args[2]))
        return known(tx, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(lists, "devices_after", counted)
    for name in "abcdefgh":
        fleet.add(name)
    browser = fleet.browser
    browser.send(f"GET /ui/devices/export HTTP/1.1\r\nHost: h\r\n{browser._cookie_header()}\r\n".encode())
    browser.transport.producer.pauseProducing()
    browser.settle()
    before = len(read)
    assert before < 4
    browser.lose()
    for _ in range(8):
        browser.api.store.survey(lambda tx: None)
    assert len(read) <= before + 1


def test_a_device_is_created(fleet: Fleet) -> None:
    """It is there afterwards, as the form said, and its page is shown."""
    fields = {"name": "SN 1", "profile": "default", "label": "roof", "gateway": "yes", "access_token": "mine-1"}
    done = fleet.browser.submit("/ui/devices/new", fields)
    assert done.status == 303 and done.location.startswith("/ui/devices/")
    page = fleet.browser.open(done.location)
    assert "SN 1 is created" in page.words and "roof" in page.words and "mine-1" not in page.text
    device = fleet.store.read(lambda tx: tx.device_by_name(TENANT, "SN 1"))
    assert device.is_gateway
    assert fleet.store.read(lambda tx: tx.credentials(device.id)).credentials.token == "mine-1"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": ""}, "name"), ({"name": "taken"}, "already exists"), ({"name": "x" * 300}, "255"),
        ({"name": HOSTILE}, "name"), ({"name": "new", "access_token": "held"}, "already registered"),
        ({"name": "new", "access_token": "a\x00b"}, "control"),
    ],
)  # fmt: skip
def test_a_refused_form_is_shown_again(fleet: Fleet, fields: dict[str, str], problem: str) -> None:
    """With what was typed, the token excepted, and with the problem."""
    fleet.add("taken", token="held")
    shown = fleet.browser.submit("/ui/devices/new", {"profile": "default", "label": "kept"} | fields)
    assert shown.status == 400 and problem in shown.words
    assert 'value="kept"' in shown.text and "<script>alert" not in shown.text
    assert fields.get("access_token", "~") not in shown.text


def test_names_are_text(fleet: Fleet) -> None:
    """Markup in a label, a profile or a search is shown as it is written."""
    fleet.store.add_device(HOSTILE, fleet.store.add_profile("<b>profile"))
    for path in ("/ui/devices", "/ui/devices?q=%3Cscript%3E", "/ui/devices?profile=%22%3E%3Cb%3Eboo"):
        shown = fleet.browser.open(path)
        assert shown.status == 200 and "<b>" not in shown.text and "<script>a" not in shown.text
    assert HOSTILE in fleet.browser.open("/ui/devices").words


@pytest.mark.parametrize("role", list(UserRole))
def test_who_may_create_sees_the_button(fleet: Fleet, role: UserRole) -> None:
    """A viewer looks and takes the file; the form is not for them."""
    fleet.add("one")
    fleet.browser.log_in_as(somebody(role))
    is_writer = role is not UserRole.VIEWER
    assert ("New device" in fleet.browser.open("/ui/devices").words) is is_writer
    assert fleet.browser.open("/ui/devices/new").status == (200 if is_writer else 403)
    done = fleet.browser.submit("/ui/devices/new", {"name": "two", "profile": "default"})
    assert done.status == (303 if is_writer else 403)
    assert len(export(fleet)) == (3 if is_writer else 2)


def test_a_customers_user_sees_their_own(fleet: Fleet) -> None:
    """In the list, in the search and in the file."""
    mine, other = fleet.customer("mine"), fleet.customer("other")
    fleet.add("theirs", customerId={"entityType": "CUSTOMER", "id": str(other.uuid)})
    fleet.add("ours", customerId={"entityType": "CUSTOMER", "id": str(mine.uuid)})
    fleet.look_as_customer(mine)
    for path in ("/ui/devices", "/ui/devices?q=s", "/ui/devices?stage=CREATED"):
        shown = fleet.browser.open(path)
        assert "ours" in shown.words and "theirs" not in shown.words
        assert "data-live=" not in shown.text  # events are not for them
    assert [row[0] for row in export(fleet)] == ["name", "ours"]


def test_an_empty_list_says_what_to_do(fleet: Fleet) -> None:
    """Where there are none, where none matches, and behind the end."""
    assert "No devices yet. Create one" in fleet.browser.open("/ui/devices").words
    fleet.add("one")
    assert "Show all devices" in fleet.browser.open("/ui/devices?q=zzz").words
    assert "Go to its beginning" in fleet.browser.open("/ui/devices?page=9").words


def test_a_file_that_cannot_be_made_is_a_page(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody finds the refusal in a file of their downloads."""

    async def busy(*_: object) -> AsyncIterator[list[ListedDevice]]:
        raise Unavailable("The core is busy")
        yield []

    monkeypatch.setattr(lists.ListsApi, "all_devices", busy)
    monkeypatch.setattr(devices_pages, "_csv", lambda parts: parts)
    shown = fleet.browser.open("/ui/devices/export")
    assert shown.status == 503 and "The core is busy" in shown.words
    assert "content-disposition" not in shown.headers
