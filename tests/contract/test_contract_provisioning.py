"""Provisioning: the same outcomes on every transport (wire-contract.md section 10, P and C rows)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.drivers import Driver, Refused
from tests.support.server import CoreProcess

Make = Callable[..., dict[str, str]]
NOT_FOUND = ("NOT_FOUND", "Provision data was not found!")


def credentials(core: CoreProcess, name: str) -> dict[str, Any]:
    found: dict[str, Any] = core.rest.get(f"/api/device/{core.device(name)['id']['id']}/credentials")
    return found


def server_attributes(core: CoreProcess, name: str) -> dict[str, Any]:
    path = f"/api/plugins/telemetry/DEVICE/{core.device(name)['id']['id']}/values/attributes/SERVER_SCOPE"
    return {one["key"]: one["value"] for one in core.rest.get(path)}


def test_a_disabled_profile_answers_not_found(driver: Driver, make_profile: Make, name: str) -> None:
    """Although key and secret are right (P1, P14, P21)."""
    profile = make_profile("DISABLED", key=f"key-{name}", provisionDeviceSecret="secret")
    assert profile == {"provisionDeviceKey": f"key-{name}", "provisionDeviceSecret": "secret"}
    for request in ({"deviceName": name, **profile}, profile):
        answer = driver.provision(request)
        assert (answer["status"], answer["errorMsg"]) == NOT_FOUND
        assert answer["reason"] == "PROVISIONING_DISABLED" and answer["ref"]


def test_a_new_device_gets_a_token_and_logs_in_with_it(
    driver: Driver, core: CoreProcess, make_profile: Make, name: str
) -> None:
    """Created with the requested name; what is returned is what is stored (P3, P10, P21)."""
    answer = driver.provision({"deviceName": name, **make_profile()})
    assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    assert credentials(core, name)["credentialsId"] == answer["credentialsValue"]
    assert server_attributes(core, name)["provisionState"] == "provisioned"
    with driver.device(answer["credentialsValue"]) as device:
        device.post("telemetry", {"temperature": 25})
    assert core.latest(name) == {"temperature": 25}


def test_a_gateway_is_created_as_one(driver: Driver, core: CoreProcess, make_profile: Make, name: str) -> None:
    """`gateway: true` sets the flag (P4, P21)."""
    assert driver.provision({"deviceName": name, "gateway": True, **make_profile()})["status"] == "SUCCESS"
    assert core.device(name)["additionalInfo"]["gateway"] is True


@pytest.fixture
def brief(core: CoreProcess, name: str) -> Iterator[str]:
    """A device name that is free again afterwards: credentials that all transports bring are unique."""
    yield name
    core.rest.delete(f"/api/device/{core.device(name)['id']['id']}")


def test_a_device_brings_its_token(driver: Driver, core: CoreProcess, make_profile: Make, brief: str) -> None:
    """The token of the request is the device's (P5)."""
    request = {"deviceName": brief, "credentialsType": "ACCESS_TOKEN", "token": "test_token", **make_profile()}
    answer = driver.provision(request)
    assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    assert answer["credentialsValue"] == credentials(core, brief)["credentialsId"] == "test_token"


def test_a_device_brings_its_certificate(driver: Driver, core: CoreProcess, make_profile: Make, brief: str) -> None:
    """Whatever text stands in `hash`; the id is its SHA3-256 (P6)."""
    request = {"deviceName": brief, "credentialsType": "X509_CERTIFICATE", "hash": "testHash", **make_profile()}
    answer = driver.provision(request)
    assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "X509_CERTIFICATE")
    stored = credentials(core, brief)
    assert stored["credentialsType"] == "X509_CERTIFICATE"
    assert stored["credentialsValue"] == answer["credentialsValue"] == "testHash"
    assert stored["credentialsId"] == "57f6600424d6553263f1f32e0117012894a36fbf07e3e9c3c556272f86b7d985"
    assert stored["credentialsId"] == hashlib.sha3_256(b"testHash").hexdigest()


def test_a_device_brings_user_name_and_password(
    driver: Driver, core: CoreProcess, make_profile: Make, brief: str
) -> None:
    """The id is the SHA3-256 of client id and user name, the value holds the three strings (P7)."""
    brought = {"clientId": "test_clientId", "username": "test_username", "password": "test_password"}
    answer = driver.provision({"deviceName": brief, "credentialsType": "MQTT_BASIC", **brought, **make_profile()})
    expected = {"clientId": "test_clientId", "userName": "test_username", "password": "test_password"}
    assert (answer["status"], answer["credentialsType"], answer["credentialsValue"]) == (
        "SUCCESS", "MQTT_BASIC", expected,
    )  # fmt: skip
    stored = credentials(core, brief)
    assert (stored["credentialsType"], json.loads(stored["credentialsValue"])) == ("MQTT_BASIC", expected)
    assert stored["credentialsId"] == "b9f1b0bf238dddae689babba0a210fe42bc97ddb07620b5a07d7208dd5528db2"


def test_an_unknown_key_answers_as_a_wrong_secret_does(driver: Driver, make_profile: Make, name: str) -> None:
    """Nobody can tell which it was, nor whether provisioning is off (P8)."""
    profile = make_profile()
    answers = [
        driver.provision({"deviceName": name, **profile, member: "unknown"})
        for member in ("provisionDeviceKey", "provisionDeviceSecret")
    ]
    for answer in answers:
        answer.pop("ref")
    assert answers[0] == answers[1]
    assert (answers[0]["status"], answers[0]["errorMsg"]) == NOT_FOUND


