"""The gateway's part of the demonstration: sub-devices that speak MQTT, CoAP and Modbus come in through a gateway.

Core and gateway never import each other, so the gateway runs as the program that it is.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloud_core.demo.programs import running

METER_TIMEOUT_S = 15.0  # to start, and to stop
METER_UNIT = 1
METER_REGISTERS = 20
POWER_REGISTER, LIMIT_REGISTER = 0, 10

CONFIGURATION = """\
[core]
url = "mqtt://127.0.0.1:{core}"
provision = {{ key = "{key}", secret = "{secret}", name = "demo-gateway" }}

[local]
port = 0

[[mqtt]]                                  # sub-devices publish to the gateway
name = "hall"
listen = "127.0.0.1:{mqtt}"
anonymous = true
  [[mqtt.map]]
  topic = "hall/{{unit}}/data"
  device = "demo-hall-{{unit}}"
  type = "thermometer"
  telemetry = ["$.temp -> temperature: float"]

[[coap]]
name = "meters"
listen = "127.0.0.1:{coap}"
  [[coap.map]]
  path = "/m/{{device}}"
  device = "demo-{{device}}"
  type = "water-meter"
  telemetry = ["$.litres -> volume: float"]

[[modbus]]
name = "plant"
connect = "tcp://127.0.0.1:{modbus}"
every = "1 s"
  [[modbus.device]]
  unit = 1
  device = "demo-meter-{{unit}}"
  type = "energy-meter"
  telemetry = [{{ key = "power", at = "holding:0", as = "uint16", scale = 0.1 }}]
  rpc.setLimit = {{ write = "holding:10", as = "uint16", value = "$.params.limit" }}
"""


class Meter:
    """A Modbus TCP slave with a few registers, in a thread of its own."""

    def __init__(self) -> None:
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._client: Any = None

    def start(self) -> Meter:
        self._thread.start()
        if not self._is_ready.wait(METER_TIMEOUT_S):
            raise RuntimeError("the simulated Modbus meter did not start")
        return self

    def _run(self) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        async def serve() -> Any:
            registers = SimData(0, count=METER_REGISTERS, values=0, datatype=DataType.REGISTERS)
            server = ModbusTcpServer(SimDevice(METER_UNIT, simdata=[registers]), address=("127.0.0.1", 0))
            await server.serve_forever(background=True)
            listening: Any = server.transport  # an asyncio Server
            self.port = listening.sockets[0].getsockname()[1]
            return server

        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(serve())
        self._is_ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(server.shutdown())

    def _ask(self, work: Callable[[Any], Any]) -> Any:
        from pymodbus.client import AsyncModbusTcpClient

        async def ask() -> Any:
            client = AsyncModbusTcpClient("127.0.0.1", port=self.port)
            await client.connect()
            try:
                return await work(client)
            finally:
                client.close()

        return asyncio.run(ask())

    def set(self, register: int, value: int) -> None:
        self._ask(lambda client: client.write_register(register, value, device_id=METER_UNIT))

    def get(self, register: int) -> int:
        answer = self._ask(lambda client: client.read_holding_registers(register, count=1, device_id=METER_UNIT))
        value: int = answer.registers[0]
        return value

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(METER_TIMEOUT_S)


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def gateway(folder: Path, *, core_port: int, key: str, secret: str, meter_port: int) -> Iterator[tuple[int, int]]:
    """A running gateway with one connector of each kind; its MQTT and CoAP ports. Raises: ProgramEnded."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mqtt_port, coap_port = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    configuration = folder / "gateway.toml"
    configuration.touch(mode=0o600)
    configuration.write_text(
        CONFIGURATION.format(core=core_port, key=key, secret=secret, mqtt=mqtt_port, coap=coap_port, modbus=meter_port)
    )
    arguments = ("run", "--config", str(configuration), "--data-dir", str(folder))
    with running("edge_gateway", *arguments, environment={"EDGE_GATEWAY__LOG__LEVEL": "error"}):
        yield mqtt_port, coap_port


def publish(port: int, topic: str, body: dict[str, Any], *, timeout_s: float) -> bool:
    """One QoS 1 message of a sub-device; whether the gateway acknowledged it."""
    import paho.mqtt.client as paho

    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    message = client.publish(topic, json.dumps(body), 1)
    message.wait_for_publish(timeout_s)
    client.disconnect()
    client.loop_stop()
    return message.is_published()
