"""The real thingsboard-gateway process: it provisions itself, connects, and its sub-devices appear."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.operators import command
from tests.support.server import CoreProcess

WAIT_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], Any], what: str) -> Any:
    for _ in range(int(WAIT_S / 0.1)):
        value = condition()
        if value:
            return value
        threading.Event().wait(0.1)
    raise AssertionError(f"waited in vain for {what}")


def configuration(core: CoreProcess, profile: dict[str, str]) -> dict[str, Any]:
    return {
        "thingsboard": {
            "host": "127.0.0.1", "port": core.mqtt_port, "remoteShell": False, "remoteConfiguration": False,
            "statistics": {"enable": True, "statsSendPeriodInSeconds": 60},
            "minPackSendDelayMS": 50, "minPackSizeToSend": 500, "handleDeviceRenaming": True, "qos": 1,
            "checkConnectorsConfigurationInSeconds": 60,
            "provisioning": {"type": "ACCESS_TOKEN", **profile},
        },
        "storage": {"type": "memory", "read_records_count": 100, "max_records_count": 100_000},
        "grpc": {"enabled": False},
        "connectors": [{"type": "socket", "name": "Line", "configuration": "socket.json"}],
    }  # fmt: skip


def connector(port: int) -> dict[str, Any]:
    return {
        "name": "Line",
        "socket": {"address": "127.0.0.1", "type": "TCP", "port": port, "bufferSize": 1024},
        "devices": [
            {
                "address": "*:*", "addressFilter": "*:*", "deviceName": "Line Device", "deviceType": "line",
                "encoding": "utf-8",
                "telemetry": [{"key": "temp", "byteFrom": 0, "byteTo": 3}],
                "attributes": [{"key": "unit", "byteFrom": 3, "byteTo": 5}],
                "attributeRequests": [], "attributeUpdates": [], "serverSideRpc": [],
            }
        ],
    }  # fmt: skip


@pytest.fixture
def line_port(core: CoreProcess, tmp_path: Path) -> Iterator[int]:
    """A running gateway; the TCP port of its connector."""
    folder = tmp_path / "config"
    folder.mkdir()
    port = free_port()
    profile = core.make_profile("thingsboard-gateway")
    (folder / "tb_gateway.json").write_text(json.dumps(configuration(core, profile)))
    (folder / "socket.json").write_text(json.dumps(connector(port)))
    import thingsboard_gateway

    shutil.copy(Path(thingsboard_gateway.__file__).parent / "config" / "logs.json", folder / "logs.json")
    environment = os.environ | {"TB_GW_CONFIG_DIR": f"{folder}/"}
    with (tmp_path / "gateway.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "thingsboard_gateway.tb_gateway"],
            cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_its_sub_devices_appear(core: CoreProcess, line_port: int) -> None:
    """Self-provisioning, session limits, connect with type, telemetry, attributes, a command to the gateway itself."""

    def send() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", line_port), timeout=5) as line:
                line.sendall(b"21.C1")
                threading.Event().wait(0.5)
        except OSError:
            return False
        return bool(core.rest.get("/api/tenant/devices", pageSize=10, page=0, textSearch="Line Device")["data"])

    until(send, "the sub-device")
    device = core.device("Line Device")
    assert device["type"] == "line"
    until(lambda: core.latest("Line Device").get("temp"), "its telemetry")
    gateways = core.rest.get("/api/tenant/devices", pageSize=10, page=0, type="thingsboard-gateway")["data"]
    assert [one["additionalInfo"].get("gateway") for one in gateways] == [True]
    relations = core.rest.get("/api/relations", toId=device["id"]["id"], toType="DEVICE")
    assert [(one["type"], one["from"]["id"]) for one in relations] == [("Created", gateways[0]["id"]["id"])]
    answer = command(core, gateways[0]["name"], "twoway", method="gateway_ping", params={}, timeout=20_000)
    assert answer.status_code == 200 and "pong" in answer.text
