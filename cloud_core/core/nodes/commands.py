"""Commands to devices that are connected to another node, and the replies that come in at another one.

A command goes to one node alone, so that no device hears it twice: all are asked who has a way to the device, and
the first that knows of no newer one elsewhere is given it. Those that know of one (`takeovers.py` tells them) come
next, when all have answered. Where there is but one other node it is given the command unasked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Protocol

from twisted.logger import Logger

from cloud_core.core.nodes.messages import Message, body_of, hear
from cloud_core.core.nodes.questions import Answers, Questions
from cloud_core.fabric.interface import Body, Fabric
from cloud_core.storage.interface import Done
from shared.device_json import NotJson, render_json
from shared.errors import (
    DeviceOffline,
    DeviceTimeout,
    MalformedRequest,
    PlatformError,
    Unavailable,
    leaf_classes,
)
from shared.json_bodies import decode_json

log = Logger()
ANSWER_S = 1.0  # a node that says nothing for so long is as one without the device
MAX_REPLIES_PER_S = 2_000  # that are told to others: whoever replies to nothing shall not keep all nodes busy
LOST_TEXT = "The connection of the device was lost before it had the command."
_ERRORS: dict[str, type[PlatformError]] = {one.reason.value: one for one in leaf_classes()}


class Way(IntEnum):
    """What a node says of its ways to a device that take commands."""

    NONE = 0
    OUTDATED = 1
    """It has one, and knows of a newer one elsewhere."""
    NEWEST = 2
    """It has one, and knows of no newer."""


class Order(Message):
    """A command for a device of the node that is told. `params` is JSON; `rest_ms`: so long it may wait."""

    number: int  # counts up from one sender
    device_id: int
    method: str
    params: bytes
    is_oneway: bool
    rest_ms: int


class Said(Message):
    """Of the order `number`: "taken" or "absent" at once; then its outcome: "json", "text" (no JSON), "error"."""

    number: int
    what: str
    value: bytes = b""
    reason: str = ""
    detail: str = ""
    retry_after_s: float | None = None


class DeviceReply(Message):
    """What a device answers to its command `number`. `what`: "json" or "text"."""

    device_id: int
    number: int
    what: str
    value: bytes


class Call(Protocol):
    """A command as its sender gives it."""

    @property
    def method(self) -> str: ...
    @property
    def params(self) -> Any: ...
    @property
    def is_oneway(self) -> bool: ...
    @property
    def expires_ms(self) -> int: ...


class CommandsHere(Protocol):
    """What is asked of this node's own commands."""

    def way(self, device_id: int) -> Way: ...
    def take(
        self, device_id: int, method: str, params: Any, is_oneway: bool, rest_ms: int, done: Done[Any]
    ) -> Callable[[], None]:
        """Sends to a device that is here; what is returned forgets it."""

    def send_here(self, device_id: int, command: Any, done: Done[Any]) -> object:
        """After nobody else took it."""

    def answer(self, value: Any, is_oneway: bool) -> Any:
        """The outcome that a sender waits for."""

    def replied(self, device_id: int, number: int, value: Any) -> None: ...


class _Asked:
    """A command of this node that another one shall send."""

    __slots__ = ("command", "device_id", "done", "is_searched", "node", "number", "timer", "ways")

    def __init__(self, number: int, device_id: int, command: Call, done: Done[Any]) -> None:
        self.number = number
        self.device_id = device_id
        self.command = command
        self.done = done
        self.is_searched = False  # all have said who has the device, or had their time
        self.node = ""  # who has been given it
        self.ways: list[tuple[Way, str]] = []  # not tried yet
        self.timer: Any = None  # IDelayedCall


