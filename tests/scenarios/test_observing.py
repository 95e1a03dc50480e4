"""A whole core seen from outside: metrics, health, logs and the provisioning log tell the same, and no secret."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
import requests

from cloud_core.fabric.counters import Counters
from tests.contract.drivers import CoapDriver, CoapLoop, HttpDriver, MqttDriver, Refused
from tests.support.metrics import names, parsed
from tests.support.server import PASSWORD, CoreProcess

OBSERVABILITY = Path(__file__).parents[2] / "deploy" / "observability"


@pytest.fixture
def core(tmp_path: Path) -> Iterator[CoreProcess]:
    environment = {"CLOUD_CORE__LOG__FORMAT": "json", "CLOUD_CORE__LOG__LEVEL": "debug"}
    running = CoreProcess(tmp_path / "data", is_tls=True, **environment).start()
    yield running
    running.stop()


def test_every_part_of_a_running_core_shows_its_numbers(core: CoreProcess) -> None:
    """Store, transports, TLS, certificates and process are there, well-formed, and quickly."""
    requests.get(f"{core.https}/health/ready", verify=str(core.ca_file), timeout=10)
    url = f"{core.http}/metrics"
    requests.get(url, timeout=10)
    found = parsed(requests.get(url, timeout=10).text)
    assert found["muster_ready", ()] == 1
    assert found["muster_tls_handshakes_total", (("outcome", "ok"), ("port", "https"))] == 1
    assert found["muster_store_commit_seconds_count", ()] > 0
    assert found["muster_store_queue_units", ()] >= 0
    assert found["muster_certificate_days_left", (("kind", "server"),)] > 0
    assert found["muster_process_resident_memory_bytes", ()] > 10_000_000
    times = []
    for _ in range(10):
        began_s = time.perf_counter()
        assert requests.get(url, timeout=10).status_code == 200
        times.append(time.perf_counter() - began_s)
    assert min(times) < 0.02


def test_a_started_core_is_live_and_ready(core: CoreProcess) -> None:
    """Both probes answer 200 without a login."""
    for path in ("live", "ready"):
        answer = requests.get(f"{core.http}/health/{path}", timeout=10)
        assert (answer.status_code, answer.json()) == (200, {"status": path})


def provisioned_everywhere(core: CoreProcess, loop: CoapLoop, requested: dict[str, str]) -> list[str]:
    """The tokens of a device for each transport; a refusal of each goes before."""
    drivers = (MqttDriver(core, paho.MQTTv311), MqttDriver(core, paho.MQTTv5), HttpDriver(core, "http"),
               CoapDriver(core, loop))  # fmt: skip
    tokens = []
    for number, driver in enumerate(drivers):
        wrong = requested | {"provisionDeviceSecret": "canary-wrong-secret", "deviceName": f"d-{number}"}
        assert driver.provision(wrong)["status"] != "SUCCESS"
        assert driver.provision(b'{"provisionDeviceKey": "canary-broken-key')["status"] != "SUCCESS"
        token = f"canary-token-{number}"
        asked = requested | {"deviceName": f"d-{number}", "credentialsType": "ACCESS_TOKEN", "token": token}
        assert driver.provision(asked)["status"] == "SUCCESS"
        with driver.device(token) as device:
            device.post("telemetry", {"t": 1})
        tokens.append(token)
    basic = {"credentialsType": "MQTT_BASIC", "username": "u", "password": "canary-password", "clientId": "c"}
    assert drivers[2].provision(requested | basic | {"deviceName": "basic"})["status"] == "SUCCESS"
    return tokens


def test_no_secret_reaches_log_metrics_or_attempts(core: CoreProcess) -> None:
    """Tokens, passwords, keys and secrets, good and wrong, over every transport, stand in none of the three."""
    requested = core.make_profile("p", key="profile-key")
    loop = CoapLoop()
    try:
        tokens = provisioned_everywhere(core, loop, requested)
        with pytest.raises(Refused), CoapDriver(core, loop).device("canary-unknown-coap") as device:
            device.post("telemetry", {"t": 1})
    finally:
        loop.close()
    requests.post(f"{core.http}/api/v1/canary-unknown-token/telemetry", json={"t": 1}, timeout=10)
    body = {"username": "admin@test", "password": "canary-guess"}
    assert requests.post(f"{core.http}/api/auth/login", json=body, timeout=10).status_code == 401
    attempts = json.dumps(core.rest.get("/api/provisioning/attempts"))
    metrics = requests.get(f"{core.http}/metrics", timeout=10).text
    core.stop()
    log = core.log.read_text()
    assert "Provision request refused" in log
    secrets = [*tokens, requested["provisionDeviceSecret"], PASSWORD, core.jwt, "canary-"]
    for name, text in (("log", log), ("metrics", metrics), ("attempts", attempts)):
        for secret in secrets:
            assert secret not in text, name
    assert "profile-key" not in log + metrics


def test_an_attempt_has_one_reference_in_log_and_explanation(core: CoreProcess) -> None:
    """Granted or refused: the reference of the JSON line is that by which the attempt is explained."""
    requested = core.make_profile("p")
    driver = HttpDriver(core, "http")
    refused = driver.provision(requested | {"provisionDeviceSecret": "wrong"})
    assert driver.provision(requested | {"deviceName": "d"})["status"] == "SUCCESS"
    attempts = core.rest.get("/api/provisioning/attempts")
    by_outcome = {one["outcome"]: one for one in attempts}
    lines = [json.loads(line) for line in core.log.read_text().splitlines()]
    for outcome, message in (("SUCCESS", "granted"), ("INVALID_PROVISION_CREDENTIALS", "refused")):
        ref = by_outcome[outcome]["ref"]
        (line,) = [one for one in lines if one.get("ref") == ref]
        assert message in line["message"]
        assert (line["transport"], line["source"]) == ("http", "127.0.0.1")
        assert core.rest.get(f"/api/provisioning/attempts/{ref}")["outcome"] == outcome
    assert refused["ref"] == by_outcome["INVALID_PROVISION_CREDENTIALS"]["ref"]


def test_every_metric_of_dashboard_and_alerts_exists(core: CoreProcess) -> None:
    """What Grafana and Prometheus are told to look at is what the core shows."""
    shown = names(requests.get(f"{core.http}/metrics", timeout=10).text)
    shown |= {family.full_name for family in Counters().families(is_up=True, nodes=1)}  # of cores in a cluster
    shown |= {"muster_workers", "muster_workers_seen"}  # where several share the ports: test_workers.py
    for file in ("grafana-dashboard.json", "prometheus-alerts.yml"):
        asked = set(re.findall(r"\bmuster_\w+", (OBSERVABILITY / file).read_text()))
        assert asked, file
        assert asked <= shown, asked - shown


def test_an_alert_is_of_a_machine_and_not_of_each_worker() -> None:
    """Every expression brings the workers together, so that one thing that is wrong is told once."""
    text = (OBSERVABILITY / "prometheus-alerts.yml").read_text()
    expressions = re.findall(r"expr: (?:>-\n)?(.+?)\n        for:", text, re.S)
    assert len(expressions) == text.count("- alert:")
    for expression in expressions:
        brings_together = len(re.findall(r"(?:sum|min|max) (?:by \((?!.*worker)|without \(worker\))", expression))
        of_machine = len(re.findall(r"\bmuster_workers(?:_seen)?\b|absent\(muster_build_info\)", expression))
        beside = len(re.findall(r"\bmuster_store_queue_limit_units\b", expression))  # within the same brackets
        assert len(re.findall(r"\bmuster_\w+", expression)) == brings_together + of_machine + beside, expression
