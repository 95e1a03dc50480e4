"""A device that needs approval asks, shows in the inbox, is accepted, and gets its credentials."""

from __future__ import annotations

import json
import queue

import paho.mqtt.client as paho

from tests.browser.chromium import expect
from tests.browser.conftest import Opens
from tests.browser.fleet import OPERATOR, PEOPLE_PASSWORD, Fleet

WAIT_S = 10.0

_LISTEN = """() => new Promise((open) => {
  const source = new EventSource("/ui/events?kinds=approval");
  source.addEventListener("approval", () => { window.isHeard = true; });
  source.addEventListener("open", open);
})"""


class Asking:
    """A device without credentials on an open MQTT connection, which asks again as it is told."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._answers: queue.Queue[dict[str, str]] = queue.Queue()
        self._request = json.dumps({"deviceName": name, **fleet.keys["heat-meter"]})
        self._client = client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        subscribed: queue.Queue[bool] = queue.Queue()
        client.username_pw_set("provision")
        client.on_connect = lambda c, d, f, code, p: c.subscribe("/provision/response", 1)
        client.on_subscribe = lambda c, d, mid, codes, p: subscribed.put(True)
        client.on_message = lambda c, d, message: self._answers.put(json.loads(message.payload))
        client.connect("127.0.0.1", fleet.core.mqtt_port)
        client.loop_start()
        subscribed.get(timeout=WAIT_S)

    def ask(self) -> dict[str, str]:
        self._client.publish("/provision/request", self._request, qos=1)
        return self._answers.get(timeout=WAIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_accepted_over_mqtt(open_as: Opens, fleet: Fleet) -> None:
    """It appears by itself in the inbox of an operator, who lets it in; the next time it asks it has what it needs."""
    window = open_as(OPERATOR, PEOPLE_PASSWORD)
    page = window.page
    window.open_live("/ui/provisioning/pending")
    device = Asking(fleet, "HM-100001")
    try:
        with window.without_loading_again():
            assert device.ask()["reason"] == "APPROVAL_PENDING"
            expect(page.get_by_text("HM-100001")).to_be_visible()
        window.check("approvals")
        page.get_by_role("button", name="Accept HM-100001").click()
        expect(page.get_by_role("status").filter(has_text="accepted")).to_be_visible()
        answer = device.ask()
    finally:
        device.close()
    assert answer["status"] == "SUCCESS", answer
    fleet.tokens["HM-100001"] = answer["credentialsValue"]
    fleet.send("HM-100001", "telemetry", {"power": 3.4})
    page.goto("/ui/devices?q=HM-100001")
    expect(page.get_by_role("link", name="HM-100001")).to_be_visible()


def test_rejected_over_http(open_as: Opens, fleet: Fleet) -> None:
    """It is refused from then on, and is told so."""
    page = open_as().page
    fleet.ask("HM-100002", "heat-meter")
    page.goto("/ui/provisioning/pending")
    page.get_by_role("button", name="Reject HM-100002").click()
    expect(page.get_by_role("status").filter(has_text="rejected")).to_be_visible()
    answer = fleet.ask("HM-100002", "heat-meter")
    assert answer["reason"] != "APPROVAL_PENDING"


def test_refusal_is_explained(open_as: Opens, fleet: Fleet) -> None:
    """The reference that a device was told leads to the cause and the fix."""
    window = open_as()
    page = window.page
    answer = fleet.ask("WM-200001", "water-meter", provisionDeviceSecret="not this one")
    page.goto("/ui/provisioning")
    page.get_by_label("Search").fill(answer["ref"])
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=answer["ref"]).click()
    expect(page.get_by_role("main")).to_contain_text("WM-200001")
    window.check("attempt")


def test_ticks_are_kept(open_as: Opens, fleet: Fleet) -> None:
    """What somebody has ticked stays ticked while others ask, and all that is ticked is let in together."""
    window = open_as()
    page = window.page
    for number in (1, 2):
        fleet.ask(f"HM-40000{number}", "heat-meter")
    page.clock.install()
    window.open_live("/ui/provisioning/pending?q=HM-40000")
    page.get_by_role("checkbox", name="Choose HM-400001").check()
    page.get_by_role("checkbox", name="Choose HM-400002").check()
    page.evaluate(_LISTEN)
    fleet.ask("HM-400003", "heat-meter")
    page.wait_for_function("() => window.isHeard")
    page.clock.run_for(5_000)  # longer than a part waits between two fetches
    page.get_by_role("button", name="Accept ticked").click()
    expect(page.get_by_role("status").filter(has_text="2 requests are accepted")).to_be_visible()
    assert fleet.ask("HM-400001", "heat-meter")["status"] == "SUCCESS"
    assert fleet.ask("HM-400003", "heat-meter")["reason"] == "APPROVAL_PENDING"
