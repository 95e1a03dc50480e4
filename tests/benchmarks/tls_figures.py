"""The figures of TLS: handshakes with logins, and what an idle connection costs. README.md says what they mean."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.pki import SERVER, Ca, Pki

from . import fleet, report
from .figures import Figure
from .harness import Bench, Target, finished, row
from .report import Result, Row
from .servers import BareTls, Core, Endpoint, Server, ServerFailed

DEVICES = 100
WIDTH = 32
IDLE_CONNECTIONS = 2_000
IDLE_TARGET_BYTES = 45 * 1024
CHAINS_A_SECOND = 1_400  # certificates made ahead: more than any round has used


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of one run. Devices show three certificates: their own and two of CAs."""

    server: Path
    key: Path
    factory_root: Path
    devices: Path


@contextmanager
def _certificates(bench: Bench, count: int) -> Iterator[Certificates]:
    folder = bench.options.work_dir / "tls"
    devices = folder / "devices"
    devices.mkdir(parents=True, exist_ok=True)
    pki = Pki()
    server = pki.root("Server").leaf("localhost", dns_names=("localhost",), extended_usage=(SERVER,))
    factory = pki.root("Factory")
    line: Ca = factory.intermediate("Plant").intermediate("Line")
    for number in range(count):
        line.leaf(f"bench-{number:05d}").write(devices)
    root = folder / "factory.pem"
    root.write_text(factory.pem)
    yield Certificates(*server.write(folder), root, devices)
    shutil.rmtree(folder)


@contextmanager
def _core(
    bench: Bench, name: str, files: Certificates, *, is_by_chain: bool = False
) -> Iterator[tuple[Core, Endpoint]]:
    """A core that knows the devices by their certificates, or their CA alone, and its MQTT port for TLS."""
    environment = {
        "CLOUD_CORE__TLS__CERTIFICATE": str(files.server),
        "CLOUD_CORE__TLS__PRIVATE_KEY": str(files.key),
        "CLOUD_CORE__MQTT__TLS_PORT": "0",
        "CLOUD_CORE__HTTP__TLS_PORT": "0",
        "CLOUD_CORE__COAP__DTLS_PORT": "0",
    }
    with bench.core(name, environment=environment) as (core, _):
        operator = fleet.Operator(core.http)
        if is_by_chain:
            operator.admit_by_chain("factory", files.factory_root.read_text())
        else:
            for file in sorted(files.devices.glob("*.pem")):
                operator.register_certificate(file.stem, _own(file))
        operator.close()
        if core.mqtts is None:
            raise ServerFailed("the core has no port for MQTT over TLS")
        yield core, core.mqtts


def _own(chain: Path) -> str:
    """The device's own certificate of its chain."""
    text, end, _ = chain.read_text().partition("-----END CERTIFICATE-----")
    return text + end


def connect_tls(bench: Bench) -> list[Row]:
    """Mutual TLS 1.3 (P-256, client chain of three), CONNECT → CONNACK → close, 32 at a time."""
    with ExitStack() as stack:
        files = stack.enter_context(_certificates(bench, DEVICES))
        core, mqtts = stack.enter_context(_core(bench, "connect_tls", files))
        broker = stack.enter_context(bench.mosquitto(tls=(files.server, files.key, files.factory_root)))
        bare = stack.enter_context(BareTls(bench.options.work_dir, files.server, files.key, cpu=bench.server_cpu))

        def connections(server: Server, endpoint: Endpoint) -> Result:
            load = ("--connections", WIDTH, "--certificates", files.devices)
            return _with_cpu(bench.load("tls_load connect", *load, to=endpoint, watch=server))

        contestants: dict[str, Callable[[int], Result]] = {
            "core": lambda _: connections(core, mqtts),
            "twisted": lambda _: connections(bare, bare.mqtt),
        }
        if broker is not None:
            contestants["mosquitto"] = lambda _: connections(broker, broker.mqtt)
        results = bench.alternate(contestants)
        memory = core.memory_bytes()
    ours = results.pop("core")
    handshakes = {"core": ours, **results}
    cost = Row(
        name="connect_tls server CPU",
        value=report.median(ours, "server_ms"),
        unit="ms each",
        target="-",
        reached=None,
        baselines={name: report.median(rounds, "server_ms") for name, rounds in handshakes.items() if name != "core"},
        rounds=ours,
    )
    return [row("connect_tls", ours, Target(rate=1_000), memory_bytes=memory, baselines=results), cost]


