"""QoS 1 and 2 delivery per packet identifier, one state table for each direction.

There are no persistent sessions, so nothing here outlives a connection and nothing is ever re-sent.
A pair that has no entry in a table is a violation: by the
peer if the event came from the wire, by us if it did not.

Source: MQTT 5 section 4.3; the older versions differ only in having no refusals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto

from shared.mqtt.codes import FIRST_FAILURE, ReasonCode
from shared.mqtt.errors import LocalProtocolError
from shared.mqtt.packets import Acknowledgement, Puback, Pubcomp, Publish, Pubrec, Pubrel
from shared.mqtt.wire import protocol_error

MAX_PACKET_ID = 65_535
WAITING_BYTES = 300  # about what a message that waits takes beside its payload


class Answer(Enum):
    """What an event asks for."""

    NOTHING = auto()
    """No packet is due."""
    DELIVER = auto()
    """The message goes to the application."""
    PUBACK = auto()
    """A PUBACK with the reason of the event."""
    PUBREC = auto()
    """A PUBREC with the reason of the event."""
    PUBREL = auto()
    """A PUBREL."""
    PUBREL_NOT_FOUND = auto()
    """A PUBREL that says the identifier is not known here."""
    PUBCOMP = auto()
    """A PUBCOMP."""
    PUBCOMP_NOT_FOUND = auto()
    """A PUBCOMP that says the identifier is not known here."""


_PACKETS: dict[Answer, tuple[type[Acknowledgement], int]] = {
    Answer.PUBACK: (Puback, 0),
    Answer.PUBREC: (Pubrec, 0),
    Answer.PUBREL: (Pubrel, 0),
    Answer.PUBREL_NOT_FOUND: (Pubrel, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND),
    Answer.PUBCOMP: (Pubcomp, 0),
    Answer.PUBCOMP_NOT_FOUND: (Pubcomp, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND),
}


def packet_for(answer: Answer, packet_id: int, reason: int = 0) -> Acknowledgement | None:
    """The packet that gives an answer, if it takes one; `reason` where the answer leaves it open."""
    form = _PACKETS.get(answer)
    return None if form is None else form[0](packet_id, form[1] or reason)


class Inbound(Enum):
    """State of one identifier chosen by the client."""

    FREE = auto()
    """Not in use."""
    OWES_PUBACK = auto()
    """A QoS 1 message was delivered and is not acknowledged yet."""
    OWES_PUBREC = auto()
    """A QoS 2 message was delivered and is not acknowledged yet."""
    AWAITS_PUBREL = auto()
    """The QoS 2 message is ours; until PUBREL the identifier marks duplicates."""


class InboundEvent(Enum):
    """What can happen to an identifier chosen by the client."""

    PUBLISH_QOS1 = auto()
    """The client sent a QoS 1 message."""
    PUBLISH_QOS2 = auto()
    """The client sent a QoS 2 message."""
    PUBREL = auto()
    """The client releases the identifier."""
    ACCEPTED = auto()
    """The application owns the message; ours, not the peer's."""
    REFUSED = auto()
    """The application does not want the message (v5 only); ours, not the peer's."""


