"""The figures: what each measures and what it should reach. README.md says what they mean."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from . import fleet, report
from .fleet import Fleet
from .harness import Bench, Target, finished, row
from .load.bodies import BASE_TS_MS
from .report import Result, Row
from .servers import ADMIN, Core, Endpoint, Mosquitto, Server, ServerFailed

ROUND_MS = 10_000_000
"""Time stamps of one round lie apart from those of the next, so that every message is a new row."""
HALF_LOAD = Target(p99_ms=20)
IDLE_CONNECTIONS = 10_000
IDLE_TARGET_BYTES = 4096
POLL_TARGET_BYTES = 8192
OBSERVERS = 10_000
OBSERVER_TARGET_BYTES = 8192
OBSERVED_CHANGES = 500
START_TARGET_S = 1.5
GROWTH_ROWS = 1_000_000
GROWTH_STEPS = 6


def ingest(name: str, window: int, target: Target) -> Callable[[Bench], list[Row]]:
    """MQTT QoS 1 from 100 devices with `window` messages in flight each."""

    def measure(bench: Bench) -> list[Row]:
        with bench.core(name, devices=100) as (core, devices), bench.mosquitto() as broker:

            def publish(server: Core | Mosquitto, round_number: int) -> Result:
                ts_base = BASE_TS_MS + round_number * ROUND_MS
                load = ("--connections", 100, "--in-flight", window, "--ts-base", ts_base)
                tokens = ("--tokens", devices.tokens_file)
                return bench.load("mqtt_load publish", *load, *tokens, to=server.mqtt, watch=server)

            contestants: dict[str, Callable[[int], Result]] = {"core": lambda number: publish(core, number)}
            if broker:
                contestants["mosquitto"] = lambda number: publish(broker, number)
            contestants["sqlite"] = lambda number: bench.disk_limit("rows")
            results = bench.alternate(contestants)
            return [row(name, results.pop("core"), target, memory_bytes=core.memory_bytes(), baselines=results)]

    return measure


def gateway_ingest(bench: Bench) -> list[Row]:
    """Gateway messages of ten devices with one sample each, QoS 1, from 20 gateways with 10 in flight each."""
    name = "gateway_ingest"
    with bench.core(name, gateways=20) as (core, gateways):

        def publish(round_number: int) -> Result:
            ts_base = BASE_TS_MS + round_number * ROUND_MS
            load = ("--connections", 20, "--in-flight", 10, "--tokens", gateways.tokens_file, "--ts-base", ts_base)
            return bench.load("gateway_load publish", *load, to=core.mqtt, watch=core)

        results = bench.alternate({"core": publish})
        return [row(name, results["core"], Target(rate=8_000), memory_bytes=core.memory_bytes())]


def telemetry(name: str, client: str, connections: int, target: Target) -> Callable[[Bench], list[Row]]:
    """Telemetry over HTTP or CoAP from `connections` devices, one request outstanding each."""

    def measure(bench: Bench) -> list[Row]:
        with bench.core(name, devices=connections) as (core, devices):
            endpoint = core.http if client == "http_load" else core.coap

            def post(round_number: int) -> Result:
                ts_base = BASE_TS_MS + round_number * ROUND_MS
                load = ("--connections", connections, "--tokens", devices.tokens_file, "--ts-base", ts_base)
                return bench.load(f"{client} telemetry", *load, to=endpoint, watch=core)

            results = bench.alternate({"core": post, "sqlite": lambda number: bench.disk_limit("rows")})
            return [row(name, results.pop("core"), target, memory_bytes=core.memory_bytes(), baselines=results)]

    return measure


def provision(name: str, client: str, connections: int, target: Target) -> Callable[[Bench], list[Row]]:
    """New devices as fast as they come, then at half that load (never less than half the target)."""

    def measure(bench: Bench) -> list[Row]:
        with bench.core(name) as (core, _):
            endpoint = {"mqtt_load": core.mqtt, "http_load": core.http, "coap_load": core.coap}[client]

            def requests(prefix: str, *load: object) -> Result:
                who = ("--prefix", prefix, "--key", fleet.KEY, "--secret", fleet.SECRET)
                return bench.load(f"{client} provision", *who, *load, to=endpoint, watch=core)

            full = bench.alternate({"core": lambda number: requests(f"full{number}", "--connections", connections)})
            rate = max(report.median(full["core"], "rate"), target.rate or 0.0) / 2
            pace = ("--connections", connections * 5, "--rate", rate)
            half = bench.alternate({"core": lambda number: requests(f"half{number}", *pace)})
            memory = core.memory_bytes()
            return [
                row(name, full["core"], target, memory_bytes=memory),
                row(f"{name} half load", half["core"], HALF_LOAD, memory_bytes=memory),
            ]

    return measure


def provision_csr(bench: Bench) -> list[Row]:
    """New devices over HTTP, each with a signing request that the CA signs (P-256 both), as fast as they come."""
    name = "provision_csr"
    with bench.core(name) as (core, _):
        fleet.add_authority(core.http)

        def requests(number: int) -> Result:
            who = ("--prefix", f"csr{number}", "--key", fleet.KEY, "--secret", fleet.SECRET)
            load = ("--csrs", 200, "--connections", 100)
            return bench.load("http_load provision", *who, *load, to=core.http, watch=core)

        results = bench.alternate({"core": requests})
        return [row(name, results["core"], Target(rate=1_000), memory_bytes=core.memory_bytes())]


def connect(bench: Bench) -> list[Row]:
    """CONNECT with a valid token → CONNACK → close, 100 at a time."""
    with bench.core("connect", devices=1000) as (core, devices), bench.mosquitto() as broker:

        def connections(server: Core | Mosquitto) -> Result:
            load = ("--connections", 100, "--tokens", devices.tokens_file)
            return bench.load("mqtt_load connect", *load, to=server.mqtt, watch=server)

        contestants: dict[str, Callable[[int], Result]] = {"core": lambda number: connections(core)}
        if broker:
            contestants["mosquitto"] = lambda number: connections(broker)
        results = bench.alternate(contestants)
        target = Target(rate=15_000)
        return [row("connect", results.pop("core"), target, memory_bytes=core.memory_bytes(), baselines=results)]


def provision_under_load(bench: Bench) -> list[Row]:
    """500 devices per second provision over MQTT while 10,000 telemetry messages per second flow."""
    name = "provision_under_load"
    with bench.core(name, devices=100) as (core, devices):

        def both(round_number: int) -> Result:
            ts_base = BASE_TS_MS + round_number * ROUND_MS
            telemetry_load = ("--rate", 10_000, "--tokens", devices.tokens_file, "--ts-base", ts_base)
            background = bench.start_load("mqtt_load publish", *telemetry_load, to=core.mqtt, watch=core)
            who = ("--prefix", f"under{round_number}", "--key", fleet.KEY, "--secret", fleet.SECRET)
            pace = ("--connections", 500, "--rate", 500)
            result = bench.load("mqtt_load provision", *who, *pace, to=core.mqtt, watch=core)
            behind = finished(background, bench.options)
            errors, reason = report.errors_in([result, behind])
            # The client beside us is no stranger: its time is not that of "other programs".
            other = max(report.number(result, "other_cpu") - report.number(behind, "client_cpu"), 0.0)
            return {
                **result,
                "errors": errors,
                "first_error": reason,
                "other_cpu": other,
                "background": behind,
            }

        results = bench.alternate({"core": both})
        return [row(name, results["core"], Target(p99_ms=20), memory_bytes=core.memory_bytes())]


def idle(bench: Bench) -> list[Row]:
    """Memory of 10,000 authenticated MQTT connections that say nothing."""
    with bench.core("idle", devices=IDLE_CONNECTIONS) as (core, devices):
        ours, result = _held(bench, core, core.mqtt, devices)
        memory = core.memory_bytes()
        baselines = {}
        with bench.mosquitto() as broker:
            if broker:
                baselines["mosquitto"], _ = _held(bench, broker, broker.mqtt, devices)
    errors, reason = report.errors_in([result])
    return [
        Row(
            name="idle",
            value=ours,
            unit="B each",
            target=f"≤ {IDLE_TARGET_BYTES} B PSS each",
            reached=ours <= IDLE_TARGET_BYTES and not errors,
            memory_bytes=memory,
            baselines=baselines,
            errors=errors,
            first_error=reason,
            rounds=[result],
        )
    ]


def _held(bench: Bench, server: Server, endpoint: Endpoint, devices: Fleet) -> tuple[float, Result]:
    """Bytes per connection while all are held, and the client's result after it has checked each."""
    before = server.memory_bytes()
    load = ("--connections", IDLE_CONNECTIONS, "--tokens", devices.tokens_file)
    client = bench.start_load("idle", *load, to=endpoint, watch=server)
    if client.stdout is None:
        raise ServerFailed("the idle client has no output")
    client.stdout.readline()  # all open
    time.sleep(1.0)
    each = (server.memory_bytes() - before) / IDLE_CONNECTIONS
    return each, _ended(client, bench)


