"""What waits for devices that ask: calls, and changes of shared attributes. Requests that wait, and news that do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from edge_gateway.model import Call, CallFailed, Json

MAX_DEVICES = 20_000  # with something that waits; the oldest changes go first
MAX_POLLS = 1_000  # requests that wait at the same time
MAX_KEYS = 1_000  # of changes that wait for one device


class TooManyPolls(Exception):
    """Too many requests wait already."""


@dataclass(slots=True)
class WaitingCall:
    """A call on its way; `reply` is the device's answer."""

    number: int
    call: Call
    reply: asyncio.Future[Json]
    is_fetched: bool = False


@dataclass(slots=True)
class _Mailbox:
    calls: list[WaitingCall] = field(default_factory=list)
    changes: dict[str, Json] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    polls: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.calls or self.changes or self.deleted or self.polls)


class Mailboxes:
    """By device."""

    def __init__(self) -> None:
        self._boxes: dict[str, _Mailbox] = {}
        self._polls = 0
        self._last_number = 0

    def _box(self, device: str) -> _Mailbox:
        box = self._boxes.get(device)
        if box is None:
            if len(self._boxes) >= MAX_DEVICES:
                quiet = next((name for name, one in self._boxes.items() if not one.calls and not one.polls), None)
                if quiet is not None:
                    del self._boxes[quiet]
            box = self._boxes[device] = _Mailbox()
        return box

    def _tidy(self, device: str) -> None:
        box = self._boxes.get(device)
        if box is not None and box.is_empty:
            del self._boxes[device]

    # -- for the gateway --------------------------------------------------------------------------------

    async def call(self, call: Call) -> Json:
        """Waits until the device has fetched and answered it. Raises: CallFailed."""
        self._last_number += 1
        waiting = WaitingCall(self._last_number, call, asyncio.get_running_loop().create_future())
        box = self._box(call.device)
        box.calls.append(waiting)
        box.news.set()
        try:
            return await asyncio.wait_for(waiting.reply, call.timeout_s)
        except TimeoutError:
            what = "fetched the call but did not answer it" if waiting.is_fetched else "did not ask for its calls"
            raise CallFailed(f"{call.device} {what} within {call.timeout_s:g} s") from None
        finally:
            box.calls.remove(waiting)
            self._tidy(call.device)

    def change(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """Keeps changes until the device asks for them; the newest of each key."""
        box = self._box(device)
        for key in deleted:
            box.changes.pop(key, None)
        box.changes.update(values)
        box.deleted = [key for key in dict.fromkeys([*box.deleted, *deleted]) if key not in values][:MAX_KEYS]
        while len(box.changes) > MAX_KEYS:
            del box.changes[next(iter(box.changes))]
        box.news.set()

    # -- for devices ------------------------------------------------------------------------------------

    async def next_call(self, device: str, timeout_s: float) -> WaitingCall | None:
        """The oldest call that nobody has fetched, waiting for one; None when none comes.

        Raises: TooManyPolls.
        """

        def find(box: _Mailbox) -> WaitingCall | None:
            return next((one for one in box.calls if not one.is_fetched and not one.reply.done()), None)

        box = self._enter(device)
        try:
            async with asyncio.timeout(timeout_s):
                while (found := find(box)) is None:
                    box.news.clear()
                    await box.news.wait()
            found.is_fetched = True
            return found
        except TimeoutError:
            return None
        finally:
            self._leave(device, box)

    async def next_changes(self, device: str, timeout_s: float) -> tuple[dict[str, Json], list[str]] | None:
        """What has changed since the last time, waiting for it; None when nothing does. Raises: TooManyPolls."""
        box = self._enter(device)
        try:
            async with asyncio.timeout(timeout_s):
                while not (box.changes or box.deleted):
                    box.news.clear()
                    await box.news.wait()
            changes = (box.changes, box.deleted)
            box.changes, box.deleted = {}, []
            return changes
        except TimeoutError:
            return None
        finally:
            self._leave(device, box)

    def _enter(self, device: str) -> _Mailbox:
        if self._polls >= MAX_POLLS:
            raise TooManyPolls
        box = self._box(device)
        box.polls += 1
        self._polls += 1
        return box

    def _leave(self, device: str, box: _Mailbox) -> None:
        box.polls -= 1
        self._polls -= 1
        self._tidy(device)

    def answer(self, device: str, number: int, reply: Json) -> bool:
        """False when no such call waits."""
        for waiting in self._boxes[device].calls if device in self._boxes else ():
            if waiting.number == number and not waiting.reply.done():
                waiting.reply.set_result(reply)
                return True
        return False