INBOUND: dict[tuple[Inbound, InboundEvent], tuple[Inbound, Answer]] = {
    (Inbound.FREE, InboundEvent.PUBLISH_QOS1): (Inbound.OWES_PUBACK, Answer.DELIVER),
    (Inbound.FREE, InboundEvent.PUBLISH_QOS2): (Inbound.OWES_PUBREC, Answer.DELIVER),
    # Left over from a connection that broke in between (MQTT 5 section 4.3.3).
    (Inbound.FREE, InboundEvent.PUBREL): (Inbound.FREE, Answer.PUBCOMP_NOT_FOUND),
    # Re-sent while the first copy is on its way to storage: delivered again, one PUBACK each.
    (Inbound.OWES_PUBACK, InboundEvent.PUBLISH_QOS1): (Inbound.OWES_PUBACK, Answer.DELIVER),
    (Inbound.OWES_PUBACK, InboundEvent.ACCEPTED): (Inbound.FREE, Answer.PUBACK),  # [MQTT-4.3.2-4]
    (Inbound.OWES_PUBACK, InboundEvent.REFUSED): (Inbound.FREE, Answer.PUBACK),
    (Inbound.OWES_PUBREC, InboundEvent.PUBLISH_QOS2): (Inbound.OWES_PUBREC, Answer.NOTHING),
    (Inbound.OWES_PUBREC, InboundEvent.ACCEPTED): (Inbound.AWAITS_PUBREL, Answer.PUBREC),  # [MQTT-4.3.3-8]
    (Inbound.OWES_PUBREC, InboundEvent.REFUSED): (Inbound.FREE, Answer.PUBREC),  # [MQTT-4.3.3-9]
    # [MQTT-4.3.3-10]
    (Inbound.AWAITS_PUBREL, InboundEvent.PUBLISH_QOS2): (Inbound.AWAITS_PUBREL, Answer.PUBREC),
    (Inbound.AWAITS_PUBREL, InboundEvent.PUBREL): (Inbound.FREE, Answer.PUBCOMP),  # [MQTT-4.3.3-11]
}


class InboundDelivery:
    """The identifiers of one client that are in use.

    `owed` holds those in OWES_PUBACK, `exchanges` the QoS 2 ones. They are open to `connection.py`, which
    inlines the commonest transition, (FREE, PUBLISH_QOS1).
    """

    __slots__ = ("_copies", "_repeated", "exchanges", "owed")

    def __init__(self) -> None:
        self.owed: set[int] = set()
        self.exchanges: dict[int, Inbound] = {}
        self._repeated: dict[int, int] | None = None  # identifier in `owed` -> PUBACKs beyond the first
        self._copies = 0  # sum of `_repeated`

    @property
    def count(self) -> int:
        """Messages not acknowledged yet, each copy counted; what a receive maximum limits."""
        return len(self.owed) + len(self.exchanges) + self._copies

    def state_of(self, packet_id: int) -> Inbound:
        """The state of one identifier."""
        if packet_id in self.owed:
            return Inbound.OWES_PUBACK
        return self.exchanges.get(packet_id, Inbound.FREE)

    def received(self, packet_id: int, event: InboundEvent) -> Answer:
        """Apply a packet of the peer.

        Raises: RemoteProtocolError, if the identifier is used for something else [MQTT-2.2.1-3].
        """
        before = self.state_of(packet_id)
        step = INBOUND.get((before, event))
        if step is None:
            raise protocol_error(f"{event.name} for a packet identifier that is {before.name}")
        if before is Inbound.OWES_PUBACK:
            if self._repeated is None:
                self._repeated = {}
            self._repeated[packet_id] = self._repeated.get(packet_id, 0) + 1
            self._copies += 1
        self._set(packet_id, before, step[0])
        return step[1]

    def settle(self, packet_id: int, event: InboundEvent) -> Answer:
        """Apply a decision of the application.

        Raises: LocalProtocolError, if no decision is due for this identifier.
        """
        before = self.state_of(packet_id)
        step = INBOUND.get((before, event))
        if step is None:
            raise LocalProtocolError(f"{event.name} for packet identifier {packet_id} that is {before.name}")
        if not self._settle_copy(packet_id):
            self._set(packet_id, before, step[0])
        return step[1]

    def settle_all(self, packet_ids: Sequence[int]) -> bool:
        """Apply ACCEPTED to many identifiers in OWES_PUBACK at once; False if they must go one by one.

        Raises: LocalProtocolError, if one of them owes no PUBACK.
        """
        if self.exchanges or self._copies:
            return False
        owed = self.owed
        before = len(owed)
        owed.difference_update(packet_ids)
        if before - len(owed) != len(packet_ids):
            raise LocalProtocolError("ACCEPTED for a packet identifier that owes no PUBACK")
        if not owed:
            owed.clear()  # gives back the table of a set that was large
        return True

    def _settle_copy(self, packet_id: int) -> bool:
        """Take one from the PUBACKs owed beyond the first; False if there are none."""
        if self._repeated is None or packet_id not in self._repeated:
            return False
        copies = self._repeated[packet_id]
        self._copies -= 1
        if copies == 1:
            del self._repeated[packet_id]
        else:
            self._repeated[packet_id] = copies - 1
        return True

    def _set(self, packet_id: int, before: Inbound, after: Inbound) -> None:
        if before is after:
            return
        self.owed.discard(packet_id)
        self.exchanges.pop(packet_id, None)
        if after is Inbound.OWES_PUBACK:
            self.owed.add(packet_id)
        elif after is not Inbound.FREE:
            self.exchanges[packet_id] = after