def long_poll(bench: Bench) -> list[Row]:
    """Memory of 10,000 devices that wait for attribute changes over HTTP, then one change for each."""
    name = "long_poll"
    with bench.core(name, devices=IDLE_CONNECTIONS) as (core, devices):
        before = core.memory_bytes()
        who = ("--username", ADMIN[0], "--password", ADMIN[1])
        client = bench.start_load("long_poll", "--tokens", devices.tokens_file, *who, to=core.http, watch=core)
        if client.stdout is None:
            raise ServerFailed("the long-poll client has no output")
        client.stdout.readline()  # all wait
        time.sleep(1.0)
        each = (core.memory_bytes() - before) / IDLE_CONNECTIONS
        result = _ended(client, bench)
        memory = core.memory_bytes()
    errors, reason = report.errors_in([result])
    held = Row(
        name=name, value=each, unit="B each", target=f"≤ {POLL_TARGET_BYTES} B PSS each",
        reached=each <= POLL_TARGET_BYTES and not errors, memory_bytes=memory, errors=errors, first_error=reason,
        rounds=[result],
    )  # fmt: skip
    return [held, row(f"{name} delivery", [result], Target(), memory_bytes=memory)]


def _ended(client: subprocess.Popen[str], bench: Bench) -> Result:
    return finished(client, bench.options)  # the end of its input tells it to go on


