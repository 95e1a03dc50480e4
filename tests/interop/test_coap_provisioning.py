"""Provisioning over CoAP against a real core, and what of it REST shows."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiocoap
import pytest

from tests.interop.test_stock_clients import WAIT_S, request_for
from tests.support.server import CoreProcess

pytestmark = pytest.mark.filterwarnings("default")


def provision(core: CoreProcess, profile: dict[str, str], name: str, **members: Any) -> tuple[str, dict[str, Any]]:
    """Code and body of the answer."""

    async def dialogue() -> Any:
        context = await aiocoap.Context.create_client_context()
        try:
            body = json.dumps(request_for(profile, name, **members)).encode()
            uri = f"coap://127.0.0.1:{core.coap_port}/api/v1/any/provision"
            return await context.request(aiocoap.Message(code=aiocoap.POST, uri=uri, payload=body)).response
        finally:
            await context.shutdown()

    with ThreadPoolExecutor(1) as pool:  # the test's own thread has a running loop
        answer = pool.submit(asyncio.run, dialogue()).result(WAIT_S)
    return answer.code.dotted, json.loads(answer.payload)


def test_a_prepared_device_gets_its_own_credentials_once(core: CoreProcess) -> None:
    """SUCCESS and `provisionState`, then FAILURE, also where an operator wrote another state (P20, P22)."""
    profile = core.make_profile("coap-check", "CHECK_PRE_PROVISIONED_DEVICES")
    made = core.rest.post("/api/device", {"name": "coap-prepared", "type": "coap-check"}, accessToken="prepared-token")
    attributes = f"/api/plugins/telemetry/DEVICE/{made['id']['id']}"
    code, answer = provision(core, profile, "coap-prepared")
    assert (code, answer["status"], answer["credentialsValue"]) == ("2.01", "SUCCESS", "prepared-token")
    states = core.rest.get(f"{attributes}/values/attributes/SERVER_SCOPE", keys="provisionState")
    assert [one["value"] for one in states] == ["provisioned"]
    for state in ("provisioned", "else"):
        core.rest.post(f"{attributes}/SERVER_SCOPE", {"provisionState": state})
        code, answer = provision(core, profile, "coap-prepared")
        assert (code, answer["status"]) == ("4.00", "FAILURE")
    code, answer = provision(core, profile, "coap-unprepared")
    assert (code, answer["status"]) == ("4.00", "FAILURE")


def test_a_new_device_is_created_where_that_is_allowed(core: CoreProcess, profile: dict[str, str]) -> None:
    """With the credentials that it brings, and as a gateway where it says so (P21, P22)."""
    code, answer = provision(core, profile, "coap-new", token="coap-own-token", gateway=True)
    assert (code, answer["credentialsType"], answer["credentialsValue"]) == ("2.01", "ACCESS_TOKEN", "coap-own-token")
    assert core.device("coap-new")["additionalInfo"]["gateway"] is True
    code, answer = provision(core, {**profile, "provisionDeviceKey": "wrong"}, "coap-newer")
    assert (code, answer["status"], answer["errorMsg"]) == ("4.00", "NOT_FOUND", "Provision data was not found!")


def test_disabled_provisioning_finds_nothing(core: CoreProcess) -> None:
    """NOT_FOUND, as for a wrong key (P21, P22)."""
    profile = core.make_profile("coap-off", "DISABLED")
    members = {"provisionDeviceKey": profile["provisionDeviceKey"] or "k", "provisionDeviceSecret": "s"}
    code, answer = provision(core, members, "coap-disabled")
    assert (code, answer["status"]) == ("4.00", "NOT_FOUND")
