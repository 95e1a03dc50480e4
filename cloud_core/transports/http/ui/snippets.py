"""Ready commands and programs: a device's first provisioning, then telemetry with what it got. Pure.

Each `Snippet` runs as it stands; tests run them against a core. Those of one way share a shell: the first keeps the
token for the others.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from cloud_core.transports.endpoints import COAP, COAPS, HTTP, HTTPS, MQTT, MQTTS, Endpoints
from cloud_core.transports.http.ui.snippet_programs import HTTP_PROGRAM, MQTT_CERTIFICATE_PROGRAM, MQTT_PROGRAM

CA_FILE = "ca.pem"
SECRET_PLACEHOLDER = "YOUR-PROVISION-SECRET"
KEY_PLACEHOLDER = "YOUR-PROVISION-KEY"
DEVICE = "SN-001"
VALUES = '{"temperature": 21.5}'
WAYS = (
    ("curl", "curl (HTTP)"), ("mosquitto", "mosquitto (MQTT)"), ("coap", "coap-client (CoAP)"),
    ("python-http", "Python (HTTP)"), ("python-mqtt", "Python (MQTT)"),
)  # fmt: skip
_HOST = re.compile(r"(?i)(\[[0-9a-f:.]{2,45}\]|[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?)(:[0-9]{1,5})?")
_PUBLIC = re.compile(rf"(?i)https?://{_HOST.pattern.removeprefix('(?i)')}(/[a-z0-9._~/-]*)?")
# Takes the token out of the answer and shows the answer as well.
_KEEP = r"""tee /dev/stderr | sed -n 's/.*"credentialsValue":"\([^"]*\)".*/\1/p'"""


class Snippet(NamedTuple):
    """A text to copy and what it is."""

    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where devices reach the core, with TLS or without; None or empty: not at all."""

    host: str  # a name or an address, IPv6 without brackets
    http: str  # base URL
    mqtt: int | None
    coap: int | None
    coap_host: str  # as `host`; an address where the name could lead to another one
    is_secure: bool
    is_ca_needed: bool  # whether HTTP clients have to be told whom to trust

    @property
    def shown_coap_host(self) -> str:
        return f"[{self.coap_host}]" if ":" in self.coap_host else self.coap_host


def places_of(host_header: str, is_secure: bool, endpoints: Endpoints) -> dict[bool, Place]:
    """By whether TLS is used; what is not open is missing. `is_secure`: whether the browser came by TLS.

    The configured public URL wins over the browser's address: devices may not stand where the browser does.
    """
    match = _HOST.fullmatch(host_header)
    shown = match[0] if match else "localhost"
    base = f"{'https' if is_secure else 'http'}://{shown}"
    if _PUBLIC.fullmatch(endpoints.public_url):  # anything else could not stand in a command as it is
        base = endpoints.public_url.rstrip("/")
    try:
        host = urlsplit(base).hostname or "localhost"
    except ValueError:
        host = "localhost"
    bases = {False: _base(HTTP, host, endpoints), True: _base(HTTPS, host, endpoints)}
    is_own_tls = endpoints.port(HTTPS) is not None and base.endswith(f":{endpoints.port(HTTPS)}")
    bases[base.startswith("https:")] = base
    ports = {False: (MQTT, COAP), True: (MQTTS, COAPS)}
    found = {}
    for with_tls, (mqtt, coap) in ports.items():
        if bases[with_tls] or endpoints.port(mqtt):
            found[with_tls] = Place(
                host=host, http=bases[with_tls], mqtt=endpoints.port(mqtt), coap=endpoints.port(coap),
                coap_host=_coap_host(host, endpoints) if not with_tls else host, is_secure=with_tls,
                is_ca_needed=with_tls and (is_own_tls or base.startswith("http:")),
            )  # fmt: skip
    return found


def _base(scheme: str, host: str, endpoints: Endpoints) -> str:
    port = endpoints.port(scheme)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}" if port else ""


