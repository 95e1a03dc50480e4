"""Claiming: what the device says on its transport, and what its customer is told (M9 and O1 of section 10)."""

from __future__ import annotations

from typing import Any

import paho.mqtt.client as paho
import pytest

from tests.contract.drivers import Driver, MqttDevice, Refused
from tests.contract.operators import claim, make_customer
from tests.support.server import CoreProcess

PROTOCOLS = pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5])


def owner(core: CoreProcess, name: str) -> str:
    identifier: str = core.device(name)["customerId"]["id"]
    return identifier


@pytest.fixture
def user(core: CoreProcess, name: str) -> str:
    """The JWT of a customer's user."""
    return make_customer(core, name)


@pytest.mark.parametrize("secret", ["s3cret", ""])
def test_a_claimed_device_is_the_customers(
    driver: Driver, core: CoreProcess, token: str, name: str, user: str, secret: str
) -> None:
    """With or without a secret: wrong FAILURE, right SUCCESS and owned, again CLAIMED (M9, O1)."""
    nobody = owner(core, name)
    body = {"secretKey": secret, "durationMs": 60_000} if secret else None
    with driver.device(token) as device:
        device.post("claim", body)
        assert claim(core, user, name, "wrong") == (400, "FAILURE")
        assert claim(core, user, name, secret) == (400, "FAILURE")  # the failed attempt has ended the offer
        assert owner(core, name) == nobody
        device.post("claim", body)
        status, outcome = claim(core, user, name, secret)
        assert (status, outcome["response"], outcome["device"]["name"]) == (200, "SUCCESS", name)
        assert outcome["device"]["customerId"]["id"] == owner(core, name) != nobody
        assert claim(core, user, name, secret) == (400, "CLAIMED")
        _must_be_refused(driver, device)
        device.post("telemetry", {"after": 1})
    assert core.latest(name) == {"after": 1}


def _must_be_refused(driver: Driver, device: Any) -> None:
    """A device that has an owner offers itself in vain; MQTT 3 has no word for it."""
    if driver.name == "mqtt3":
        device.post("claim", {"secretKey": "other"})
        return
    with pytest.raises(Refused) as refusal:
        device.post("claim", {"secretKey": "other"})
    assert any(word in str(refusal.value) for word in ("has an owner", "Implementation specific error"))


def test_an_offer_is_over_after_its_duration(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """The right secret, too late: FAILURE (M9)."""
    with driver.device(token) as device:
        device.post("claim", {"secretKey": "s", "durationMs": 1})
    user = make_customer(core, name)  # hashing its password takes longer than the offer stands
    assert claim(core, user, name, "s") == (400, "FAILURE")


def test_the_first_offer_stands(driver: Driver, core: CoreProcess, token: str, name: str, user: str) -> None:
    """Until it is used or over; a duration that is none is a day (M9)."""
    with driver.device(token) as device:
        device.post("claim", {"secretKey": "first", "durationMs": -1})
        device.post("claim", {"secretKey": "second"})
    assert claim(core, user, name, "first")[0] == 200


def test_what_was_not_offered_is_not_claimed(cores: dict[bool, CoreProcess]) -> None:
    """Not even without a secret; an unknown name is 404 (M9)."""
    core, name = cores[True], "never-offered"
    core.rest.post("/api/device", {"name": name, "type": "contract"})
    user = make_customer(core, name)
    assert claim(core, user, name, "") == (400, "FAILURE")
    assert claim(core, user, f"no-{name}", "")[0] == 404


@pytest.mark.parametrize("body", [b"[]", b"{broken", b'{"durationMs":"soon"}'])
def test_a_claim_that_makes_no_sense_offers_nothing(
    driver: Driver, core: CoreProcess, token: str, name: str, user: str, body: bytes
) -> None:
    """Refused where the transport can say so (M9)."""
    with driver.device(token) as device:
        if driver.name == "mqtt3":
            device.post("claim", body)
        else:
            with pytest.raises(Refused):
                device.post("claim", body)
    assert claim(core, user, name, "") == (400, "FAILURE")


@PROTOCOLS
def test_a_gateway_offers_its_devices(cores: dict[bool, CoreProcess], protocol: int) -> None:
    """On its own topic, several at once, with and without a secret; the same answers (M9)."""
    core, prefix = cores[True], f"claimed-by-gateway-{protocol}"
    gateway = {"name": prefix, "type": "contract", "additionalInfo": {"gateway": True}}
    core.rest.post(f"/api/device?accessToken=token-{prefix}", gateway)
    user = make_customer(core, prefix)
    first, second = f"{prefix}-1", f"{prefix}-2"
    device = MqttDevice(core.mqtt_port, protocol, f"token-{prefix}")
    try:
        device.publish("v1/gateway/connect", {"device": first})
        device.publish("v1/gateway/claim", {first: {"secretKey": "s", "durationMs": 60_000}, second: {}})
        nobody = owner(core, first)
        assert claim(core, user, first, "wrong") == (400, "FAILURE")
        device.publish("v1/gateway/claim", {first: {"secretKey": "s"}})
    finally:
        device.close()
    for name, secret in ((first, "s"), (second, "")):
        status, outcome = claim(core, user, name, secret)
        assert (status, outcome["response"]) == (200, "SUCCESS")
        assert outcome["device"]["customerId"]["id"] == owner(core, name) != nobody
        assert claim(core, user, name, secret) == (400, "CLAIMED")
