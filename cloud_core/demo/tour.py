"""The steps of the demonstration, each checked over the wire and through the REST API."""

from __future__ import annotations

import asyncio
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import requests

from cloud_core.demo.clients import (
    STEP_TIMEOUT_S,
    DemoFailed,
    Endpoints,
    coap_post,
    done,
    expect,
    https_telemetry,
    mqtt_provision,
    mqtt_telemetry,
)
from cloud_core.demo.factory import Factory, keep, key_and_request
from cloud_core.demo.gateway import (
    LIMIT_REGISTER,
    POWER_REGISTER,
    Meter,
    gateway,
    publish,
)
from cloud_core.demo.programs import ProgramEnded, running
from cloud_core.rest_client import RestClient, RestError


def run_demo(ports: dict[str, int | None], *, once: bool) -> None:
    """Starts a core in a temporary data directory and shows its main job. Raises: DemoFailed."""
    password = secrets.token_urlsafe(12)
    with tempfile.TemporaryDirectory(prefix="muster-demo-") as data_dir, _core(data_dir, ports, password) as core:
        rest = RestClient(core.http)
        rest.login("demo@localhost", password)
        click.echo(f"The core is running: {core.http}, MQTT port {core.mqtt_port}, CoAP port {core.coap_port}\n")
        tour = Tour(core, rest)
        for step in tour.steps():
            step()
        by_certificate(tour, rest, core, Path(data_dir) / "factory")
        behind_a_gateway(tour, core, Path(data_dir) / "gateway")
        click.secho("\nAll steps done: every answer was checked over the wire and through REST.", fg="green")
        if not once:
            click.echo(f"Administrator: demo@localhost / {password}   REST: {core.http}")
            click.echo("Two devices keep sending; press Ctrl-C to stop.")
            tour.keep_sending()


