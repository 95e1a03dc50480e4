"""An example table of each kind of connector, for `setup` to write and for people to change."""

from __future__ import annotations

from string import Template

_MQTT = """\
[[mqtt]]                                    # devices connect to this gateway: it is their broker
name = "hall"
listen = "127.0.0.1:1883"                   # 0.0.0.0:1883 for the site's network, then with `users`
anonymous = true                            # or: users = "sub-devices.csv", with lines device,password
  [[mqtt.map]]
  topic = "site/{line}/{unit}/data"
  device = "{line}-{unit}"                  # the name at the core, from the topic
  type = "default"                          # the device profile there
  telemetry = ["$.temp -> temperature: float", "$.hum -> humidity"]
  attributes = ["$.fw -> firmware"]
  rpc.setSpeed = { publish = "site/{line}/{unit}/cmd", body = "$.params", reply = "site/{line}/{unit}/ack" }
"""

_HTTP = """\
[[http]]                                    # devices post JSON to this gateway
name = "push"
listen = "127.0.0.1:8088"
anonymous = true                            # or: token = "${PUSH_TOKEN}"
  [[http.map]]
  path = "/in/{device}"
  device = "{device}"
  telemetry = ["$.* -> {key}"]
"""

_COAP = """\
[[coap]]                                    # devices POST or PUT over CoAP
name = "meters"
listen = "127.0.0.1:5683"
  [[coap.map]]
  path = "/m/{device}"
  device = "{device}"
  telemetry = ["$.kwh -> energy: float"]
  rpc = "observe"                           # devices that observe /m/{device}/rpc get their calls
"""

_MODBUS = """\
[[modbus]]
name = "plant"
connect = "$connect"
every = "5 s"
timeout = "800 ms"
  [[modbus.device]]
  unit = 1                                  # address on the bus
  device = "meter-{unit}"
  type = "default"
  telemetry = [
    { key = "power", at = "holding:0-1", as = "float32", unit = "W", report = "change 0.5 | 1 min" },
    { key = "alarm", at = "coil:7", as = "bool", report = "change" },
  ]
"""

_OPCUA = """\
[[opcua]]
name = "press"
connect = "$connect"
  [[opcua.device]]
  root = "Objects/Press"                    # path in the server; {name} in it finds several
  device = "press-1"
  type = "default"
  telemetry = ["Temperature -> temperature: float"]
"""

_SIMULATOR = """\
[[simulator]]                               # devices that do not exist, to try the way to the core
name = "demo"
devices = 2
telemetry = [{ key = "temperature", min = 18, max = 24 }]
"""

_TEXTS = {
    "mqtt": _MQTT, "http": _HTTP, "coap": _COAP, "modbus": _MODBUS, "opcua": _OPCUA, "simulator": _SIMULATOR,
}  # fmt: skip
_CONNECT = {"modbus": "tcp://192.0.2.20:502", "opcua": "opc.tcp://192.0.2.21:4840"}

EXAMPLES = tuple(_TEXTS)


def example(kind: str, connect: str = "") -> str:
    """The table's text; `connect` is an address that was found. Raises: KeyError for a kind without an example."""
    return Template(_TEXTS[kind]).safe_substitute(connect=connect or _CONNECT.get(kind, ""))