def observe(bench: Bench) -> list[Row]:
    """Memory of 10,000 CoAP observers, then how long a change of a shared attribute takes from REST to a device."""
    with bench.core("coap_observe", devices=OBSERVERS) as (core, devices):
        before = core.memory_bytes()
        load = ("--connections", OBSERVERS, "--tokens", devices.tokens_file)
        client = bench.start_load("coap_observe", *load, to=core.coap, watch=core)
        if client.stdout is None or client.stdin is None:
            raise ServerFailed("the observing client has no input and output")
        client.stdout.readline()  # all open
        time.sleep(1.0)
        memory = core.memory_bytes()
        each = (memory - before) / OBSERVERS
        operator = fleet.Operator(core.http)
        uuids = operator.device_uuids(OBSERVED_CHANGES)
        client.stdin.write(f"{len(uuids)}\n")
        client.stdin.flush()
        for uuid in uuids:
            operator.write_shared(uuid, {"sent": time.perf_counter()})
        operator.close()
        result = finished(client, bench.options)
    errors, reason = report.errors_in([result])
    held = Row(
        name="coap_observe",
        value=each,
        unit="B each",
        target=f"≤ {OBSERVER_TARGET_BYTES} B PSS each",
        reached=each <= OBSERVER_TARGET_BYTES and not errors,
        memory_bytes=memory,
        errors=errors,
        first_error=reason,
        rounds=[result],
    )
    return [held, row("coap_observe delivery", [result], HALF_LOAD, memory_bytes=memory)]


def start(bench: Bench) -> list[Row]:
    """From the start of the process to `ready` on a database with 1,000 devices and 200,000 rows."""
    with bench.core("start", devices=1000, keep=True) as (core, devices):
        load = ("--count", 200_000, "--tokens", devices.tokens_file)
        result = bench.load("mqtt_load publish", *load, to=core.mqtt, watch=core)
        data_dir = core.data_dir
    starts: list[Result] = []
    for _ in range(max(bench.options.rounds, 3)):
        with bench.start_core(data_dir) as core:
            starts.append({"seconds": round(core.ready_after_s, 3), "memory_bytes": core.memory_bytes()})
    errors, reason = report.errors_in([result])
    seconds = report.median(starts, "seconds")
    return [
        Row(
            name="start",
            value=seconds,
            unit="s",
            target=f"≤ {START_TARGET_S} s",
            reached=seconds <= START_TARGET_S,
            memory_bytes=int(report.median(starts, "memory_bytes")),
            errors=errors,
            first_error=reason,
            rounds=starts,
        )
    ]