def _with_cpu(result: Result) -> Result:
    """CPU of the server for each connection in ms: the client, not faster than the server, limits the rate as well."""
    rate = report.number(result, "rate")
    return {**result, "server_ms": round(1000 * report.number(result, "server_cpu") / rate, 3) if rate else 0.0}


def provision_chain(bench: Bench) -> list[Row]:
    """First contact of devices whose CA alone is known: mutual TLS 1.3, CONNECT → device on disk → CONNACK → close."""
    options = bench.options
    count = round((options.seconds + options.warmup) * CHAINS_A_SECOND)
    with ExitStack() as stack:
        files = stack.enter_context(_certificates(bench, count * options.rounds))
        core, mqtts = stack.enter_context(_core(bench, "provision_chain", files, is_by_chain=True))

        def first_contacts(number: int) -> Result:
            load = ("--connections", WIDTH, "--certificates", files.devices, "--once")
            part = ("--first", number * count, "--certificate-count", count)
            return _with_cpu(bench.load("tls_load connect", *load, *part, to=mqtts, watch=core))

        ours = bench.alternate({"core": first_contacts})["core"]
        memory = core.memory_bytes()
    return [row("provision_chain", ours, Target(rate=700), memory_bytes=memory, baselines={})]


def idle_tls(bench: Bench) -> list[Row]:
    """Memory of idle MQTT connections over TLS, each with a client certificate."""
    baselines: dict[str, float] = {}
    with _certificates(bench, IDLE_CONNECTIONS) as files:
        with bench.mosquitto(tls=(files.server, files.key, files.factory_root)) as broker:
            if broker is not None:
                baselines["mosquitto"], _ = _held(bench, broker, broker.mqtt, files)
        with BareTls(bench.options.work_dir, files.server, files.key, cpu=bench.server_cpu) as bare:
            baselines["twisted"], _ = _held(bench, bare, bare.mqtt, files)
        with _core(bench, "idle_tls", files) as (core, mqtts):
            ours, result = _held(bench, core, mqtts, files)
            memory = core.memory_bytes()
    errors, reason = report.errors_in([result])
    return [
        Row(
            name="idle_tls", value=ours, unit="B each", target=f"≤ {IDLE_TARGET_BYTES} B PSS each",
            reached=ours <= IDLE_TARGET_BYTES and not errors, memory_bytes=memory, baselines=baselines, errors=errors,
            first_error=reason, rounds=[result],
        )
    ]  # fmt: skip


def _held(bench: Bench, server: Server, endpoint: Endpoint, files: Certificates) -> tuple[float, Result]:
    """Bytes per connection while all are held, and the client's result after it has checked each."""
    before = server.memory_bytes()
    load = ("--connections", IDLE_CONNECTIONS, "--certificates", files.devices)
    client: subprocess.Popen[str] = bench.start_load("tls_load idle", *load, to=endpoint, watch=server)
    if client.stdout is None:
        raise ServerFailed("the idle client has no output")
    client.stdout.readline()  # all open
    time.sleep(1.0)
    each = (server.memory_bytes() - before) / IDLE_CONNECTIONS
    return each, finished(client, bench.options)


TLS_FIGURES = (
    Figure("connect_tls", connect_tls),
    Figure("provision_chain", provision_chain),
    Figure("idle_tls", idle_tls),
)