class Outbound(Enum):
    """State of one identifier chosen by us."""

    FREE = auto()
    """Not in use."""
    AWAITS_PUBACK = auto()
    """A QoS 1 message was sent."""
    AWAITS_PUBREC = auto()
    """A QoS 2 message was sent."""
    AWAITS_PUBCOMP = auto()
    """The client owns the QoS 2 message and was told that the identifier is released."""


class OutboundEvent(Enum):
    """What can happen to an identifier chosen by us."""

    SEND_QOS1 = auto()
    """We send a QoS 1 message; ours, not the peer's."""
    SEND_QOS2 = auto()
    """We send a QoS 2 message; ours, not the peer's."""
    PUBACK = auto()
    """The client acknowledges or refuses a QoS 1 message."""
    PUBREC = auto()
    """The client owns a QoS 2 message."""
    PUBREC_REFUSED = auto()
    """The client refuses a QoS 2 message (v5 only)."""
    PUBCOMP = auto()
    """The client forgot the identifier."""


OUTBOUND: dict[tuple[Outbound, OutboundEvent], tuple[Outbound, Answer]] = {
    (Outbound.FREE, OutboundEvent.SEND_QOS1): (Outbound.AWAITS_PUBACK, Answer.NOTHING),  # [MQTT-4.3.2-1]
    (Outbound.FREE, OutboundEvent.SEND_QOS2): (Outbound.AWAITS_PUBREC, Answer.NOTHING),  # [MQTT-4.3.3-1]
    # Left over from a connection that broke in between; not worth closing this one.
    (Outbound.FREE, OutboundEvent.PUBACK): (Outbound.FREE, Answer.NOTHING),
    (Outbound.FREE, OutboundEvent.PUBREC): (Outbound.FREE, Answer.PUBREL_NOT_FOUND),
    (Outbound.FREE, OutboundEvent.PUBREC_REFUSED): (Outbound.FREE, Answer.NOTHING),
    (Outbound.FREE, OutboundEvent.PUBCOMP): (Outbound.FREE, Answer.NOTHING),
    (Outbound.AWAITS_PUBACK, OutboundEvent.PUBACK): (Outbound.FREE, Answer.NOTHING),
    (Outbound.AWAITS_PUBREC, OutboundEvent.PUBREC): (
        Outbound.AWAITS_PUBCOMP,
        Answer.PUBREL,
    ),  # [MQTT-4.3.3-4]
    (Outbound.AWAITS_PUBREC, OutboundEvent.PUBREC_REFUSED): (Outbound.FREE, Answer.NOTHING),
    (Outbound.AWAITS_PUBCOMP, OutboundEvent.PUBREC): (Outbound.AWAITS_PUBCOMP, Answer.PUBREL),
    (Outbound.AWAITS_PUBCOMP, OutboundEvent.PUBCOMP): (Outbound.FREE, Answer.NOTHING),
}


def event_of(packet: Puback | Pubrec | Pubcomp) -> OutboundEvent:
    """What an acknowledgement means to the identifier it carries."""
    if isinstance(packet, Puback):
        return OutboundEvent.PUBACK
    if isinstance(packet, Pubcomp):
        return OutboundEvent.PUBCOMP
    is_refusal = packet.reason_code >= FIRST_FAILURE
    return OutboundEvent.PUBREC_REFUSED if is_refusal else OutboundEvent.PUBREC


