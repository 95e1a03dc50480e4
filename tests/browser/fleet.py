"""A core with what a small maker of meters has: devices of three profiles, a gateway, people, refusals, imports.

Filled over the doors that everybody uses: the device API, MQTT and REST.
"""

from __future__ import annotations

import io
import json
import math
import time
from typing import Any

import paho.mqtt.client as paho
import requests

from tests.support.pki import Pki, generate, request_pem
from tests.support.server import CoreProcess

VIEWER, OPERATOR, CUSTOMER_USER = "viewer@example.com", "line-2@example.com", "anna@rivertown.example"
SYSTEM_USERNAME = "system@example.com"
PEOPLE_PASSWORD = "correct-horse-battery"
PLACES = ("Riverside 4", "Hill Street 12", "Mill Lane 3", "Station Road 28", "Harbour 7")
METERS = 30
SAMPLES = 240
WAIT_S = 10.0

BAD_ROWS = (
    "name;type;label;access_token\n"
    "WM-000901;water-meter;Riverside 9;\n"
    "WM-000902;water-meter;Riverside 10;\n"
    ";water-meter;has no name;\n"
    "WM-000903;water-meter;Riverside 11;\n"
    "WM-000902;water-meter;named twice;\n"
)
"""A list as it comes from the line: three good rows (one of them is named twice), and two that cannot be applied."""


