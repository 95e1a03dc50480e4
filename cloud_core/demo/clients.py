"""What the demonstration's devices do over the wire, as a device's own software would."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import requests

from cloud_core.demo.factory import DeviceFiles

STEP_TIMEOUT_S = 15.0


class DemoFailed(Exception):
    """A step did not do what it promises; `str()` names the step."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the core under demonstration listens."""

    http: str
    mqtt_port: int
    coap_port: int
    host: str = "127.0.0.1"
    https: str = ""
    mqtts_port: int = 0
    ca_file: Path = Path()  # whom clients of the encrypted ports trust


def mqtt_provision(core: Endpoints, request: dict[str, str]) -> dict[str, Any]:
    """Provisions over MQTT as a device does."""
    import paho.mqtt.client as paho

    answers: list[dict[str, Any]] = []
    arrived = threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.username_pw_set("provision")

    def on_connect(*_: Any) -> None:
        client.subscribe("/provision/response", 1)
        client.publish("/provision/request", json.dumps(request), 1)

    def on_message(_client: Any, _userdata: Any, message: Any) -> None:
        answers.append(json.loads(message.payload))
        arrived.set()

    client.on_connect = on_connect
    client.on_message = on_message
    client.connect(core.host, core.mqtt_port)
    client.loop_start()
    arrived.wait(STEP_TIMEOUT_S)
    client.disconnect()
    client.loop_stop()
    expect("MQTT", bool(answers), "no provision response arrived")
    return answers[0]


def mqtt_telemetry(
    core: Endpoints, token: str, values: dict[str, float], files: DeviceFiles | None = None
) -> None:  # fmt: skip
    """Sends one message and waits for its acknowledgement; over TLS with a certificate in the place of the token."""
    import paho.mqtt.client as paho

    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    if files is None:
        client.username_pw_set(token)
        client.connect(core.host, core.mqtt_port)
    else:
        client.tls_set(str(core.ca_file), str(files.certificate), str(files.private_key))
        client.connect(core.host, core.mqtts_port)
    client.loop_start()
    message = client.publish("v1/devices/me/telemetry", json.dumps(values), 1)
    message.wait_for_publish(STEP_TIMEOUT_S)
    client.disconnect()
    client.loop_stop()
    expect("MQTT", message.is_published(), "telemetry was not acknowledged")


async def coap_post(core: Endpoints, path: str, body: dict[str, Any]) -> tuple[str, Any]:
    """Response code as text (`2.01`) and the decoded body, None when empty."""
    import aiocoap

    context = await aiocoap.Context.create_client_context()
    try:
        request = aiocoap.Message(
            code=aiocoap.POST, uri=f"coap://{core.host}:{core.coap_port}/{path}", payload=json.dumps(body).encode()
        )
        response = await asyncio.wait_for(context.request(request).response, STEP_TIMEOUT_S)
        return str(response.code).split()[0], json.loads(response.payload) if response.payload else None
    finally:
        await context.shutdown()


def expect(step: str, holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoFailed(f"Step {step}: {otherwise}.")


def done(text: str) -> None:
    click.echo(click.style("  ✓ ", fg="green") + text)


def https_telemetry(core: Endpoints, files: DeviceFiles, values: dict[str, float]) -> None:
    """Sends one message with a client certificate in the place of a token."""
    posted = requests.post(
        f"{core.https}/api/v1/telemetry", json=values, timeout=STEP_TIMEOUT_S, verify=str(core.ca_file),
        cert=(str(files.certificate), str(files.private_key)),
    )  # fmt: skip
    expect("X.509", posted.status_code == 200, f"telemetry over HTTPS was answered with {posted.status_code}")