class CommandsElsewhere:
    """Everything runs in the reactor thread."""

    def __init__(
        self, *, fabric: Fabric, questions: Questions, now_ms: Callable[[], int], call_later: Callable[..., Any],
        here: CommandsHere,
    ) -> None:  # fmt: skip
        self._fabric = fabric
        self._questions = questions
        self._now_ms = now_ms
        self._call_later = call_later
        self._here = here
        self._number = 0
        self._asked: dict[int, _Asked] = {}
        self._count_of: Counter[int] = Counter()  # device number -> how many of `_asked`
        self._last: dict[str, int] = {}  # node -> number of the newest order that it has given
        self._taken: dict[tuple[str, int], Callable[[], None]] = {}  # node and number -> forgets it
        self._second, self._replies = 0, 0
        questions.answer("way", self._way)
        hear(fabric, "command", Order, self._ordered)
        hear(fabric, "command-said", Said, self._heard)
        hear(fabric, "device-reply", DeviceReply, self._device_replied)
        fabric.on_left(self._left)

    @property
    def count(self) -> int:
        """How many commands of this node are with others."""
        return len(self._asked)

    def count_of(self, device_id: int) -> int:
        return self._count_of.get(device_id, 0)

    # -- asking -----------------------------------------------------------------------------------

    def ask(self, device_id: int, command: Call, done: Done[Any]) -> None:
        """Finds who has the device and has it send; DeviceOffline where nobody does."""
        self._number += 1
        asked = self._asked[self._number] = _Asked(self._number, device_id, command, done)
        self._count_of[device_id] += 1
        others = self._fabric.others
        if len(others) == 1 and self._here.way(device_id) is Way.NONE:
            asked.is_searched = True
            self._give(asked, next(iter(others)))
            return

        def answered(node: str, body: Body) -> None:
            if body in (Way.OUTDATED, Way.NEWEST) and self._asked.get(asked.number) is asked:
                asked.ways.append((Way(body), node))
                if body == Way.NEWEST and not asked.node:
                    self._go_on(asked)

        def searched(_answers: Answers) -> None:
            asked.is_searched = True
            if self._asked.get(asked.number) is asked and not asked.node:
                self._go_on(asked)

        self._questions.ask("way", device_id, ANSWER_S, searched, on_answer=answered)

    def _go_on(self, asked: _Asked) -> None:
        """To the best that has not been tried; where it was the last, to this node's own older way."""
        newest = [one for one in asked.ways if one[0] is Way.NEWEST]
        if newest or (asked.is_searched and asked.ways):
            chosen = newest[0] if newest else asked.ways[0]
            asked.ways.remove(chosen)
            self._give(asked, chosen[1])
        elif asked.is_searched:
            self._forget(asked)
            self._here.send_here(asked.device_id, asked.command, asked.done)

    def _give(self, asked: _Asked, node: str) -> None:
        command = asked.command
        rest_ms = command.expires_ms - self._now_ms()
        if rest_ms <= 0:
            self._finish(asked, DeviceTimeout())
            return
        asked.node = node
        asked.timer = self._call_later(ANSWER_S, self._finish, asked, DeviceOffline())
        order = Order(
            asked.number, asked.device_id, command.method, render_json(command.params), command.is_oneway, rest_ms
        )
        self._fabric.tell(node, "command", body_of(order))

    def _heard(self, sender: str, said: Said) -> None:
        asked = self._asked.get(said.number)
        if asked is None or asked.node != sender:
            return  # too late, or of one that was given up
        if said.what == "absent":
            asked.node = ""
            self._stop_timer(asked)
            self._go_on(asked)
        elif said.what == "taken":
            self._stop_timer(asked)
            rest_s = max(0, asked.command.expires_ms - self._now_ms()) / 1000
            asked.timer = self._call_later(rest_s + ANSWER_S, self._finish, asked, DeviceTimeout())
        else:
            self._finish(asked, self._outcome(said, asked.command.is_oneway))

    def _outcome(self, said: Said, is_oneway: bool) -> Any:
        if said.what == "error":
            kind = _ERRORS.get(said.reason, Unavailable)
            return kind(said.detail, retry_after_s=said.retry_after_s)
        try:
            return self._here.answer(_unpacked(said.what, said.value), is_oneway)
        except PlatformError as error:
            return error

    def _finish(self, asked: _Asked, outcome: Any) -> None:
        self._forget(asked)
        asked.done(outcome)

    def _forget(self, asked: _Asked) -> None:
        del self._asked[asked.number]
        self._count_of[asked.device_id] -= 1
        if not self._count_of[asked.device_id]:
            del self._count_of[asked.device_id]
        self._stop_timer(asked)

    def _stop_timer(self, asked: _Asked) -> None:
        if asked.timer is not None and asked.timer.active():
            asked.timer.cancel()

    # -- taking -----------------------------------------------------------------------------------

    def _way(self, body: Body) -> Body:
        return int(self._here.way(_number(body)))

    def _ordered(self, sender: str, order: Order) -> None:
        if order.number <= self._last.get(sender, 0):
            return  # it has come before
        self._last[sender] = order.number
        # One that was held up has been given up by its sender, who has said so: it must not be carried out after that.
        if self._fabric.is_late or self._here.way(order.device_id) is Way.NONE:
            self._say(sender, Said(order.number, "absent"))
            return
        try:
            params = decode_json(order.params)
        except PlatformError as error:
            self._say(sender, _said(order.number, error))
            return
        self._say(sender, Said(order.number, "taken"))
        key = (sender, order.number)
        is_over = False

        def done(outcome: Any) -> None:
            nonlocal is_over
            is_over = True
            self._taken.pop(key, None)
            self._say(sender, _said(order.number, outcome if isinstance(outcome, PlatformError) else outcome.value))

        forget = self._here.take(order.device_id, order.method, params, order.is_oneway, order.rest_ms, done)
        if not is_over:
            self._taken[key] = forget

    def _say(self, node: str, said: Said) -> None:
        self._fabric.tell(node, "command-said", body_of(said))

    # -- what devices reply -------------------------------------------------------------------------

    def tell_reply(self, device_id: int, number: int, value: Any) -> None:
        """A device has replied to a command that is not of this node: it may be another's."""
        second = self._now_ms() // 1000
        if second != self._second:
            self._second, self._replies = second, 0
        self._replies += 1
        if self._replies <= MAX_REPLIES_PER_S:
            said = _said(0, value)
            if said.what != "error":  # nested too deeply to be written
                reply = DeviceReply(device_id, number, said.what, said.value)
                self._fabric.tell_all("device-reply", body_of(reply))
        elif self._replies == MAX_REPLIES_PER_S + 1:
            log.warn("Devices reply to commands that nobody waits for, too often to ask other nodes about each")

    def _device_replied(self, _sender: str, reply: DeviceReply) -> None:
        try:
            value = _unpacked(reply.what, reply.value)
        except PlatformError:
            return  # of another version; its command ends by itself
        self._here.replied(reply.device_id, reply.number, value)

    # -- nodes that go ----------------------------------------------------------------------------

    def _left(self, node: str) -> None:
        self._last.pop(node, None)
        for key in [one for one in self._taken if one[0] == node]:
            self._taken.pop(key)()
        for asked in [one for one in self._asked.values() if one.node == node]:
            self._finish(asked, DeviceOffline(LOST_TEXT))


def _number(body: Body) -> int:
    if not isinstance(body, int):
        raise TypeError("a device's number is expected")
    return body


def _said(number: int, outcome: Any) -> Said:
    """Of a device's answer, or a refusal."""
    if isinstance(outcome, NotJson):
        return Said(number, "text", outcome.encode("utf-8", "replace"))
    if not isinstance(outcome, PlatformError):
        try:
            return Said(number, "json", render_json(outcome))
        except PlatformError as error:
            outcome = error
    return Said(
        number, "error", reason=outcome.reason.value, detail=outcome.detail, retry_after_s=outcome.retry_after_s
    )


def _unpacked(what: str, value: bytes) -> Any:
    """Raises: PlatformError for what is not known here."""
    if what == "text":
        return NotJson(value.decode("utf-8", "replace"))
    if what != "json":
        raise MalformedRequest("Another node answered in a way that is not understood here.")
    return decode_json(value)
