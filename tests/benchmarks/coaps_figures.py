"""The figures of CoAP over DTLS: handshakes with certificates on both sides, telemetry on open sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.support.pki import Pki

from . import report
from .figures import ROUND_MS, Figure
from .fleet import Fleet
from .harness import Bench, Target, row
from .load.bodies import BASE_TS_MS
from .report import Result, Row
from .servers import Core, Endpoint, ServerFailed

SESSIONS = 200
CHAIN_LENGTH = 2
"""CAs above the device's certificate: it shows itself and one intermediate."""


@contextmanager
def _core(bench: Bench, name: str, devices: int) -> Iterator[tuple[Core, Endpoint, Fleet, tuple[object, ...]]]:
    """A core with a DTLS port, its devices, and the load client's options to show a certificate."""
    folder = bench.options.work_dir / f"{name}-certificates"
    folder.mkdir()
    certificate, key = Pki().root("Server").leaf("localhost", dns_names=("localhost",)).write(folder, "server")
    shown = _client_options(folder)
    environment = {
        "CLOUD_CORE__TLS__CERTIFICATE": str(certificate), "CLOUD_CORE__TLS__PRIVATE_KEY": str(key),
        "CLOUD_CORE__HTTP__TLS_PORT": "0", "CLOUD_CORE__MQTT__TLS_PORT": "0", "CLOUD_CORE__COAP__DTLS_PORT": "0",
    }  # fmt: skip
    with bench.core(name, devices=devices, environment=environment) as (core, fleet):
        if core.coaps is None:
            raise ServerFailed("the core has opened no DTLS port")
        yield core, core.coaps, fleet, shown


def _client_options(folder: Path) -> tuple[object, ...]:
    certificate, key = Pki().chain_of_length(CHAIN_LENGTH).write(folder, "client")
    return ("--certificate", certificate, "--private-key", key)


def handshake(bench: Bench) -> list[Row]:
    """Whole handshakes, 50 under way at a time; and what each costs the server."""
    name = "coaps_handshake"
    with _core(bench, name, 0) as (core, endpoint, _, shown):

        def shake(_: int) -> Result:
            return bench.load("coaps_load handshake", *shown, "--connections", 50, to=endpoint, watch=core)

        results = bench.alternate({"core": shake})["core"]
        whole = row(name, results, Target(rate=600), memory_bytes=core.memory_bytes())
    cpu_ms = report.median(results, "server_cpu") * 1_000 / max(whole.value, 1e-9)
    cost = replace(whole, name=f"{name} cost", value=cpu_ms, unit="ms CPU each", target="-", reached=None)
    return [whole, cost]


def telemetry(bench: Bench) -> list[Row]:
    """As `telemetry_coap`, on sessions that are open; memory is of them too."""
    name = "coaps_telemetry"
    with _core(bench, name, SESSIONS) as (core, endpoint, devices, shown):

        def post(round_number: int) -> Result:
            ts_base = BASE_TS_MS + round_number * ROUND_MS
            load = ("--connections", SESSIONS, "--tokens", devices.tokens_file, "--ts-base", ts_base)
            return bench.load("coaps_load telemetry", *shown, *load, to=endpoint, watch=core)

        results = bench.alternate({"core": post})
        return [row(name, results["core"], Target(rate=20_000), memory_bytes=core.memory_bytes())]


COAPS_FIGURES = (Figure("coaps_handshake", handshake), Figure("coaps_telemetry", telemetry))
