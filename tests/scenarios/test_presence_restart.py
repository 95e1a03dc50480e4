"""Presence and protobuf profiles through a real core: written at the stop, refused over REST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.server import PASSWORD, USERNAME, CoreProcess

WAIT_S = 20.0
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def core(tmp_path: Path) -> Iterator[CoreProcess]:
    # Too long to be reached: what is stored was written by the stop.
    process = CoreProcess(tmp_path / "data", CLOUD_CORE__PRESENCE__FLUSH_S="3600").start()
    yield process
    process.stop()


def server_attributes(core: CoreProcess, name: str) -> dict[str, Any]:
    identifier = core.device(name)["id"]["id"]
    found = core.rest.get(f"/api/plugins/telemetry/DEVICE/{identifier}/values/attributes/SERVER_SCOPE")
    return {one["key"]: one["value"] for one in found}


def call(core: CoreProcess, method: str, path: str, **options: Any) -> requests.Response:
    token = core.rest.login(USERNAME, PASSWORD)
    headers = {"X-Authorization": f"Bearer {token}"}
    return requests.request(method, core.http + path, headers=headers, timeout=WAIT_S, **options)


def test_presence_survives_a_restart_and_is_read_only(core: CoreProcess) -> None:
    """What was gathered is written before the store closes; operators read it and cannot write or delete it."""
    profile = core.make_profile("sensor")
    answer = requests.post(f"{core.http}/api/v1/provision", json={"deviceName": "d", **profile}, timeout=WAIT_S).json()
    url = f"{core.http}/api/v1/{answer['credentialsValue']}/telemetry"
    assert requests.post(url, json={"a": 1}, timeout=WAIT_S).status_code == 200
    assert "active" not in server_attributes(core, "d")
    assert core.stop() == 0
    core.start()
    shown = server_attributes(core, "d")
    assert shown["active"] is True and shown["lastActivityTime"] > 1_700_000_000_000
    identifier = core.device("d")["id"]["id"]
    written = call(core, "POST", f"/api/plugins/telemetry/DEVICE/{identifier}/SERVER_SCOPE", json={"active": False})
    deleted = call(core, "DELETE", f"/api/plugins/telemetry/DEVICE/{identifier}/SERVER_SCOPE?keys=active")
    for refused in (written, deleted):
        assert (refused.status_code, "active" in refused.text) == (400, True)


def test_a_profile_with_a_faulty_schema_is_refused_with_its_line(core: CoreProcess) -> None:
    """400, and nothing is stored."""
    payload = {
        "transportPayloadType": "PROTOBUF",
        "deviceTelemetryProtoSchema": 'syntax = "proto3";\nmessage M {\n  int32 = 1;\n}',
        "deviceAttributesProtoSchema": 'syntax = "proto3";\nmessage M { int32 a = 1; }',
    }
    body = {
        "name": "proto", "type": "DEFAULT", "transportType": "MQTT", "provisionType": "DISABLED",
        "profileData": {
            "configuration": {"type": "DEFAULT"},
            "transportConfiguration": {"type": "MQTT", "transportPayloadTypeConfiguration": payload},
            "provisionConfiguration": {"type": "DISABLED"},
        },
    }  # fmt: skip
    refused = call(core, "POST", "/api/deviceProfile", json=body)
    assert refused.status_code == 400
    assert "deviceTelemetryProtoSchema: line 3, column 9" in refused.json()["message"]
    payload["deviceTelemetryProtoSchema"] = 'syntax = "proto3";\nmessage M {\n  int32 a = 1;\n}'
    assert call(core, "POST", "/api/deviceProfile", json=body).status_code == 200
