"""One observed feature of a device: what it waits for, and how its notifications are addressed (RFC 7641).

Small on purpose, for there are tens of thousands: slots only, no timer, and nothing per notification once that
has ended. Where notifications go and what becomes of them is the business of `observations`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Hashable
from typing import Any, Protocol

from twisted.logger import Logger

from cloud_core.core.downlinks import Delivery, Ending, Interest, Whereabouts
from cloud_core.model import Identity
from cloud_core.transports.coap.exchanges import Exchange
from cloud_core.transports.coap.outbox import Address, Ancillary, plain_address
from cloud_core.transports.coap.requests import Request
from cloud_core.transports.coap.wire import CON
from shared.codecs import Codec
from shared.device_paths import Feature
from shared.messages import AttributesChange, RpcCommand, Value
from shared.operations import Operation

log = Logger()

MAX_WAITING_COMMANDS = 16
MAX_WAITING_KEYS = 1_000
_SEQUENCE_MASK = 0xFFFFFF  # RFC 7641 section 3.4


class Room(Protocol):
    """Where observations stand."""

    def flush(self, observation: Observation) -> None:
        """Something waits."""

    def overflown(self, observation: Observation) -> None:
        """More waits than is kept."""

    def ended_by_core(self, observation: Observation, why: Ending) -> None: ...


class Observation:
    """A `Downlink`. `holds` counts what must happen before the next notification: an answer, an acknowledgement."""

    __slots__ = (
        "_room", "_waiting", "address", "ancillary", "block2", "chain", "content_format", "delivery", "download_key",
        "heard_s", "holds", "identity", "is_confirmable", "is_over", "message_id", "sequence", "token",
        "unconfirmed_count", "url_token",
    )  # fmt: skip
    feature: Feature
    interest: Interest
    operation: Operation

    def __init__(
        self, room: Room, identity: Identity, request: Request, exchange: Exchange, ancillary: Ancillary,
        codec_format: int,
    ) -> None:  # fmt: skip
        self._room = room
        self.identity = identity
        self.url_token = None if request.path is None else request.path.token
        self.chain = request.chain
        self.address: Address = exchange.address
        self.ancillary = ancillary
        self.token = exchange.token
        self.download_key: Hashable = exchange.download_key
        self.content_format = codec_format
        self.delivery: Delivery | None = None  # of the confirmable notification that is not acknowledged yet
        self.sequence = -1  # the first answer has 0
        self.message_id = random.getrandbits(16)  # of our own: unique at this endpoint, whatever others are sent
        self.unconfirmed_count = 0
        self.holds = 0
        self.is_over = False
        self._waiting: Any = None  # what each kind keeps, None where nothing waits
        self.refresh(exchange)

    def refresh(self, exchange: Exchange) -> None:
        """The device has asked again: notifications go as this request came."""
        self.is_confirmable = exchange.kind == CON
        self.block2 = exchange.block2
        self.heard_s = exchange.started_s

    @property
    def whereabouts(self) -> Whereabouts:
        return Whereabouts("CoAP", plain_address(self.address))

    def is_of(self, exchange: Exchange) -> bool:
        """Whether a request is about this very observation."""
        return self.token == exchange.token and self.address == exchange.address

    def next_sequence(self) -> int:
        self.sequence = (self.sequence + 1) & _SEQUENCE_MASK
        return self.sequence

    def next_message_id(self) -> int:
        self.message_id = (self.message_id + 1) & 0xFFFF
        return self.message_id

    # -- what is to be notified -------------------------------------------------------------------

    def take(self, codec: Codec) -> tuple[bytes, Delivery | None] | None:
        """The next payload, and who wants to know what becomes of it; None when nothing waits."""
        raise NotImplementedError

    def inherit(self, former: Observation) -> None:
        """Takes over what waits in the observation that this one replaces."""
        raise NotImplementedError

    def drop_waiting(self) -> None:
        """What waits is not sent any more."""
        raise NotImplementedError

    # -- as a downlink ----------------------------------------------------------------------------

    def attributes_changed(self, change: AttributesChange) -> None:
        """Not told to those who only want commands."""

    def command(self, command: RpcCommand, delivery: Delivery) -> None:
        delivery.failed()

    def ended(self, why: Ending) -> None:
        self._room.ended_by_core(self, why)


class ObservedAttributes(Observation):
    """Changes of shared attributes; those that have to wait are merged into the latest state of each key."""

    __slots__ = ()
    feature = Feature.ATTRIBUTES
    interest = Interest.ATTRIBUTES
    operation = Operation.RECEIVE_ATTRIBUTES
    _waiting: dict[str, Value | None] | None  # None for a key: deleted

    def attributes_changed(self, change: AttributesChange) -> None:
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = {}
        waiting.update(change.values)
        waiting.update(dict.fromkeys(change.deleted))
        if len(waiting) > MAX_WAITING_KEYS and self.holds:
            self._room.overflown(self)
        else:
            self._room.flush(self)

    def take(self, codec: Codec) -> tuple[bytes, Delivery | None] | None:
        waiting = self._waiting
        if not waiting:
            return None
        values = {key: value for key, value in waiting.items() if value is not None}
        if values and len(values) < len(waiting):
            self._waiting = {key: None for key, value in waiting.items() if value is None}
        else:
            self._waiting = None
        change = AttributesChange(values=values) if values else AttributesChange(deleted=tuple(waiting))
        return codec.render_attributes_change(change), None

    def inherit(self, former: Observation) -> None:
        if isinstance(former, ObservedAttributes) and former._waiting:
            # The first answer tells all that there is, but not what is gone.
            gone = {key: None for key, value in former._waiting.items() if value is None}
            self._waiting = {**gone} or None
            former._waiting = None

    def drop_waiting(self) -> None:
        self._waiting = None


class ObservedCommands(Observation):
    """Commands, one after the other."""

    __slots__ = ()
    feature = Feature.RPC
    interest = Interest.COMMANDS
    operation = Operation.RECEIVE_RPC
    _waiting: deque[tuple[RpcCommand, Delivery]] | None

    def command(self, command: RpcCommand, delivery: Delivery) -> None:
        if self._waiting is None:
            self._waiting = deque()
        if len(self._waiting) >= MAX_WAITING_COMMANDS:
            delivery.failed()
            return
        self._waiting.append((command, delivery))
        self._room.flush(self)

    def take(self, codec: Codec) -> tuple[bytes, Delivery | None] | None:
        while self._waiting:
            command, delivery = self._waiting.popleft()
            try:
                return codec.render_command(command, with_id=True), delivery
            except Exception:
                log.failure("A command for {device} could not be written", device=self.identity.device_name)
                delivery.failed()
        self._waiting = None
        return None

    def inherit(self, former: Observation) -> None:
        if isinstance(former, ObservedCommands):
            self._waiting, former._waiting = former._waiting, None

    def drop_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        for _command, delivery in waiting or ():
            delivery.failed()
