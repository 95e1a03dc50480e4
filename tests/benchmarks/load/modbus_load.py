"""200 Modbus slaves with 50 registers each, read once a second over TCP, 20 of them dead.

`python -m tests.benchmarks.load.modbus_load`: the slaves are pymodbus's server in a process of its own. Says how late
the polls of the living are, before and after the others die, and what the connector takes of a processor."""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

from edge_gateway.connectors.modbus import KINDS
from tests.support.gateway_plc_sites import FakePlcSite, running, until
from tests.support.modbus_servers import Slaves

UNITS = 200
REGISTERS = 50
DEAD = frozenset(range(10, 201, 10))
PHASE_S = 20.0


def serve(pipe: Connection) -> None:
    """The slaves; whatever comes over the pipe are the units that are silent from now on."""

    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

    async def main() -> None:
        serving = Slaves(range(1, UNITS + 1))
        await serving.start()
        pipe.send(serving.port)
        while True:
            if pipe.poll():
                serving.silent = pipe.recv()
            serving.requests.clear()
            await asyncio.sleep(0.05)

    asyncio.run(main())


def gaps(site: FakePlcSite, since: float) -> list[float]:
    """The times between the readings of each living unit."""
    found: list[float] = []
    for unit in sorted(set(range(1, UNITS + 1)) - DEAD):
        times = [at for at in site.times(f"m{unit}") if at >= since]
        found += [later - earlier for earlier, later in itertools.pairwise(times)]
    return found


def told(what: str, found: list[float]) -> None:
    ordered = sorted(found)
    print(
        f"{what}: {len(found)} readings, between two of a slave: median {statistics.median(found) * 1000:.0f} ms, "
        f"99 % {ordered[int(len(ordered) * 0.99)] * 1000:.0f} ms, worst {ordered[-1] * 1000:.0f} ms"
    )


async def measure(port: int, pipe: Connection) -> None:
    lines = [{"key": f"k{at}", "at": f"holding:{at}"} for at in range(REGISTERS)]
    device = {"units": f"1-{UNITS}", "device": "m{unit}", "telemetry": lines}
    table = {"connect": f"tcp://127.0.0.1:{port}", "every": "1 s", "timeout": "800 ms", "device": [device]}
    site, loop = FakePlcSite(), asyncio.get_running_loop()
    async with running(KINDS[0], site, **table):
        await until(lambda: len(site.present) == UNITS)
        for what, silent in (("all alive", frozenset()), ("20 die at once", DEAD), ("20 dead", DEAD)):
            pipe.send(set(silent))
            began, burned = loop.time(), time.process_time()
            await asyncio.sleep(PHASE_S)
            told(f"{what}, {(time.process_time() - burned) / PHASE_S:.0%} of a processor", gaps(site, began))
        print(site.healths[-1][1])


def main() -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        asyncio.run(measure(ours.recv(), ours))
    finally:
        process.terminate()


if __name__ == "__main__":
    main()
