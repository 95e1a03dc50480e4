"""How well one Modbus connector keeps its deadlines: 200 slaves of 50 registers each second, 20 of them dead.

`python -m tests.benchmarks.load.modbus_fleet [SECONDS]` starts a server of pymodbus in a process of its own and prints
how many polls of the living slaves were made, missed, and how late they were."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import resource
import socket
import sys
import time
from typing import Any

from edge_gateway.connectors.modbus import KINDS
from tests.support.gateway_plc_sites import RecordingSite, settings_of

SLAVES, REGISTERS, DEAD_EACH = 200, 50, 10


def _serve(port: int) -> None:
    asyncio.run(_server(port))


async def _server(port: int) -> None:
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    living = [unit for unit in range(1, SLAVES + 1) if unit % DEAD_EACH]
    held = SimData(0, values=list(range(REGISTERS)), datatype=DataType.REGISTERS)
    server = ModbusTcpServer(
        [SimDevice(unit, simdata=[held]) for unit in living],
        address=("127.0.0.1", port),
        trace_pdu=lambda is_sending, pdu: pdu if is_sending or pdu.dev_id % DEAD_EACH else None,
    )
    await server.serve_forever()


class CountingSite(RecordingSite):
    """Keeps the times of arrival of each device."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[str, list[float]] = {}
        self.values = 0

    def accept(self, readings: Any, done: Any = None) -> None:
        for reading in readings:
            self.times.setdefault(reading.device, []).append(time.monotonic())
            self.values += len(reading.telemetry or ())


async def _measure(port: int, seconds: float) -> None:
    site = CountingSite()
    lines = [f"holding:{address} -> r{address}" for address in range(REGISTERS)]
    device = {"units": f"1-{SLAVES}", "device": "m{unit}", "telemetry": lines}
    table = {"connect": f"tcp://127.0.0.1:{port}", "every": "1 s", "timeout": "800 ms", "device": [device]}
    kind = KINDS[0]
    connector: Any = kind.build(settings_of(kind, table), site)
    task = asyncio.ensure_future(connector.run())
    begun = time.monotonic()
    await asyncio.sleep(seconds)
    used = resource.getrusage(resource.RUSAGE_SELF)
    task.cancel()
    first = max(times[0] for times in site.times.values()) - begun
    settled = begun + 10
    pairs = [(one, later) for times in site.times.values() for one, later in itertools.pairwise(times) if one > settled]
    gaps = sorted(later - one for one, later in pairs)
    missed = sum(max(0, round(gap) - 1) for gap in gaps)
    print(f"living slaves read: {len(site.times)} of {SLAVES - SLAVES // DEAD_EACH}, all after {first:.1f} s")
    print(f"values: {site.values / seconds:.0f}/s; periods missed after the first 10 s: {missed}")
    print(
        f"time between two readings then: p50 {gaps[len(gaps) // 2]:.3f} s, p99 {gaps[int(len(gaps) * 0.99)]:.3f} s, "
        f"greatest {gaps[-1]:.3f} s"
    )
    print(f"processor: {(used.ru_utime + used.ru_stime) / seconds * 100:.0f} % of one core; {site.reason[:100]}")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 40.0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = multiprocessing.Process(target=_serve, args=(port,), daemon=True)
    server.start()
    time.sleep(2)
    try:
        asyncio.run(_measure(port, seconds))
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
