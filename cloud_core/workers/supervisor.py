"""Starts workers, keeps them running, ends them: `serve --workers N`.

The first worker starts alone, because it brings the schema up to date and makes what there must be one of; then the
others. A worker that ends by itself is started anew, after a pause that grows while it keeps failing. SIGTERM and
Ctrl-C drain all of them; SIGHUP is handed on. Workers end by themselves when the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from twisted.logger import Logger

from cloud_core.config import Config
from cloud_core.core.people.local_access import new_token
from cloud_core.core.tokens import new_secret
from cloud_core.workers.assignment import Assignment, encode
from cloud_core.workers.own_fabric import FabricFailed, OwnFabric
from cloud_core.workers.sockets import Port, SharedPorts, open_shared

log = Logger()
READY_S = 60.0  # so long a worker that is started anew may take
GRACE_S = 10.0  # beyond the drain time, before a worker is killed
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
HEALTHY_S = 30.0  # a worker that ran for so long starts with the first pause again
READY = "ready "
MAX_LINE_BYTES = 1_048_576  # of what a worker says

Say = Callable[[str], None]


class Worker:
    """One process at a time."""

    def __init__(self, assignment: Assignment, udp: dict[str, int], say: Say) -> None:
        self._assignment = assignment
        self._descriptors = tuple(udp.values())
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._is_starting = False
        self._early: set[signal.Signals] = set()  # that came before it could take them
        self.ready = asyncio.Event()
        self.line = ""  # what it said when it was ready

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def run(self) -> int:
        """From its start to its end; the exit code."""
        self.ready.clear()
        self._early.clear()
        self._is_starting = True
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cloud_core", "worker", stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, pass_fds=self._descriptors, start_new_session=True,
                limit=MAX_LINE_BYTES,
            )  # fmt: skip
        finally:
            self._is_starting = False
        for number in self._early - {signal.SIGHUP}:
            self.send(number)
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(ConnectionError):  # it has ended already: its exit code says so
            process.stdin.write(encode(self._assignment))
            await process.stdin.drain()
        async for line in process.stdout:
            self._heard(line.decode(errors="replace").rstrip("\n"))
        code = await process.wait()
        self._process = None
        return code

    def _heard(self, line: str) -> None:
        if line.startswith(READY):
            self.line = line
            self.ready.set()
            if signal.SIGHUP in self._early:
                self.send(signal.SIGHUP)
        else:
            self._say(line)

    def send(self, number: signal.Signals) -> None:
        """A signal, where it runs. SIGHUP waits until it is ready: before, it would end it."""
        if self._is_starting or (number is signal.SIGHUP and not self.ready.is_set()):
            self._early.add(number)
        elif self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


class Supervisor:
    """`say` prints a line on standard output."""

    def __init__(self, config: Config, *, say: Say) -> None:
        self._config = config
        self._say = say
        self._ports = SharedPorts()
        self._workers: list[Worker] = []
        self._own_fabric: OwnFabric | None = None
        self._stopping = asyncio.Event()
        self._is_up = False
        self._exit_code = 0
        self._keeping: list[asyncio.Task[None]] = []
        self._fabric_task: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Until SIGTERM, Ctrl-C, or a first start that fails. Raises: ListenFailed, FabricFailed, OSError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._send_all(signal.SIGHUP))
        count = self._config.cluster.workers
        self._ports = open_shared(ports_of(self._config), count)
        try:
            config = await self._with_fabric(with_ports(self._config, self._ports.numbers))
            token, site = new_token(), new_secret()
            self._workers = [self._worker(index, config, token, site) for index in range(count)]
            await self._start()
            await self._stopping.wait()
        finally:
            await self._stop()
        return self._exit_code

    def _worker(self, index: int, config: Config, token: str, site: str) -> Worker:
        udp = {name: one.fileno() for name, one in self._ports.of_worker(index).items()}
        assignment = Assignment(index=index, site=site, config=config, local_token=token, udp=udp)
        return Worker(assignment, udp, self._say)

    async def _with_fabric(self, config: Config) -> Config:
        if config.cluster.fabric:
            return config
        self._own_fabric = OwnFabric(Path(config.data_dir), new_secret())
        await self._own_fabric.start()
        self._fabric_task = asyncio.ensure_future(self._keep_fabric(self._own_fabric))
        cluster = msgspec.structs.replace(config.cluster, fabric=self._own_fabric.url)
        return msgspec.structs.replace(config, cluster=cluster)

    # -- start ------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """The first, then the others; the `ready` line once all accept."""
        first, *others = self._workers
        for some in ([first], others):
            for one in some:
                self._keeping.append(asyncio.ensure_future(self._keep(one, self._workers.index(one))))
            await self._all_ready(some)
        if not self._stopping.is_set():
            self._is_up = True
            self._say(f"{first.line} workers={len(self._workers)}")

    async def _all_ready(self, workers: list[Worker]) -> None:
        """Until all of them are, or everything stops."""
        ready = asyncio.ensure_future(asyncio.gather(*(one.ready.wait() for one in workers)))
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((ready, stop), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        stop.cancel()

    # -- while it runs ----------------------------------------------------------------------------

    async def _keep(self, worker: Worker, index: int) -> None:
        """Runs a worker again and again."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began_s = loop.time()
            try:
                code = await (self._watched(worker) if self._is_up else worker.run())
            except OSError as error:  # there is no room for another process, or its program is just being replaced
                log.error("Worker {index} cannot be started: {error}", index=index, error=str(error))
                code = 1
            if self._stopping.is_set():
                return
            if not self._is_up:  # it said why on standard error
                self._exit_code = code if code > 0 else 1
                self._stopping.set()
                return
            if loop.time() - began_s >= HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            log.error("Worker {index} has ended ({code}); another in {pause} s", index=index, code=code, pause=pause_s)
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _watched(self, worker: Worker) -> int:
        """As `run`; one that is not ready in time is killed."""
        running = asyncio.ensure_future(worker.run())
        ready = asyncio.ensure_future(worker.ready.wait())
        done, _ = await asyncio.wait((running, ready), timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not done:
            log.error("A worker was not ready after {seconds} s and is killed", seconds=READY_S)
            worker.send(signal.SIGKILL)
        return await running

    async def _keep_fabric(self, fabric: OwnFabric) -> None:
        """Workers do without it meanwhile, and find it again by themselves."""
        pause_s = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            code = await fabric.ended()
            if loop.time() - began_s >= HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            log.error("The nats-server of the workers has ended ({code}) and is started anew", code=code)
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            while not await self._is_started(fabric):
                await self._pause(LONGEST_PAUSE_S)

    async def _is_started(self, fabric: OwnFabric) -> bool:
        try:
            await fabric.start()
        except (FabricFailed, OSError) as error:  # as a disk that is full
            log.error("The nats-server of the workers does not start: {error}", error=str(error))
            return False
        return True

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    # -- end --------------------------------------------------------------------------------------

    def _send_all(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.send(number)

    async def _stop(self) -> None:
        """Drains all workers, then ends what they shared."""
        self._stopping.set()
        self._send_all(signal.SIGTERM)
        if self._keeping:
            _, late = await asyncio.wait(self._keeping, timeout=self._config.limits.drain_s + GRACE_S)
            if late:
                log.error("{count} workers did not end in time and are killed", count=len(late))
                self._send_all(signal.SIGKILL)
                await asyncio.wait(late)
        if self._own_fabric is not None and self._fabric_task is not None:
            self._fabric_task.cancel()
            await self._own_fabric.stop()
        self._ports.close()


def ports_of(config: Config) -> list[Port]:
    """What the configuration opens."""
    http, mqtt, coap = config.http.bind, config.mqtt.bind or config.http.bind, config.coap.bind or config.http.bind
    ports = [
        Port("http", http, config.http.port), Port("mqtt", mqtt, config.mqtt.port), Port("coap", coap, config.coap.port)
    ]  # fmt: skip
    if config.tls.certificate or config.tls.development:
        ports += [
            Port("https", http, config.http.tls_port), Port("mqtts", mqtt, config.mqtt.tls_port),
            Port("coaps", coap, config.coap.dtls_port),
        ]  # fmt: skip
    return ports


def with_ports(config: Config, numbers: dict[str, int]) -> Config:
    """The configuration with the numbers that were opened."""
    replace = msgspec.structs.replace
    return replace(
        config,
        http=replace(config.http, port=numbers["http"], tls_port=numbers.get("https", config.http.tls_port)),
        mqtt=replace(config.mqtt, port=numbers["mqtt"], tls_port=numbers.get("mqtts", config.mqtt.tls_port)),
        coap=replace(config.coap, port=numbers["coap"], dtls_port=numbers.get("coaps", config.coap.dtls_port)),
    )