def _coap_host(host: str, endpoints: Endpoints) -> str:
    """`localhost` may be ::1 first, where over UDP nobody says that nobody listens."""
    listening = endpoints.ports.get(COAP)
    return listening.bind if host == "localhost" and listening is not None and listening.is_loopback else host


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What the snippets of a profile are made of."""

    key: str = KEY_PLACEHOLDER
    secret: str = SECRET_PLACEHOLDER
    topic: str = "v1/devices/me/telemetry"
    name: str = DEVICE

    @property
    def request(self) -> dict[str, str]:
        return {"deviceName": self.name, "provisionDeviceKey": self.key, "provisionDeviceSecret": self.secret}

    @property
    def body(self) -> str:
        members = [f"{json.dumps(name)}: {_json(value)}" for name, value in self.request.items()]
        return shlex.quote("{" + ",\n    ".join(members) + "}")


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def topic_of(telemetry_filter: str, is_protobuf: bool) -> str:
    """A topic that takes JSON telemetry of devices of a profile."""
    if is_protobuf:
        return "v2/t/j"
    return "/".join("me" if part in ("+", "#") else part for part in telemetry_filter.split("/"))


def with_key(way: str, place: Place, door: Door) -> list[Snippet]:
    """Of a profile whose devices show key and secret; empty where the way is not open."""
    return _WITH_KEY[way](place, door)


def with_certificate(way: str, place: Place, door: Door) -> list[Snippet]:
    """Of a profile whose devices show a certificate: files `device.pem`, `device.key`. `place` is one with TLS."""
    return _WITH_CERTIFICATE[way](place, door)


def certificate_snippet(name: str) -> Snippet:
    """Key and certificate of a device, by a CA whose key lies beside."""
    return Snippet(
        "A key and a certificate for the device",
        f"""openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out device.key