def growth(bench: Bench) -> list[Row]:
    """Ingest rate of the sixth million rows beside that of the first, 1,000 devices."""
    with bench.core("growth", devices=1000) as (core, devices):
        steps = []
        for step in range(GROWTH_STEPS):
            load = ("--connections", 1000, "--in-flight", 2, "--count", GROWTH_ROWS)
            ts_base = BASE_TS_MS + step * GROWTH_ROWS // 1000 * 10
            tokens = ("--tokens", devices.tokens_file, "--ts-base", ts_base)
            steps.append(bench.load("mqtt_load publish", *load, *tokens, to=core.mqtt, watch=core))
        baselines = {"first million": steps[:1]}
        memory = core.memory_bytes()
        return [row("growth (6th million)", steps[-1:], Target(), memory_bytes=memory, baselines=baselines)]


@dataclass(frozen=True, slots=True)
class Figure:
    """A name for the command line and the measurement behind it."""

    name: str
    measure: Callable[[Bench], list[Row]]
    is_long: bool = False


def commands(bench: Bench) -> list[Row]:
    """Two-way commands from REST to 100 connected MQTT devices and back."""
    with bench.core("commands", devices=100) as (core, devices):
        who = ("--http-port", core.http.port, "--username", ADMIN[0], "--password", ADMIN[1])

        def call(_: int) -> Result:
            return bench.load("mqtt_devices commands", *who, "--tokens", devices.tokens_file, to=core.mqtt, watch=core)

        results = bench.alternate({"core": call})
        return [row("commands", results["core"], Target(rate=3_000), memory_bytes=core.memory_bytes())]


def attribute_requests(bench: Bench) -> list[Row]:
    """Attribute requests of 10 devices, one outstanding each, while 10,000 telemetry messages per second flow."""
    with bench.core("attribute_requests", devices=110) as (core, devices):

        def both(round_number: int) -> Result:
            ts_base = BASE_TS_MS + round_number * ROUND_MS
            telemetry_load = ("--rate", 10_000, "--tokens", devices.tokens_file, "--ts-base", ts_base)
            background = bench.start_load(
                "mqtt_load publish", *telemetry_load, "--connections", 100, to=core.mqtt, watch=core
            )
            asked = ("--tokens", devices.tokens_file, "--connections", 10)
            result = bench.load("mqtt_devices requests", *asked, to=core.mqtt, watch=core)
            finished(background, bench.options)
            return result

        results = bench.alternate({"core": both})
        return [row("attribute_requests", results["core"], Target(p99_ms=10), memory_bytes=core.memory_bytes())]


def fan_out(bench: Bench) -> list[Row]:
    """One change of a shared attribute for 10,000 subscribed sessions, by one call; p99 is nearly the last's."""
    with bench.core("fan_out", devices=IDLE_CONNECTIONS) as (core, devices):
        who = ("--http-port", core.http.port, "--username", ADMIN[0], "--password", ADMIN[1])
        load = ("--tokens", devices.tokens_file, "--connections", IDLE_CONNECTIONS)
        result = bench.load("mqtt_devices fan_out", *who, *load, to=core.mqtt, watch=core)
        return [row("fan_out", [result], Target(p99_ms=1_000), memory_bytes=core.memory_bytes())]


FIGURES = (
    Figure("ingest_10", ingest("ingest_10", 10, Target(rate=80_000))),
    Figure("ingest_1", ingest("ingest_1", 1, Target(rate=25_000, p99_ms=10))),
    Figure("gateway_ingest", gateway_ingest),
    Figure("provision_mqtt", provision("provision_mqtt", "mqtt_load", 100, Target(rate=6_000))),
    Figure("provision_http", provision("provision_http", "http_load", 100, Target(rate=10_000))),
    Figure("provision_csr", provision_csr),
    Figure("provision_coap", provision("provision_coap", "coap_load", 100, Target(rate=8_000))),
    Figure("telemetry_http", telemetry("telemetry_http", "http_load", 200, Target(rate=30_000))),
    Figure("telemetry_coap", telemetry("telemetry_coap", "coap_load", 200, Target(rate=20_000))),
    Figure("connect", connect),
    Figure("provision_under_load", provision_under_load),
    Figure("idle", idle),
    Figure("long_poll", long_poll),
    Figure("coap_observe", observe),
    Figure("commands", commands),
    Figure("attribute_requests", attribute_requests),
    Figure("fan_out", fan_out),
    Figure("start", start),
    Figure("growth", growth, is_long=True),
)
