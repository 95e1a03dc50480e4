"""The answering half of an MQTT session: outcomes as acknowledgements in order, answers, and what is above a rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.core.line_ration import LineRation
from cloud_core.model import Identity, Peer, Role
from cloud_core.transports.mqtt.conversation import Session
from cloud_core.transports.mqtt.downloads import Downloads
from cloud_core.transports.mqtt.errors import REASONS
from cloud_core.transports.mqtt.overrun import Overrun
from cloud_core.transports.mqtt.settings import Counters, Settings
from cloud_core.transports.mqtt.slots import Slot, Slots
from shared.errors import MalformedRequest, NotFound, PlatformError, RateLimited, RequestTooLarge, Unavailable
from shared.mqtt.codes import ReasonCode
from shared.mqtt.connection import Delivered, OnSettled, ServerConnection
from shared.mqtt.filters import matches
from shared.mqtt.packets import V5, Publish

log = Logger()

SUCCESS = 0x00
QUOTA_EXCEEDED = 0x97
MAX_PAUSE_S = 10.0  # then the rate is asked again
MAX_LOGGED_TOPIC = 100  # characters
MAX_LINES = 10  # of the log about one session, in LineRation's span


class Exchange:
    """One connection, as requests see it (`conversation.Conversation`), and gateways (`gateway.GatewayPort`)."""

    # What most connections never need is None until it is needed: most connections idle.
    __slots__ = (
        "_connection", "_current", "_downloads", "_held", "_identity", "_lines", "_overrun", "_session", "_slots",
        "_subscriptions", "api", "counters", "received_ms", "settings",
    )  # fmt: skip

    def __init__(
        self, api: DeviceApi, connection: ServerConnection, session: Session, *, settings: Settings, counters: Counters
    ) -> None:
        self.api = api
        self.settings = settings
        self.counters = counters
        self.received_ms = 0
        self._connection = connection
        self._session: Session = session
        self._identity: Identity | None = None
        self._slots: Slots | None = None
        self._subscriptions: dict[str, int] | None = None
        self._downloads: Downloads | None = None
        self._overrun: Overrun | None = None
        self._lines: LineRation | None = None  # of the log
        self._current: Publish | None = None  # while it is handled
        self._held: list[Delivered] | None = None  # not handled yet: until the rate allows it, or never

    @property
    def device(self) -> Identity:
        assert self._identity is not None
        return self._identity

    @property
    def peer(self) -> Peer:
        return self._session.peer

    @property
    def is_blocked(self) -> bool:
        return self._session.is_blocked

    @property
    def downloads(self) -> Downloads:
        if self._downloads is None:
            self._downloads = Downloads()
        return self._downloads

    @property
    def subscriptions(self) -> dict[str, int]:
        if self._subscriptions is None:
            self._subscriptions = {}
        return self._subscriptions

    @property
    def _name(self) -> str:
        return self._identity.device_name if self._identity else ""

    # -- outcomes, in the order of the messages ----------------------------------------------------

    def take(self, packet: Publish) -> Slot:
        return self._all_slots().take([packet.packet_id] if packet.qos else [])

    def done(self, packet: Publish) -> Callable[[Any], None]:
        slot = self.take(packet)
        return lambda outcome: self.conclude(slot, packet, outcome)

    slot = done  # what a gateway session calls it

    def conclude(self, slot: Slot, packet: Publish, outcome: object) -> None:
        if isinstance(outcome, PlatformError):
            self._conclude_failure(slot, packet, outcome)
        else:
            self._settle(slot, SUCCESS)

    def _conclude_failure(self, slot: Slot, packet: Publish | None, error: PlatformError) -> None:
        """`packet` is None for telemetry that was joined."""
        if isinstance(error, RateLimited) and packet is not None:
            self._limit(slot, packet, error)
            return
        if isinstance(error, Unavailable) and not self.is_v5:
            self._withhold(slot)  # no negative PUBACK in 3.1.1: the client re-sends after reconnecting
            self._end(ReasonCode.SERVER_BUSY)
            return
        self._log_drop(packet, str(error))
        if isinstance(error, MalformedRequest | RequestTooLarge):
            self.counters.malformed += 1
            if packet is not None and self.device.options.closes_on_malformed and not (self.is_v5 and packet.qos):
                self._withhold(slot)
                self._end(ReasonCode.PAYLOAD_FORMAT_INVALID)
                return
        elif isinstance(error, NotFound):  # of a gateway
            self.counters.unknown_topic += 1
        else:
            self.counters.refused += 1
        self._settle(slot, REASONS[type(error)])

    def _log_drop(self, packet: Publish | None, why: str) -> None:
        if self.is_line_due():
            topic = packet.topic[:MAX_LOGGED_TOPIC] if packet else "telemetry"
            log.warn("Message of {device} on {topic} dropped: {why}", device=self._name, topic=topic, why=why)

    def is_line_due(self) -> bool:
        """As `Conversation.is_line_due`."""
        if self._lines is None:
            self._lines = LineRation(MAX_LINES)
        is_due, left_out = self._lines.take(self.api.now_ms() / 1000)
        if left_out:
            log.warn("{left_out} more lines about {device} were left out", left_out=left_out, device=self._name)
        return is_due

    def broke_the_rules(self, why: str) -> None:
        """The connection ends for that."""
        self.counters.violations += 1
        self._note("MQTT peer {source} broke the rules: {why}", why)

    def _note(self, line: str, why: str) -> None:
        is_due, left_out = self.counters.lines.take(self.api.now_ms() / 1000)
        if left_out:
            log.warn("{left_out} more lines about peers of MQTT were left out", left_out=left_out)
        if is_due:
            log.warn(line, source=self.peer.address, why=why)

    def _limit(self, slot: Slot, packet: Publish, error: RateLimited) -> None:
        """Above its rate: v5 is told and QoS 0 dropped; a v3 client is slowed down by not being read."""
        now_s = self.api.now_ms() / 1000
        if self._overrun is None:
            self._overrun = Overrun()
        wait_s = error.retry_after_s
        is_slowed = not self.is_v5 and packet.qos > 0 and wait_s is not None
        if self._overrun.is_worth_a_line(now_s):
            what = "it is not read until it may go on" if is_slowed else "what is above that is refused"
            log.warn("{device} sends too much; {what}: {error}", device=self._name, what=what, error=str(error))
        if is_slowed and wait_s is not None:
            self.counters.delayed += 1
            self._withhold(slot)
            self._slow_down(packet, wait_s)
            return
        over_s = self._overrun.refused(now_s)
        self.counters.rate_limited += 1
        self._settle(slot, QUOTA_EXCEEDED)
        is_gateway = self.device.role is Role.GATEWAY  # closing it would cut off all devices behind it (section 5.6)
        if over_s >= self.settings.max_overrun_s and not is_gateway:
            log.warn("{device} has sent too much for {over_s:.0f} s; disconnected", device=self._name, over_s=over_s)
            self._end(ReasonCode.MESSAGE_RATE_TOO_HIGH)

    def _slow_down(self, packet: Publish, wait_s: float) -> None:
        if packet is self._current and not self._connection.is_closed:
            self._held = [packet]  # it comes again, and all behind it
        self._session.pause(min(wait_s, MAX_PAUSE_S))

    def _all_slots(self) -> Slots:
        if self._slots is None:
            self._slots = Slots(self._connection)
        return self._slots

    def _settle(self, slot: Slot, reason: int) -> None:
        self._all_slots().settle(slot, reason)
        self._session.flush_soon()

    def _withhold(self, slot: Slot) -> None:
        self._all_slots().withhold(slot)
        self._session.flush_soon()

    # -- to the client ----------------------------------------------------------------------------

    def answer(self, slot: Slot, topic: str, payload: bytes) -> None:
        self._all_slots().after(slot, lambda: self._answer(topic, payload))

    def _answer(self, topic: str, payload: bytes) -> None:
        self.publish(topic, payload, self.subscribed_qos(topic))

    def publish(self, topic: str, payload: bytes, qos: int, on_acknowledged: OnSettled | None = None) -> bool:
        is_full = self._session.is_full
        if is_full or not self._connection.publish(topic, payload, qos, on_acknowledged if qos else None):
            if is_full:
                self._note_undeliverable(topic, "the client does not read what was sent before")
            elif not self._connection.is_closed:
                self._note_undeliverable(topic, "the client's packet size or number of open messages forbids it")
            if on_acknowledged is not None:
                on_acknowledged(False)
            return False
        if on_acknowledged is not None and not qos:
            self._session.flush()
            on_acknowledged(True)
        else:
            self._session.flush_soon()
        return True

    def unanswerable(self, topic: str, error: PlatformError) -> None:
        self._note_undeliverable(topic, str(error))

    def _note_undeliverable(self, topic: str, why: str) -> None:
        self.counters.undeliverable += 1
        if self.is_line_due():
            log.warn("Nothing is sent to {device} on {topic}: {why}", device=self._name, topic=topic, why=why)

    def subscribed_qos(self, topic: str) -> int:
        subscribed = self._subscriptions
        if not subscribed:
            return 1
        exact = subscribed.get(topic)
        if exact is not None:
            return exact
        return max((qos for one, qos in subscribed.items() if matches(one, topic)), default=1)

    @property
    def is_v5(self) -> bool:
        return self._connection.version == V5

    def pause(self, seconds: float) -> None:
        """A gateway session is above its rate."""
        self._session.pause(min(seconds, MAX_PAUSE_S))

    # -- the end ----------------------------------------------------------------------------------

    def _end(self, reason: ReasonCode) -> None:
        """The connection is over because of what the peer sent; the rest of it is not looked at."""
        if not self._connection.is_closed:
            self._connection.disconnect(reason)
        self._session.end()
        self._held = []  # whatever it was
