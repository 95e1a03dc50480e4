"""Devices that wait for a command or for news of their attributes: `GET …/rpc` and `GET …/attributes/updates`.

A waiting request is one small object, known to the core as a downlink; it holds no thread and no timer.

Source: wire-contract.md sections 3.1 and 3.2.
"""

from __future__ import annotations

from cloud_core.core.downlinks import Delivery, Downlinks, Ending, Interest, Whereabouts
from cloud_core.transports.http.answers import JSON_TYPE, TEXT_TYPE, TIMED_OUT, Answer
from cloud_core.transports.http.deadlines import Deadlines
from shared import device_json
from shared.messages import AttributesChange, RpcCommand

MAX_POLLS_PER_DEVICE = 10  # a device that forgets its requests and asks again must not fill the memory
INTERESTS = {"rpc": Interest.COMMANDS, "attributes/updates": Interest.ATTRIBUTES}
DELETED_TEXT = b"Device was deleted!"


class LongPoll:
    """One request that waits; a `Downlink`. Whoever holds its connection says what becomes of the answer."""

    __slots__ = ("_answer", "_delivery", "_polls", "device_id", "interest", "tick")

    def __init__(self, interest: Interest, answer: Answer) -> None:
        self.interest = interest
        self.device_id = 0
        self.tick = 0
        self._answer: Answer | None = answer  # None once it is used, or nobody is there to take it
        self._polls: LongPolls | None = None  # while it is open
        self._delivery: Delivery | None = None  # of the command that is being written

    @property
    def is_over(self) -> bool:
        """Whether it was answered or abandoned."""
        return self._answer is None

    # -- for the connection -----------------------------------------------------------------------

    def written(self) -> None:
        """The answer has left."""
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.delivered()

    def abandon(self) -> None:
        """The client went away, before or after the answer; fine in any state."""
        self._close()
        self._answer = None
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.failed()

    # -- for the adapter --------------------------------------------------------------------------

    def open(self, polls: LongPolls) -> None:
        self._polls = polls

    def answer(
        self, status: int, body: bytes, retry_after_s: int | None = None, content_type: bytes = JSON_TYPE
    ) -> None:
        """Ends the wait; an `Answer`, without effect when it is over."""
        self._close()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(status, body, retry_after_s, content_type)

    def expired(self) -> None:
        self.answer(TIMED_OUT, b"")

    # -- for the core -----------------------------------------------------------------------------

    @property
    def whereabouts(self) -> Whereabouts:
        return Whereabouts("HTTP", "")

    def attributes_changed(self, change: AttributesChange) -> None:
        self.answer(200, device_json.render_attributes_change(change))

    def command(self, command: RpcCommand, delivery: Delivery) -> None:
        if self._answer is None:
            delivery.failed()
            return
        self._delivery = delivery
        self.answer(200, device_json.render_command(command, with_id=True))

    def ended(self, why: Ending) -> None:
        if Ending.DEVICE_DELETED in why:
            self.answer(403, DELETED_TEXT, None, TEXT_TYPE)
        else:
            self.answer(TIMED_OUT, b"")

    def _close(self) -> None:
        polls, self._polls = self._polls, None
        if polls is not None:
            polls.forget(self)


class LongPolls:
    """All that wait, by device, with their deadlines."""

    def __init__(self, downlinks: Downlinks, deadlines: Deadlines) -> None:
        self._downlinks = downlinks
        self._deadlines = deadlines
        self._by_device: dict[int, list[LongPoll]] = {}  # oldest first

    def __len__(self) -> int:
        return sum(map(len, self._by_device.values()))

    def open(self, poll: LongPoll, device_id: int, timeout_s: float) -> None:
        """Lets it wait; it may be answered before this returns. The oldest of too many ends."""
        waiting = self._by_device.get(device_id)
        if waiting is not None and len(waiting) >= MAX_POLLS_PER_DEVICE:
            waiting[0].expired()
        self._by_device.setdefault(device_id, []).append(poll)
        poll.device_id = device_id
        poll.open(self)
        self._deadlines.add(poll, timeout_s)
        self._downlinks.open(device_id, poll, poll.interest)

    def forget(self, poll: LongPoll) -> None:
        self._deadlines.discard(poll)
        self._downlinks.close(poll.device_id, poll)
        waiting = self._by_device[poll.device_id]
        waiting.remove(poll)
        if not waiting:
            del self._by_device[poll.device_id]

    def stop(self) -> None:
        """The core stops: everybody is told to ask again."""
        for waiting in list(self._by_device.values()):
            for poll in list(waiting):
                poll.expired()
        self._deadlines.stop()
