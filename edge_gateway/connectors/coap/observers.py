"""Who observes what at the listener: calls and shared attributes on their way to devices."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from edge_gateway.model import Call, CallFailed, Json

MAX_CALLS: Final = 1_000  # that wait for an answer
MAX_KEYS: Final = 500  # shared attributes remembered for a device
_MAX_UNSENT: Final = 100  # notifications for one observer

CALLS, ATTRIBUTES = "rpc", "attributes"


class Observer:
    """One observation: payloads that are to be sent, in order."""

    def __init__(self) -> None:
        self._unsent: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self.is_replaced = False

    def notify(self, payload: bytes) -> bool:
        """False when too many wait already."""
        if len(self._unsent) >= _MAX_UNSENT:
            return False
        self._unsent.append(payload)
        self._wake.set()
        return True

    def replace(self) -> None:
        """Another observation of the device took over."""
        self.is_replaced = True
        self._wake.set()

    async def next(self) -> bytes | None:
        """The next payload; None when it was replaced."""
        while not self._unsent and not self.is_replaced:
            self._wake.clear()
            await self._wake.wait()
        return None if self.is_replaced else self._unsent.popleft()


@dataclass(slots=True)
class _Waiting:
    device: str
    answer: asyncio.Future[Json] = field(repr=False)


class Observers:
    """The observations of all devices, one of a kind for each device; the newest counts."""

    def __init__(self, max_devices: int, seen: Callable[[str, str], None], gone: Callable[[str], None]) -> None:
        self._max = max_devices
        self._seen, self._gone = seen, gone
        self._by_device: dict[tuple[str, str], Observer] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._shared: OrderedDict[str, dict[str, Json]] = OrderedDict()
        self._last_id = 0

    def join(self, device: str, type: str, what: str) -> Observer | None:
        """A new observation; None when there are too many."""
        earlier = self._by_device.get((device, what))
        if earlier is None and len(self._by_device) >= 2 * self._max:
            return None
        if earlier is not None:
            earlier.replace()
        observer = self._by_device[device, what] = Observer()
        self._seen(device, type)
        return observer

    def leave(self, device: str, what: str, observer: Observer) -> bool:
        """The observation has ended; the device is gone when none is left. False when another took its place."""
        if self._by_device.get((device, what)) is not observer:
            return False
        del self._by_device[device, what]
        other = CALLS if what == ATTRIBUTES else ATTRIBUTES
        if (device, other) not in self._by_device:
            self._gone(device)
        return True

    def shared(self, device: str) -> dict[str, Json]:
        """The shared attributes that the core has sent since the gateway's start."""
        return self._shared.get(device, {})

    def change(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """Tells the device, now or when it observes again: its first notification is all that is known.

        Raises: CallFailed when the device does not take in what is sent.
        """
        known = self._shared.setdefault(device, {})
        self._shared.move_to_end(device)
        if len(self._shared) > self._max:
            self._shared.popitem(last=False)
        known.update(values)
        for key in deleted:
            known.pop(key, None)
        while len(known) > MAX_KEYS:
            del known[next(iter(known))]
        observer = self._by_device.get((device, ATTRIBUTES))
        if observer is None:
            return
        told = [msgspec.json.encode(values)] if values else []
        if deleted:
            told.append(msgspec.json.encode({"deleted": deleted}))
        if not all(observer.notify(payload) for payload in told):
            raise CallFailed(f"{device} does not acknowledge its notifications; they are not sent any more")

    async def call(self, call: Call, path: str) -> Json:
        """The device's answer; `path` is where it would have to observe. Raises: CallFailed."""
        observer = self._by_device.get((call.device, CALLS))
        if observer is None:
            raise CallFailed(f"{call.device} does not observe its calls now; it would have to observe {path}")
        if len(self._waiting) >= MAX_CALLS:
            raise CallFailed("too many calls are waiting for their answers; try again later")
        self._last_id += 1
        number = self._last_id
        waiting = _Waiting(call.device, asyncio.get_running_loop().create_future())
        self._waiting[number] = waiting
        try:
            request = {"id": number, "method": call.method, "params": call.params}
            if not observer.notify(msgspec.json.encode(request)):
                raise CallFailed(f"{call.device} does not acknowledge its calls; they are not sent any more")
            async with asyncio.timeout(call.timeout_s):
                return await waiting.answer
        except TimeoutError:
            raise CallFailed(f"no answer from {call.device} within {call.timeout_s:g} s") from None
        finally:
            self._waiting.pop(number, None)

    def answer(self, device: str, number: int, value: Json) -> bool:
        """Whether somebody waits for it."""
        waiting = self._waiting.get(number)
        if waiting is None or waiting.device != device or waiting.answer.done():
            return False
        waiting.answer.set_result(value)
        return True