def test_a_pre_provisioned_device_gets_its_own_credentials_once(
    driver: Driver, core: CoreProcess, make_profile: Make, name: str
) -> None:
    """Not a second time, nor in another state that an operator has written; when that is gone, again (P2, P20)."""
    profile = make_profile("CHECK_PRE_PROVISIONED_DEVICES")
    core.rest.post(f"/api/device?accessToken=pre-{name}", {"name": name, "type": f"profile-of-{name}"})
    request = {"deviceName": name, "token": "ignored", **profile}
    answer = driver.provision(request)
    assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    assert answer["credentialsValue"] == credentials(core, name)["credentialsId"] == f"pre-{name}"
    assert server_attributes(core, name)["provisionState"] == "provisioned"
    again = driver.provision(request)
    assert (again["status"], again["reason"]) == ("FAILURE", "ALREADY_PROVISIONED")
    path = f"/api/plugins/telemetry/DEVICE/{core.device(name)['id']['id']}/SERVER_SCOPE"
    core.rest.post(path, {"provisionState": "scrapped"})
    assert driver.provision(request)["status"] == "FAILURE"
    core.rest.delete(path, keys="provisionState")
    assert driver.provision(request)["credentialsValue"] == f"pre-{name}"


def test_a_pre_provisioned_device_gets_whatever_credentials_it_has(
    driver: Driver, core: CoreProcess, make_profile: Make, name: str
) -> None:
    """User name and password, or a certificate; those of the request are ignored (P2, P20)."""
    profile = make_profile("CHECK_PRE_PROVISIONED_DEVICES")
    basic = {"clientId": f"c-{name}", "userName": f"u-{name}", "password": "p"}
    for kind, stored, told in (
        ("MQTT_BASIC", json.dumps(basic), basic),
        ("X509_CERTIFICATE", f"certificate{name}", f"certificate{name}"),
    ):
        device = {"name": f"{name}-{kind}", "type": f"profile-of-{name}"}
        brought = {"credentialsType": kind, "credentialsId": "", "credentialsValue": stored}
        core.rest.post("/api/device-with-credentials", {"device": device, "credentials": brought})
        answer = driver.provision({"deviceName": f"{name}-{kind}", "token": "ignored", **profile})
        assert (answer["status"], answer["credentialsType"], answer["credentialsValue"]) == ("SUCCESS", kind, told)
        assert server_attributes(core, f"{name}-{kind}")["provisionState"] == "provisioned"


def test_an_unknown_device_is_not_created_where_devices_must_be_known(
    driver: Driver, make_profile: Make, name: str
) -> None:
    """The strategy admits only whom the operator has made."""
    answer = driver.provision({"deviceName": name, **make_profile("CHECK_PRE_PROVISIONED_DEVICES")})
    assert (answer["status"], answer["reason"]) == ("FAILURE", "DEVICE_NOT_FOUND")


def test_a_taken_name_is_refused(driver: Driver, make_profile: Make, name: str) -> None:
    """ThingsBoard's words, and ours that say why."""
    request = {"deviceName": name, **make_profile()}
    driver.provision(request)
    answer = driver.provision(request)
    assert (answer["status"], answer["errorMsg"]) == ("FAILURE", "Failed to provision device!")
    assert answer["reason"] == "DEVICE_EXISTS"


def test_a_lost_answer_is_given_again_until_the_first_login(driver: Driver, make_profile: Make, name: str) -> None:
    """The same bytes, where the profile allows it; after the login the name is taken."""
    request = {"deviceName": name, **make_profile(reprovisioning="REPLAY_UNTIL_CONFIRMED")}
    first = driver.provision(request)
    assert driver.provision(request) == first
    with driver.device(first["credentialsValue"]) as device:
        device.post("telemetry", {"on": True})
    assert driver.provision(request)["reason"] == "DEVICE_EXISTS"


def test_one_of_many_racing_requests_wins(driver: Driver, core: CoreProcess, make_profile: Make, name: str) -> None:
    """Eight at once for one name: one success, and its token is the stored one."""
    request = {"deviceName": name, **make_profile()}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: driver.provision(request), range(8)))
    won = [answer for answer in answers if answer["status"] == "SUCCESS"]
    assert len(won) == 1
    assert credentials(core, name)["credentialsId"] == won[0]["credentialsValue"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b'{"deviceName":"x"}', b'{"provisionDeviceKey":{}}'])
def test_a_malformed_request_is_answered(driver: Driver, body: bytes, name: str) -> None:
    """A reason in the answer, never silence."""
    answer = driver.provision(body)
    assert answer["status"] == "FAILURE" and answer["reason"] == "MALFORMED_REQUEST" and answer["ref"]


def test_a_request_without_quotes_works(driver: Driver, make_profile: Make, name: str) -> None:
    """The lenient syntax that shells leave over."""
    profile = make_profile()
    members = {"deviceName": name, **profile}
    body = "{" + ",".join(f"{member}:{value}" for member, value in members.items()) + "}"
    assert driver.provision(body.encode())["status"] == "SUCCESS"


def test_a_wrong_token_opens_nothing(driver: Driver) -> None:
    """The login, or the first request, is refused (C1)."""
    with pytest.raises(Refused), driver.device("no-such-token") as device:
        device.post("telemetry", {"x": 1})
