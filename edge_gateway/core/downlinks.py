"""From the core to sub-devices: commands (RPC) and changes of shared attributes.

One after the other for each device, in the order of their arrival, devices beside each other. A command that waited
longer than its time-out is not carried out; its answer, when it comes too late, is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
from twisted.logger import Logger

from edge_gateway.connectors.interface import Connector
from edge_gateway.core.admission import shown
from edge_gateway.core.clock import Timers
from edge_gateway.core.sub_devices import SubDevices
from edge_gateway.model import Call, CallFailed, Json

DEFAULT_TIMEOUT_S = 10.0
MAX_TIMEOUT_S = 600.0
MAX_WAITING = 100  # of one device
STOP_S = 2.0  # so long a command may take to be cancelled
RPC, ATTRIBUTES = "v1/gateway/rpc", "v1/gateway/attributes"


@dataclass(slots=True)
class _Queue:
    """What waits for one device, and the task that works on it."""

    work: deque[Callable[[], Awaitable[None]]] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class DownlinkCounts:
    """Since the start of the gateway."""

    calls: int = 0
    failed: int = 0
    late: int = 0  # answers or commands whose time was over
    changes: int = 0
    unreadable: int = 0
    unanswered: int = 0  # answers that could not be sent: no connection, or too many waiting


class Downlinks:
    """Takes the core's messages for sub-devices. `connector(name)` is the running one, None when there is none;
    `urgent(topic, payload)` sends and says whether it could."""

    _log = Logger()

    def __init__(
        self,
        *,
        sub_devices: SubDevices,
        connector: Callable[[str], Connector | None],
        urgent: Callable[[str, bytes], bool],
        timers: Timers,
    ) -> None:
        self._sub_devices = sub_devices
        self._connector = connector
        self._urgent = urgent
        self._timers = timers
        self._queues: dict[str, _Queue] = {}
        self.counts = DownlinkCounts()

    def received(self, topic: str, payload: bytes) -> bool:
        """A message of the core; False when it is none of ours."""
        if topic not in (RPC, ATTRIBUTES):
            return False
        try:
            document = msgspec.json.decode(payload)
            device, data = document["device"], document["data"]
            if not isinstance(device, str) or not isinstance(data, dict):
                raise TypeError("device is no text, or data no object")
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            self.counts.unreadable += 1
            self._log.warn("a message of the core on {topic} cannot be read: {error}", topic=topic, error=str(error))
            return True
        if topic == RPC:
            self._called(device, data)
        else:
            self._attributes_changed(device, data)
        return True

    async def stop(self) -> None:
        """Cancels what is under way."""
        tasks = [queue.task for queue in self._queues.values() if queue.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)
        self._queues.clear()

    # -- commands

    def _called(self, upstream_name: str, data: dict[str, Json]) -> None:
        self.counts.calls += 1
        number, method, params = data.get("id"), data.get("method"), data.get("params")
        device = self._sub_devices.by_upstream_name(upstream_name)
        if not isinstance(method, str) or not method:
            return self._fail(upstream_name, number, "the command has no method")
        if device is None:
            return self._fail(upstream_name, number, f"no device {shown(upstream_name)} is behind this gateway")
        timeout_s = _timeout_s(data, params)
        call = Call(device=device.name, method=method, params=params, timeout_s=timeout_s)
        deadline_s = self._timers.seconds() + timeout_s
        is_queued = self._put(device.name, lambda: self._carry_out(upstream_name, number, call, deadline_s))
        if not is_queued:
            self._fail(upstream_name, number, f"{MAX_WAITING} commands wait for {shown(upstream_name)} already")

    async def _carry_out(self, upstream_name: str, number: Json, call: Call, deadline_s: float) -> None:
        left_s = deadline_s - self._timers.seconds()
        if left_s <= 0:
            self.counts.late += 1
            return
        call = Call(device=call.device, method=call.method, params=call.params, timeout_s=left_s)
        try:
            connector = self._of(call.device)
            answer = await asyncio.wait_for(connector.call(call), left_s)
            reply = msgspec.json.encode({"device": upstream_name, "id": number, "data": answer})
        except CallFailed as error:
            return self._fail(upstream_name, number, str(error))
        except TimeoutError:
            self.counts.late += 1
            return self._fail(upstream_name, number, f"the device did not answer within {call.timeout_s:g} s")
        except Exception:  # a connector's mistake must not end the queue of the device
            self._log.failure("command {method} for {device}", method=call.method, device=call.device)
            return self._fail(upstream_name, number, "the gateway made a mistake: see its log")
        if self._timers.seconds() > deadline_s:
            self.counts.late += 1
        else:
            self._reply(reply)

    def _fail(self, upstream_name: str, number: Json, error: str) -> None:
        self.counts.failed += 1
        answer = {"device": upstream_name, "id": number, "data": {"success": False, "error": error}}
        self._reply(msgspec.json.encode(answer))

    def _reply(self, payload: bytes) -> None:
        if not self._urgent(RPC, payload):
            self.counts.unanswered += 1

    # -- shared attributes

    def _attributes_changed(self, upstream_name: str, data: dict[str, Json]) -> None:
        self.counts.changes += 1
        device = self._sub_devices.by_upstream_name(upstream_name)
        if device is None:
            return
        gone = data.get("deleted")
        is_deletion = len(data) == 1 and isinstance(gone, list) and all(isinstance(key, str) for key in gone)
        values = {} if is_deletion else data
        deleted = list(gone) if is_deletion and isinstance(gone, list) else []
        if not self._put(device.name, lambda: self._change(device.name, values, deleted)):
            self._log.warn("attributes of {device} are not written: too much waits for it", device=device.name)

    async def _change(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        try:
            connector = self._of(device)
            await asyncio.wait_for(connector.attributes_changed(device, values, deleted), DEFAULT_TIMEOUT_S)
        except CallFailed as error:
            self.counts.failed += 1
            self._log.warn("attributes of {device} are not written: {error}", device=device, error=str(error))
        except TimeoutError:
            self.counts.late += 1
            self._log.warn("attributes of {device} are not written: it does not answer", device=device)
        except Exception:
            self._log.failure("attributes of {device}", device=device)

    # -- inside

    def _of(self, device: str) -> Connector:
        kept = self._sub_devices.device(device)
        connector = self._connector(kept.connector) if kept is not None else None
        if connector is None:
            name = kept.connector if kept is not None else ""
            raise CallFailed(f"connector {shown(name)} of {shown(device)} is not running: see `edge-gateway status`")
        return connector

    def _put(self, device: str, work: Callable[[], Awaitable[None]]) -> bool:
        queue = self._queues.get(device)
        if queue is None:
            queue = self._queues[device] = _Queue()
        if len(queue.work) >= MAX_WAITING:
            return False
        queue.work.append(work)
        if queue.task is None or queue.task.done():
            queue.task = asyncio.get_running_loop().create_task(self._work(device, queue))
        return True

    async def _work(self, device: str, queue: _Queue) -> None:
        while queue.work:
            try:
                await queue.work.popleft()()
            except Exception:
                self._log.failure("an answer for {device} could not be sent", device=device)
        self._queues.pop(device, None)


def _timeout_s(data: dict[str, Json], params: Json) -> float:
    """In ms as the core's REST has it: beside the parameters, or among them."""
    for place in (data, params):
        value = place.get("timeout") if isinstance(place, dict) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            return min(MAX_TIMEOUT_S, value / 1000)
    return DEFAULT_TIMEOUT_S