OnSettled = Callable[[bool], None]
"""Told once what became of a message: True when the client owns it, False when it refused it or is gone."""


class OutboundDelivery:
    """Messages of QoS 1 and 2 on their way to one client: `window` at once, `max_queue` waiting.

    What waits takes `max_queue_bytes` of memory at most, unless a single message is larger. `on_settled` of a
    message is called when the caller asks for it, by `settled` and `abandon`.
    """

    __slots__ = (
        "_last_id",
        "_max_queue",
        "_max_queue_bytes",
        "_on_settled",
        "_queue",
        "_queued_bytes",
        "_window",
        "states",
    )

    def __init__(self, window: int, max_queue: int, max_queue_bytes: int = 1 << 30) -> None:
        self._window = min(window, MAX_PACKET_ID)
        self._max_queue = max_queue
        self._max_queue_bytes = max_queue_bytes
        self._last_id = 0
        # None when empty: most clients never need one.
        self._queue: deque[tuple[Publish, OnSettled | None]] | None = None
        self._queued_bytes = 0
        self._on_settled: dict[int, OnSettled] | None = None
        self.states: dict[int, Outbound] = {}

    def send(self, message: Publish, on_settled: OnSettled | None = None) -> list[Publish] | None:
        """Take a message; the messages to send now, with identifiers, or None if there is no room."""
        if len(self.states) >= self._window and not self._has_room(message):
            return None
        if self._queue is None:
            self._queue = deque()
        self._queue.append((message, on_settled))
        self._queued_bytes += WAITING_BYTES + len(message.payload)
        return self.next_messages()

    def _has_room(self, message: Publish) -> bool:
        if not self._queue:
            return self._max_queue > 0
        bytes_then = self._queued_bytes + WAITING_BYTES + len(message.payload)
        return len(self._queue) < self._max_queue and bytes_then <= self._max_queue_bytes

    def next_messages(self) -> list[Publish]:
        """The waiting messages for which the window has room, in order, each with its identifier."""
        ready: list[Publish] = []
        while self._queue and len(self.states) < self._window:
            message, on_settled = self._queue.popleft()
            self._queued_bytes -= WAITING_BYTES + len(message.payload)
            message.packet_id = self._unused_id()
            event = OutboundEvent.SEND_QOS1 if message.qos == 1 else OutboundEvent.SEND_QOS2
            self.states[message.packet_id] = OUTBOUND[Outbound.FREE, event][0]
            if on_settled is not None:
                if self._on_settled is None:
                    self._on_settled = {}
                self._on_settled[message.packet_id] = on_settled
            ready.append(message)
        if not self._queue:
            self._queue = None
        return ready

    def received(self, packet_id: int, event: OutboundEvent) -> Answer:
        """Apply an acknowledgement of the peer.

        Raises: RemoteProtocolError, if the identifier is used for something else.
        """
        before = self.states.get(packet_id, Outbound.FREE)
        step = OUTBOUND.get((before, event))
        if step is None:
            raise protocol_error(f"{event.name} for a packet identifier that is {before.name}")
        after, answer = step
        if after is not Outbound.FREE:
            self.states[packet_id] = after
        else:
            self.states.pop(packet_id, None)
        return answer

    def settled(self, packet_id: int) -> OnSettled | None:
        """Who is to be told of the message with this identifier, once; call it after PUBACK or PUBREC has come."""
        return self._on_settled.pop(packet_id, None) if self._on_settled else None

    def abandon(self) -> list[OnSettled]:
        """Who waits for messages that will never be acknowledged, oldest first: the connection is over."""
        sent, self._on_settled = self._on_settled, None
        queued, self._queue = self._queue, None
        return [*(sent or {}).values(), *(told for _, told in queued or () if told is not None)]

    def _unused_id(self) -> int:
        """The next identifier that is not in use; there is one, because the window is smaller."""
        packet_id = self._last_id % MAX_PACKET_ID + 1
        while packet_id in self.states:
            packet_id = packet_id % MAX_PACKET_ID + 1
        self._last_id = packet_id
        return packet_id
