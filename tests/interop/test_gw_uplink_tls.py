"""The gateway's uplink over TLS: its own certificate, a factory's, and a core that it cannot trust."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from cloud_core.rest_client import RestError
from tests.support.gateway_opcua_sites import free_port
from tests.support.gateway_process import GatewayProcess
from tests.support.pki import Pki
from tests.support.server import CoreProcess

WAIT_S = 20.0
numbers = itertools.count()

CONFIG = """
[core]
url = "mqtts://localhost:{port}"
ca_file = "{ca_file}"
{identity}

[local]
port = 0

[[mqtt]]
name = "hall"
listen = "127.0.0.1:{south}"
anonymous = true

[[mqtt.map]]
topic = "in/{{device}}"
device = "{{device}}"
telemetry = ["$.n -> n"]
"""


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    process = CoreProcess(tmp_path_factory.mktemp("secure") / "data", is_tls=True).start()
    yield process
    process.stop()


def gateway(secure: CoreProcess, folder: Path, identity: str, *, ca_file: Path | None = None) -> tuple[Any, int]:
    south = free_port()
    text = CONFIG.format(
        port=secure.mqtts_port, ca_file=ca_file or secure.ca_file, identity=identity, south=south
    )  # fmt: skip
    return GatewayProcess(folder, text).start(), south


def send(south: int, device: str, number: int) -> None:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", south)
    client.loop_start()
    message = client.publish(f"in/{device}", json.dumps({"n": number}), 1)
    message.wait_for_publish(WAIT_S)
    client.disconnect()
    client.loop_stop()


def until(holds: Callable[[], Any]) -> None:
    ends = time.monotonic() + WAIT_S
    while time.monotonic() < ends:
        with contextlib.suppress(RestError):  # not registered yet
            if holds():
                return
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def test_a_gateway_makes_its_own_certificate_and_logs_in_with_it(secure: CoreProcess, tmp_path: Path) -> None:
    """The key never leaves it; after a restart it comes back with the same one."""
    name = f"gw-own-{next(numbers)}"
    profile = secure.make_profile(f"profile-{name}")
    key, secret = profile["provisionDeviceKey"], profile["provisionDeviceSecret"]
    identity = (
        f'provision = {{ key = "{key}", secret = "{secret}", name = "{name}", credentials = "X509_CERTIFICATE" }}'
    )
    running, south = gateway(secure, tmp_path / "gateway", identity)
    try:
        for number in (1, 2):
            send(south, f"{name}-sub", number)
            until(lambda number=number: secure.latest(f"{name}-sub") == {"n": number})
            running.stop()
            running.start()
    finally:
        running.stop()
    uuid = secure.device(name)["id"]["id"]
    stored = secure.rest.get(f"/api/device/{uuid}/credentials")
    assert stored["credentialsType"] == "X509_CERTIFICATE"
    assert secure.device(name)["additionalInfo"]["gateway"] is True


def test_a_gateway_with_a_factory_certificate_comes_in_by_its_chain(secure: CoreProcess, tmp_path: Path) -> None:
    """An operator makes it a gateway beforehand; the certificate is all it carries."""
    name = f"gw-factory-{next(numbers)}"
    factory = Pki().root("Gateway factory")
    secure.make_profile(
        f"profile-{name}", "X509_CERTIFICATE_CHAIN", provisionDeviceSecret=factory.pem,
        certificateRegExPattern="(.+)", allowCreateNewDevicesByX509Certificate=False,
    )  # fmt: skip
    secure.rest.post(
        "/api/device", {"name": name, "type": f"profile-{name}", "additionalInfo": {"gateway": True}}
    )  # fmt: skip
    certificate, private_key = factory.leaf(name).write(tmp_path)
    running, south = gateway(
        secure, tmp_path / "gateway", f'certificate = "{certificate}"\nprivate_key = "{private_key}"'
    )
    try:
        send(south, f"{name}-sub", 7)
        until(lambda: secure.latest(f"{name}-sub") == {"n": 7})
    finally:
        running.stop()


def test_a_core_that_shows_a_foreign_certificate_hears_no_secret(secure: CoreProcess, tmp_path: Path) -> None:
    """The gateway says which setting is wrong and keeps what it has."""
    foreign = tmp_path / "foreign.pem"
    foreign.write_text(Pki().root("Somebody else").pem)
    running, south = gateway(secure, tmp_path / "gateway", 'token = "unused"', ca_file=foreign)
    try:
        send(south, "kept", 1)
        until(lambda: "not trusted" in running.log.read_text())
        assert "[core] ca_file" in running.log.read_text()
    finally:
        running.stop()
