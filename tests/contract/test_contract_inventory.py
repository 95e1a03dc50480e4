"""Devices, their credentials and profiles over REST: rules, messages and codes (D1, D2, D4 and D5 of section 10)."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.support.server import CoreProcess

_numbers = itertools.count()


class Rest:
    """An administrator's calls, status included."""

    def __init__(self, core: CoreProcess) -> None:
        self._base = core.http
        self._session = requests.Session()
        self._session.headers["X-Authorization"] = f"Bearer {core.jwt}"

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        answer = self._session.request(method, self._base + path, json=body, params=query, timeout=15)
        return answer.status_code, answer.json() if answer.content else None

    def get(self, path: str, **query: Any) -> tuple[int, Any]:
        return self.call("GET", path, **query)

    def post(self, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        return self.call("POST", path, body, **query)

    def made(self, path: str, body: Any, **query: Any) -> dict[str, Any]:
        status, found = self.post(path, body, **query)
        assert status == 200, found
        result: dict[str, Any] = found
        return result

    def refused(self, path: str, body: Any) -> tuple[int, str]:
        """Status and message of the error object."""
        status, error = self.post(path, body)
        assert set(error) == {"status", "message", "errorCode", "timestamp"} and error["status"] == status
        return status, error["message"]

    def credentials(self, device: dict[str, Any]) -> dict[str, Any]:
        status, found = self.get(f"/api/device/{device['id']['id']}/credentials")
        assert status == 200
        result: dict[str, Any] = found
        return result


@pytest.fixture
def rest(cores: dict[bool, CoreProcess]) -> Rest:
    return Rest(cores[True])


@pytest.fixture
def name() -> str:
    return f"inventory-{next(_numbers)}"


# -- devices ----------------------------------------------------------------------------------------


def test_a_new_device_has_a_token_and_the_default_profile(rest: Rest, name: str) -> None:
    """20 characters; without a type, or with an empty one, it is a `default` (D1)."""
    kinds: tuple[dict[str, Any], ...] = ({}, {"type": ""}, {"type": None})
    for number, members in enumerate(kinds):
        device = rest.made("/api/device", {"name": f"{name}-{number}", **members})
        assert (device["type"], device["id"]["entityType"], device["createdTime"] > 0) == ("default", "DEVICE", True)
        assert device["customerId"]["id"] == "13814000-1dd2-11b2-8080-808080808080"
        stored = rest.credentials(device)
        assert (stored["credentialsType"], stored["credentialsValue"]) == ("ACCESS_TOKEN", None)
        assert len(stored["credentialsId"]) == 20 and stored["credentialsId"].isalnum()
        assert stored["deviceId"] == device["id"]


def test_an_update_keeps_id_and_credentials(rest: Rest, name: str) -> None:
    """Name, label and type may change; what is read is what was saved (D1)."""
    device = rest.made("/api/device", {"name": name, "type": "first"}, accessToken=f"token-{name}")
    stored = rest.credentials(device)
    changed = rest.made("/api/device", device | {"name": f"{name}-new", "label": "l"})
    assert (changed["id"], changed["createdTime"], changed["name"], changed["label"]) == (
        device["id"], device["createdTime"], f"{name}-new", "l",
    )  # fmt: skip
    assert rest.get(f"/api/device/{device['id']['id']}") == (200, changed)
    assert rest.credentials(device) == stored and stored["credentialsId"] == f"token-{name}"


@pytest.mark.parametrize("member", ["name", "type", "label"])
def test_texts_have_at_most_255_characters(rest: Rest, name: str, member: str) -> None:
    """One more is told by the member's name; 255 are accepted (D1)."""
    device = {"name": name, "type": f"type-{name}", "label": "l"}
    message = f"Validation error: {member} length must be equal or less than 255"
    assert rest.refused("/api/device", device | {member: "x" * 256}) == (400, message)
    longest = f"{name}-{member}-".ljust(255, "x")
    assert rest.made("/api/device", device | {member: longest})[member] == longest


def test_a_device_needs_a_name_of_its_own(rest: Rest, name: str) -> None:
    """Missing, empty, blank or taken; a known device may keep its own (D1)."""
    for members in ({}, {"name": ""}, {"name": "  "}, {"name": None}):
        assert rest.refused("/api/device", members) == (400, "Device name should be specified!")
    first = rest.made("/api/device", {"name": name})
    second = rest.made("/api/device", {"name": f"{name}-second"})
    taken = (400, "Device with such name already exists!")
    assert rest.refused("/api/device", {"name": name}) == taken
    assert rest.refused("/api/device", second | {"name": name}) == taken
    assert rest.made("/api/device", first)["id"] == first["id"]


def test_a_device_is_saved_with_its_credentials(rest: Rest, name: str) -> None:
    """The token of the request; a missing part is named, and nothing is made (D1)."""
    path = "/api/device-with-credentials"
    credentials = {"credentialsType": "ACCESS_TOKEN", "credentialsId": f"given-{name}"}
    device = rest.made(path, {"device": {"name": name}, "credentials": credentials})
    assert rest.credentials(device)["credentialsId"] == f"given-{name}"
    other = {"name": f"{name}-other"}
    for body, missing in (
        ({"device": None, "credentials": credentials}, "device"),
        ({"credentials": credentials}, "device"),
        ({"device": other, "credentials": None}, "credentials"),
        ({"device": other}, "credentials"),
    ):
        assert rest.refused(path, body) == (400, f"Validation error: {missing} must not be null")
    used = {"device": other, "credentials": credentials}
    assert rest.refused(path, used) == (400, "Specified credentials are already registered!")
    assert rest.get("/api/tenant/devices", deviceName=other["name"])[0] == 404


def test_a_deleted_device_is_not_found(rest: Rest, name: str) -> None:
    """404 and 32 by id, by name and for its credentials; the name is free again (D1)."""
    device = rest.made("/api/device", {"name": name})
    path = f"/api/device/{device['id']['id']}"
    assert rest.call("DELETE", path) == (200, None)
    for gone in (
        rest.get(path), rest.get(f"{path}/credentials"), rest.get("/api/tenant/devices", deviceName=name),
        rest.call("DELETE", path), rest.post("/api/device", device),
    ):  # fmt: skip
        assert (gone[0], gone[1]["errorCode"]) == (404, 32)
    assert rest.made("/api/device", {"name": name})["id"] != device["id"]


def test_a_device_belongs_to_a_customer_that_exists(rest: Rest, name: str) -> None:
    """The tenant's own; one that is another's or nobody's is refused (D1)."""
    device = rest.made("/api/device", {"name": name})
    customer = rest.made("/api/customer", {"title": f"customer of {name}"})
    strangers = {"entityType": "CUSTOMER", "id": str(uuid4())}
    assert rest.refused("/api/device", device | {"customerId": strangers})[0] == 400
    path = f"/api/device/{device['id']['id']}"
    assert rest.post(f"/api/customer/{strangers['id']}/device/{device['id']['id']}")[0] == 404
    assert rest.get(path)[1]["customerId"] == device["customerId"]
    given = rest.made(f"/api/customer/{customer['id']['id']}/device/{device['id']['id']}", None)
    assert given["customerId"] == customer["id"]


# -- credentials ------------------------------------------------------------------------------------


def test_credentials_are_fetched_and_changed(rest: Rest, cores: dict[bool, CoreProcess], name: str) -> None:
    """Of every type; what was before opens nothing any more (D2)."""
    device = rest.made("/api/device", {"name": name}, accessToken=f"old-{name}")
    stored = rest.credentials(device)
    changed = rest.made("/api/device/credentials", stored | {"credentialsId": f"new-{name}"})
    assert changed == rest.credentials(device)
    assert (changed["id"], changed["deviceId"], changed["credentialsId"]) == (
        stored["id"], stored["deviceId"], f"new-{name}",
    )  # fmt: skip
    for token, status in ((f"old-{name}", 401), (f"new-{name}", 200)):
        url = f"{cores[True].http}/api/v1/{token}/telemetry"
        assert requests.post(url, json={"t": 1}, timeout=15).status_code == status
    basic = f'{{"clientId":"c-{name}","userName":"u-{name}","password":"p"}}'
    for kind, value, identified in (
        ("MQTT_BASIC", basic, f"c-{name}|u-{name}"), ("X509_CERTIFICATE", f"hash{name}", f"hash{name}"),
    ):  # fmt: skip
        body = rest.credentials(device) | {"credentialsType": kind, "credentialsValue": value}
        changed = rest.made("/api/device/credentials", body)
        assert changed == rest.credentials(device)
        assert (changed["credentialsType"], changed["credentialsValue"]) == (kind, value)
        assert changed["credentialsId"] == hashlib.sha3_256(identified.encode()).hexdigest()


def test_credentials_that_are_not_whole_are_refused(rest: Rest, name: str) -> None:
    """Each with the message that names what is missing, and nothing changes (D2)."""
    device, other = (rest.made("/api/device", {"name": f"{name}-{number}"}) for number in range(2))
    stored, foreign = rest.credentials(device), rest.credentials(other)
    unknown = {"entityType": "DEVICE", "id": str(uuid4())}
    for change, status, message in (
        ({"deviceId": None}, 400, "Device credentials should be assigned to device!"),
        ({"credentialsType": None}, 400, "Device credentials type should be specified!"),
        ({"credentialsId": None}, 400, "Device credentials id should be specified!"),
        ({"credentialsId": ""}, 400, "Device credentials id should be specified!"),
        ({"id": {"id": str(uuid4())}}, 400, "Unable to update non-existent device credentials!"),
        ({"id": foreign["id"]}, 400, "Unable to update non-existent device credentials!"),
        ({"deviceId": unknown}, 404, "Can't assign device credentials to non-existent device!"),
        ({"credentialsId": foreign["credentialsId"]}, 400, "Specified credentials are already registered!"),
        ({"credentialsType": "MQTT_BASIC", "credentialsValue": "x"}, 400,
         "Invalid credentials body for simple mqtt credentials!"),
        ({"credentialsType": "MQTT_BASIC", "credentialsValue": "{}"}, 400,
         "Both mqtt client id and user name are empty!"),
        ({"credentialsType": "MQTT_BASIC", "credentialsValue": '{"clientId":"c","password":"p"}'}, 400,
         "Password cannot be specified along with client id"),
    ):  # fmt: skip
        assert rest.refused("/api/device/credentials", stored | change) == (status, message)
    assert rest.refused("/api/device/credentials", {})[0] == 400
    assert rest.credentials(device) == stored and rest.credentials(other) == foreign
    assert rest.get(f"/api/device/{unknown['id']}/credentials")[0] == 404


# -- profiles and versions --------------------------------------------------------------------------


def profile(name: str, **members: Any) -> dict[str, Any]:
    return {"name": name, "type": "DEFAULT", "transportType": "DEFAULT", **members}


def test_profiles_keep_their_rules(rest: Rest, name: str) -> None:
    """Names and provision keys are unique, the members that must be there are named (D4)."""
    path, allow = "/api/deviceProfile", {"provisionType": "ALLOW_CREATE_NEW_DEVICES", "provisionDeviceKey": name}
    rest.made(path, profile(name, **allow))
    other = f"{name}-other"
    for body, message in (
        (profile(""), "Device profile name should be specified!"),
        (profile(name), "Device profile with such name already exists!"),
        (profile(other, **allow), "Device profile with such provision device key already exists!"),
        (profile(other) | {"type": None}, "Device profile type should be specified!"),
        (profile(other) | {"transportType": None}, "Device profile transport type should be specified!"),
        (profile("x" * 256), "Validation error: name length must be equal or less than 255"),
    ):
        assert rest.refused(path, body) == (400, message)


def test_a_profile_with_devices_keeps_its_transport_and_stays(rest: Rest, name: str) -> None:
    """Until the last of them is gone; its new name is their type at once (D4)."""
    made = rest.made("/api/deviceProfile", profile(name))
    made = rest.made("/api/deviceProfile", made | {"transportType": "MQTT"})
    device = rest.made("/api/device", {"name": name, "type": name})
    message = "Can't change device profile transport type because devices referenced it!"
    assert rest.refused("/api/deviceProfile", made | {"transportType": "COAP"}) == (400, message)
    path = f"/api/deviceProfile/{made['id']['id']}"
    status, error = rest.call("DELETE", path)
    assert (status, error["message"]) == (400, "The device profile referenced by the devices cannot be deleted!")
    renamed = rest.made("/api/deviceProfile", made | {"name": f"{name}-renamed"})
    device_path = f"/api/device/{device['id']['id']}"
    assert rest.get(device_path)[1]["type"] == renamed["name"] == f"{name}-renamed"
    rest.call("DELETE", device_path)
    assert rest.made("/api/deviceProfile", renamed | {"transportType": "COAP"})["transportType"] == "COAP"
    assert rest.call("DELETE", path) == (200, None)


def test_the_default_profile_stays(rest: Rest) -> None:
    """Whoever may have devices in it (D4)."""
    identifier = rest.get("/api/deviceProfileInfo/default")[1]["id"]["id"]
    assert rest.call("DELETE", f"/api/deviceProfile/{identifier}")[0] == 400


def test_what_has_changed_in_between_is_a_conflict(rest: Rest, name: str) -> None:
    """409 and 35 for a device, its credentials and its profile; without a version the last one wins (D5)."""
    made = rest.made("/api/deviceProfile", profile(name))
    device = rest.made("/api/device", {"name": name, "type": name})
    for path, first, change in (
        ("/api/device", device, {"label": "second"}),
        ("/api/device/credentials", rest.credentials(device), {"credentialsId": f"second-{name}"}),
        ("/api/deviceProfile", made, {"description": "second"}),
    ):
        second = rest.made(path, first | change)
        assert second["version"] == first["version"] + 1
        status, error = rest.post(path, first)
        assert (status, error["errorCode"]) == (409, 35)
        assert rest.made(path, first | change | {"version": None})["version"] == first["version"] + 2
