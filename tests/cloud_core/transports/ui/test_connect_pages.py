"""How devices connect, and a device tried out from the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from urllib.parse import urlencode

import pytest

from cloud_core.model import Approval, AuditFilter, Device, DeviceProfile, Page, Reprovisioning, UserRole
from cloud_core.transports.endpoints import Endpoints, Listening
from shared.credentials import MqttBasic
from tests.support.pki import Pki
from tests.support.rest import without_threads
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Browser, Shown, somebody

EVIL = '"><script>alert(1)</script>'
PORTS = {"http": 8080, "mqtt": 1884, "coap": 5685}
TLS_PORTS = {"https": 8444, "mqtts": 8884, "coaps": 5686}


@pytest.fixture
def browser(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    without_threads(monkeypatch)
    sqlite_store.add_profile("sensor")
    browser = Browser(sqlite_store)
    yield browser
    browser.close()


def listen(browser: Browser, ports: dict[str, int], bind: str = "0.0.0.0", public_url: str = "") -> None:
    """As the core does when it starts."""
    endpoints: Endpoints = browser.service.endpoints
    endpoints.public_url = public_url
    endpoints.ports = {scheme: Listening(bind, port) for scheme, port in ports.items()}


def profile(browser: Browser, name: str = "sensor") -> DeviceProfile:
    found: DeviceProfile | None = browser.api.store.read(lambda tx: tx.profile_by_name(TENANT, name))
    assert found is not None
    return found


def url(browser: Browser, rest: str, of: str = "sensor", **query: str) -> str:
    return f"/ui/profiles/{profile(browser, of).uuid}{rest}" + (f"?{urlencode(query)}" if query else "")


def device(browser: Browser, name: str) -> Device | None:
    found: Device | None = browser.api.store.read(lambda tx: tx.device_by_name(TENANT, name))
    return found


def code(shown: Shown) -> str:
    """All snippets of the page."""
    return "\n".join(unescape(one) for one in re.findall(r"<pre [^>]*>(.*?)</pre>", shown.text, re.S))


# -- how devices connect ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("curl", "http://h/api/v1/provision"), ("mosquitto", "-h h -p 1884"),
        ("coap", "coap://h:5685/api/v1/provision"), ("python-http", 'CORE = "http://h"'),
        ("python-mqtt", 'HOST, PORT = "h", 1884'), ("nonsense", "curl -sS"),
    ],
)  # fmt: skip
def test_commands_name_the_ports_that_are_open(browser: Browser, way: str, expected: str) -> None:
    """Host as the browser has it; the secret stays a placeholder, the key is no secret."""
    listen(browser, PORTS)
    shown = browser.open(url(browser, "/connect", way=way, name="SN-9", tls="no"))
    text = code(shown)
    assert shown.status == 200 and expected in text and "sensor-key" in text
    assert "SN-9" in text and "YOUR-PROVISION-SECRET" in text
    assert "sensor-secret" not in shown.text


def test_the_secret_is_put_in_on_request(browser: Browser) -> None:
    """By administrators alone, into the commands that were shown."""
    listen(browser, PORTS)
    fields = {"way": "mosquitto", "tls": "no", "name": "SN-9"}
    shown = browser.submit(url(browser, "/connect/reveal"), fields)
    assert "mosquitto_rr" in code(shown) and "sensor-secret" in code(shown) and "SN-9" in code(shown)
    assert "YOUR-PROVISION-SECRET" not in shown.text
    browser.log_in_as(somebody(UserRole.OPERATOR))
    assert browser.submit(url(browser, "/connect/reveal"), fields).status == 403
    assert "Put the secret in" not in browser.open(url(browser, "/connect")).text


def test_tls_is_proposed_to_those_who_come_from_elsewhere(browser: Browser) -> None:
    """And may be left out; where it is not open there is no choice."""
    listen(browser, PORTS | TLS_PORTS)
    assert "https://h:8444" in code(browser.open(url(browser, "/connect")))
    assert "--cacert ca.pem" in code(browser.open(url(browser, "/connect")))
    assert "https" not in code(browser.open(url(browser, "/connect", tls="no")))
    assert "-p 8884 --cafile ca.pem" in code(browser.open(url(browser, "/connect", way="mosquitto")))
    listen(browser, PORTS)
    assert "with TLS" not in browser.open(url(browser, "/connect")).text


def test_the_public_url_wins(browser: Browser) -> None:
    """Where the configuration says how others reach the core."""
    listen(browser, PORTS, public_url="https://core.example/iot/")
    shown = browser.open(url(browser, "/connect"))
    assert "https://core.example/iot/api/v1/provision" in code(shown) and "--cacert" not in code(shown)


def test_a_core_on_loopback_says_so(browser: Browser) -> None:
    """Devices elsewhere would not reach it."""
    listen(browser, PORTS, bind="127.0.0.1")
    assert "--bind 0.0.0.0" in browser.open(url(browser, "/connect")).words
    listen(browser, PORTS)
    assert "--bind 0.0.0.0" not in browser.open(url(browser, "/connect")).words


def test_a_profile_for_certificates_has_other_commands(browser: Browser) -> None:
    """A key and a certificate by openssl, then one request; without TLS it says what to do."""
    root = Pki().root("Factory")
    browser.api.store.add_profile(
        "by-cert", strategy="X509_CERTIFICATE_CHAIN", secret=root.pem, key="k", certificate_pattern=r"(.*)\.plant",
        allow_create_by_certificate=True,
    )  # fmt: skip
    listen(browser, PORTS)
    shown = browser.open(url(browser, "/connect", "by-cert"))
    assert "openssl req" in code(shown) and "need TLS" in shown.words and "is not let in" in shown.words
    listen(browser, PORTS | TLS_PORTS)
    shown = browser.open(url(browser, "/connect", "by-cert", name="SN-1.plant", way="python-http"))
    assert "--cert device.pem --key device.key" in code(shown) and "is not let in" not in shown.words
    assert "PROVISION" not in code(shown) and "Python (HTTP)" not in shown.words
    assert "CN=SN-1.plant" in code(shown)


def test_commands_follow_the_profiles_topics(browser: Browser) -> None:
    """Telemetry goes where the profile wants it; protobuf profiles take JSON on a topic of its own."""
    configuration = {"type": "MQTT", "deviceTelemetryTopic": "plant/+/data"}
    document = {"transportType": "MQTT", "profileData": {"transportConfiguration": configuration}}
    browser.api.store.add_profile("own", document)
    protobuf = configuration | {"transportPayloadTypeConfiguration": {"transportPayloadType": "PROTOBUF"}}
    browser.api.store.add_profile(
        "proto", {"transportType": "MQTT", "profileData": {"transportConfiguration": protobuf}}
    )
    listen(browser, PORTS)
    assert "-t plant/me/data" in code(browser.open(url(browser, "/connect", "own", way="mosquitto")))
    assert "-t v2/t/j" in code(browser.open(url(browser, "/connect", "proto", way="mosquitto")))


def test_hostile_names_and_hosts_stay_text(browser: Browser) -> None:
    """Neither a page nor a shell takes anything from them."""
    listen(browser, PORTS)
    shown = browser.open(url(browser, "/connect", name="a'; rm -rf ~ #", way="curl"))
    assert "'\"'\"'; rm -rf ~ #" in code(shown)
    assert EVIL not in browser.open(url(browser, "/connect", name=EVIL, way=EVIL, tls=EVIL)).text
    browser.send(
        b"GET " + url(browser, "/connect").encode() + b" HTTP/1.1\r\nHost: $(reboot)\r\n"
        + browser._cookie_header().encode() + b"\r\n"
    )  # fmt: skip
    assert "reboot" not in browser._shown().text


def test_a_disabled_profile_says_what_to_do(browser: Browser) -> None:
    """Also where it has no key yet."""
    browser.api.store.add_profile("off", strategy="DISABLED", key="", secret="")
    assert "Choose a strategy" in browser.open(url(browser, "/connect", "off")).words
    shown = browser.submit(url(browser, "/test", "off"), {"name": "t"})
    assert shown.status == 400 and "no provision key" in shown.words and device(browser, "t") is None


# -- testing one -----------------------------------------------------------------------------------


def run(browser: Browser, name: str = "t-1", of: str = "sensor") -> Shown:
    """The page that a test leads to."""
    done = browser.submit(url(browser, "/test", of), {"name": name})
    assert done.status == 303, done.words
    return browser.open(done.location)


def test_a_test_goes_through_the_devices_own_door(browser: Browser) -> None:
    """A real device, its credentials on request, a value sent with them, and it can be deleted."""
    page = browser.open(url(browser, "/test"))
    proposed = re.search(r'name="name" type="text" value="(test-[\w-]+)"', page.text)
    assert proposed is not None and "creates a real device" in page.words
    shown = run(browser, proposed[1])
    made = device(browser, proposed[1])
    assert made is not None and f"let in {made.name}" in shown.words and "none yet" in shown.words
    stored = browser.api.store.read(lambda tx: tx.credentials(made.id))
    assert stored.confirmed_ms is None and stored.credentials.token not in shown.text
    revealed = browser.submit(url(browser, "/test/reveal"), {"device": str(made.uuid)})
    assert stored.credentials.token in revealed.text
    sent = browser.submit(url(browser, "/test/telemetry"), {"device": str(made.uuid)})
    assert "temperature 21.5" in browser.open(sent.location).words
    assert browser.api.store.read(lambda tx: tx.credentials(made.id)).confirmed_ms is not None
    gone = browser.submit(url(browser, "/test/delete"), {"device": str(made.uuid)})
    assert gone.location == url(browser, "/test") and device(browser, made.name) is None


def test_a_refusal_is_explained(browser: Browser) -> None:
    """Reason, stage, cause, fix and reference; the name stays."""
    run(browser)
    shown = run(browser)
    assert "refused t-1" in shown.words and "DEVICE_EXISTS" in shown.words and "Use a unique name" in shown.words
    assert re.search(r"[0-9A-Z]{5}-[0-9A-Z]{5}", shown.words) and 'value="t-1"' in shown.text
    assert "No attempt has the reference" in browser.open(url(browser, "/test", ref="NOSUCH")).words


def test_a_request_that_waits_is_told_so(browser: Browser) -> None:
    """With where to accept it."""
    browser.api.store.add_profile("careful", approval=Approval.REQUIRED, reprovisioning=Reprovisioning.REFUSE)
    shown = run(browser, of="careful")
    assert "waits for approval t-1" in shown.words and "/ui/provisioning" in shown.text


def test_attempts_of_the_profile_are_listed_as_they_come(browser: Browser) -> None:
    """Those of others are not; a script fetches the list anew with each event."""
    browser.api.store.add_profile("other")
    browser.api.provision(device_name="real-1")
    browser.api.provision(device_name="real-1", provision_secret="wrong")
    browser.api.provision(device_name=EVIL[:20])
    browser.api.provision(device_name="stranger", provision_key="other-key", provision_secret="other-secret")
    shown = browser.open(url(browser, "/test"))
    assert 'data-live="attempt"' in shown.text and "let in real-1" in shown.words
    assert "Wrong key or secret real-1" in shown.words and "wrong secret" in shown.words
    assert "stranger" not in shown.words and "<script>alert" not in shown.text


def test_a_pre_provisioned_device_keeps_what_is_stored(browser: Browser) -> None:
    """Credentials of name and password are shown and used alike."""
    browser.api.store.add_profile("known", strategy="CHECK_PRE_PROVISIONED_DEVICES")
    browser.api.store.add_device("d-1", profile(browser, "known").id, MqttBasic("client", "user", "password"))
    assert "type the name" in browser.open(url(browser, "/test", "known")).words
    shown = run(browser, "d-1", "known")
    made = device(browser, "d-1")
    assert made is not None and "let in d-1" in shown.words and "password" not in shown.text.split("<main")[1]
    revealed = browser.submit(url(browser, "/test/reveal", "known"), {"device": str(made.uuid)})
    assert "MQTT_BASIC" in revealed.words and "password" in revealed.text
    sent = browser.submit(url(browser, "/test/telemetry", "known"), {"device": str(made.uuid)})
    assert "temperature 21.5" in browser.open(sent.location).words


def test_a_device_of_another_profile_is_none_of_this_pages(browser: Browser) -> None:
    """Nor one that does not exist."""
    browser.api.store.add_device("d", browser.api.store.add_profile("other"))
    foreign = device(browser, "d")
    assert foreign is not None
    for uuid in (str(foreign.uuid), "", "nonsense"):
        for action in ("/reveal", "/telemetry", "/delete"):
            assert browser.submit(url(browser, f"/test{action}"), {"device": uuid}).status == 404
    assert browser.open(url(browser, "/test", device=str(foreign.uuid))).status == 404


def test_roles_on_the_test_page(browser: Browser) -> None:
    """Operators test; viewers watch. Whoever belongs to another tenant finds nothing."""
    browser.log_in_as(somebody(UserRole.OPERATOR))
    shown = run(browser)
    assert "Reveal" in shown.text and "Delete this device" in shown.text
    made = device(browser, "t-1")
    assert made is not None
    browser.log_in_as(somebody(UserRole.VIEWER))
    shown = browser.open(url(browser, "/test", device=str(made.uuid)))
    assert shown.status == 200 and not re.search("Reveal|Delete this device|Test now|Send a test", shown.text)
    for action in ("", "/reveal", "/telemetry", "/delete"):
        assert browser.submit(url(browser, f"/test{action}"), {"device": str(made.uuid)}).status == 403
    browser.log_in_as(replace(somebody(), tenant_id=2))
    assert browser.submit(url(browser, "/test"), {"name": "x"}).status == 404


def test_a_test_stands_in_the_audit(browser: Browser) -> None:
    """Who made the device is known."""
    run(browser)
    entries, _ = browser.api.store.read(lambda tx: tx.audit_entries(TENANT, AuditFilter(), Page()))
    assert [one.action for one in entries] == ["TRIED"] and entries[0].actor == somebody().username


def test_a_page_that_a_form_has_shown_can_be_loaded_again(browser: Browser) -> None:
    """It leads to the page without the secret; only forms do anything."""
    for rest, to in (
        ("/connect/reveal", "/connect"), ("/test/reveal", "/test"), ("/test/telemetry", "/test"),
        ("/test/delete", "/test"),
        ("/delete", ""), ("/default", ""),
    ):  # fmt: skip
        assert browser.open(url(browser, rest)).location == url(browser, to)
    assert browser.open("/ui/profiles/nonsense/connect/reveal").status == 404
    assert browser.open(url(browser, "/test/nonsense")).status == 404


def test_what_has_come_in_stands_beside_the_commands(browser: Browser) -> None:
    """The page with the secret fetches the list from the one without."""
    assert "Nothing yet" in browser.open(url(browser, "/connect")).words
    browser.api.provision(device_name="SN-001")
    shown = browser.submit(url(browser, "/connect/reveal"), {"way": "coap", "tls": "", "name": "a&b"})
    assert "let in SN-001" in shown.words
    assert f'data-live-src="{url(browser, "/connect")}?way=coap&amp;tls=no&amp;name=a%26b"' in shown.text
