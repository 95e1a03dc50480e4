"""Both sides of an edge gateway: `python -m tests.benchmarks.load.edge_load latency --port N --core-port M …`.

It opens the stub core on `--core-port` and prints `{"listening": true}`; then, for all but `cold_start`, it waits for a
line of standard input (the gateway is ready), connects sources to the gateway's `--port`, and prints one line of JSON.
See README.md for its members. Exits 1 when a reading is missing or something was not acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from . import measure
from .edge_sides import Source, StubCore, body, opened
from .measure import Meter, Plan

START_S = 30.0
LIVE_FROM = 100_000_000
"""Numbers of live readings beside a backlog."""
PROBE_FROM = 200_000_000
STEP_S = 0.001


class EdgeLoad:
    """One run: what was sent when, and what has arrived."""

    def __init__(self, plan: Plan, options: argparse.Namespace) -> None:
        self.plan = plan
        self.options = options
        self.meter = Meter(plan)
        self.core = StubCore(self._arrived)
        self.sources: list[Source] = []
        self.sent_at: dict[int, float] = {}  # of readings that have not arrived
        self.sent = 0
        self.arrived = 0
        self.repeated = 0
        self.last_at = 0.0
        self.backlog_times: list[tuple[float, int]] = []
        self._backlog: set[int] = set()

    def _arrived(self, numbers: list[bytes], now: float) -> None:
        backlog = 0
        for digits in numbers:
            number = int(digits)
            due = self.sent_at.pop(number, None)
            if due is not None:
                self.arrived += 1
                self.meter.record(now - due)
            elif number in self._backlog:
                self._backlog.discard(number)
                backlog += 1
            else:
                self.repeated += 1
        self.last_at = now
        if backlog:
            self.backlog_times.append((now, backlog))

    # -- what is measured ---------------------------------------------------------------------------

    async def latency(self) -> dict[str, object]:
        """Paced readings; from the moment each was due until the core has it."""
        await self._open(self.options.connections, window=1_000)
        await self._pace(self.plan.warmup, self.plan.rate or 1_000.0, measured=False)
        self.meter.begin(time.perf_counter())
        await self._pace(self.plan.seconds, self.plan.rate or 1_000.0, measured=True)
        self.meter.end(time.perf_counter())
        await self._settle()
        return self._result()

    async def burst(self) -> dict[str, object]:
        """`--count` readings at once: acknowledged southwards, and arrived at the core."""
        await self._open(self.options.connections, window=self.options.in_flight)
        count = self.plan.count or 20_000
        shares: list[list[tuple[str, bytes]]] = [[] for _ in self.sources]
        for number in range(count):
            at = number % len(self.sources)
            shares[at].append((f"meter-{at:04d}", body(self._number(), self._ts_ms(number))))
        began = time.perf_counter()
        self.sent_at = dict.fromkeys(range(count), began)
        self.meter.begin(began)
        for source, share in zip(self.sources, shares, strict=True):
            source.send_all(share)
        acknowledged_at = await self._all_acknowledged()
        await self._all_arrived()
        self.meter.end(time.perf_counter())
        south, whole = acknowledged_at - began, self.last_at - began
        rates = {"rate": round(count / south, 1), "end_to_end_rate": round(count / whole, 1)}
        return self._result() | rates

    async def cold_start(self) -> dict[str, object]:
        """One reading as early as the gateway takes it; `arrived_at` is by the machine's monotonic clock."""
        self.sent_at[self._number()] = time.perf_counter()
        source = await opened(self.plan.host, self.plan.port, "cold", 1, within_s=START_S)
        self.sources.append(source)
        self.meter.begin(time.perf_counter())
        source.send("meter-0000", body(0, self._ts_ms(0)))
        await self._settle()
        self.meter.end(time.perf_counter())
        return self._result() | {"arrived_at": self.last_at}

    async def devices(self) -> dict[str, object]:
        """`--connections` devices behind one source; then the core drops the link, and all are announced again."""
        await self._open(1, window=500)
        count = self.options.connections
        self.meter.begin(time.perf_counter())
        for number in range(count):
            self.sent_at[self._number()] = time.perf_counter()
            self.sources[0].send(f"meter-{number:05d}", body(number, self._ts_ms(number)))
        await self._settle()
        self.meter.end(time.perf_counter())
        self.core.drop()
        deadline = time.perf_counter() + 60.0
        while self.core.announced < count and time.perf_counter() < deadline:
            await asyncio.sleep(0.02)
        if self.core.announced != count:
            self.meter.fail(f"{self.core.announced} of {count} devices were announced again")
        announce_s = self.core.announced_at - self.core.connected_at
        return self._result() | {"announce_s": round(announce_s, 3), "announced": self.core.announced}

    async def backlog(self) -> dict[str, object]:
        """`--count` readings wait in the gateway, numbered from 0; beside them live ones at `--rate`."""
        count = self.plan.count or 100_000
        self._backlog = set(range(count))
        self.sent = LIVE_FROM
        await self._open(self.options.connections, window=1_000)
        await self.core.listen(self.plan.host, self.options.core_port)  # not before: it shall drain beside live data
        self.meter.begin(time.perf_counter())
        deadline = time.perf_counter() + self.options.answer_timeout + count / 500
        while not self.core.publishes and time.perf_counter() < deadline:
            await asyncio.sleep(STEP_S)
        while self._backlog and time.perf_counter() < deadline:
            await self._pace(0.25, self.plan.rate or 100.0, measured=True, prefix="live")
        self.meter.end(time.perf_counter())
        await self._settle()
        self.sent -= LIVE_FROM
        if self._backlog:
            self.meter.fail("some of the backlog never arrived", len(self._backlog))
        times = self.backlog_times
        seconds = times[-1][0] - times[0][0] if times else 0.0
        drained = sum(number for _, number in times[1:])
        return self._result() | {"rate": round(drained / max(seconds, 1e-9), 1), "drained": count - len(self._backlog)}

    async def no_ts(self) -> dict[str, object]:
        """One device that gives no time, paced; the core is somebody else's, who counts what is stored."""
        await self._open(1, window=1_000)
        self.meter.begin(time.perf_counter())
        await self._pace(self.plan.seconds, self.plan.rate or 100.0, measured=True, has_time=False)
        await self._all_acknowledged()
        self.meter.end(time.perf_counter())
        self.arrived, self.sent_at = self.sent, {}
        return self._result()

    # -- inside -------------------------------------------------------------------------------------

    async def _open(self, count: int, *, window: int) -> None:
        if self.options.probe:
            await self._probe(count)
        for number in range(count):
            client = f"source-{number:05d}"
            self.sources.append(await opened(self.plan.host, self.plan.port, client, window, within_s=START_S))

    async def _probe(self, count: int) -> None:
        """Until readings of every device come through the broker and the gateway behind it."""
        source = await opened(self.plan.host, self.plan.port, "probe", 1_000, within_s=START_S)
        deadline = time.perf_counter() + START_S
        while self.repeated < count and time.perf_counter() < deadline:
            for at in range(count):
                source.send(f"meter-{at:04d}", body(PROBE_FROM + at, self._ts_ms(at)))
            await asyncio.sleep(0.5)
        await asyncio.sleep(2.0)
        source.transport.close()
        if self.repeated < count:
            raise TimeoutError(f"{self.repeated} of {count} probes came through")
        self.repeated = 0

    def _number(self) -> int:
        number, self.sent = self.sent, self.sent + 1
        return number

    @staticmethod
    def _ts_ms(number: int) -> int:
        return 1_700_000_000_000 + number

    async def _pace(
        self, seconds: float, rate: float, *, measured: bool, prefix: str = "meter", has_time: bool = True
    ) -> None:
        """Sends at `rate`; a reading counts from the moment it was due."""
        began = time.perf_counter()
        for step in range(round(seconds * rate)):
            due = began + step / rate
            while (wait_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(max(wait_s, STEP_S / 2))
            number = self._number()
            at = number % len(self.sources)
            self.sent_at[number] = due
            self.sources[at].send(f"{prefix}-{at:04d}", body(number, self._ts_ms(number) if has_time else None))
        if not measured:
            await self._settle()

    async def _settle(self) -> None:
        await self._all_acknowledged()
        await self._all_arrived()

    async def _all_acknowledged(self) -> float:
        """When that was; the same moment when it never is."""
        deadline = time.perf_counter() + self.plan.answer_timeout
        while not all(source.is_idle for source in self.sources) and time.perf_counter() < deadline:
            await asyncio.sleep(STEP_S)
        return time.perf_counter()

    async def _all_arrived(self) -> None:
        deadline = time.perf_counter() + self.plan.answer_timeout
        while self.sent_at and time.perf_counter() < deadline:
            await asyncio.sleep(STEP_S)

    def _result(self) -> dict[str, object]:
        if self.sent_at:
            self.meter.fail("readings never arrived at the core", len(self.sent_at))
        for source in self.sources:
            for reason in source.errors:
                self.meter.fail(reason)
        acknowledged = sum(source.acknowledged for source in self.sources)
        if acknowledged != self.sent:
            self.meter.fail("readings were not acknowledged", self.sent - acknowledged)
        extra = {
            "p95_ms": round(self.meter.histogram.percentile_ms(0.95), 3),
            "arrived": self.arrived,
            "repeated": self.repeated,
            "publishes": self.core.publishes,
        }
        return self.meter.result(sent=self.sent, acknowledged=acknowledged, extra=extra)


async def run(plan: Plan, options: argparse.Namespace) -> dict[str, object]:
    """See the module."""
    load = EdgeLoad(plan, options)
    if options.core_port and options.what != "backlog":
        await load.core.listen(plan.host, options.core_port)
    measure.print_result({"listening": True})
    if options.what != "cold_start":
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    result: dict[str, object] = await getattr(load, options.what)()
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the load and print its result; returns the exit code."""
    options = _parser().parse_args(arguments)
    result = asyncio.run(run(measure.plan_from(options), options))
    measure.print_result(result)
    if options.hold:
        sys.stdin.readline()
    return 1 if result["errors"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("latency", "burst", "cold_start", "devices", "backlog", "no_ts"))
    measure.add_arguments(parser)
    parser.add_argument("--core-port", type=int, help="where the stub core listens; without it there is none")
    parser.add_argument("--connections", type=int, default=100, help="sources, or devices behind one")
    parser.add_argument("--in-flight", type=int, default=50, help="burst: unacknowledged readings of a source")
    parser.add_argument("--probe", action="store_true", help="a broker is between: wait until readings come through")
    parser.add_argument("--hold", action="store_true", help="keep the connections until a line of standard input")
    return parser


if __name__ == "__main__":
    sys.exit(main())
