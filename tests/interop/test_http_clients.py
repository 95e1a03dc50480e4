"""ThingsBoard's Python SDK and curl on the HTTP device API, over real sockets."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import threading
from typing import Any

import pytest
from tb_device_http import TBHTTPDevice

from tests.conftest import need
from tests.support.server import CoreProcess

WAIT_S = 20.0
TRIES = 40


@pytest.fixture
def device(core: CoreProcess, profile: dict[str, str], request: pytest.FixtureRequest) -> Any:
    """Provisioned by the SDK; Any: the SDK has no types."""
    key, secret = profile["provisionDeviceKey"], profile["provisionDeviceSecret"]
    return TBHTTPDevice.provision(core.http, f"http-{request.node.name[:60]}", key, secret)


def _share(core: CoreProcess, name: str, **values: Any) -> None:
    identifier = core.device(name)["id"]["id"]
    core.rest.post(f"/api/plugins/telemetry/DEVICE/{identifier}/attributes/SHARED_SCOPE", values)


def test_the_sdk_reads_the_attributes_it_asks_for(core: CoreProcess, device: Any) -> None:
    """With its own names of the parameters, and lists as repeated ones."""
    assert device.test_connection()
    device.send_attributes({"serial": "s-1", "other": 2})
    _share(core, device.name, target=5, mode="eco")
    found = device.request_attributes(client_keys=["serial", "none"], shared_keys=["target", "mode"])
    assert found == {"client": {"serial": "s-1"}, "shared": {"target": 5, "mode": "eco"}}


def test_the_sdk_hears_of_changes(core: CoreProcess, device: Any) -> None:
    """Its subscription is a long poll after the other; what it did not wait for it reads afterwards."""
    heard: list[dict[str, Any]] = []
    arrived = threading.Event()

    def on_change(change: dict[str, Any]) -> None:
        heard.append(change)
        device.unsubscribe("attributes")
        arrived.set()

    device.subscribe("attributes", on_change)
    for number in range(TRIES):  # it says nothing when it begins to wait
        _share(core, device.name, target=number)
        if arrived.wait(WAIT_S / TRIES):
            break
    assert [list(change) for change in heard] == [["target"]]


def test_curl_waits_and_is_told_in_time(core: CoreProcess, device: Any) -> None:
    """408 and an empty body."""
    command = [need("curl", "curl"), "-s", "-w", "%{http_code}", f"{device.api_base_url}/rpc?timeout=200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert done.stdout == "408"


def test_connections_that_are_reset_while_they_wait_leave_the_core_well(core: CoreProcess, device: Any) -> None:
    """Without a FIN, half of them with more to say."""
    request = f"GET /api/v1/{device.token}/attributes/updates HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    for number in range(20):
        with socket.create_connection(("127.0.0.1", core.http_port), WAIT_S) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(request * (1 + number % 2))
    _share(core, device.name, target=1)
    with socket.create_connection(("127.0.0.1", core.http_port), WAIT_S) as sock:
        sock.sendall(request.replace(b"/updates", b"?sharedKeys=target"))
        assert json.loads(sock.recv(4096).partition(b"\r\n\r\n")[2]) == {"shared": {"target": 1}}