openssl req -new -key device.key -subj {shlex.quote(f"/CN={name}")} -out device.csr
printf 'basicConstraints=CA:FALSE\\nkeyUsage=digitalSignature\\nextendedKeyUsage=clientAuth\\n' > device.ext
openssl x509 -req -in device.csr -CA factory-ca.pem -CAkey factory-ca.key -CAcreateserial \\
  -days 365 -sha256 -extfile device.ext -out device.pem""",
    )


# -- with key and secret ---------------------------------------------------------------------------


def _curl(place: Place, door: Door) -> list[Snippet]:
    if not place.http:
        return []
    trust = f" --cacert {CA_FILE}" if place.is_ca_needed else ""
    json_type = "-H 'Content-Type: application/json'"
    return [
        Snippet("1. Provision", f"""TOKEN=$(curl -sS{trust} -X POST {place.http}/api/v1/provision \\
  {json_type} \\
  -d {door.body} \\
  | {_KEEP})"""),
        Snippet("2. Send telemetry", f"""curl -sS --fail{trust} -X POST "{place.http}/api/v1/$TOKEN/telemetry" \\
  {json_type} -d '{VALUES}' && echo sent"""),
    ]  # fmt: skip


def _mosquitto(place: Place, door: Door) -> list[Snippet]:
    if not place.mqtt:
        return []
    to = _mqtt_to(place)
    return [
        Snippet("1. Provision", f"""TOKEN=$(mosquitto_rr {to} -u provision -W 20 \\
  -t /provision/request -e /provision/response \\
  -m {door.body} \\
  | {_KEEP})"""),
        Snippet("2. Send telemetry", f"""mosquitto_pub {to} -u "$TOKEN" -q 1 \\
  -t {shlex.quote(door.topic)} -m '{VALUES}' && echo sent"""),
        Snippet("3. Wait for attributes and commands", f"""mosquitto_sub {to} -u "$TOKEN" -q 1 -v \\
  -t v1/devices/me/attributes -t 'v1/devices/me/rpc/request/+'"""),
    ]  # fmt: skip


def _mqtt_to(place: Place) -> str:
    return f"-h {place.host} -p {place.mqtt}" + (f" --cafile {CA_FILE}" if place.is_secure else "")


def _coap(place: Place, door: Door) -> list[Snippet]:
    if not place.coap:
        return []
    client, base = _coap_client(place)
    return [
        Snippet("1. Provision", f"""TOKEN=$({client} -B 20 -m post -t application/json \\
  -e {door.body} \\
  {base}/provision \\
  | {_KEEP})"""),
        Snippet("2. Send telemetry", f"""{client} -B 20 -m post -t application/json -e '{VALUES}' \\
  "{base}/$TOKEN/telemetry" && echo sent"""),
    ]  # fmt: skip


def _coap_client(place: Place) -> tuple[str, str]:
    base = f"{COAPS if place.is_secure else COAP}://{place.shown_coap_host}:{place.coap}/api/v1"
    return (f"coap-client-openssl -C {CA_FILE}" if place.is_secure else "coap-client-notls"), base


def _python_http(place: Place, door: Door) -> list[Snippet]:
    if not place.http:
        return []
    context = f'ssl.create_default_context(cafile="{CA_FILE}")' if place.is_ca_needed else "None"
    return [Snippet("Provision, then send telemetry; Python's own library is enough", _filled(
        HTTP_PROGRAM, core=place.http, request=_members(door), context=context,
    ))]  # fmt: skip


def _python_mqtt(place: Place, door: Door) -> list[Snippet]:
    if not place.mqtt:
        return []
    return [Snippet("Provision, then send telemetry; needs paho-mqtt 2", _filled(
        MQTT_PROGRAM, host=json.dumps(place.host), port=str(place.mqtt), request=_members(door),
        topic=json.dumps(door.topic), ca_file=json.dumps(CA_FILE) if place.is_secure else "None",
    ))]  # fmt: skip


# -- with a certificate ----------------------------------------------------------------------------


def _curl_chain(place: Place, door: Door) -> list[Snippet]:
    if not place.http:
        return []
    trust = f" --cacert {CA_FILE}" if place.is_ca_needed else ""
    return [Snippet("Come in and send telemetry, by one request",
        f"""curl -sS --fail{trust} --cert device.pem --key device.key \\
  -X POST {place.http}/api/v1/telemetry -H 'Content-Type: application/json' -d '{VALUES}' && echo sent""")]  # fmt: skip


def _mosquitto_chain(place: Place, door: Door) -> list[Snippet]:
    if not place.mqtt:
        return []
    to = f"{_mqtt_to(place)} --cert device.pem --key device.key"
    return [
        Snippet("1. Come in and send telemetry", f"""mosquitto_pub {to} \\
  -q 1 -t {shlex.quote(door.topic)} -m '{VALUES}' && echo sent"""),
        Snippet("2. Wait for attributes and commands", f"""mosquitto_sub {to} \\
  -q 1 -v -t v1/devices/me/attributes -t 'v1/devices/me/rpc/request/+'"""),
    ]  # fmt: skip


def _coap_chain(place: Place, door: Door) -> list[Snippet]:
    if not place.coap:
        return []
    client, base = _coap_client(place)
    return [Snippet("Come in and send telemetry, by one request",
        f"""{client} -c device.pem -j device.key -B 20 -m post -t application/json \\
  -e '{VALUES}' {base}/telemetry && echo sent""")]  # fmt: skip


def _python_mqtt_chain(place: Place, door: Door) -> list[Snippet]:
    if not place.mqtt:
        return []
    return [Snippet("Come in and send telemetry; needs paho-mqtt 2", _filled(
        MQTT_CERTIFICATE_PROGRAM, host=json.dumps(place.host), port=str(place.mqtt), topic=json.dumps(door.topic),
        ca_file=json.dumps(CA_FILE),
    ))]  # fmt: skip


def _members(door: Door) -> str:
    lines = "".join(f"    {json.dumps(name)}: {json.dumps(value)},\n" for name, value in door.request.items())
    return f"{{\n{lines}}}"


def _filled(program: str, **values: str) -> str:
    """`@name@` in the program stands for a value."""
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], program).strip()


_Made = Mapping[str, Callable[[Place, Door], list[Snippet]]]
_WITH_KEY: _Made = {
    "curl": _curl, "mosquitto": _mosquitto, "coap": _coap, "python-http": _python_http, "python-mqtt": _python_mqtt,
}  # fmt: skip
_WITH_CERTIFICATE: _Made = {
    "curl": _curl_chain, "mosquitto": _mosquitto_chain, "coap": _coap_chain, "python-mqtt": _python_mqtt_chain,
}  # fmt: skip
CHAIN_WAYS = tuple(one for one in WAYS if one[0] in _WITH_CERTIFICATE)