def _free_port(preferred: int, kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return 0
    return preferred


@contextmanager
def _core(data_dir: str, ports: dict[str, int | None], password: str) -> Iterator[Endpoints]:
    usual = {
        "http": (8080, socket.SOCK_STREAM), "mqtt": (1883, socket.SOCK_STREAM), "coap": (5683, socket.SOCK_DGRAM),
        "https": (8443, socket.SOCK_STREAM), "mqtts": (8883, socket.SOCK_STREAM), "coaps": (5684, socket.SOCK_DGRAM),
    }  # fmt: skip
    options: list[str] = []
    for name, (port, kind) in usual.items():
        given = ports.get(name)
        options += [f"--{name}-port", str(_free_port(port, kind) if given is None else given)]
    environment = {
        "CLOUD_CORE__ADMIN__USERNAME": "demo@localhost",
        "CLOUD_CORE__ADMIN__PASSWORD": password,
        "CLOUD_CORE__LOG__LEVEL": "error",
    }
    arguments = ("serve", "--data-dir", data_dir, "--dev-tls", *options)
    try:
        with running("cloud_core", *arguments, environment=environment) as ready:
            yield _endpoints(ready, Path(data_dir) / "dev-tls" / "ca.pem")
    except ProgramEnded:
        raise DemoFailed("Start: the core ended before it was ready; its messages are above.") from None


def _endpoints(ready: str, ca_file: Path) -> Endpoints:
    found = dict(part.split("=", 1) for part in ready.split()[1:])
    ports = {name: int(address.rsplit(":", 1)[1]) for name, address in found.items()}
    return Endpoints(
        f"http://{found['http']}", ports["mqtt"], ports["coap"], https=f"https://{found['https']}",
        mqtts_port=ports["mqtts"], ca_file=ca_file,
    )  # fmt: skip


class Tour:
    """The steps, each of which prints what happened or raises DemoFailed."""

    def __init__(self, core: Endpoints, rest: RestClient) -> None:
        self._core = core
        self._rest = rest
        self._profiles: dict[str, tuple[str, str]] = {}
        self._tokens: dict[str, str] = {}

    def steps(self) -> list[Callable[[], None]]:
        return [
            self.make_profiles,
            self.provision_over_http,
            self.provision_over_mqtt,
            self.provision_over_coap,
            self.recover_a_lost_answer,
            self.admit_only_known_devices,
            self.explain_a_refusal,
        ]

    def make_profiles(self) -> None:
        self.add_profile("demo-open", "ALLOW_CREATE_NEW_DEVICES", reprovisioning="REPLAY_UNTIL_CONFIRMED")
        self.add_profile("demo-listed", "CHECK_PRE_PROVISIONED_DEVICES")
        for _, secret in self._profiles.values():
            expect("profiles", len(secret) == 20, "no provision secret was generated")
        done("Two device profiles with generated keys and secrets")

    def add_profile(self, name: str, strategy: str, **options: Any) -> None:
        profile = self._rest.post(
            "/api/deviceProfile",
            {
                "name": name, "type": "DEFAULT", "transportType": "DEFAULT", "provisionType": strategy,
                "profileData": {
                    "configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "DEFAULT"},
                    "provisionConfiguration": {"type": strategy, **options},
                },
            },
        )  # fmt: skip
        secret = profile["profileData"]["provisionConfiguration"]["provisionDeviceSecret"]
        self._profiles[name] = (profile["provisionDeviceKey"], secret)

    def provision_over_http(self) -> None:
        answer = requests.post(
            f"{self._core.http}/api/v1/provision", json=self.request("demo-http"), timeout=STEP_TIMEOUT_S
        ).json()
        token = self._token_of("HTTP", answer)
        posted = requests.post(
            f"{self._core.http}/api/v1/{token}/telemetry", json={"temperature": 21.5}, timeout=STEP_TIMEOUT_S
        )
        expect("HTTP", posted.status_code == 200, f"telemetry was answered with {posted.status_code}")
        self.expect_stored("HTTP", "demo-http", 21.5)
        self._tokens["demo-http"] = token
        done("HTTP: device provisioned itself, logged in, and its telemetry is stored")

    def provision_over_mqtt(self) -> None:
        answer = mqtt_provision(self._core, self.request("demo-mqtt"))
        token = self._token_of("MQTT", answer)
        mqtt_telemetry(self._core, token, {"temperature": 22.5})
        self.expect_stored("MQTT", "demo-mqtt", 22.5)
        self._tokens["demo-mqtt"] = token
        done("MQTT: device provisioned itself, logged in, and its telemetry is stored")

    def provision_over_coap(self) -> None:
        code, answer = asyncio.run(coap_post(self._core, "api/v1/provision", self.request("demo-coap")))
        expect("CoAP", code == "2.01", f"provisioning was answered with {code}")
        token = self._token_of("CoAP", answer)
        code, _ = asyncio.run(coap_post(self._core, f"api/v1/{token}/telemetry", {"temperature": 23.5}))
        expect("CoAP", code == "2.01", f"telemetry was answered with {code}")
        self.expect_stored("CoAP", "demo-coap", 23.5)
        done("CoAP: device provisioned itself, logged in, and its telemetry is stored")

    def recover_a_lost_answer(self) -> None:
        answers = [
            requests.post(
                f"{self._core.http}/api/v1/provision", json=self.request("demo-lost"), timeout=STEP_TIMEOUT_S
            ).content
            for _ in range(2)
        ]
        expect("replay", answers[0] == answers[1], "the repeated request got another answer")
        done("A device whose answer got lost asked again and received the same credentials")

    def admit_only_known_devices(self) -> None:
        rows = self._rest.post("/api/devices", [{"name": "demo-listed-1", "type": "demo-listed"}])
        expect("bulk", rows[0]["status"] == "CREATED", f"the bulk row says {rows[0]}")
        outcomes = [
            requests.post(
                f"{self._core.http}/api/v1/provision", json=self.request(name, "demo-listed"), timeout=STEP_TIMEOUT_S
            ).json()
            for name in ("demo-listed-1", "demo-listed-1", "demo-stranger")
        ]
        reasons = [outcome.get("reason", outcome["status"]) for outcome in outcomes]
        expect("strategy", reasons == ["SUCCESS", "ALREADY_PROVISIONED", "DEVICE_NOT_FOUND"], f"answers: {reasons}")
        done("Pre-provisioned list: the listed device came in once, the stranger did not")

    def explain_a_refusal(self) -> None:
        request = self.request("demo-wrong") | {"provisionDeviceSecret": "not-the-secret"}
        answer = requests.post(f"{self._core.http}/api/v1/provision", json=request, timeout=STEP_TIMEOUT_S).json()
        expect("refusal", answer["status"] == "NOT_FOUND", f"a wrong secret was answered with {answer}")
        attempt = self._rest.get(f"/api/provisioning/attempts/{answer['ref']}")
        expect("explain", attempt["outcome"] == "INVALID_PROVISION_CREDENTIALS", f"explained as {attempt}")
        done(f"A refusal explains itself: {answer['ref']} → {attempt['detail']}")

    def profile(self, name: str) -> tuple[str, str]:
        """Provision key and secret."""
        return self._profiles[name]

    def await_value(self, step: str, device: str, key: str, value: float) -> None:
        """What a gateway has acknowledged is on its disk; it reaches the core a little later."""
        ends = time.monotonic() + STEP_TIMEOUT_S
        found: Any = None
        while time.monotonic() < ends:
            try:
                found = self._latest(device).get(key, [{}])[0].get("value")
            except RestError:  # not registered yet
                found = None
            if found == value:
                return
            time.sleep(0.1)
        raise DemoFailed(f"Step {step}: {device} should have {key} = {value}, REST reads {found}.")

    def call(self, step: str, device: str, method: str, params: Any) -> None:
        """A two-way command; whatever the device replies."""
        identifier = self._rest.get("/api/tenant/devices", deviceName=device)["id"]["id"]
        try:
            answer = self._rest.post(f"/api/rpc/twoway/{identifier}", {"method": method, "params": params})
        except RestError as error:
            raise DemoFailed(f"Step {step}: {method} of {device} was answered with {error}.") from None
        expect(step, not (isinstance(answer, dict) and answer.get("error")), f"{method} was answered with {answer}")

    def _latest(self, device: str) -> dict[str, Any]:
        found = self._rest.get("/api/tenant/devices", deviceName=device)
        latest: dict[str, Any] = self._rest.get(
            f"/api/plugins/telemetry/DEVICE/{found['id']['id']}/values/timeseries", useStrictDataTypes="true"
        )
        return latest

    def keep_sending(self) -> None:
        """Until Ctrl-C."""
        number = 0
        try:
            while True:
                number += 1
                requests.post(
                    f"{self._core.http}/api/v1/{self._tokens['demo-http']}/telemetry",
                    json={"temperature": 20 + number % 5},
                    timeout=STEP_TIMEOUT_S,
                )
                mqtt_telemetry(self._core, self._tokens["demo-mqtt"], {"temperature": 25 - number % 5})
                time.sleep(2)
        except KeyboardInterrupt:
            click.echo("\nStopped.")

    def request(self, device: str, profile: str = "demo-open") -> dict[str, str]:
        key, secret = self._profiles[profile]
        return {"deviceName": device, "provisionDeviceKey": key, "provisionDeviceSecret": secret}

    def _token_of(self, step: str, answer: dict[str, Any]) -> str:
        expect(step, answer.get("status") == "SUCCESS", f"provisioning was answered with {answer}")
        token: str = answer["credentialsValue"]
        return token

    def expect_stored(self, step: str, device: str, value: float) -> None:
        latest = self._latest(device)
        expect(step, latest["temperature"][0]["value"] == value, f"REST reads {latest}")


def by_certificate(tour: Tour, rest: RestClient, core: Endpoints, folder: Path) -> None:
    """A device with a factory's certificate is admitted by its chain; one with a key alone gets a certificate."""
    factory = Factory(folder)
    tour.add_profile(
        "demo-factory", "X509_CERTIFICATE_CHAIN", provisionDeviceSecret=factory.pem,
        certificateRegExPattern=r"(.*)\.factory\.example", allowCreateNewDevicesByX509Certificate=True,
    )  # fmt: skip
    files = factory.device("demo-x509.factory.example")
    mqtt_telemetry(core, "", {"temperature": 24.5}, files)
    tour.expect_stored("X.509", "demo-x509", 24.5)
    https_telemetry(core, files, {"temperature": 25.0})
    tour.expect_stored("X.509", "demo-x509", 25.0)
    done("X.509: a factory certificate was all that a device needed, over MQTT and HTTPS")
    rest.post("/api/ca", {"name": "demo"})
    key, csr = key_and_request("demo-csr")
    asked = tour.request("demo-csr") | {"credentialsType": "X509_CSR", "csr": csr}
    provision = f"{core.https}/api/v1/provision"
    answer = requests.post(provision, json=asked, timeout=STEP_TIMEOUT_S, verify=str(core.ca_file)).json()
    expect("CSR", answer.get("status") == "SUCCESS", f"the signing request was answered with {answer}")
    mqtt_telemetry(core, "", {"temperature": 26.5}, keep(folder, "demo-csr", key, answer["certificateChain"]))
    tour.expect_stored("CSR", "demo-csr", 26.5)
    done("X.509: a device that had only a key got a certificate of the core's own CA, and logged in with it")


def behind_a_gateway(tour: Tour, core: Endpoints, folder: Path) -> None:
    """An edge gateway provisions itself, and what speaks MQTT, CoAP and Modbus behind it comes in."""
    meter = Meter().start()
    key, secret = tour.profile("demo-open")
    meter.set(POWER_REGISTER, 1234)
    try:
        with gateway(folder, core_port=core.mqtt_port, key=key, secret=secret, meter_port=meter.port) as (
            mqtt_port,
            coap_port,
        ):
            tour.await_value("gateway", "demo-meter-1", "power", 123.4)
            done("Gateway: it provisioned itself, and a Modbus meter behind it is registered and read")
            is_acknowledged = publish(mqtt_port, "hall/7/data", {"temp": 20.5}, timeout_s=STEP_TIMEOUT_S)
            expect("gateway", is_acknowledged, "the gateway did not acknowledge an MQTT message")
            tour.await_value("gateway", "demo-hall-7", "temperature", 20.5)
            south = Endpoints("", 0, coap_port)
            code, _ = asyncio.run(coap_post(south, "m/water-1", {"litres": 42.0}))
            expect("gateway", code == "2.04", f"the gateway answered {code} to a CoAP reading")
            tour.await_value("gateway", "demo-water-1", "volume", 42.0)
            done("Gateway: an MQTT thermometer and a CoAP water meter came in through it")
            tour.call("gateway", "demo-meter-1", "setLimit", {"limit": 500})
            expect("gateway", meter.get(LIMIT_REGISTER) == 500, "the command did not reach the meter's register")
            done("Gateway: a command of the core was written to the Modbus meter")
    except ProgramEnded:
        raise DemoFailed("Step gateway: it ended before it was ready; its messages are above.") from None
    finally:
        meter.stop()