class Fleet:
    """Fills `core`, and tells where an example of everything is."""

    def __init__(self, core: CoreProcess) -> None:
        self.core = core
        self.rest = core.rest
        self.keys: dict[str, dict[str, str]] = {}  # members of provision requests, by the profile's name
        self.tokens: dict[str, str] = {}  # access tokens, by the device's name
        self.ids: dict[str, str] = {}  # of an example of everything
        self._links: list[paho.Client] = []

    def fill(self) -> None:
        self._profiles()
        self._people()
        self._meters()
        self._gateway()
        self._refusals()
        self._waiting()
        self._certificates()
        self._import()

    def close(self) -> None:
        for link in self._links:
            link.disconnect()
            link.loop_stop()

    # -- what devices do --------------------------------------------------------------------------

    def ask(self, name: str, profile: str, **members: Any) -> dict[str, Any]:
        """A provision request over HTTP; the answer."""
        body = {"deviceName": name, **self.keys[profile], **members}
        answer: dict[str, Any] = requests.post(f"{self.core.http}/api/v1/provision", json=body, timeout=WAIT_S).json()
        if answer.get("status") == "SUCCESS":
            self.tokens[name] = answer["credentialsValue"]
        return answer

    def send(self, name: str, kind: str, body: Any) -> None:
        url = f"{self.core.http}/api/v1/{self.tokens[name]}/{kind}"
        requests.post(url, json=body, timeout=WAIT_S).raise_for_status()

    def id_of(self, name: str) -> str:
        found: str = self.core.device(name)["id"]["id"]
        return found

    # -- what there is ----------------------------------------------------------------------------

    def _profiles(self) -> None:
        make = self.core.make_profile
        self.keys["water-meter"] = make("water-meter", reprovisioning="REPLAY_UNTIL_CONFIRMED")
        self.keys["heat-meter"] = make("heat-meter", approval="REQUIRED")
        self.keys["edge-gateway"] = make("edge-gateway")
        self.keys["listed-sensor"] = make("listed-sensor", "CHECK_PRE_PROVISIONED_DEVICES")
        found = self.rest.get("/api/deviceProfiles", pageSize=50, page=0)["data"]
        for one in found:
            self.ids[one["name"]] = one["id"]["id"]
        key = {"name": "line-2, first batch", "budget": 500, "namePattern": "WM-[0-9]{6}"}
        made = self.rest.post(f"/api/deviceProfile/{self.ids['water-meter']}/keys", key)
        self.ids["key"] = made["id"]["id"]
        self.keys["batch"] = {name: made[name] for name in ("provisionDeviceKey", "provisionDeviceSecret")}

    def _people(self) -> None:
        customer = self.rest.post("/api/customer", {"title": "Rivertown Waterworks"})
        self.ids["customer"] = customer["id"]["id"]
        for email, role in ((VIEWER, "VIEWER"), (OPERATOR, "OPERATOR")):
            user = {"email": email, "authority": "TENANT_ADMIN", "role": role, "password": PEOPLE_PASSWORD}
            self.ids[email] = self.rest.post("/api/user", user)["id"]["id"]
        user = {"email": CUSTOMER_USER, "authority": "CUSTOMER_USER", "customerId": customer["id"]}
        self.rest.post("/api/user", user | {"password": PEOPLE_PASSWORD})
        self.rest.post("/api/apiKey", {"name": "line-2 test jig", "role": "OPERATOR"})

    def _meters(self) -> None:
        for number in range(1, METERS + 1):
            name = f"WM-{number:06}"
            self.ask(name, "batch" if number % 3 == 0 else "water-meter")
            if number <= 4:
                self._history(name, number)
                self.send(name, "attributes", {"firmware": "2.4.1", "serial": f"A{number:05}", "battery": 97 - number})
            elif number <= METERS - 4:  # the last ones have not logged in yet
                self.send(name, "telemetry", {"volume": 100.0 + number})
        self.ids["device"] = self.id_of("WM-000001")
        attributes = {"interval": 900, "site": PLACES[0]}
        self.rest.post(f"/api/plugins/telemetry/DEVICE/{self.ids['device']}/SHARED_SCOPE", attributes)
        for number in (1, 2, 3):
            self.rest.post(f"/api/customer/{self.ids['customer']}/device/{self.id_of(f'WM-{number:06}')}")
        late = {"method": "setInterval", "params": {"seconds": 300}, "persistent": True}
        self.rest.post(f"/api/rpc/oneway/{self.ids['device']}", late)

    def _history(self, name: str, number: int) -> None:
        """An hour of flow, a value every 15 s, with the shape that people use water in."""
        now_ms = int(time.time() * 1000)
        points = []
        for place in range(SAMPLES):
            flow = 2.2 + 1.6 * math.sin(place / 19 + number) + 0.5 * math.sin(place / 3.1)
            values = {"flow": round(max(0.0, flow), 2), "volume": round(1200 + number + place * 0.031, 3)}
            points.append({"ts": now_ms - (SAMPLES - place) * 15_000, "values": values})
        self.send(name, "telemetry", points)
        self.send(name, "telemetry", {"temperature": 11.4 + number / 10, "valve": "open"})

    def _gateway(self) -> None:
        self.ask("GW-12", "edge-gateway", gateway=True)
        self.ids["gateway"] = self.id_of("GW-12")
        link = paho.Client(paho.CallbackAPIVersion.VERSION2)
        link.username_pw_set(self.tokens["GW-12"])
        link.connect("127.0.0.1", self.core.mqtt_port)
        link.loop_start()
        self._links.append(link)
        now_ms = int(time.time() * 1000)
        readings = {
            f"HALL-{number}": [{"ts": now_ms, "values": {"temperature": 20.5 + number / 4}}] for number in range(1, 7)
        }
        for topic, body in (
            ("v1/gateway/telemetry", readings),
            ("v1/devices/me/telemetry", {"recordsWaiting": 0, "recordsDropped": 0, "connectorsFailed": 0}),
            ("v1/devices/me/attributes", {"version": "0.1.0", "connectors": "hall, plant"}),
        ):
            link.publish(topic, _json(body), qos=1).wait_for_publish(WAIT_S)

    def _refusals(self) -> None:
        wrong = dict(self.keys["water-meter"]) | {"provisionDeviceSecret": "not-the-secret-at-all"}
        for name in ("WM-000777", "WM-000778"):
            self._ask_with(name, wrong)
        self._ask_with("WM-000779", wrong | {"provisionDeviceKey": "no-such-key-of-ours"})
        self.ids["reference"] = self.ask("LS-000001", "listed-sensor")["ref"]

    def _ask_with(self, name: str, members: dict[str, str]) -> None:
        requests.post(f"{self.core.http}/api/v1/provision", json={"deviceName": name, **members}, timeout=WAIT_S)

    def _waiting(self) -> None:
        for number in (41, 42, 43):
            self.ask(f"HM-{number:06}", "heat-meter")

    def _certificates(self) -> None:
        self.rest.post("/api/ca", {"name": "Plant CA", "keyType": "P-256", "years": 10})
        request = request_pem("PLC-0001", generate("p256"))
        issued = self.rest.post("/api/ca/Plant CA/issue", {"name": "PLC-0001", "csr": request, "days": 20})
        self.ids["certificate"] = issued["fingerprint"]
        chain = {
            "type": "X509_CERTIFICATE_CHAIN",
            "certificateRegExPattern": "(.*)",
            "allowCreateNewDevicesByX509Certificate": True,
        }
        made = self.rest.post(
            "/api/deviceProfile",
            {
                "name": "plc", "type": "DEFAULT", "transportType": "DEFAULT",
                "provisionType": "X509_CERTIFICATE_CHAIN",
                "profileData": {
                    "configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "DEFAULT"},
                    "provisionConfiguration": chain | {"provisionDeviceSecret": Pki().root("Factory root").pem},
                },
            },
        )  # fmt: skip
        self.ids["plc"] = made["id"]["id"]

    def _import(self) -> None:
        content = io.BytesIO(BAD_ROWS.encode())
        batch = self.rest.upload("/api/imports", content, "text/csv", {}, plan="true", fileName="line-2 monday.csv")
        self.ids["import"] = batch["id"]


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()
